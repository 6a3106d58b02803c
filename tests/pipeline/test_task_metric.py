"""Metrics of lossy results: agreement and SQNR with the original, the user's own, allowed drops."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphopt.errors import UsageError
from graphopt.graph import ir, load
from graphopt.pipeline.task_metric import Drop, decibels, read_metric


def _linear(weight: list[list[float]]) -> ir.Model:
    rows = np.array(weight, np.float32)
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, {rows.shape[0]}] x) => (float[N, {rows.shape[1]}] y) {{ y = MatMul(x, w) }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(rows, "w"))
    return load(model)


IDENTITY = [[1.0, 0.0], [0.0, 1.0]]
FEEDS = [{"x": np.array([[3, 1], [1, 3], [2, 1]], np.float32)}, {"x": np.eye(2, dtype=np.float32)}]


def test_agreement_counts_rows_whose_class_is_the_same() -> None:
    metric = read_metric(None, original=_linear(IDENTITY), data=FEEDS)
    assert (metric.name, metric.bounded) == ("agreement", True)
    assert metric.measure(_linear(IDENTITY)) == 1.0
    # Class 1 is doubled: of (3,1) (1,3) (2,1) (1,0) (0,1) only (2,1) changes sides (2, 2.4).
    assert metric.measure(_linear([[1.0, 0.0], [0.0, 2.4]])) == pytest.approx(4 / 5)


def test_sqnr_is_of_the_worst_output_and_unbounded_for_the_original() -> None:
    metric = read_metric("sqnr", original=_linear(IDENTITY), data=FEEDS)
    assert not metric.bounded
    assert metric.measure(_linear(IDENTITY)) == math.inf
    # Every value is 10% too large: 10 log10(1 / 0.01).
    assert metric.measure(_linear([[1.1, 0.0], [0.0, 1.1]])) == pytest.approx(20.0, abs=1e-4)


def test_noise_that_is_not_finite_is_the_worst_there_is() -> None:
    assert decibels(1.0, math.nan) == decibels(1.0, math.inf) == -math.inf
    assert decibels(0.0, 1.0) == -math.inf
    metric = read_metric("sqnr", original=_linear(IDENTITY), data=FEEDS)
    assert metric.measure(_linear([[math.nan, 0.0], [0.0, 1.0]])) == -math.inf


def test_a_single_score_is_no_class() -> None:
    regression = _linear([[1.0], [1.0]])
    assert read_metric(None, original=regression, data=FEEDS).name == "SQNR (dB)"
    with pytest.raises(UsageError, match=r"agreement needs an output \[batch, classes\]"):
        read_metric("agreement", original=regression, data=FEEDS)


def test_the_users_function_gets_run_and_gives_a_number() -> None:
    def top_1(run: object) -> float:
        return float(run({"x": FEEDS[0]["x"]})["y"][0, 0])  # type: ignore[operator]

    metric = read_metric(top_1, original=_linear(IDENTITY), data=())
    assert metric.name == "top_1"
    assert metric.measure(_linear([[2.0, 0.0], [0.0, 1.0]])) == 6.0


def test_the_users_function_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_task.py").write_text("def score(run): return 0.25\ndef bad(run): return 1/0\n")
    monkeypatch.chdir(tmp_path)
    model = _linear(IDENTITY)
    assert read_metric("my_task:score", original=model, data=()).measure(model) == 0.25
    with pytest.raises(UsageError, match=r"the metric my_task\.py:bad failed: .*division"):
        read_metric("my_task.py:bad", original=model, data=()).measure(model)
    with pytest.raises(UsageError, match="my_task has no nothing"):
        read_metric("my_task:nothing", original=model, data=())
    with pytest.raises(UsageError, match="there is no metric 'accuracy'"):
        read_metric("accuracy", original=model, data=())


def test_no_data_is_no_figure() -> None:
    model = _linear(IDENTITY)
    metric = read_metric(None, original=model, data=[])
    with pytest.raises(UsageError, match="no inputs to measure the agreement on"):
        metric.measure(model)


@pytest.mark.parametrize(
    ("text", "reference", "value", "allowed"),
    [
        ("1%", 0.9, 0.8911, True),
        ("1%", 0.9, 0.8909, False),
        ("0.01", 0.9, 0.8901, True),
        ("0.01", 0.9, 0.8899, False),
        ("1%", -20.0, -20.2, True),
        ("1%", -20.0, -20.21, False),
        ("0", 0.3, 0.1 + 0.2, True),
        ("0%", 1.0, math.nan, False),
    ],
)
def test_drops(text: str, reference: float, value: float, allowed: bool) -> None:
    assert Drop.parse(text).allows(reference, value) is allowed


@pytest.mark.parametrize("text", ["", "%", "-1%", "nan", "1 point", "inf"])
def test_drops_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"write 1% or 0\.5"):
        Drop.parse(text)
