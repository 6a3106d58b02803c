"""--max-memory: what would pass the limit is left out, or ends the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphopt
from graphopt.errors import MemoryLimitError, UsageError
from graphopt.pipeline import memory
from graphopt.pipeline.memory import Memory
from graphopt.report import CheckStatus
from tests.pipeline import models

MEGABYTE = 1 << 20
SIDE, LAYERS = 2048, 5
"""Weights of 80 MiB: a session that optimizes takes several times as much."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single file of some products with large weights."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for layer in range(LAYERS):
        array = random.standard_normal((SIDE, SIDE), np.float32) / SIDE**0.5
        weights.append(numpy_helper.from_array(array, f"w{layer}"))
        nodes += [
            helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"m{layer}"]),
            helper.make_node("Identity", [f"m{layer}"], [f"x{layer + 1}"]),
        ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "products",
        [value("x0", TensorProto.FLOAT, ["N", SIDE])],
        [value(f"x{LAYERS}", TensorProto.FLOAT, ["N", SIDE])],
        weights,
    )
    path = tmp_path_factory.mktemp("large") / "products.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


class Held:
    """Stands in for the system: says what is held, and at most so far."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now: int) -> None:
        self.now = self.most = now
        monkeypatch.setattr(memory, "held_now", lambda: self.now)
        monkeypatch.setattr(memory, "most_held", lambda: self.most)

    def grow(self, size: int) -> None:
        self.now = size
        self.most = max(self.most, size)


def test_a_limit_below_what_is_held_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Held(monkeypatch, 100 * MEGABYTE)
    with pytest.raises(UsageError, match="--max-memory 10MB is less than the 100MB"):
        graphopt.optimize(models.chain(), max_memory=10 * MEGABYTE)
    with pytest.raises(UsageError, match="--max-memory"):
        graphopt.optimize(models.chain(), max_memory=-1)


def test_what_was_held_before_the_run_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch, 900 * MEGABYTE)
    held.grow(100 * MEGABYTE)
    limited = Memory(500 * MEGABYTE)
    assert limited.excess() is None
    held.grow(600 * MEGABYTE)
    assert limited.excess() is None  # the system does not say that this was now
    held.grow(901 * MEGABYTE)
    assert limited.excess() == "held 901MB, more than --max-memory 500MB"


def test_a_system_that_says_nothing_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", Path("/nowhere"))
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory.most_held() is None
    with pytest.raises(UsageError, match="does not say"):
        graphopt.optimize(models.chain(), max_memory=1 << 30)
    assert graphopt.optimize(models.chain()).ok


@pytest.mark.parametrize(("system", "figure"), [("darwin", 3 << 20), ("freebsd", 3 << 10)])
def test_systems_count_in_their_own_units(
    monkeypatch: pytest.MonkeyPatch, system: str, figure: int
) -> None:
    usage = SimpleNamespace(ru_maxrss=figure)
    resource = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: usage)
    monkeypatch.setattr(memory, "_STATUS", Path("/nowhere"))
    monkeypatch.setitem(sys.modules, "resource", resource)
    monkeypatch.setattr(sys, "platform", system)
    assert memory.most_held() == memory.held_now() == 3 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_system_says_what_is_held() -> None:
    before = memory.held_now()
    held = np.ones(100 * MEGABYTE, np.uint8)
    now, most = memory.held_now(), memory.most_held()
    assert before is not None
    assert now is not None
    assert most is not None
    assert 90 * MEGABYTE < now - before < 120 * MEGABYTE
    assert most >= now
    del held


def test_a_pass_that_lets_the_run_grow_ends_it_with_nothing_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held = Held(monkeypatch, 100 * MEGABYTE)

    def tell(text: str) -> None:
        if text.startswith("remove-identities"):
            held.grow(612 * MEGABYTE)

    passes = [models.RemoveIdentities(), "fold-constants"]
    with pytest.raises(MemoryLimitError, match="after remove-identities the run held 612MB") as at:
        graphopt.optimize(
            models.chain(),
            passes=passes,
            check="off",
            output=tmp_path / "out.onnx",
            max_memory=500 * MEGABYTE,
            progress=tell,
        )
    assert "--max-memory 500MB; nothing was written: give more" in str(at.value)
    assert not list(tmp_path.iterdir())


def test_growth_in_the_last_pass_is_seen_too(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch, 100 * MEGABYTE)
    with pytest.raises(MemoryLimitError, match="the run held 612MB"):
        graphopt.optimize(
            models.chain(),
            passes=[models.RemoveIdentities()],
            check="off",
            max_memory=500 * MEGABYTE,
            progress=lambda _: held.grow(612 * MEGABYTE),
        )


def test_a_check_that_does_not_fit_ends_the_run_ahead_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Held(monkeypatch, 100 * MEGABYTE)
    target = tmp_path / "out.onnx"
    limit = 120 * MEGABYTE
    with pytest.raises(MemoryLimitError, match=r"takes about 1\d\dMB.*120MB") as at:
        graphopt.optimize(models.chain(), output=target, max_memory=limit)
    assert "give more, or leave the check out with --check off" in str(at.value)
    assert not target.exists()
    graphopt.optimize(models.chain(), output=target, check="off", max_memory=limit)
    assert target.exists()


def test_a_run_of_the_model_that_passes_the_limit_ends_the_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = Held(monkeypatch, 100 * MEGABYTE)
    monkeypatch.setattr(graphopt.runtime.Session, "run", _growing(held))
    with pytest.raises(MemoryLimitError, match=r"a run of the model .* 800MB.*--check off"):
        graphopt.optimize(models.chain(), max_memory=500 * MEGABYTE)


def _growing(held: Held) -> object:
    run = graphopt.runtime.Session.run

    def grown(*arguments: Any, **options: Any) -> object:
        held.grow(800 * MEGABYTE)
        return run(*arguments, **options)

    return grown


def test_a_latency_that_does_not_fit_is_left_out_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch, large: Path
) -> None:
    Held(monkeypatch, 100 * MEGABYTE)
    report = graphopt.optimize(large, measure=True, max_memory=400 * MEGABYTE).report
    assert report.check.status is CheckStatus.VERIFIED
    assert report.latency_before is None
    assert report.latency_after is None
    assert report.warnings == [
        "the latency was not measured: that takes about 480MB, more than --max-memory 400MB"
    ]


def test_large_models_are_timed_in_turns(monkeypatch: pytest.MonkeyPatch, large: Path) -> None:
    alive: list[int] = []

    def in_turns(makers: list[object], _: object) -> list[list[float]]:
        alive.append(len(makers))
        return [[1.5, 2.5], [1.0]]

    monkeypatch.setitem(graphopt.runtime.__dict__, "turns_apart", in_turns)
    report = graphopt.optimize(large, check="off", measure=True).report
    assert alive == [2]
    assert (report.latency_before, report.latency_after) == (2.0, 1.0)
    assert report.speedups == (1.5, 2.5)
    graphopt.optimize(models.chain(), check="off", measure=True)
    assert alive == [2]


SCRIPT = """
import sys
import graphopt
from graphopt.pipeline.memory import most_held
limit = int(sys.argv[3]) or None
result = graphopt.optimize(sys.argv[1], output=sys.argv[2], measure=True, max_memory=limit)
print(most_held(), result.report.check.status, len(result.report.warnings))
"""


def _peak(source: Path, target: Path, limit: int) -> tuple[int, str, int]:
    command = [sys.executable, "-c", SCRIPT, str(source), str(target), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    most, status, warnings = done.stdout.split()
    return int(most), status, int(warnings)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems hold other amounts")
def test_the_peak_of_a_run_stays_below_the_limit(large: Path, tmp_path: Path) -> None:
    limit = 260 * MEGABYTE
    free, _, silent = _peak(large, tmp_path / "free.onnx", 0)
    most, status, warnings = _peak(large, tmp_path / "limited.onnx", limit)
    assert most <= limit < free
    assert (status, silent, warnings) == ("verified", 0, 1)
    written = [path.read_bytes() for path in sorted(tmp_path.glob("*.onnx"))]
    assert written[0] == written[1]
