"""Shapes and sizes that the user asks for."""

import pytest

from graphopt.errors import ShapeError
from graphopt.graph import ir, to_bytes
from graphopt.shapes import (
    infer_shapes,
    static_shape,
)
from tests.shapes.reading import parsed, shapes, values

TWO_INPUTS = """g (float[N,S] x, float[N,?] y) => (float[N,S] z, float["2*N",S] w) {
    z = Relu (x)
    w = Concat <axis=0> (x, x)
}"""


def two_inputs() -> ir.Model:
    model = parsed(TWO_INPUTS.replace('"2*N"', "twice"))
    w = model.graph.outputs[1]
    w.shape = ir.Shape(["2*N", "S"])
    return model


def test_a_symbol_is_replaced_everywhere() -> None:
    model = two_inputs()
    infer_shapes(model, dims={"N": 4})
    assert [str(v.shape) for v in model.graph.inputs] == ["[4,S]", "[4,None]"]
    assert [str(v.shape) for v in model.graph.outputs] == ["[4,S]", "[8,S]"]


def test_an_input_shape_replaces_its_symbols_in_all_inputs() -> None:
    model = two_inputs()
    infer_shapes(model, input_shapes={"x": [None, 7]}, dims={"N": 2})
    assert [str(v.shape) for v in model.graph.inputs] == ["[2,7]", "[2,None]"]
    model = two_inputs()
    infer_shapes(model, input_shapes={"x": ["batch", None], "y": [None, 3]})
    assert [str(v.shape) for v in model.graph.inputs] == ["[batch,S]", "[batch,3]"]
    assert [str(v.shape) for v in model.graph.outputs] == ["[batch,S]", "[2*batch,S]"]


def test_an_unranked_input_gets_a_shape() -> None:
    model = parsed("g (float[?] x) => (float[?] y) { y = Relu (x)  z = Relu (y) }")
    model.graph.inputs[0].shape = None
    infer_shapes(model, input_shapes={"x": ["B", 3]})
    assert shapes(model)["z"] == "[B,3]"


@pytest.mark.parametrize(
    ("shape", "dims", "message"),
    [
        ({"xx": [1, 2]}, None, "no input 'xx'. Did you mean 'x'"),
        ({"q": [1, 2]}, None, "no input 'q'; it has 'x', 'y'"),
        ({"x": [1]}, None, "input 'x' has 2 dims in the model, the shape given has 1"),
        ({"x": [-1, 2]}, None, "axis 0 of input 'x' must be an integer of at least 0"),
        (None, {"n": 3}, "no input of the model has a dim 'n'"),
        (None, {"N": 0.5}, "must be an integer"),
        ({"x": [3, None]}, {"N": 4}, "'N' is asked to be both 4 and 3"),
        ({"x": [3, None], "y": [2, None]}, None, "'N' is asked to be both 3 and 2"),
    ],
)
def test_bad_requests(shape: dict | None, dims: dict | None, message: str) -> None:
    model = two_inputs()
    before = to_bytes(model)
    with pytest.raises(ShapeError, match=message.replace(".", r"\.")):
        infer_shapes(model, input_shapes=shape, dims=dims)
    assert to_bytes(model) == before


def test_a_static_dim_cannot_be_changed() -> None:
    model = parsed("g (float[2,3] x) => (float[2,3] y) { y = Relu (x) }")
    with pytest.raises(ShapeError, match="axis 0 of input 'x' is 2 in the model"):
        infer_shapes(model, input_shapes={"x": [4, 3]})
    infer_shapes(model, input_shapes={"x": [2, None]})
    assert static_shape(values(model)["y"]) == (2, 3)
