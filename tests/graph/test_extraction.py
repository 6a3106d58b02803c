"""Cutting a part out of a model."""

import numpy as np
import onnx.parser
import pytest

from graphopt.errors import UsageError
from graphopt.graph import extract, ir, load, to_proto, verify
from graphopt.runtime import Session
from graphopt.shapes import infer_shapes


def model(text: str, opset: int = 17) -> ir.Model:
    """A model from its text, shapes inferred."""
    made = load(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}'))
    infer_shapes(made)
    return made


def two_steps() -> ir.Model:
    return model(
        "g (float[N,3] x, float[N,3] other) => (float[N,3] y, float[N,3] z) "
        "<float[3] b = {1, 2, 3}> { a = Add(x, b) c = Relu(a) y = Mul(c, b) z = Sub(c, other) }"
    )


X = np.array([[-5, 0, 2]], np.float32)


def run(part: ir.Model, **feed: np.ndarray) -> dict[str, np.ndarray]:
    assert verify(part) == []
    return Session(part).run(feed)


def test_a_part_ends_early_and_takes_what_it_needs() -> None:
    part = extract(two_steps(), outputs=["c"])
    assert [value.name for value in part.graph.inputs] == ["x"]
    assert run(part, x=X)["c"].tolist() == [[0, 2, 5]]


def test_a_part_begins_late_and_drops_what_was_before() -> None:
    part = extract(two_steps(), ["c"], ["y"])
    assert [node.op_type for node in part.graph] == ["Mul"]
    assert run(part, c=X)["y"].tolist() == [[-5, 0, 6]]


def test_the_model_is_not_changed() -> None:
    whole = two_steps()
    before = len(list(whole.graph))
    extract(whole, ["c"], ["y"])
    assert len(list(whole.graph)) == before
    assert [value.name for value in whole.graph.outputs] == ["y", "z"]


def test_a_tensor_that_is_computed_and_given_is_both() -> None:
    part = extract(two_steps(), ["c", "x"], ["a", "y"])
    assert run(part, c=X, x=X)["y"].tolist() == [[-5, 0, 6]]
    assert run(part, c=X, x=X)["a"].tolist() == [[-4, 2, 5]]


def test_a_branch_keeps_what_it_captures() -> None:
    whole = model(
        "g (bool p, float[2] x) => (float[2] y) { a = Neg(x) b = Exp(a) "
        "c = If (p) <then_branch = t () => (float[2] u) { u = Relu(a) }, "
        "else_branch = e () => (float[2] v) { v = Identity(a) }> y = Abs(c) }"
    )
    part = extract(whole, ["p", "a"], ["c"])
    assert [node.op_type for node in part.graph] == ["If"]
    found = run(part, p=np.array(True), a=np.array([-1, 2], np.float32))
    assert found["c"].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        (["nothing"], ["y"], "no tensor 'nothing'"),
        (["c"], ["z"], "need 'other' too"),
        (["x", "other"], ["y"], "do not depend on 'other'"),
        (["y"], ["y"], "an input and an output"),
        (["b"], ["y"], "'b' is a constant"),
    ],
)
def test_what_cannot_be_cut_is_told(inputs: list[str], outputs: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        extract(two_steps(), inputs, outputs)


@pytest.mark.parametrize("outputs", [["a"], ["d"]])
def test_a_branch_that_is_cut_off_lets_go_of_what_it_captured(outputs: list[str]) -> None:
    whole = model(
        "g (bool p, float[2] x) => (float[2] y) { a = Neg(x) d = Exp(a) "
        "c = If (p) <then_branch = t () => (float[2] u) { u = Relu(a) }, "
        "else_branch = e () => (float[2] v) { v = Identity(d) }> y = Abs(c) }"
    )
    part = extract(whole, outputs=outputs)
    assert "If" not in {node.op_type for node in part.graph}
    assert run(part, x=np.array([1, 2], np.float32))[outputs[0]].shape == (2,)


def test_the_name_of_what_is_given_was_taken() -> None:
    whole = model(
        "g (float[2] x) => (float[2] y) { c = Neg(x) c_computed = Exp(c) y = Add(c, c_computed) }"
    )
    part = extract(whole, ["c"], ["y"])
    found = run(part, c=np.array([0, 1], np.float32))["y"]
    assert np.allclose(found, [1, 1 + np.e])


def test_another_type_of_an_output_stays_with_no_other_output() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x) => (float[N,3] y) '
        "{ y = Relu(x) z = ReduceSum<keepdims = 0>(y) }"
    )
    proto.graph.output.add().CopyFrom(proto.graph.input[0])
    proto.graph.output[1].type.tensor_type.shape.dim[0].dim_param = "other"
    whole = load(proto)
    infer_shapes(whole)
    part = to_proto(extract(whole, outputs=["y", "z"]))
    assert len(part.graph.output[1].type.tensor_type.shape.dim) == 0
