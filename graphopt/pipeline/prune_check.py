"""Runs the original and pruned models: do they run, how fast, and how good are they."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from statistics import median, stdev
from typing import TYPE_CHECKING, Any

from graphopt.errors import EquivalenceError, RuntimeUnavailableError, UsageError
from graphopt.graph import ir, verify
from graphopt.pipeline.model_files import as_written
from graphopt.pipeline.task_metric import Drop, TaskMetric, read_metric

if TYPE_CHECKING:
    from graphopt.runtime import Feed

_PAIR_SECONDS = 0.4
_LEAST_PAIRS, _MOST_SECONDS = 5, 12.0
_PRECISE = 0.007
"""The standard error of the mean ratio at which no further pair of sessions is needed."""
_HOLD_OUT = 8
"""One of so many samples is measured on and not fitted to, or one of all where there are fewer."""


class Judge:
    """Measures candidates against the original.

    Args:
        original: the model before anything was done; it is not changed.
        calibration: what `read_feeds` takes, or None for inputs made up from `seed`.
        samples: how many feeds of it to read; None for all.
        metric: what `read_metric` takes.
        seed: of inputs that are made up.
        described: names of the inner values whose type the original's file tells.
        threads: that latencies are measured with; 0 leaves the choice to ONNX Runtime.

    Attributes:
        feeds: the calibration feeds to fit to, None where there is no data.
        held_out: those that the built-in metrics are measured on; of one feed alone that one.
        unseen: how many of these are not fitted to; None where the metric brings its own.
        unavailable: why the original cannot be run here; "" if it can.

    Raises:
        UsageError: the data cannot be read, or there is none where the metric needs some.
    """

    def __init__(
        self,
        original: ir.Model,
        *,
        calibration: Any = None,
        samples: int | None = None,
        metric: str | Callable[..., float] | None = None,
        seed: int = 0,
        described: frozenset[str] = frozenset(),
        threads: int = 0,
    ) -> None:
        self._original = original
        self._described = described
        self._threads = threads
        self._seed = seed
        self._probe: Feed | None = None
        self._reference: float | None = None
        self._metric: TaskMetric | None = None
        self.unavailable = ""
        self.feeds: list[Feed] | None = None
        if calibration is not None:
            from graphopt.runtime import read_feeds

            reader = read_feeds(calibration, model=original)
            self.feeds = list(itertools.islice(reader, samples))
            if not self.feeds:
                raise UsageError("the calibration data has no inputs; give at least one")
        own = callable(metric) or (metric is not None and ":" in metric)
        self.held_out: list[Feed] = []
        self.unseen: int | None = None
        if self.feeds is not None and not own:
            every = min(_HOLD_OUT, len(self.feeds))
            self.held_out = self.feeds[every - 1 :: every]
            self.unseen = len(self.held_out) if every > 1 else 0
            if every > 1:
                del self.feeds[every - 1 :: every]
        if self.feeds is not None or own:
            self._metric = read_metric(metric, original=original, data=self.held_out)
        elif metric is not None:
            raise UsageError(f"the metric '{metric}' needs data; give some with --calib")

    @property
    def has_metric(self) -> bool:
        """Whether the metric can be measured at all."""
        return self._metric is not None

    def sizes(self) -> dict[str, int]:
        """The sizes of the original's free dims on the input that everything is measured on."""
        feed = self._feed() or {}
        return {
            dim.value: int(size)
            for value in self._original.graph.inputs
            if value.name in feed and value.shape is not None
            for dim, size in zip(value.shape, feed[value.name].shape, strict=False)
            if isinstance(dim, ir.SymbolicDim) and dim.value
        }

    def check(self, candidate: ir.Model) -> str:
        """Run the candidate beside the original; what it was run on, or why it was not.

        Raises:
            EquivalenceError: it is invalid, does not run, or gives outputs of other shapes.
        """
        problems = verify(candidate)
        if problems:
            raise EquivalenceError(f"the pruned model is invalid: {problems[0]}")
        feed = self._feed()
        if feed is None:
            return ""
        from graphopt.runtime import Session

        expected = Session(self._original).run(feed)
        try:
            actual = Session(candidate).run(feed)
        except RuntimeUnavailableError as error:
            raise EquivalenceError(f"the pruned model does not run: {error}") from error
        for name, value in expected.items():
            if _form(value) != _form(actual.get(name)):
                raise EquivalenceError(f"the output '{name}' of the pruned model has another shape")
        return "given" if self.feeds is not None else "made up"

    def measured(self, candidate: ir.Model) -> tuple[str, float, float] | None:
        """The metric's name, its figure for the original and for the candidate."""
        if self._metric is None:
            return None
        if self._reference is None:
            self._reference = self._metric.measure(self._original)
        return self._metric.name, self._reference, self._metric.measure(candidate)

    def drop_allowed(self, candidate: ir.Model, drop: Drop) -> bool:
        """Whether the metric falls no further than that.

        Raises:
            UsageError: there is no data to measure it on.
        """
        self.check_drop()
        found = self.measured(candidate)
        return found is not None and drop.allows(found[1], found[2])

    def check_drop(self) -> None:
        """Refuse where a drop of the metric means nothing.

        Raises:
            UsageError: there is no data to measure it on, or the original has no figure in it.
        """
        if self._metric is None:
            raise UsageError("--max-drop needs data to measure on; give some with --calib")
        if not self._metric.bounded:
            raise UsageError(
                f"--max-drop needs a metric that the original has a figure in; "
                f"{self._metric.name} has none: give --metric module:function"
            )

    def latency(self, candidate: ir.Model) -> tuple[float, float]:
        """Seconds of one run of the original and of the candidate, interleaved.

        Of several pairs of sessions the medians: two sessions of one model differ by some
        hundredths for as long as they live.

        Raises:
            RuntimeUnavailableError: the original cannot be run here.
        """
        from graphopt.runtime import Session, speedup, turns_interleaved

        feed = self._feed()
        if feed is None:
            raise RuntimeUnavailableError(self.unavailable)
        models = [as_written(model, self._described) for model in (self._original, candidate)]
        befores: list[float] = []
        ratios: list[float] = []
        end = time.perf_counter() + _MOST_SECONDS
        while len(ratios) < _LEAST_PAIRS or (
            stdev(ratios) > _PRECISE * math.sqrt(len(ratios)) and time.perf_counter() < end
        ):
            sessions = [Session(model, optimized=True, threads=self._threads) for model in models]
            before, after = turns_interleaved(sessions, feed, seconds=_PAIR_SECONDS)
            befores.append(median(before))
            ratios.append(1.0 / speedup(before, after))
        return median(befores), median(befores) * median(ratios)

    def latency_share(self, candidate: ir.Model) -> float:
        """The candidate's latency over the original's."""
        before, after = self.latency(candidate)
        return after / before

    def original_latency(self) -> float:
        """Seconds of one run of the original."""
        return self.latency(self._original)[0]

    def _feed(self) -> Feed | None:
        """An input that the original runs on; None where there is none."""
        if self._probe is None and not self.unavailable:
            from graphopt.runtime import Session, runnable_feeds

            try:
                session = Session(self._original)
                feeds = self.feeds or runnable_feeds(
                    self._original, session, count=1, seed=self._seed
                )
                self._probe = next(iter(feeds), None)
            except RuntimeUnavailableError as error:
                self.unavailable = str(error)
            else:
                if self._probe is None:
                    self.unavailable = "no input could be made up that the original runs on"
        return self._probe


def _form(value: Any) -> tuple[str, tuple[int, ...]]:
    """What must not change about an output."""
    return str(getattr(value, "dtype", type(value))), tuple(getattr(value, "shape", ()))
