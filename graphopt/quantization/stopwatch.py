"""Takes the time of variants of one model: kernel by kernel, and against each other.

    ratio = first quartile of the variant's rounds / first quartile of the reference's

What else the machine does only ever adds time, so the quick rounds tell what the models take; and
as variants take turns, a slow minute of the machine is one for all of them. With one thread the
sessions of all variants stay alive, so that rounds can be short and many. With more, each has its
own in every round: threads of a session that is alive wait by spinning, and take the cores from
the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from graphopt.graph import ir
from graphopt.quantization.group_times import Kernel, run_kernels

if TYPE_CHECKING:
    from graphopt.runtime import Feed, Session


_SHORTER = 4  # rounds with one thread are so many times shorter, and as many times more
_ROUNDS_TO_LOSE, _LOST = 3, 1.2
"""After so many rounds, what takes so many times as long as the fastest does not go on."""


class Stopwatch(Protocol):
    """What measures. Tests give one that knows the answers."""

    def kernels(self, model: ir.Model) -> Sequence[Kernel]:
        """The kernels of a run with one thread."""

    def race(self, models: Mapping[str, ir.Model], threads: int, rounds: int) -> Race:
        """Run the models in turns, in so many rounds at most."""


@dataclass(frozen=True)
class Race:
    """Seconds of one run of each variant, by round.

    Attributes:
        threads: threads within one operator; 0: ONNX Runtime's choice.
        seconds: variant -> seconds, one figure per round that it took part in.
    """

    threads: int
    seconds: Mapping[str, tuple[float, ...]]

    def typical(self, name: str) -> float:
        """Seconds of a run of a variant: the first quartile of its rounds."""
        return quartile(self.seconds[name])

    def ratio(self, name: str, reference: str) -> float:
        """How many times as long as the reference a variant takes; below 1 is faster."""
        return self.typical(name) / self.typical(reference)


class RunningStopwatch:
    """Runs the models in ONNX Runtime, as its users do.

    Args:
        original: the float model, whose nodes kernels are called by.
        feed: the inputs of every run.
        provider: "cpu", or another that this build of ONNX Runtime has.
        seconds: about how long to run one variant in one round.
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

    def race(self, models: Mapping[str, ir.Model], threads: int, rounds: int) -> Race:
        """Run the models in turns, forward and backward, until those that are close have run all.

        Raises:
            RuntimeUnavailableError: ONNX Runtime cannot load or run one of them.
        """
        run: Callable[[str], float]
        if threads == 1:
            run, rounds = self._run_alive(models), rounds * _SHORTER
        else:
            run = partial(self._run_alone, models, threads)
        seconds: dict[str, list[float]] = {name: [] for name in models}
        order = list(models)
        for done in range(1, rounds + 1):
            for name in order:
                seconds[name].append(run(name))
            order.reverse()
            if done >= _ROUNDS_TO_LOSE:
                best = min(quartile(seconds[name]) for name in order)
                order = [name for name in order if quartile(seconds[name]) < self._lost * best]
            if len(order) == 1:
                break
        return Race(threads, {name: tuple(times) for name, times in seconds.items()})

    def _run_alive(self, models: Mapping[str, ir.Model]) -> Callable[[str], float]:
        """The shortest of some runs with one thread, in rounds that are shorter and more."""
        from graphopt.runtime import Session

        sessions = {
            name: Session(model, provider=self._provider, optimized=True, threads=1)
            for name, model in models.items()
        }
        once = {name: min(self._timed(one) for _ in range(3)) for name, one in sessions.items()}
        most = self._seconds / _SHORTER
        runs = {name: max(1, min(75, round(most / time))) for name, time in once.items()}
        return lambda name: min(self._timed(sessions[name]) for _ in range(runs[name]))

    def _run_alone(self, models: Mapping[str, ir.Model], threads: int, name: str) -> float:
        """The shortest run of a session of its own."""
        from graphopt.runtime.profiling import run_times

        return min(
            run_times(models[name], self._feed, threads, 2, self._provider, seconds=self._seconds)
        )

    def _timed(self, session: Session) -> float:
        start = time.perf_counter()
        session.run(self._feed)
        return time.perf_counter() - start


def quartile(times: Iterable[float]) -> float:
    """The first quartile of some times."""
    ordered = sorted(times)
    return ordered[len(ordered) // 4]
