"""Converting what a model takes and gives."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from graphopt.errors import UsageError
from graphopt.graph import ir, load, to_bytes, verify
from graphopt.graph.border import Affine, InputConversion, OutputConversion, convert_border
from graphopt.graph.image_axes import to_channels_first, to_channels_last
from graphopt.runtime import Session

LAST, FIRST = to_channels_last(4), to_channels_first(4)
HALVES = Affine(np.array([1.0, 2.0]), np.array([2.0]), np.array([1.0]), 1)


def model(text: str) -> ir.Model:
    return load(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}'))


def operators(made: ir.Model) -> list[str]:
    return [node.op_type for node in made.graph]


X = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
NET = "g (float[N,2,H,W] x) => (float[N,2,H,W] y) { y = Neg (x) }"


def test_the_permutations_undo_each_other() -> None:
    for rank in (3, 4, 5):
        axes = np.arange(rank)
        turned = axes[list(to_channels_last(rank))]
        assert turned[list(to_channels_first(rank))].tolist() == axes.tolist()


def test_both_sides_keep_their_names() -> None:
    net = model(NET)
    before = to_bytes(net)
    made = convert_border(net, [InputConversion("x", FIRST)], [OutputConversion("y", LAST)])
    assert verify(made) == []
    assert operators(made) == ["Transpose", "Neg", "Transpose"]
    values = (*made.graph.inputs, *made.graph.outputs)
    assert [(value.name, str(value.shape)) for value in values] == [
        ("x", "[N,H,W,2]"),
        ("y", "[N,H,W,2]"),
    ]
    found = Session(made).run({"x": X.transpose(LAST)})["y"]
    assert found.tolist() == (-X).transpose(LAST).tolist()
    assert to_bytes(net) == before


def test_type_and_numbers() -> None:
    conversion = InputConversion("x", FIRST, ir.DataType.UINT8, HALVES)
    made = convert_border(model(NET), [conversion])
    assert operators(made) == ["Transpose", "Cast", "Sub", "Mul", "Neg"]
    assert verify(made) == []
    center = np.array([1, 2], np.float32).reshape(1, 2, 1, 1)
    found = Session(made).run({"x": X.astype(np.uint8).transpose(LAST)})["y"]
    assert found.tolist() == (-(X - center) / 2).tolist()


def test_what_changes_nothing_adds_nothing() -> None:
    idle = Affine(np.zeros(1), np.ones(2), np.ones(1), 1)
    conversion = InputConversion("x", None, ir.DataType.FLOAT, idle)
    assert operators(convert_border(model(NET), [conversion])) == ["Neg"]


def test_names_that_are_taken() -> None:
    net = model(
        "g (float[N,2,H,W] x) => (float[N,2,H,W] y, float[N,2,H,W] y_made) "
        "<float x_sub = {1.0}> { x_turned = Neg (x) y = Add (x_turned, x_sub) y_made = Abs (x) }"
    )
    made = convert_border(
        net, [InputConversion("x", FIRST, None, HALVES)], [OutputConversion("y", LAST)]
    )
    assert verify(made) == []
    Session(made).run({"x": X.transpose(LAST)})


def test_what_describes_a_tensor_stays_with_it() -> None:
    net = model(NET)
    taken = net.graph.inputs[0]
    taken.doc_string = "a photo"
    taken.metadata_props["unit"] = "lux"
    assert taken.shape is not None
    taken.shape.set_denotation(1, "DATA_CHANNEL")
    fed = convert_border(net, [InputConversion("x", FIRST)]).graph.inputs[0]
    assert (fed.doc_string, fed.metadata_props["unit"]) == ("a photo", "lux")
    assert fed.shape is not None
    assert [fed.shape.get_denotation(axis) for axis in range(4)] == [None] * 3 + ["DATA_CHANNEL"]


def test_an_input_of_an_unknown_rank_is_refused() -> None:
    net = model("g (float[N] x) => (float[N] y) { y = Neg (x) }")
    net.graph.inputs[0].shape = None
    with pytest.raises(UsageError, match="shape of input 'x' are not known"):
        convert_border(net, [InputConversion("x", FIRST)])
