"""Builds the small protos that the tests of graphopt.graph use."""

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'


def parse(body: str, header: str = HEADER) -> onnx.ModelProto:
    """The proto of ONNX text, unchecked."""
    return parser.parse_model(f"{header}\n{body}")


def linear(weight: np.ndarray | None = None) -> onnx.ModelProto:
    """y = Relu(x @ w), with w an initializer of 2 x 3."""
    if weight is None:
        weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
            helper.make_node("Relu", ["h"], ["y"], name="positive"),
        ],
        "linear",
        [helper.make_tensor_value_info("x", 1, ["N", weight.shape[0]])],
        [helper.make_tensor_value_info("y", 1, ["N", weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tests"
    )


def chain(length: int) -> onnx.ModelProto:
    """A chain of unary nodes."""
    nodes = [
        helper.make_node(("Relu", "Neg", "Abs")[i % 3], [f"v{i}"], [f"v{i + 1}"], name=f"n{i}")
        for i in range(length)
    ]
    ends = [helper.make_tensor_value_info(name, 1, ["N"]) for name in ("v0", f"v{length}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def nested(depth: int) -> onnx.ModelProto:
    """An If in an If in an If, `depth` graphs deep, built in place (no copy of the inside)."""
    model = helper.make_model(
        onnx.GraphProto(name="main"), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("x", 1, [1]))
    graph.input.append(helper.make_tensor_value_info("c", 9, []))
    for level in range(depth + 1):
        graph.output.append(helper.make_tensor_value_info(f"y{level}", 1, [1]))
        if level == depth:
            graph.node.add(op_type="Identity", input=["x"], output=[f"y{level}"])
            return model
        node = graph.node.add(op_type="If", input=["c"], output=[f"y{level}"], name=f"if{level}")
        other = node.attribute.add(name="else_branch", type=onnx.AttributeProto.GRAPH).g
        other.name = "else"
        other.node.add(op_type="Neg", input=["x"], output=[f"z{level}"])
        other.output.append(helper.make_tensor_value_info(f"z{level}", 1, [1]))
        graph = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g
        graph.name = f"then{level}"
    raise AssertionError


def external(model: onnx.ModelProto, location: str, **entries: object) -> onnx.ModelProto:
    """The model with its first initializer's data said to be in a file."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return model
