"""ONNX text round-trips, and depends on nothing but the model."""

import numpy as np
import pytest
from graph_models import HEADER, linear, parse
from onnx import TensorProto, helper

from graphopt.errors import InvalidModelError, UnreadableModelError
from graphopt.graph import constant_array, from_text, load, to_bytes, to_text, verify

CASES = {
    "plain": "g (float[N, 2] x) => (float[N, 2] y) { y = Relu (x) }",
    "quoted names": 'g (float[2] "x.1/a:0") => (float[2] "y 2") { "y 2" = Relu ("x.1/a:0") }',
    "initializers": (
        "g (float[3] x) => (float[3] y) <float[3] w = {0.1, 1e-30, -3.4e38}, int64[1] i = {-5}>"
        " { a = Add (x, w) y = Gather (a, i) }"
    ),
    "attributes": (
        "g (float[1, 1, 4, 4] x, float[1, 1, 3, 3] w) => (y)"
        ' { y = Conv <auto_pad = "SAME_UPPER", dilations = [1, 1], group = 1> (x, w) }'
    ),
    "nested": (
        "g (float[2] x, bool c) => (float[2] y) { y = If (c) <"
        "then_branch = t () => (float[2] p) <float[2] w = {1, 2}> { p = Add (x, w) },"
        "else_branch = e () => (float[2] q) { q = Abs (x) }> }"
    ),
    "omitted": 'g (float[2] x, float m) => (float[2] y) { y = Clip (x, "", m) }',
    "strings": 'g () => (y) { y = Constant <value_strings = ["a", "b c"]> () }',
}


@pytest.mark.parametrize("body", CASES.values(), ids=CASES.keys())
def test_text_is_stable_and_keeps_the_model(body):
    model = load(parse(body))
    text = to_text(model)
    again = from_text(text)
    assert to_text(again) == text
    assert to_bytes(again) == to_bytes(model)


def test_names_of_nodes_are_not_in_it():
    model = load(linear())
    text = to_text(model)
    assert "product" not in text
    assert model.graph.node(0).name == "product"
    other = load(linear())
    other.graph.node(0).name = "something else"
    assert to_text(other) == text


def test_an_initializer_is_declared_once():
    assert to_text(from_text(to_text(load(linear())))).count("w =") == 1
    text = to_text(load(linear()))
    assert text.count("[2,3] w") == 1


def test_functions_and_parameters():
    text = to_text(
        load(
            parse(
                "g (float x) => (float y) { y = d.f <k = 2.0> (x) }\n"
                '<opset_import: ["" : 17], domain: "d">\n'
                "f <k> (a) => (b) { c = Constant <value_float : float = @k> () b = Mul (a, c) }",
                '<ir_version: 8, opset_import: ["" : 17, "d" : 1]>',
            )
        )
    )
    assert "@k" in text
    assert to_text(from_text(text)) == text


@pytest.mark.parametrize("name", ["FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "BOOL", "UINT64"])
def test_element_types(name):
    proto = linear()
    code = TensorProto.DataType.Value(name)
    proto.graph.initializer.append(helper.make_tensor("t", code, [3], [0, 1, 1]))
    model = load(proto)
    again = from_text(to_text(model))
    np.testing.assert_array_equal(
        constant_array(again.graph.initializers["t"]),
        constant_array(model.graph.initializers["t"]),
    )


def test_random_floats_survive_to_the_bit():
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    weight[0, 0] = -0.0
    again = from_text(to_text(load(linear(weight))))
    assert constant_array(again.graph.initializers["w"]).tobytes() == weight.tobytes()


def test_a_comment_is_allowed():
    assert verify(from_text(f"# why\n{HEADER}\ng (float x) => (float y) {{ y = Neg (x) }}")) == []


def test_text_that_does_not_parse_gives_one_line():
    with pytest.raises(UnreadableModelError, match="line: 2 column:") as raised:
        from_text(f"{HEADER}\ng (float x) => (float y) {{ y = Neg (x }}")
    assert "\n" not in str(raised.value)
    assert "b'" not in str(raised.value)


def test_text_with_a_value_that_nothing_makes():
    with pytest.raises(InvalidModelError, match="uses 'w', which nothing makes"):
        from_text(f"{HEADER}\ng (float x) => (float y) <float w> {{ y = Add (x, w) }}")
