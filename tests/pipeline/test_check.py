"""The check runs the original once, and never holds two sessions."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import onnx.numpy_helper
import onnx.parser
import pytest

import graphopt
from graphopt.graph import ir, load
from graphopt.pipeline import check
from graphopt.pipeline.check import Checker
from graphopt.report import CheckStatus
from graphopt.runtime import Session
from tests.pipeline import models


class Watch:
    """What sessions there are, and how often each was run.

    Attributes:
        most: the most that were alive at the same time.
        runs: one entry for each session that was made.
    """

    def __init__(self) -> None:
        self.most = 0
        self.runs: list[int] = []
        self._numbers: weakref.WeakKeyDictionary[Session, int] = weakref.WeakKeyDictionary()

    def made(self, session: Session) -> None:
        self._numbers[session] = len(self.runs)
        self.most = max(self.most, len(self._numbers))
        self.runs.append(0)

    def ran(self, session: Session) -> None:
        self.runs[self._numbers[session]] += 1


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    seen = Watch()
    make, run = Session.__init__, Session.run

    def made(self: Session, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        seen.made(self)

    def ran(self: Session, *arguments: Any, **options: Any) -> Any:
        seen.ran(self)
        return run(self, *arguments, **options)

    monkeypatch.setattr(Session, "__init__", made)
    monkeypatch.setattr(Session, "run", ran)
    return seen


def feeds(count: int) -> list[dict[str, np.ndarray]]:
    return [{"x": np.full((2, 4), value, np.float32)} for value in range(count)]


def test_the_original_runs_once_on_each_input_that_is_made_up(watch: Watch) -> None:
    checker = Checker(load(models.chain()))
    for _ in range(2):
        assert checker.compare(load(models.chain())).status is CheckStatus.VERIFIED
    assert watch.runs == [3, 3, 3]
    assert watch.most == 1


def test_the_original_runs_once_on_data_too(watch: Watch) -> None:
    checker = Checker(load(models.chain()), input_data=feeds(5))
    for _ in range(2):
        report = checker.compare(load(models.chain()))
        assert (report.status, report.inputs_tried) == (CheckStatus.VERIFIED, 5)
    assert watch.runs == [0, 5, 5, 5]
    assert watch.most == 1


@pytest.mark.parametrize("given", [None, 5])
def test_outputs_too_large_to_keep_are_compared_in_stretches(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, given: int | None
) -> None:
    output_bytes = 2 * 2 * 4 * 4
    monkeypatch.setattr(check, "_MOST_BYTES_KEPT", 2 * output_bytes)
    data = None if given is None else feeds(given)
    checker = Checker(load(models.chain()), input_data=data)
    for _ in range(2):
        report = checker.compare(load(models.chain()))
        assert (report.status, report.inputs_tried) == (CheckStatus.VERIFIED, given or 3)
    assert watch.most == 1
    monkeypatch.setattr(check, "_MOST_BYTES_KEPT", 0)
    result = graphopt.optimize(models.chain(), passes=[models.WrongRewrite()], input_data=data)
    assert len(result.report.passes[0].left_out) == 1


def test_a_feed_that_the_original_cannot_run_does_not_count(watch: Watch) -> None:
    data = [*feeds(2), {"x": np.zeros((1, 3), np.float32)}, *feeds(1)]
    source = models.chain()
    source.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "M"
    source.graph.node.add(op_type="MatMul", input=["y", "w"], output=["m"])
    source.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "w"))
    source.graph.output[0].name = "m"
    report = Checker(load(source), input_data=data).compare(load(source))
    assert (report.status, report.inputs_tried) == (CheckStatus.VERIFIED, 3)


def test_a_random_output_is_told_from_a_wrong_one(watch: Watch) -> None:
    """Two sessions draw the same numbers, so that only a second run shows what is random."""
    source = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        drawn (float[N, 4] x) => (float[N, 4] y, float[N, 4] r) {
            a = Identity (x)
            y = Relu (a)
            r = RandomNormalLike (a)
        }
        """
    )
    result = graphopt.optimize(source, passes=[models.RemoveIdentities()])
    assert result.report.check.status is CheckStatus.VERIFIED
    assert result.report.check.reason in ("", "not compared, because random: r")
    assert models.nodes(result.model) == ["Relu", "RandomNormalLike"]
    drawn = load(source)
    drawn.graph[2].attributes.add(ir.AttrFloat32("seed", 7.0))
    report = Checker(load(source)).compare(drawn)
    assert report.reason == "not compared, because random: r"
    assert report.status is CheckStatus.VERIFIED
