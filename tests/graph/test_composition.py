"""Cutting a part out of a model, and making one of several."""

import numpy as np
import onnx.parser
import pytest

from graphopt.errors import UsageError
from graphopt.graph import chain, ensemble, extract, ir, load, parallel, verify
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
        (["b"], ["y"], "no tensor 'b'"),
    ],
)
def test_what_cannot_be_cut_is_told(inputs: list[str], outputs: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        extract(two_steps(), inputs, outputs)


def head() -> ir.Model:
    return model(
        "g (float[N,3] x) => (float[N,3] y, float[N] s) <float[3] w = {1, 2, 3}> "
        "{ t = Mul(x, w) y = Relu(t) s = ReduceSum<keepdims = 0>(y, axes) }".replace(
            "<float[3] w", "<int64[1] axes = {1}, float[3] w"
        )
    )


def tail() -> ir.Model:
    # Its inner names are those of the head, its weight has other numbers.
    return model(
        "g (float[M,3] data) => (float[M,3] x) <float[3] w = {10, 10, 10}> "
        "{ t = Add(data, w) y = Neg(t) x = Identity(y) }"
    )


def test_a_chain_renames_what_is_inside_and_keeps_what_is_left_over() -> None:
    whole = chain(head(), tail(), {"y": "data"})
    assert [value.name for value in whole.graph.inputs] == ["x"]
    names = [value.name for value in whole.graph.outputs]
    assert names[0] == "s"
    found = run(whole, x=X)
    assert found["s"].tolist() == [6]
    assert found[str(names[1])].tolist() == [[-10, -10, -16]]


def test_a_chain_is_guessed_only_where_there_is_no_choice() -> None:
    assert len(chain(tail(), tail()).graph.outputs) == 1
    with pytest.raises(UsageError, match="say which output goes to which input"):
        chain(head(), tail())


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ({"q": "data"}, "no output 'q': 'y', 's'"),
        ({"y": "q"}, "no input 'q': 'data'"),
        ({"s": "data"}, "do not fit: shapes"),
    ],
)
def test_what_does_not_fit_is_told(pairs: dict[str, str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        chain(head(), tail(), pairs)


def test_side_by_side_inputs_of_one_name_are_one() -> None:
    other = model("g (float[N,3] x) => (float[N,3] y) { y = Abs(x) }")
    whole = parallel([head(), other])
    assert [value.name for value in whole.graph.inputs] == ["x"]
    names = [str(value.name) for value in whole.graph.outputs]
    assert len(set(names)) == 3
    found = run(whole, x=X)
    assert found[names[0]].tolist() == [[0, 0, 6]]
    assert found[names[2]].tolist() == [[5, 0, 2]]


def test_other_operator_sets_are_refused() -> None:
    old = model("g (float[N,3] x) => (float[N,3] y) { y = Abs(x) }", opset=13)
    with pytest.raises(UsageError, match=r"versions 17 and 13 of .ai\.onnx."):
        parallel([head(), old])


def scores(sign: int) -> ir.Model:
    return model(f"g (float[N,3] x) => (float[N,3] y) <float w = {{{sign}}}> {{ y = Mul(x, w) }}")


def test_an_ensemble_has_the_weighted_mean() -> None:
    whole = ensemble([scores(1), scores(-2)], weights=[3, 1])
    assert [value.name for value in whole.graph.outputs] == ["y"]
    assert run(whole, x=X)["y"].tolist() == [[-1.25, 0, 0.5]]


def test_an_ensemble_votes_by_top_class() -> None:
    whole = ensemble([scores(1), scores(2), scores(-1)], combine="vote")
    assert np.allclose(run(whole, x=X)["y"], [[1 / 3, 0, 2 / 3]])


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"weights": [1]}, "give 2 weights"), ({"combine": "median"}, "mean, vote")],
)
def test_an_ensemble_that_cannot_be(options: dict[str, object], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        ensemble([scores(1), scores(2)], **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="same outputs by name"):
        ensemble([scores(1), head()])
