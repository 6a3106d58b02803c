"""The graph that ONNX Runtime runs: its operators, and every shape against what is computed."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from graphopt.graph import from_text, ir, load
from graphopt.runtime.executed import executed_model
from graphopt.runtime.executed_shapes import complete_shapes, static_dims
from graphopt.shapes import infer_shapes


def _network(batch: int | str = 1) -> onnx.ModelProto:
    """Convolutions, a pool and a classifier; names are left out on purpose."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = (0.1 * random.standard_normal(shape)).astype(np.float32)
        return onnx.numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1] * 4, group=32),
        helper.make_node("Conv", ["c", "w3"], ["d"]),
        helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "w4"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 33, 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 10])],
        [weight("w1", 32, 3, 3, 3), weight("w2", 32, 1, 3, 3), weight("w3", 48, 32, 1, 1),
         weight("w4", 48, 10)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _feed(batch: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.ones((batch, 3, 33, 40), np.float32)}


def test_every_value_has_the_shape_that_it_has_when_run() -> None:
    model = load(_network())
    infer_shapes(model)
    executed = executed_model(model, threads=1)
    assert all(static_dims(v) is not None for node in executed.graph for v in node.outputs)
    import onnxruntime

    # Values that keep their name are computed by a session that changes nothing.
    proto = _network()
    names = [output for node in proto.graph.node for output in node.output]
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    truth = dict(zip(names, session.run(names, _feed()), strict=True))
    same = [v for node in executed.graph for v in node.outputs if v.name in truth]
    assert same
    for value in same:
        assert static_dims(value) == truth[value.name].shape


def test_free_dims_are_those_of_the_sized_model() -> None:
    model = load(_network("n"))
    sized = model.clone()
    infer_shapes(sized, dims={"n": 3})
    executed = executed_model(model, sized=sized, threads=1)
    shapes = [static_dims(v) for node in executed.graph for v in node.outputs]
    assert None not in shapes
    assert {dims[0] for dims in shapes if dims} == {3}


def test_the_model_is_left_as_it_was() -> None:
    model = load(_network())
    before = [(node.name, node.op_type) for node in model.graph]
    executed_model(model, threads=1)
    assert [(node.name, node.op_type) for node in model.graph] == before


def test_a_value_that_was_named_anew_has_the_shape_that_its_node_makes():
    """A Reshape to computed dims: nothing follows from its inputs."""

    def model(name):
        found = from_text(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 6] x, int64[2] dims) =>'
            f" (float[a, b] y) {{ {name} = Reshape(x, dims) y = Neg({name}) }}"
        )
        found.graph[0].name = "reshape"
        return found

    source, executed = model("z"), model("token_7")
    source.graph[0].outputs[0].shape = ir.Shape((3, 4))
    complete_shapes(executed, source)
    assert [static_dims(node.outputs[0]) for node in executed.graph] == [(3, 4), (3, 4)]

    twice = model("z")
    twice.graph[1].name = "reshape"  # which of the two is meant is not known
    twice.graph[0].outputs[0].shape = ir.Shape((3, 4))
    executed = model("token_7")
    complete_shapes(executed, twice)
    assert static_dims(executed.graph[0].outputs[0]) is None
