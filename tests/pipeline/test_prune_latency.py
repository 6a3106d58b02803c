"""Pruning to a latency, against machines that are simulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from graphopt.errors import EquivalenceError
from graphopt.graph import ir
from graphopt.pipeline.prune_budget import Budget
from graphopt.pipeline.prune_latency import LATENCY_TOLERANCE, meet_latency

CHANNELS = 64


def kept(share: float) -> dict[str, np.ndarray]:
    return {"group": np.arange(CHANNELS - round(share * (CHANNELS - 1)))}


def model_of(units: dict[str, np.ndarray]) -> ir.Model:
    graph = ir.Graph([], [], nodes=[], name=str(len(units["group"])))
    return ir.Model(graph, ir_version=10)


def found(
    target: float,
    guess: float,
    latency: Callable[[int], float],
    noise: float = 0.0,
) -> tuple[float, int]:
    """The true ratio of what is found, and how many measurements it took."""
    random = np.random.default_rng(0)
    lines: list[str] = []

    def measure(model: ir.Model) -> float:
        return latency(int(model.graph.name or 0)) * float(1 + noise * random.normal())

    units, model = meet_latency(target, guess, kept, model_of, measure, lines.append)
    assert model.graph.name == str(len(units["group"]))
    return latency(len(units["group"])), len(lines)


@pytest.mark.parametrize("guess", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("target", [0.9, 0.6, 0.4])
def test_lands_where_latency_has_a_part_that_stays(target: float, guess: float) -> None:
    ratio, measurements = found(target, guess, lambda units: 0.3 + 0.7 * units / CHANNELS)
    assert ratio == pytest.approx(target, rel=LATENCY_TOLERANCE)
    assert measurements <= 14


def test_one_lucky_measurement_is_not_believed() -> None:
    """With 3% of noise in each measurement the mean of several decides."""
    ratio, _ = found(0.6, 0.1, lambda units: 0.2 + 0.8 * units / CHANNELS, noise=0.03)
    assert ratio == pytest.approx(0.6, rel=LATENCY_TOLERANCE)


def test_finds_its_way_where_odd_numbers_are_slow() -> None:
    def latency(units: int) -> float:
        return units / CHANNELS * (1.0 if units % 4 == 0 else 1.6)

    ratio, _ = found(0.75, 0.25, latency)
    assert ratio == pytest.approx(0.75, rel=LATENCY_TOLERANCE)


def test_says_how_near_it_came() -> None:
    with pytest.raises(EquivalenceError, match=r"50% .* nearest was 70%"):
        found(0.5, 0.5, lambda units: max(0.7, units / CHANNELS))


def test_what_is_near_enough_but_not_near_is_measured_again() -> None:
    """One lucky measurement 2.5% off the target, of a model that is 10% off."""
    lucky = iter([0.615])

    def measure(model: ir.Model) -> float:
        return next(lucky, 0.66) if model.graph.name == str(CHANNELS // 2) else 0.9

    def choose(share: float) -> dict[str, np.ndarray]:
        return {"group": np.arange(CHANNELS // 2 if share > 0.3 else CHANNELS)}

    with pytest.raises(EquivalenceError, match="nearest was"):
        meet_latency(0.6, 0.5, choose, model_of, measure, lambda _: None)


def test_the_model_that_meets_a_latency_is_finished_once() -> None:
    budget = Budget.read(ratio=None, macs=None, parameters=None, latency="60%", max_drop=None)
    finished: list[str | None] = []

    class Machine:
        """Takes as long as there are channels."""

        macs_before = float(CHANNELS)

        def macs(self, counts: Mapping[str, int]) -> float:
            return counts["group"]

        def latency_share(self, model: ir.Model) -> float:
            return int(model.graph.name or 0) / CHANNELS

    def finish(model: ir.Model, units: dict[str, np.ndarray]) -> None:
        finished.append(model.graph.name)

    machine: Any = Machine()
    units, model = budget.meet(kept, model_of, finish, machine, machine, lambda _: None)
    assert finished == [model.graph.name] == [str(len(units["group"]))]
    assert len(units["group"]) / CHANNELS == pytest.approx(0.6, rel=LATENCY_TOLERANCE)
