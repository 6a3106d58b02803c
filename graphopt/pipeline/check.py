"""Runs the original and a candidate in ONNX Runtime on the same inputs, and compares.

Both run with ONNX Runtime's own optimizations off, since some of them are wrong. A feed that
the original cannot run proves nothing, so it is not counted. An output on which the original
differs from itself (a random op without a seed) cannot be compared, and the report says so.

A session may hold each weight of its model, so the two models have theirs one after the other:
what the original gives is known before the candidate is loaded.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.errors import MemoryLimitError, RuntimeUnavailableError, UsageError
from graphopt.graph import ir
from graphopt.pipeline.memory import Memory, check_bytes
from graphopt.report import CheckReport, CheckStatus, OutputCheck

if TYPE_CHECKING:
    from graphopt.runtime import Feed, Session

SEEDED_COUNT = 3
"""Seeded inputs tried by default: dynamic dims get 1, 2 and 3 in turn."""

_REMEDY = "give more, or leave the check out with --check off"

_MOST_BYTES_KEPT = 64 << 20
"""Of outputs, until they are compared; those of the first feeds for all comparisons to come."""

Outcome = dict[str, Any] | str
"""The outputs of a run, or why it failed."""


class Checker:
    """Compares candidates with one original.

    Args:
        original: the model; feeds are made for its inputs.
        reference: makes the session that is run for it, where that is not the model's own: what
            has the same inputs and outputs.
        memory: ends the check where it would take too much.

    Attributes:
        unavailable: why the original cannot be run here; None if it can.

    Raises:
        UsageError: a tolerance is negative or not finite, or the data cannot be read.
        MemoryLimitError: to run the original takes more memory than there may be.
    """

    def __init__(
        self,
        original: ir.Model,
        *,
        input_data: Any = None,
        count: int | None = None,
        seed: int = 0,
        rtol: float = 1e-4,
        atol: float = 1e-6,
        reference: Callable[[], Session] | None = None,
        memory: Memory | None = None,
    ) -> None:
        for name, tolerance in (("rtol", rtol), ("atol", atol)):
            if not math.isfinite(tolerance) or tolerance < 0:
                raise UsageError(f"{name} is {tolerance}; it must be finite and not negative")
        self.rtol = rtol
        self.atol = atol
        self.unavailable: str | None = None
        self._feeds: Iterable[Feed] = ()
        self._count: int | None = None
        self._random: set[str] = set()
        self._looked_at: set[int] = set()
        self._names = frozenset(value.name for value in original.graph.inputs)
        # By the names of the inputs that are fed: the outcomes of the first feeds, and whether
        # these are all.
        self._kept: dict[frozenset[str | None], tuple[list[Outcome], bool]] = {}
        self._memory = memory or Memory(None)
        self._make = partial(_session_of, original) if reference is None else reference
        self._prepare(original, input_data, count, seed)

    def _prepare(self, original: ir.Model, input_data: Any, count: int | None, seed: int) -> None:
        from graphopt.runtime import runnable_feeds

        if self._memory.is_limited:
            lack = self._memory.lack(check_bytes(original))
            if lack is not None:
                raise MemoryLimitError(f"to run the model {lack}; nothing was written: {_REMEDY}")
        try:
            session = self._make()
        except RuntimeUnavailableError as error:
            self.unavailable = str(error)
            return
        if input_data is not None:
            from graphopt.runtime import read_feeds

            reader = read_feeds(input_data, model=original)
            # Every comparison reads the feeds again: what can be read only once is kept.
            self._feeds = reader if reader.repeatable else list(itertools.islice(reader, count))
            self._count = count
            return
        outcomes: list[Outcome] = []
        room = _MOST_BYTES_KEPT

        def keep(_: Feed, outputs: dict[str, Any]) -> None:
            nonlocal room
            self._memory.look("a run of the model", _REMEDY)
            if room >= 0:
                room -= _size(outputs)
                outcomes.append(_own(outputs))

        self._feeds = runnable_feeds(
            original, session, count=count or SEEDED_COUNT, seed=seed, seen=keep
        )
        self._kept[self._names] = outcomes, len(outcomes) == len(self._feeds)
        if not self._feeds:
            self.unavailable = (
                "the original runs on none of the inputs that were made up for it; "
                "give real ones with --input-data"
            )

    def feeds(self) -> Iterator[Feed]:
        """The inputs that candidates are compared on."""
        return itertools.islice(self._feeds, self._count)

    def failing_feed(self, before: ir.Model, after: ir.Model) -> Feed | None:
        """The first input on which two candidates differ; None if no single one shows it."""
        taken = self._taken(after)
        stretches = (stretch for stretch, _ in self._run(partial(_session_of, before), taken))
        try:
            for feed, expected, actual in self._beside(stretches, after, taken):
                if isinstance(expected, str):
                    continue
                if isinstance(actual, str):
                    return feed
                differences = self._differences(expected, actual)
                if any(not check.ok and check.name not in self._random for check in differences):
                    return feed
        except RuntimeUnavailableError:
            return next(self.feeds(), None)
        return None

    def compare(self, candidate: ir.Model, *, stop_early: bool = False) -> CheckReport:
        """Compare a candidate with the original on every feed.

        Args:
            candidate: a model with the original's interface.
            stop_early: end at the first feed on which an output is wrong.
        """
        report = CheckReport(rtol=self.rtol, atol=self.atol)
        started = time.perf_counter()
        if self.unavailable is not None:
            report.status = CheckStatus.NOT_VERIFIED
            report.reason = self.unavailable
            return report
        worst: dict[str, OutputCheck] = {}
        taken = self._taken(candidate)
        runs = self._beside(self._expected(taken), candidate, taken)
        try:
            for position, (feed, expected, actual) in enumerate(runs):
                if isinstance(expected, str):
                    report.reason = f"the original fails on an input: {expected}"
                    continue
                report.inputs_tried += 1
                shapes = {name: _shape_text(value) for name, value in feed.items()}
                report.input_shapes.append(shapes)
                if isinstance(actual, str):
                    report.reason = f"the result fails where the original runs: {actual}"
                    report.status = CheckStatus.FAILED
                    break
                self._merge(worst, expected, actual, feed, position)
                if stop_early and not all(check.ok for check in worst.values()):
                    break
        except RuntimeUnavailableError as error:
            report.status = CheckStatus.FAILED
            report.reason = f"ONNX Runtime refuses the result: {error}"
            return report
        report.outputs = [check for check in worst.values() if check.name not in self._random]
        report.seconds = time.perf_counter() - started
        self._conclude(report)
        return report

    def _taken(self, candidate: ir.Model) -> frozenset[str | None]:
        """The inputs to feed: a default that callers can no longer override keeps its value."""
        return self._names & {value.name for value in candidate.graph.inputs}

    def _fed(self, taken: frozenset[str | None]) -> Iterator[Feed]:
        for feed in self.feeds():
            yield {name: value for name, value in feed.items() if name in taken}

    def _expected(self, taken: frozenset[str | None]) -> Iterator[list[Outcome]]:
        """What the original gives on the feeds, in stretches; the first is kept."""
        kept, whole = self._kept.get(taken, ([], False))
        if kept:
            yield kept
        if whole:
            return
        for stretch, is_last in self._run(self._make, taken, len(kept)):
            if taken not in self._kept:
                self._kept[taken] = stretch, is_last
            yield stretch

    def _run(
        self, make: Callable[[], Session], taken: frozenset[str | None], start: int = 0
    ) -> Iterator[tuple[list[Outcome], bool]]:
        """What a model gives on the feeds from a position on, and whether these are the last.

        In stretches of what fits in memory; between them the model has no session.
        """
        feeds = itertools.islice(self._fed(taken), start, None)
        feed = next(feeds, None)
        while feed is not None:
            session, stretch, room = make(), list[Outcome](), _MOST_BYTES_KEPT
            while feed is not None and room >= 0:
                stretch.append(_own(_outcome(session, feed)))
                self._memory.look("a run of the model", _REMEDY)
                room -= _size(stretch[-1])
                feed = next(feeds, None)
            del session
            yield stretch, feed is None

    def _beside(
        self,
        expected: Iterable[list[Outcome]],
        candidate: ir.Model,
        taken: frozenset[str | None],
    ) -> Iterator[tuple[Feed, Outcome, Outcome]]:
        """Each feed, what is expected on it, and what the candidate gives.

        Raises:
            RuntimeUnavailableError: ONNX Runtime cannot load the candidate.
        """
        feeds = self._fed(taken)
        for stretch in expected:
            session = _session_of(candidate)
            for outcome, feed in zip(stretch, feeds, strict=False):
                failed = isinstance(outcome, str)
                yield feed, outcome, outcome if failed else _outcome(session, feed)
                self._memory.look("a run of the result", _REMEDY)
            del session

    def _merge(
        self,
        worst: dict[str, OutputCheck],
        expected: dict[str, Any],
        actual: dict[str, Any],
        feed: Feed,
        position: int,
    ) -> None:
        differences = self._differences(expected, actual)
        if not all(check.ok for check in differences) and position not in self._looked_at:
            # Is the output random? Only then does the original differ from itself, from one run
            # to the next: the first runs of two sessions draw the same numbers.
            self._looked_at.add(position)
            session = self._make()
            again = self._differences(session.run(feed), session.run(feed))
            self._random.update(check.name for check in again if not check.ok)
        for check in differences:
            if check.name in self._random:
                continue
            known = worst.get(check.name)
            if known is None or _badness(check) > _badness(known):
                worst[check.name] = check

    def _differences(self, expected: dict[str, Any], actual: dict[str, Any]) -> list[OutputCheck]:
        from graphopt.runtime import compare_outputs

        return [
            OutputCheck(
                difference.name,
                difference.max_abs_error,
                difference.relative_error,
                difference.ok,
                difference.reason,
            )
            for difference in compare_outputs(expected, actual, rtol=self.rtol, atol=self.atol)
        ]

    def _conclude(self, report: CheckReport) -> None:
        if report.status is CheckStatus.FAILED:
            return
        wrong = [check for check in report.outputs if not check.ok]
        if wrong:
            report.status = CheckStatus.FAILED
            report.reason = wrong[0].reason
        elif not report.inputs_tried:
            report.status = CheckStatus.NOT_VERIFIED
            report.reason = report.reason or "there was no input to run on"
        elif not report.outputs:
            report.status = CheckStatus.NOT_VERIFIED
            report.reason = "every output is random, so no two runs agree"
        else:
            report.status = CheckStatus.VERIFIED
            report.reason = (
                f"not compared, because random: {', '.join(sorted(self._random))}"
                if self._random
                else ""
            )


def _session_of(model: ir.Model) -> Session:
    from graphopt.runtime import Session

    return Session(model)


def _outcome(session: Session, feed: Feed) -> Outcome:
    """The text of an error and not the error, which would keep the session alive."""
    try:
        return session.run(feed)
    except RuntimeUnavailableError as error:
        return str(error)


def _own(outcome: Outcome) -> Outcome:
    """The outcome in memory of its own; in the session's it would keep all of that alive."""
    if isinstance(outcome, str):
        return outcome
    return {name: _copied(value) for name, value in outcome.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(item) for item in value]
    borrowed = isinstance(value, np.ndarray) and not value.flags.owndata
    return value.copy() if borrowed else value


def _size(outcome: Outcome) -> int:
    """The bytes of the arrays in it."""
    return 0 if isinstance(outcome, str) else sum(map(_bytes_of, outcome.values()))


def _bytes_of(value: Any) -> int:
    if isinstance(value, list | tuple):
        return sum(map(_bytes_of, value))
    return value.nbytes if isinstance(value, np.ndarray) else 0


def _badness(check: OutputCheck) -> tuple[bool, float]:
    error = check.relative_error
    return (not check.ok, math.inf if math.isnan(error) else error)


def _shape_text(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is None:
        return "none" if value is None else f"sequence of {len(value)}"
    return "x".join(map(str, shape)) or "scalar"
