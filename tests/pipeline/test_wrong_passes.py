"""Passes that are wrong on purpose are caught, undone and named; the rest of the run goes on."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.helper
import onnx.parser
import onnxruntime
import pytest

import graphopt
from graphopt.errors import EquivalenceError, PassError, RuntimeUnavailableError
from graphopt.graph import clone, ir, load, to_bytes
from graphopt.plugin import Journal, Pass
from graphopt.report import CheckStatus, PassReport, PassStatus
from tests.pipeline import models


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    for batch in (1, 2, 3, 7):
        feed = {"x": np.random.default_rng(batch).normal(size=(batch, 4)).astype(np.float32)}
        for expected, actual in zip(run(before, feed), run(after, feed), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-5)


def report_of(result: graphopt.Result, name: str) -> PassReport:
    return next(report for report in result.report.passes if report.name == name)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (models.Raises(), "raised RuntimeError: on purpose, in two lines"),
        (models.LeavesInvalid(), "left an invalid model"),
        (models.RenamesOutput(), "output 'y' became 'renamed'"),
        (models.DropsDynamicDim(), "input 'x' was"),
    ],
    ids=lambda value: value.name if isinstance(value, Pass) else None,
)
def test_a_broken_pass_is_undone_and_the_rest_goes_on(wrong: Pass, problem: str) -> None:
    before = models.chain()
    result = graphopt.optimize(before, passes=[wrong, models.RemoveIdentities()])
    assert not result.ok
    report = report_of(result, wrong.name)
    assert report.status is PassStatus.UNDONE
    assert problem in (report.problem or "")
    assert report_of(result, "remove-identities").status is PassStatus.CHANGED
    assert "Identity" not in models.nodes(result.model)
    assert result.report.check.status is CheckStatus.VERIFIED
    assert_same(before, result.model)


@pytest.mark.parametrize("wrong", [models.Raises(), models.RenamesOutput()])
def test_strict_stops_at_a_broken_pass(wrong: Pass) -> None:
    with pytest.raises(PassError, match=wrong.name):
        graphopt.optimize(models.chain(), passes=[wrong], strict=True)


@pytest.mark.parametrize("check", ["final", "per-pass"])
def test_the_guilty_rewrite_is_left_out_and_named(check: str) -> None:
    before = models.chain()
    result = graphopt.optimize(before, passes=[models.WrongRewrite()], check=check)
    assert not result.ok
    assert_same(before, result.model)
    report = report_of(result, "wrong-rewrite")
    assert report.status is PassStatus.REPAIRED
    assert report.problem == "left out a rewrite that moved the outputs"
    assert len(report.left_out) == 1
    assert report.left_out[0].startswith("Neg")
    assert models.nodes(result.model) == ["Relu", "Neg", "Abs", "Tanh"]


def test_a_pass_is_undone_whole_where_each_of_its_rewrites_errs_a_little() -> None:
    """As folding does in a model that amplifies every rounding: to search on finds no end."""
    result = graphopt.optimize(models.tilted(12), passes=[models.Tilts(1.002)])
    report = report_of(result, "tilts{factor=1.002}")
    assert report.status is PassStatus.UNDONE
    assert "whichever of its rewrites are left out" in (report.problem or "")
    assert result.report.check.status is CheckStatus.VERIFIED
    assert models.nodes(result.model).count("Softsign") == 12


def test_rewrites_that_are_wrong_each_by_itself_are_left_out_one_by_one() -> None:
    result = graphopt.optimize(models.tilted(4), passes=[models.Tilts(3.0)])
    report = report_of(result, "tilts{factor=3.0}")
    assert report.status is PassStatus.REPAIRED
    assert report.problem == "left out 4 rewrites that moved the outputs"
    assert result.report.check.status is CheckStatus.VERIFIED


def test_per_pass_blames_a_pass_before_another_builds_on_it() -> None:
    # The second pass takes back what the first one broke, so that the end shows nothing.
    passes = [models.WrongRewrite(), models.NegateOutputs()]
    before = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        odd (float[N, 4] x) => (float[N, 4] y) {
            a = Neg (x)
            y = Tanh (a)
        }
        """
    )
    assert graphopt.optimize(before, passes=passes).ok
    result = graphopt.optimize(before, passes=passes, check="per-pass")
    assert report_of(result, "wrong-rewrite").status is PassStatus.REPAIRED
    assert models.nodes(result.model)[:2] == ["Neg", "Tanh"]


def test_wrong_only_at_batch_three_is_caught() -> None:
    before = models.chain()
    result = graphopt.optimize(before, passes=[models.WrongAtBatchThree()])
    assert report_of(result, "wrong-at-batch-three").status is not PassStatus.CHANGED
    assert_same(before, result.model)


def test_wrong_on_one_input_only_is_caught_where_the_user_gives_that_input() -> None:
    before = models.chain()
    feeds = [{"x": np.full((1, 4), value, np.float32)} for value in (1, 2, 7, 3)]
    result = graphopt.optimize(before, passes=[models.WrongOnOneValue()], input_data=feeds)
    report = report_of(result, "wrong-on-one-value")
    assert report.status in (PassStatus.REPAIRED, PassStatus.UNDONE)
    assert result.report.check.inputs_tried == 4
    assert "Where" not in models.nodes(result.model)


@pytest.mark.parametrize("check", ["final", "per-pass"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_pass_that_keeps_a_wrong_change_to_itself_is_named(check: str, alone: bool) -> None:
    before = models.chain()
    honest = [] if alone else [models.RemoveIdentities()]
    result = graphopt.optimize(before, passes=[models.SilentlyDrops(), *honest], check=check)
    assert [report.status for report in result.report.passes] == [
        PassStatus.UNDONE,
        *(PassStatus.CHANGED for _ in honest),
    ]
    assert "moved the outputs" in (report_of(result, "silently-drops").problem or "")
    assert_same(before, result.model)


def test_a_right_change_that_nobody_told_of_is_still_the_pass_that_made_it() -> None:
    passes = [models.SilentlyDrops("Identity"), models.RemoveIdentities()]
    alone = graphopt.optimize(models.chain(), passes=passes[:1], check="off")
    assert report_of(alone, "silently-drops{op_type=Identity}").status is PassStatus.CHANGED
    culprit = graphopt.bisect(models.chain(), passes=[models.SilentlyDrops(), *passes[1:]])
    assert culprit is not None
    assert culprit.spec == "silently-drops"
    assert [node.op_type for node in culprit.before.graph].count("Neg") == 1


def test_a_silent_change_is_not_put_down_to_the_pass_after_it() -> None:
    passes = [models.SilentlyDrops("Identity"), models.WrongRewrite()]
    result = graphopt.optimize(models.chain(), passes=passes, check="off")
    assert report_of(result, "silently-drops{op_type=Identity}").status is PassStatus.CHANGED


def test_what_one_pass_breaks_and_another_covers_up_is_undone() -> None:
    passes = [models.BreaksRelu(), models.CoversUp()]
    result = graphopt.optimize(models.chain(), passes=passes)
    assert result.report.check.status is CheckStatus.VERIFIED
    assert models.nodes(result.model).count("Relu") == 1
    assert report_of(result, "breaks-relu").status is PassStatus.UNDONE
    assert graphopt.bisect(models.chain(), passes=passes) is None


def test_an_attribute_made_anew_is_a_change() -> None:
    leaky = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) '
        "{ a = LeakyRelu <alpha = 0.5> (x) y = Sigmoid (a) }"
    )
    for _ in range(5):
        result = graphopt.optimize(leaky, passes=[models.ReplacesSlope()], check="off")
        assert report_of(result, "replaces-slope").status is PassStatus.CHANGED


def test_a_run_in_which_nothing_goes_wrong_copies_the_model_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copies: list[ir.Model] = []

    def counted(model: ir.Model) -> ir.Model:
        copies.append(clone(model))
        return copies[-1]

    monkeypatch.setattr("graphopt.pipeline.execute.clone", counted)
    passes = [models.RemoveIdentities(), models.NegateOutputs()]
    assert graphopt.optimize(models.chain(), passes=passes, check="off").ok
    assert len(copies) == 1


def test_strict_stops_at_a_pass_that_moves_the_outputs() -> None:
    with pytest.raises(PassError, match="wrong-rewrite"):
        graphopt.optimize(models.chain(), passes=[models.WrongRewrite()], strict=True)


def test_bisect_names_the_rewrite_and_gives_both_sides() -> None:
    culprit = graphopt.bisect(
        models.chain(), passes=[models.RemoveIdentities(), models.WrongRewrite()]
    )
    assert culprit is not None
    assert culprit.spec == "wrong-rewrite"
    assert culprit.site is not None
    assert culprit.site.startswith("Neg")
    before = [node.op_type for node in culprit.before.graph]
    after = [node.op_type for node in culprit.after.graph]
    assert before == ["Relu", "Neg", "Abs", "Tanh"]
    assert after == ["Relu", "Abs", "Tanh"]

    assert culprit.feed is not None
    assert culprit.feed.keys() == {"x"}


def test_bisect_finds_nothing_in_an_honest_run() -> None:
    assert graphopt.bisect(models.chain(), passes=[models.RemoveIdentities()]) is None


def test_bisect_claims_nothing_where_nothing_could_be_compared() -> None:
    noise = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        noise (float[2] x) => (float[2] y) {
            i = Identity (x)
            y = RandomNormalLike (i)
        }
        """
    )
    with pytest.raises(RuntimeUnavailableError, match="every output is random"):
        graphopt.bisect(noise, passes=[models.RemoveIdentities()])


def test_inputs_that_can_be_read_once_serve_the_check_the_repair_and_the_timing() -> None:
    feeds = ({"x": np.full((1, 4), value, np.float32)} for value in (1, 2, 3))
    result = graphopt.optimize(
        models.chain(), passes=[models.WrongRewrite()], input_data=feeds, measure=True
    )
    assert report_of(result, "wrong-rewrite").status is PassStatus.REPAIRED
    assert result.report.check.inputs_tried == 3
    assert result.report.latency_after is not None


def test_a_random_output_is_no_reason_to_blame_a_pass() -> None:
    before = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        noisy (float[2] x) => (float[2] y, float[2] z) {
            i = Identity (x)
            noise = RandomNormalLike (i)
            y = Add (x, noise)
            z = Neg (i)
        }
        """
    )
    result = graphopt.optimize(before, passes=[models.RemoveIdentities()])
    assert result.ok
    assert [check.name for check in result.report.check.outputs] == ["z"]
    assert "y" in result.report.check.reason


def test_a_model_that_cannot_run_here_is_not_called_verified() -> None:
    before = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17, "my.ops" : 1]>
        custom (float[2] x) => (float[2] y) {
            a = Identity (x)
            y = my.ops.Frobnicate (a)
        }
        """
    )
    result = graphopt.optimize(before, passes=[models.RemoveIdentities()])
    assert result.ok
    assert result.report.check.status is CheckStatus.NOT_VERIFIED
    assert "Frobnicate" in result.report.check.reason
    assert models.nodes(result.model) == ["Frobnicate"]


def test_nothing_is_written_where_the_result_cannot_be_repaired(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphopt.pipeline.run.REPAIRS", 1)
    target = tmp_path / "out.onnx"
    with pytest.raises(EquivalenceError, match="nothing was written"):
        graphopt.optimize(models.chain(), passes=[models.WrongRewrite()], output=target)
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True)
class HalfWay(Pass):
    """Writes into the types, as a half-precision pass would, and fails."""

    name = "half-way"

    def run(self, model: ir.Model, journal: Journal) -> None:
        for node in model.graph:
            for value in (*model.graph.inputs, *node.outputs):
                value.dtype = ir.DataType.FLOAT16
        raise RuntimeError("half way")


@dataclass(frozen=True)
class Exits(Pass):
    """Ends the process, it believes."""

    name = "exits"

    def run(self, model: ir.Model, journal: Journal) -> None:
        sys.exit(0)


@pytest.mark.parametrize("wrong", [HalfWay(), Exits()], ids=["writes into types", "exits"])
def test_what_a_pass_does_to_types_or_to_the_process_is_undone(wrong: Pass) -> None:
    given = load(models.chain())
    before = to_bytes(given)
    result = graphopt.optimize(given, passes=[wrong], check="off")
    assert report_of(result, wrong.name).status is PassStatus.UNDONE
    assert to_bytes(result.model) == to_bytes(graphopt.optimize(given, passes=[]).model)
    assert to_bytes(given) == before


@dataclass(frozen=True)
class RaisesOnLoops(models.Raises):
    """Says that it does nothing to a model without loops."""

    name = "raises-on-loops"
    acts_on = ("Loop", "Scan")


@dataclass(frozen=True)
class RaisesOnRelus(models.Raises):
    """Says that it acts on what the model has."""

    name = "raises-on-relus"
    acts_on = ("Loop", "Relu")


def test_a_pass_runs_where_the_model_has_an_operator_that_it_acts_on():
    passes = [RaisesOnLoops(), RaisesOnRelus()]
    result = graphopt.optimize(models.chain(), passes=passes, check="off")
    assert report_of(result, "raises-on-loops").status is PassStatus.UNCHANGED
    assert report_of(result, "raises-on-relus").status is PassStatus.UNDONE
