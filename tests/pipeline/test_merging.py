"""merge: chains, models side by side, and ensembles; each beside running the models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphopt.errors import UsageError
from graphopt.graph import ir, load, to_proto
from graphopt.pipeline.merging import MergeResult, merge
from graphopt.runtime import Session
from tests.zoo_models import zoo_models

X = np.array([[-5, 0, 2]], np.float32)


def model(text: str, opset: int = 17, ir_version: int = 8) -> onnx.ModelProto:
    head = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>'
    return onnx.parser.parse_model(f"{head} {text}")


HEAD = """g (float[N,3] x) => (float[N,3] y, float[N] s)
<float[3] w = {1, 2, 3}, int64[1] axes = {1}> {
  t = Mul(x, w)
  y = Relu(t)
  s = ReduceSum<keepdims = 0>(y, axes)
}"""

# Inside it are names of HEAD; its weight has other numbers; its output is called as HEAD's input.
TAIL = """g (float[M,3] data) => (float[M,3] x) <float[3] w = {10, 10, 10}> {
  t = Add(data, w)
  y = Neg(t)
  x = Identity(y)
}"""


def run(result: MergeResult, **feed: np.ndarray) -> list[Any]:
    assert result.verified == 3, result.unverified_reason
    onnx.checker.check_model(result.model, full_check=True)
    return list(Session(load(result.model)).run(feed).values())


def scores(sign: int, output: str = "y", data: str = "x") -> onnx.ModelProto:
    return model(
        f"g (float[N,3] {data}) => (float[N,3] {output}) <float w = {{{sign}}}> "
        f"{{ {output} = Mul({data}, w) }}"
    )


# Chains ------------------------------------------------------------------------------------


def test_a_chain_keeps_apart_what_has_one_name_and_keeps_what_is_left_over() -> None:
    result = merge([model(HEAD), model(TAIL)], pairs={"data": "y"})
    assert result.inputs == {"x": "FLOAT[N,3]"}
    assert result.outputs == {"s": "FLOAT[N]", "x_2": "FLOAT[N,3]"}
    left, made = run(result, x=X)
    assert left.tolist() == [6]
    assert made.tolist() == [[-10, -10, -16]]


def test_a_chain_of_three_goes_by_the_only_names() -> None:
    result = merge([scores(2), scores(3, "z", "y"), scores(5, "last", "z")])
    assert list(result.outputs) == ["last"]
    assert run(result, x=X)[0].tolist() == [[-150, 0, 60]]


def test_one_output_goes_to_two_inputs() -> None:
    two = model("g (float[N,3] a, float[N,3] b) => (float[N,3] c) { c = Mul(a, b) }")
    result = merge([scores(2), two], pairs={"a": "y", "b": "y"})
    assert run(result, x=X)[0].tolist() == [[100, 0, 16]]


def test_what_a_model_passes_through_is_an_output_of_the_chain() -> None:
    passing = model("g (float[N,3] y) => (float[N,3] y, float[N,3] z) { z = Neg(y) }")
    result = merge([scores(2), passing])
    assert len(result.outputs) == 2
    passed, negated = run(result, x=X)
    assert passed.tolist() == (-negated).tolist() == [[-10, 0, 4]]


def test_an_input_that_nothing_is_bound_to_stays_and_its_free_dim_is_another() -> None:
    two = model(
        "g (float[K,3] y, float[N,2] z) => (float[K,3] c, float[N,2] d) { c = Neg(y) d = Neg(z) }"
    )
    result = merge([scores(1), two])
    assert result.inputs == {"x": "FLOAT[N,3]", "z": "FLOAT[N_2,2]"}
    assert result.outputs == {"c": "FLOAT[N,3]", "d": "FLOAT[N_2,2]"}
    run(result, x=X, z=np.zeros((4, 2), np.float32))


def test_a_size_that_the_second_model_fixes_is_the_first_one_s_too() -> None:
    fixed = model("g (float[2,3] y) => (float[2,3] z) { z = Neg(y) }")
    result = merge([scores(1), fixed])
    assert result.inputs == {"x": "FLOAT[2,3]"}
    run(result, x=np.ones((2, 3), np.float32))


def test_a_default_that_the_first_model_replaces_goes() -> None:
    defaulted = model("g (float[3] y = {1, 2, 3}, float[3] k) => (float[3] z) { z = Mul(y, k) }")
    one = model("g (float[3] x) => (float[3] y) { y = Neg(x) }")
    result = merge([one, defaulted])
    assert list(result.inputs) == ["x", "k"]
    assert not [t for t in result.model.graph.initializer if t.name.startswith("y")]


def test_branches_keep_what_they_capture() -> None:
    branching = model(
        "g (bool p, float[2] y) => (float[2] z) { a = Neg(y) "
        "c = If (p) <then_branch = t () => (float[2] u) { u = Relu(a) }, "
        "else_branch = e () => (float[2] u) { u = Identity(y) }> z = Abs(c) }"
    )
    one = model("g (float[2] x) => (float[2] y) { a = Neg(x) u = Neg(a) y = Neg(u) }")
    result = merge([one, branching])
    found = run(result, p=np.array(True), x=np.array([-1, 2], np.float32))
    assert found[0].tolist() == [0, 2]


def test_a_weight_is_not_renamed_to_what_another_is_called() -> None:
    crowded = model(
        "g (float[3] x) => (float[3] t) <float[3] w = {1, 2, 3}, float[3] w_2 = {4, 5, 6}> "
        "{ s = Mul(x, w) t = Add(s, w_2) }"
    )
    result = merge([crowded, model("g (float[3] t) => (float[3] w) { w = Neg(t) }")])
    assert list(result.outputs) == ["w"]
    assert run(result, x=np.ones(3, np.float32))[0].tolist() == [-5, -7, -9]


def test_a_weight_that_is_an_output_takes_its_name_from_another_weight() -> None:
    second = scores(3, "z", "y")
    second.graph.output.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, []))
    result = merge([scores(2), second])
    assert list(result.outputs) == ["z", "w"]
    made, weight = run(result, x=X)
    assert made.tolist() == [[-30, 0, 12]]
    assert weight == 3


@pytest.mark.parametrize("mode", ["chain", "parallel", "mean"])
def test_sizes_that_contradict_each_other_through_a_third_model_are_told(mode: str) -> None:
    one, two = (model(f"g (float[{n},3] y) => (float[{n},3] z) {{ z = Neg(y) }}") for n in (1, 2))
    free = model("g (float[K,3] z) => (float[K,3] y) { y = Neg(z) }")
    models = [one, free, two] if mode == "chain" else [scores(1, "z", "y"), one, two]
    with pytest.raises(UsageError, match="do not fit: shapes"):
        merge(models, mode=mode)


def test_an_optional_goes_from_model_to_model() -> None:
    giving = model(
        "g (float[N] x) => (optional(float[N]) o) { o = Optional(x) }",
    )
    taking = model("g (optional(float[N]) o) => (float[N] y) { y = OptionalGetElement(o) }")
    result = merge([giving, taking])
    assert run(result, x=X[0])[0].tolist() == X[0].tolist()


def test_an_annotation_follows_the_scale_that_it_names() -> None:
    annotated = []
    for source in (scores(2), scores(3, "z", "y")):
        scale = onnx.numpy_helper.from_array(np.array(source.graph.name == "g", np.float32), "by")
        source.graph.initializer.append(scale)
        note = source.graph.quantization_annotation.add(tensor_name="w")
        note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="by")
        annotated.append(source)
    found = merge(annotated).model.graph.quantization_annotation
    named = {a.tensor_name: a.quant_parameter_tensor_names[0].value for a in found}
    assert named == {"w": "by", "w_2": "by_2"}


def test_another_type_of_an_output_stays_with_no_other_output() -> None:
    first = scores(2)
    first.graph.output.add().CopyFrom(first.graph.input[0])
    first.graph.output[1].type.tensor_type.shape.dim[0].dim_param = "other"
    second = model("g (float[N,3] y) => (float z) { z = ReduceSum<keepdims = 0>(y) }")
    result = merge([first, second])
    assert result.outputs == {"x": "FLOAT[N,3]", "z": "FLOAT"}
    assert len(result.model.graph.output[1].type.tensor_type.shape.dim) == 0


def test_the_older_operator_set_is_raised() -> None:
    old = model("g (float[N,3] y) => (float[N,1] z) { z = ReduceSum<axes = [1]>(y) }", opset=11)
    result = merge([scores(1), old])
    assert result.notes == ["model 2 was raised from operator set 11 to 17"]
    assert run(result, x=X)[0].tolist() == [[-3]]


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (None, "say which output of model 1 goes to which input of model 2"),
        ({"data": "q"}, "model 1 has no output 'q'; it has 'y', 's'"),
        ({"q": "y"}, "model 2 has no input 'q'; it has 'data'"),
        ({"data": "s"}, "do not fit: shapes"),
    ],
)
def test_what_does_not_fit_is_told(pairs: dict[str, str] | None, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        merge([model(HEAD), model(TAIL)], pairs=pairs)


def test_other_functions_of_one_name_are_refused() -> None:
    def calling(body: str) -> onnx.ModelProto:
        return onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> '
            "g (float[3] x) => (float[3] y) { y = own.f(x) } "
            f'<domain: "own", opset_import: ["" : 17]> f (a) => (b) {{ b = {body}(a) }}'
        )

    assert merge([calling("Neg"), calling("Neg")], mode="parallel").verified == 3
    with pytest.raises(UsageError, match="functions 'f' that differ"):
        merge([calling("Neg"), calling("Abs")], mode="parallel")


# Side by side ------------------------------------------------------------------------------


def test_side_by_side_inputs_of_one_name_are_one() -> None:
    other = model("g (float[B,3] x) => (float[B,3] y) { y = Abs(x) }")
    result = merge([model(HEAD), other], mode="parallel")
    assert result.inputs == {"x": "FLOAT[N,3]"}
    assert result.outputs["y_2"] == "FLOAT[N,3]"
    one, _, two = run(result, x=X)
    assert one.tolist() == [[0, 0, 6]]
    assert two.tolist() == [[5, 0, 2]]


def test_side_by_side_other_inputs_have_other_free_dims() -> None:
    result = merge([scores(1), scores(2, "z", "other")], mode="parallel")
    assert result.inputs == {"x": "FLOAT[N,3]", "other": "FLOAT[N_2,3]"}
    run(result, x=X, other=np.ones((4, 3), np.float32))


def test_side_by_side_what_a_model_passes_through_stays_an_output() -> None:
    passing = model("g (float[N,3] x) => (float[N,3] y, float[N,3] x) { y = Neg(x) }")
    result = merge([passing, scores(2, "z")], mode="parallel")
    assert list(result.outputs) == ["y", "x", "z"]
    negated, passed, doubled = run(result, x=X)
    assert passed.tolist() == X.tolist() == (-negated).tolist()
    assert doubled.tolist() == (2 * X).tolist()
    result = merge([passing, passing], mode="mean")
    assert [found.tolist() for found in run(result, x=X)] == [(-X).tolist(), X.tolist()]


# Ensembles ---------------------------------------------------------------------------------


def test_an_ensemble_has_the_mean() -> None:
    result = merge([scores(1), scores(-2), scores(4)], mode="mean")
    assert result.outputs == {"y": "FLOAT[N,3]"}
    assert run(result, x=X)[0].tolist() == [[-5, 0, 2]]


def test_an_ensemble_has_the_weighted_mean() -> None:
    result = merge([scores(1), scores(-2)], mode="mean", weights=[3, 1])
    assert run(result, x=X)[0].tolist() == [[-1.25, 0, 0.5]]


def test_an_ensemble_goes_by_position_where_names_differ() -> None:
    result = merge([scores(1), scores(3, "out", "image")], mode="mean")
    assert (list(result.inputs), list(result.outputs)) == (["x"], ["y"])
    assert run(result, x=X)[0].tolist() == [[-10, 0, 4]]


def test_outputs_of_one_name_are_combined_in_whatever_order_they_are() -> None:
    one = model("g (float[3] x) => (float[3] a, float[3] b) { a = Neg(x) b = Abs(x) }")
    two = model("g (float[3] x) => (float[3] b, float[3] a) { a = Neg(x) b = Abs(x) }")
    a, b = run(merge([one, two], mode="mean"), x=X[0])
    assert a.tolist() == [5, 0, -2]
    assert b.tolist() == [5, 0, 2]


def test_an_ensemble_votes_by_top_class() -> None:
    result = merge([scores(1), scores(2), scores(-1)], mode="vote")
    assert np.allclose(run(result, x=X)[0], [[1 / 3, 0, 2 / 3]])


@pytest.mark.parametrize("mode", ["mean", "vote"])
@pytest.mark.parametrize("weights", [None, [1, 3]])
@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_an_ensemble_of_other_floats(mode: str, weights: list[float] | None, dtype: str) -> None:
    parts = [
        model(
            f"g ({dtype}[N,3] x) => ({dtype}[N,3] y) {{ c = Constant<value_float = {sign}>() "
            "w = CastLike(c, x) y = Mul(x, w) }"
        )
        for sign in (1.0, -2.0)
    ]
    result = merge(parts, mode=mode, weights=weights)
    [found] = run(result, x=X.astype("float64" if dtype == "double" else dtype))
    low, high = [0.5, 0.5] if weights is None else [0.25, 0.75]
    expected = (low - 2 * high) * X if mode == "mean" else [[high, 0, low]]
    assert found.tolist() == np.asarray(expected).tolist()


def test_a_vote_of_old_models_raises_them_to_where_it_can_be_said() -> None:
    old = model("g (float[N,3] x) => (float[N,3] y) { y = Neg(x) }", opset=8, ir_version=4)
    result = merge([old, old], mode="vote")
    assert "from operator set 8 to 9" in result.notes[0]
    assert run(result, x=X)[0].tolist() == [[1, 0, 0]]


def test_models_of_other_classes_do_not_vote() -> None:
    twice = model(
        "g (float[N,3] x) => (float[N,K] y) { f = Concat<axis = 1>(x, x) "
        "r = ReduceMax<axes = [0], keepdims = 0>(f) n = IsNaN(r) all = Not(n) "
        "y = Compress<axis = 1>(f, all) }"
    )
    with pytest.raises(UsageError, match="outputs of other shapes"):
        merge([scores(1), twice], mode="vote")


def test_weights_may_be_as_large_as_numbers_are() -> None:
    result = merge([scores(1), scores(3)], mode="mean", weights=[1e308, 1e308])
    assert run(result, x=X)[0].tolist() == (2 * X).tolist()


def test_operators_that_are_added_have_their_operator_set() -> None:
    own = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["com.microsoft" : 1]> g (float[3,3] x) => (float[3,3] y) '
        "{ y = com.microsoft.FusedMatMul(x, x) }"
    )
    result = merge([own, own], mode="mean")
    assert result.verified == 3


def test_pixels_vote_along_the_axis_that_is_named() -> None:
    def pixels(sign: int) -> onnx.ModelProto:
        return model(
            f"g (float[N,3,2,2] x) => (float[N,3,2,2] y) <float w = {{{sign}}}> {{ y = Mul(x, w) }}"
        )

    with pytest.raises(UsageError, match="which axis of 'y' holds the classes"):
        merge([pixels(1), pixels(2)], mode="vote")
    result = merge([pixels(1), pixels(-1)], mode="vote", weights=[3, 1], vote_axis=1)
    image = np.zeros((1, 3, 2, 2), np.float32)
    image[:, 1], image[:, 2] = 1, -1
    votes = run(result, x=image)[0]
    assert votes[0, :, 0, 0].tolist() == [0, 0.75, 0.25]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mode": "mean", "weights": [1]}, "give 2 weights above 0"),
        ({"mode": "mean", "weights": [1, float("nan")]}, "give 2 weights above 0"),
        ({"mode": "median"}, "no way 'median' to merge"),
        ({"mode": "parallel", "weights": [1, 2]}, "weights are of an ensemble"),
        ({"mode": "mean", "pairs": {"a": "b"}}, "in a chain of two"),
        ({"mode": "mean", "vote_axis": 1}, "for a vote"),
    ],
)
def test_what_makes_no_sense_is_told(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        merge([scores(1), scores(2)], **options)


def test_models_that_are_no_ensemble_are_told() -> None:
    with pytest.raises(UsageError, match="have 1 and 2 outputs"):
        merge([scores(1), model(HEAD)], mode="mean")
    counts = model("g (float[N,3] x) => (int64[N] y) { y = ArgMax<axis = 1, keepdims = 0>(x) }")
    with pytest.raises(UsageError, match="not of floats"):
        merge([counts, counts], mode="mean")


# All of it ---------------------------------------------------------------------------------


def test_the_models_that_are_given_are_not_changed() -> None:
    given = [load(model(HEAD)), load(model(TAIL))]
    before = [to_proto(each).SerializeToString(deterministic=True) for each in given]
    result = merge(given, pairs={"data": "y"})
    assert isinstance(result.model, ir.Model)
    assert before == [to_proto(each).SerializeToString(deterministic=True) for each in given]


def test_same_models_same_bytes() -> None:
    first, second = (merge([model(HEAD), model(TAIL)], mode="parallel").model for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_two_trained_models_are_averaged(zoo: Path, tmp_path: Path) -> None:
    by_name = {each.name: each.path for each in zoo_models(zoo)}
    files = [by_name["cifar_resnet20"], by_name["cifar_resnet56"]]
    result = merge(files, mode="mean", output=tmp_path / "both.onnx")
    assert result.verified == 3
    merged = Session(load(tmp_path / "both.onnx"))
    image = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    feed = {merged.input_names[0]: image}
    parts = [Session(load(file)) for file in files]
    expected = [next(iter(part.run({part.input_names[0]: image}).values())) for part in parts]
    found = next(iter(merged.run(feed).values()))
    assert np.allclose(found, (expected[0] + expected[1]) / 2, rtol=1e-4, atol=1e-4)
