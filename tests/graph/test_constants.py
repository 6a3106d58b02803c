"""A constant is what nobody can override, in every spelling."""

import numpy as np
import pytest
from graph_models import linear, parse
from onnx import helper, numpy_helper

from graphopt.graph import constant_array, constant_tensor, ir, load, subgraphs


def constant(spelling, header=None):
    model = load(parse(f"g () => (y) {{ y = Constant <{spelling}> () }}"))
    return model.graph.outputs[0]


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("value = float[2] {1, 2}", np.array([1, 2], np.float32)),
        ("value = int64 {7}", np.array(7, np.int64)),
        ("value_float = 1.5", np.array(1.5, np.float32)),
        ("value_floats = [1.5, 2.5]", np.array([1.5, 2.5], np.float32)),
        ("value_int = 3", np.array(3, np.int64)),
        ("value_ints = [3, 4]", np.array([3, 4], np.int64)),
        ('value_string = "é"', np.array("é".encode(), object)),
        ('value_strings = ["a", "b"]', np.array([b"a", b"b"], object)),
    ],
)
def test_every_spelling_of_a_constant_node(spelling, expected):
    value = constant(spelling)
    array = constant_array(value)
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    np.testing.assert_array_equal(array, expected)
    tensor = constant_tensor(value)
    assert tuple(tensor.shape) == expected.shape


def test_a_sparse_value_is_left_alone():
    proto = parse("g () => (float[4] y) { y = Constant () }")
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32), ""),
        numpy_helper.from_array(np.array([2]), ""),
        [4],
    )
    proto.graph.node[0].attribute.append(helper.make_attribute("sparse_value", sparse))
    assert constant_tensor(load(proto).graph.outputs[0]) is None


def test_initializers():
    proto = linear()
    value = load(proto).graph.initializers["w"]
    np.testing.assert_array_equal(constant_array(value), np.arange(6).reshape(2, 3))
    proto.graph.input.append(helper.make_tensor_value_info("w", 1, [2, 3]))
    model = load(proto)
    assert model.graph.inputs[1].const_value is not None
    assert constant_tensor(model.graph.inputs[1]) is None


def test_what_is_no_constant():
    model = load(linear())
    assert constant_tensor(None) is None
    assert constant_tensor(model.graph.inputs[0]) is None
    assert constant_tensor(model.graph.outputs[0]) is None
    assert constant_array(model.graph.outputs[0]) is None
    # const_value on what a node makes is a note of some analysis, not a constant.
    model.graph.outputs[0].const_value = ir.tensor([1.0])
    assert constant_tensor(model.graph.outputs[0]) is None
    other = ir.node("Constant", [], {"value": ir.tensor([1.0])}, domain="custom")
    assert constant_tensor(other.outputs[0]) is None


def test_inside_a_function_a_parameter_is_unknown():
    model = load(
        parse(
            """g (float x) => (float y) { y = d.f <k = 2.0> (x) }
            <opset_import: ["" : 17], domain: "d">
            f <k> (a) => (b) {
                c = Constant <value_float : float = @k> ()
                e = Constant <value_float = 3.0> ()
                t = Mul (a, c)
                b = Mul (t, e)
            }""",
            '<ir_version: 8, opset_import: ["" : 17, "d" : 1]>',
        )
    )
    (function,) = model.functions.values()
    assert constant_tensor(function.graph.node(0).outputs[0]) is None
    assert constant_array(function.graph.node(1).outputs[0]) == 3


def test_in_a_nested_graph():
    model = load(
        parse(
            "g (bool c) => (float[1] y) { y = If (c) <"
            "then_branch = t () => (float[1] p) <float[1] w = {5}> { p = Identity (w) },"
            "else_branch = e () => (float[1] q) { q = Constant <value_floats = [6.0]> () }> }"
        )
    )
    first, second = subgraphs(model.graph.node(0))
    assert constant_array(first.node(0).inputs[0]) == 5
    assert constant_array(second.outputs[0]) == 6


def test_a_bound_on_elements_and_no_reading():
    def fail():
        raise AssertionError("the data was read")

    model = load(linear())
    value = model.graph.initializers["w"]
    assert constant_array(value, max_elements=5) is None
    assert constant_array(value, max_elements=6) is not None
    value.const_value = ir.LazyTensor(
        fail, ir.DataType.FLOAT, ir.Shape([1 << 20, 1 << 20]), name="w"
    )
    assert constant_tensor(value) is value.const_value
    assert constant_array(value, max_elements=1 << 30) is None


def test_the_array_cannot_be_changed():
    data = np.ones(3, np.float32)
    value = ir.Value(name="v", const_value=ir.Tensor(data, name="v"))
    model = load(linear())
    model.graph.register_initializer(value)
    array = constant_array(value)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 2
    assert data.flags.writeable
