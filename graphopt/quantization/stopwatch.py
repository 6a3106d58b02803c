"""Takes the time of variants of one model: kernel by kernel, and against each other.

    ratio = median over rounds of (the variant's time / the reference's in the same round)

Variants take turns, so that a slow minute of the machine is one for all of them, and their turns
are short, so that both times of a ratio are of the same moment.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Protocol

from graphopt.graph import ir
from graphopt.quantization.group_times import Kernel, run_kernels

if TYPE_CHECKING:
    from graphopt.runtime import Feed


_LEAST_ROUNDS = 5
"""Rounds that are run however long they take."""

_LOST = 1.2
"""After those rounds, what takes so many times as long as the fastest does not go on."""


class Stopwatch(Protocol):
    """What measures. Tests give one that knows the answers."""

    def kernels(self, model: ir.Model) -> Sequence[Kernel]:
        """The kernels of a run with one thread."""

    def race(self, models: Mapping[str, ir.Model], threads: int, effort: int) -> Race:
        """Run the models in turns, the longer the higher the effort."""


@dataclass(frozen=True)
class Race:
    """Seconds of one run of each variant, by round.

    Attributes:
        threads: threads within one operator; 0: ONNX Runtime's choice.
        seconds: variant -> seconds, one figure per round that it took part in.
    """

    threads: int
    seconds: Mapping[str, Sequence[float]]

    def typical(self, name: str) -> float:
        """Seconds of a run of a variant."""
        return median(self.seconds[name])

    def ratio(self, name: str, reference: str) -> float:
        """How many times as long as the reference a variant takes; below 1 is faster.

        Where one of them left the race earlier, through the one that stayed longest: few rounds
        tell little, and those of the faster ones shall not be told apart by them.
        """
        if len(self.seconds[name]) == len(self.seconds[reference]):
            return self._paired(name, reference)
        last = max(self.seconds, key=lambda each: len(self.seconds[each]))
        return self._paired(name, last) * self._paired(last, reference)

    def _paired(self, name: str, reference: str) -> float:
        rounds = zip(self.seconds[name], self.seconds[reference], strict=False)
        return median(one / other for one, other in rounds)


class RunningStopwatch:
    """Runs the models in ONNX Runtime, as its users do.

    Args:
        original: the float model, whose nodes kernels are called by.
        feed: the inputs of every run.
        provider: "cpu", or another that this build of ONNX Runtime has.
        seconds: about how long to run one variant, times the effort of a race.
        lost: after a few rounds, what takes so many times as long as the fastest does not go on.
    """

    def __init__(
        self,
        original: ir.Model,
        feed: Feed,
        *,
        provider: str = "cpu",
        seconds: float = 0.08,
        lost: float = _LOST,
    ) -> None:
        self._original = original
        self._feed = feed
        self._provider = provider
        self._seconds = seconds
        self._lost = lost

    def kernels(self, model: ir.Model) -> Sequence[Kernel]:
        """The kernels of a run with one thread."""
        return run_kernels(model, self._original, self._feed, seconds=4 * self._seconds)

    def race(self, models: Mapping[str, ir.Model], threads: int, effort: int) -> Race:
        """Run the models in turns, forward and backward, until the time is up.

        Raises:
            RuntimeUnavailableError: ONNX Runtime cannot load or run one of them.
        """
        from graphopt.runtime import Session
        from graphopt.runtime.timing import turn

        sessions = {
            name: Session(model, provider=self._provider, optimized=True, threads=threads)
            for name, model in models.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in models}
        race = Race(threads, seconds)
        order = list(models)
        end = time.perf_counter() + effort * self._seconds * len(models)
        done = 0
        while done < _LEAST_ROUNDS or time.perf_counter() < end:
            for name in order:
                seconds[name].append(turn(sessions[name], self._feed))
            order.reverse()
            done += 1
            if done >= _LEAST_ROUNDS:
                best = min(order, key=race.typical)
                order = [name for name in order if race.ratio(name, best) < self._lost]
            if len(order) == 1:
                break
        return race
