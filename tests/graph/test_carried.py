"""Nothing that a model holds is lost between load and save, onnx_ir's gaps included."""

import numpy as np
import onnx
import pytest
from graph_models import linear
from onnx import TensorProto, helper, numpy_helper

from graphopt.errors import InvalidModelError
from graphopt.graph import constant_array, load, to_bytes, to_proto, verify


def sparse(name="sp", indices=((0, 0), (1, 1)), dims=(2, 2)):
    places = np.array(indices, np.int64)
    values = np.arange(1, len(indices) + 1, dtype=np.float32)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(values, name), numpy_helper.from_array(places, "places"), dims
    )


def sequence_of_maps():
    kind = onnx.TypeProto()
    inner = kind.sequence_type.elem_type.map_type
    inner.key_type = TensorProto.INT64
    inner.value_type.tensor_type.elem_type = TensorProto.FLOAT
    return kind


def entry(properties, key="key", value="value"):
    properties.add(key=key, value=value)


def everything():
    """A model that uses every field there is for a model to use."""
    nodes = [
        helper.make_node("Identity", ["x"], ["y"], name="first", doc_string="of a node"),
        helper.make_node(
            "ZipMap", ["x"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[1, 2], name="maps"
        ),
        helper.make_node("Identity", ["z"], ["zz"]),
        helper.make_node("Constant", [], ["cs"], sparse_value=sparse("")),
        helper.make_node("Add", ["sp", "cs"], ["s"]),
        helper.make_node(
            "Odd", ["x", "", "s"], ["f", "", "h"], domain="custom", raw=[b"\xff", b"a"]
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "everything",
        [helper.make_tensor_value_info("x", 1, ["N", 2], doc_string="of an input")],
        [
            helper.make_tensor_value_info("y", 1, ["N", 2]),
            helper.make_value_info("zz", sequence_of_maps()),
            helper.make_tensor_value_info("s", 1, [2, 2]),
            helper.make_tensor_value_info("f", 1, None),
            helper.make_value_info(
                "h",
                helper.make_optional_type_proto(
                    helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, ["M", None]))
                ),
            ),
        ],
        value_info=[helper.make_value_info("z", sequence_of_maps())],
        sparse_initializer=[sparse()],
        doc_string="of the graph",
    )
    for name in ("x", "y"):
        annotation = graph.quantization_annotation.add(tensor_name=name)
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    kind = graph.input[0].type
    kind.denotation = "IMAGE"
    kind.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    model = helper.make_model(
        graph,
        opset_imports=[
            helper.make_opsetid("", 23),
            helper.make_opsetid("ai.onnx.ml", 3),
            helper.make_opsetid("custom", 1),
        ],
        ir_version=11,
        producer_name="a producer",
        producer_version="1.2",
        model_version=3,
        domain="a.domain",
        doc_string="of the model",
    )
    entry(model.metadata_props)
    entry(model.graph.metadata_props)
    entry(model.graph.node[0].metadata_props)
    entry(model.graph.input[0].metadata_props)
    training = model.training_info.add()
    training.algorithm.name = "training"
    training.algorithm.node.add(op_type="Identity", input=["x"], output=["q"])
    model.configuration.add(name="devices", num_devices=2, device=["a", "b"])
    return model


def test_every_field_survives_load_clone_and_save():
    proto = everything()
    model = load(proto)
    assert verify(model) == []
    assert to_proto(model) == proto
    assert to_proto(load(model)) == proto
    # Twice: writing put everything back where it was.
    assert to_bytes(model) == proto.SerializeToString(deterministic=True)


def test_map_types_survive_in_the_middle_of_a_graph_that_is_changed():
    model = load(everything())
    first = model.graph.node(0)
    first.outputs[0].name = "renamed"
    written = to_proto(model)
    assert written.graph.value_info[0].type == sequence_of_maps()
    assert written.graph.output[1].type == sequence_of_maps()


@pytest.mark.parametrize("indices", [((0, 1), (1, 0)), (1, 2)])
def test_a_sparse_initializer_reads_as_dense(indices):
    proto = everything()
    proto.graph.sparse_initializer[0].CopyFrom(sparse(indices=indices))
    array = constant_array(load(proto).graph.initializers["sp"])
    np.testing.assert_array_equal(array, np.array([[0, 1], [2, 0]], np.float32))


def test_a_sparse_initializer_may_be_renamed_replaced_and_dropped():
    model = load(everything())
    value = model.graph.initializers["sp"]
    value.name = "other"
    assert to_proto(model).graph.sparse_initializer[0].values.name == "other"
    assert to_proto(model).graph.node[4].input[0] == "other"


@pytest.mark.parametrize(
    ("indices", "dims"),
    [
        (((0, 0), (2, 0)), (2, 2)),
        (((0, 0), (-1, 0)), (2, 2)),
        (((0, 0), (1, 1)), (2,)),
        (((0, 0, 0), (1, 1, 1)), (2, 2)),
        ((4, 5), (2, 2)),
        (((0, 0), (1, 1)), (2**40, 2**40)),
        (((0, 0), (1, 1)), (0, 2)),
        (((0, 0), (1, 1)), (-2, 2)),
    ],
)
def test_sparse_tensors_that_cannot_be(indices, dims):
    proto = everything()
    proto.graph.sparse_initializer[0].CopyFrom(sparse(indices=indices, dims=dims))
    with pytest.raises(InvalidModelError, match="sparse initializer 'sp'"):
        load(proto)
    proto = everything()
    proto.graph.node[3].attribute[0].sparse_tensor.CopyFrom(sparse(indices=indices, dims=dims))
    with pytest.raises(InvalidModelError, match="attribute 'sparse_value' of Constant"):
        load(proto)


def test_metadata_of_a_tensor_is_written_once():
    proto = linear()
    entry(proto.graph.initializer[0].metadata_props)
    for _ in range(3):
        proto = to_proto(load(proto))
    assert len(proto.graph.initializer[0].metadata_props) == 1


DTYPES = sorted(set(TensorProto.DataType.keys()) - {"UNDEFINED"})


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "raw"])
@pytest.mark.parametrize("name", DTYPES)
def test_every_element_type(name, typed):
    code = TensorProto.DataType.Value(name)
    if code == TensorProto.STRING:
        tensor = helper.make_tensor("w", code, [5], [b"", b"a\0", b"\xff", "é".encode(), b"b"])
        expected = np.array(list(tensor.string_data), object)
    else:
        tensor = helper.make_tensor("w", code, [5], [0, 1, 1, 0, 1])
        expected = numpy_helper.to_array(tensor)
        if not typed:
            tensor = numpy_helper.from_array(expected, "w")
    proto = linear()
    proto.graph.initializer.append(tensor)
    proto.graph.initializer[1].name = "t"
    model = load(proto)
    array = constant_array(model.graph.initializers["t"])
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)
    assert to_proto(model) == proto
