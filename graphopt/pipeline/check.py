"""Runs the original and a candidate in ONNX Runtime on the same inputs, and compares.

Both run with ONNX Runtime's own optimizations off, since some of them are wrong. A feed that
the original cannot run proves nothing, so it is not counted. An output on which the original
differs from itself (a random op without a seed) cannot be compared, and the report says so.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from graphopt.errors import RuntimeUnavailableError, UsageError
from graphopt.graph import ir
from graphopt.report import CheckReport, CheckStatus, OutputCheck

if TYPE_CHECKING:
    from graphopt.runtime import Feed, Session

SEEDED_COUNT = 3
"""Seeded inputs tried by default: dynamic dims get 1, 2 and 3 in turn."""


class Checker:
    """Compares candidates with one original.

    Args:
        original: the model; feeds are made for its inputs.
        reference: makes the session that is run for it, where that is not the model's own: what
            has the same inputs and outputs.

    Attributes:
        unavailable: why the original cannot be run here; None if it can.

    Raises:
        UsageError: a tolerance is negative or not finite, or the data cannot be read.
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
        self._session: Session | None = None
        self._prepare(original, input_data, count, seed, reference)

    def _prepare(
        self,
        original: ir.Model,
        input_data: Any,
        count: int | None,
        seed: int,
        reference: Callable[[], Session] | None,
    ) -> None:
        from graphopt.runtime import Session, runnable_feeds

        try:
            self._session = Session(original) if reference is None else reference()
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
        self._feeds = runnable_feeds(
            original, self._session, count=count or SEEDED_COUNT, seed=seed
        )
        if not self._feeds:
            self.unavailable = (
                "the original runs on none of the inputs that were made up for it; "
                "give real ones with --input-data"
            )

    def feeds(self) -> Iterator[Feed]:
        """The inputs that candidates are compared on."""
        return itertools.islice(self._feeds, self._count)

    def close(self) -> None:
        """Let go of the original's session: nothing can be compared any more."""
        self._session = None

    def failing_feed(self, before: ir.Model, after: ir.Model) -> Feed | None:
        """The first input on which two candidates differ; None if no single one shows it."""
        from graphopt.runtime import Session

        expected_session = Session(before)
        try:
            actual_session = Session(after)
        except RuntimeUnavailableError:
            return next(self.feeds(), None)
        taken = {value.name for value in after.graph.inputs}
        for whole_feed in self.feeds():
            feed = {name: value for name, value in whole_feed.items() if name in taken}
            try:
                expected = expected_session.run(feed)
            except RuntimeUnavailableError:
                continue
            try:
                actual = actual_session.run(feed)
            except RuntimeUnavailableError:
                return feed
            differences = self._differences(expected, actual)
            if any(not check.ok and check.name not in self._random for check in differences):
                return feed
        return None

    def compare(self, candidate: ir.Model, *, stop_early: bool = False) -> CheckReport:
        """Compare a candidate with the original on every feed.

        Args:
            candidate: a model with the original's interface.
            stop_early: end at the first feed on which an output is wrong.
        """
        from graphopt.runtime import Session

        report = CheckReport(rtol=self.rtol, atol=self.atol)
        started = time.perf_counter()
        if self._session is None or self.unavailable is not None:
            report.status = CheckStatus.NOT_VERIFIED
            report.reason = self.unavailable or ""
            return report
        try:
            session = Session(candidate)
        except RuntimeUnavailableError as error:
            report.status = CheckStatus.FAILED
            report.reason = f"ONNX Runtime refuses the result: {error}"
            return report
        worst: dict[str, OutputCheck] = {}
        taken = {value.name for value in candidate.graph.inputs}
        for position, whole_feed in enumerate(self.feeds()):
            # A default that the candidate does not let callers override keeps its value.
            feed = {name: value for name, value in whole_feed.items() if name in taken}
            try:
                expected = self._original_outputs(self._session, feed, position)
            except RuntimeUnavailableError as error:
                report.reason = f"the original fails on an input: {error}"
                continue
            report.inputs_tried += 1
            report.input_shapes.append({name: _shape_text(value) for name, value in feed.items()})
            try:
                actual = session.run(feed)
            except RuntimeUnavailableError as error:
                report.reason = f"the result fails where the original runs: {error}"
                report.status = CheckStatus.FAILED
                break
            self._merge(worst, expected, actual, feed)
            if stop_early and not all(check.ok for check in worst.values()):
                break
        report.outputs = [check for check in worst.values() if check.name not in self._random]
        report.seconds = time.perf_counter() - started
        self._conclude(report)
        return report

    def _original_outputs(self, session: Session, feed: Feed, position: int) -> dict[str, Any]:
        """What the original gives on the feed at a position of `feeds`."""
        return session.run(feed)

    def _merge(
        self,
        worst: dict[str, OutputCheck],
        expected: dict[str, Any],
        actual: dict[str, Any],
        feed: Feed,
    ) -> None:
        differences = self._differences(expected, actual)
        if not all(check.ok for check in differences) and self._session is not None:
            # Is the output random? Only then does the original differ from itself.
            again = self._differences(expected, self._session.run(feed))
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


def _badness(check: OutputCheck) -> tuple[bool, float]:
    error = check.relative_error
    return (not check.ok, math.inf if math.isnan(error) else error)


def _shape_text(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is None:
        return "none" if value is None else f"sequence of {len(value)}"
    return "x".join(map(str, shape)) or "scalar"
