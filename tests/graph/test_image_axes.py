"""Finding out which axis of a tensor holds the channels."""

import onnx.parser
import pytest

from graphopt.graph import ir, load
from graphopt.graph.image_axes import Layout, layouts_of
from graphopt.shapes import infer_shapes

FIRST, LAST = {Layout.NCHW}, {Layout.NHWC}
BOTH = FIRST | LAST


def layouts(text: str, opset: int = 17, tensor: str = "x") -> set[Layout]:
    """The layouts of an input or output of a model."""
    model = load(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}'))
    infer_shapes(model)
    values: list[ir.Value] = [*model.graph.inputs, *model.graph.outputs]
    return set(layouts_of(next(value for value in values if value.name == tensor)))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Conv (x, w)", FIRST),
        ("a = Relu (x) b = Clip (a) y = Conv (b, w)", FIRST),
        ("y = GlobalAveragePool (x)", FIRST),
        ("a = Transpose <perm = [0,3,1,2]> (x) y = MaxPool <kernel_shape = [1,1]> (a)", LAST),
        ("a = Neg (x) b = Transpose <perm = [0,3,1,2]> (a) y = GlobalMaxPool (b)", LAST),
        # Height and width change places: neither layout.
        ("a = Transpose <perm = [0,1,3,2]> (x) y = Conv (a, w)", set()),
        ("a = Transpose <perm = [0,2,3,1]> (x) y = Conv (a, w)", set()),
        ("y = Relu (x)", set()),
        # A reshape may do anything to the axes.
        ("a = Reshape (x, s) y = Conv (a, w)", set()),
        # The sum has one layout, whichever side is a picture.
        ("a = GlobalAveragePool (x) y = Mul (a, x)", FIRST),
        ("a = Reshape (x, s) b = Conv (a, w) y = Add (b, x)", FIRST),
        ("a = ReduceMean <axes = [2,3]> (x) y = Conv (a, w)", FIRST),
        ("a = Softmax <axis = 1> (x) p, q = Split <axis = 1> (a) y = Conv (p, w2)", FIRST),
        ("a = Concat <axis = 1> (x, x) b = Pad (a, pads) y = LRN <size = 3> (b)", FIRST),
        ("y = Resize (x, , up)", FIRST),
        ("y = Resize (x, , wide)", LAST),
        ("y = Resize (x, , tall)", set()),
        ("y = Resize (x, , , sizes)", FIRST),
        ("y = MatMul (x, x)", set()),
        ("a = Transpose <perm = [0,3,1,2]> (x) y = Conv (a, w) z = LRN <size = 3> (x)", BOTH),
    ],
)
def test_a_picture_is_found(body: str, expected: set[Layout]) -> None:
    outputs = "float[N,?,?,?] y" + (", float[N,?,?,?] z" if " z = " in body else "")
    text = (
        f"g (float[N,4,4,4] x) => ({outputs}) <int64[4] s = {{0,4,4,4}}, float[4] up = {{1,1,2,2}},"
        "int64[8] pads = {0,0,1,1,0,0,1,1}, int64[4] sizes = {1,4,9,9},"
        "float[4] wide = {1,2,2,1}, float[4] tall = {1,1,2,1}> {"
        f"w = Constant <value = float[4,4,1,1] {{{','.join('1' * 16)}}}> () "
        f"w2 = Constant <value = float[4,2,1,1] {{{','.join('1' * 8)}}}> () {body} }}"
    )
    assert layouts(text) == expected


def test_an_output_is_a_picture_where_one_is_made() -> None:
    body = "a = GlobalAveragePool (x) b = Sigmoid (a) y = Transpose <perm = [0,2,3,1]> (b)"
    assert layouts(f"g (float[N,4,4,4] x) => (float[N,1,1,4] y) {{ {body} }}", tensor="y") == LAST


def test_signals_and_volumes_too() -> None:
    for dims, kernel in (("N,4,T", "1"), ("N,4,D,H,W", "1,1,1")):
        body = f"y = MaxPool <kernel_shape = [{kernel}]> (x)"
        assert layouts(f"g (float[{dims}] x) => (float[{dims}] y) {{ {body} }}") == FIRST
    text = (
        "g (float[N,T,4] x) => (float[N,4,T] y) { a = Transpose <perm = [0,2,1]> (x) "
        "y = MaxPool <kernel_shape = [1]> (a) }"
    )
    assert layouts(text) == LAST


def test_attention_is_no_picture() -> None:
    text = (
        "g (float[B,8,T,16] query, float[B,8,S,16] past, float[B,1,T,S] mask, float[B,8,C,16] more)"
        " => (float[B,8,T,16] y, float[B,8,P,16] present) {"
        " key = Transpose <perm = [0,1,3,2]> (past) scores = MatMul (query, key)"
        " masked = Add (scores, mask) shares = Softmax <axis = -1> (masked)"
        " y = MatMul (shares, past) present = Concat <axis = 2> (past, more) }"
    )
    for name in ("query", "past", "mask", "more", "y", "present"):
        assert layouts(text, tensor=name) == set()


def test_what_shares_a_weight_is_not_alike() -> None:
    text = (
        "g (float[N,4,4,4] x, float[N,4,4,4] z) => (float[N,4,4,4] y, float[N,4,4,4] u) "
        "<float[1,1,1,4] w = {1,2,3,4}> { a = Add (x, w) y = GlobalAveragePool (a) u = Add (z, w) }"
    )
    assert layouts(text) == FIRST
    assert layouts(text, tensor="z") == set()


def test_the_walk_enters_branches() -> None:
    text = (
        "g (bool p, float[N,4,4,4] x) => (float[N,4,1,1] y) { y = If (p) <"
        "then_branch = t () => (float[N,4,1,1] u) { u = GlobalMaxPool (x) }, "
        "else_branch = e () => (float[N,4,1,1] v) { v = GlobalAveragePool (x) }> }"
    )
    assert layouts(text) == FIRST


def test_upsample_tells_by_its_attribute() -> None:
    body = "y = Upsample <scales = [1.0, 2.0, 2.0, 1.0]> (x)"
    assert layouts(f"g (float[N,4,4,3] x) => (float[N,8,8,3] y) {{ {body} }}", opset=7) == LAST
