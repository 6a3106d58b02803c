"""Finds the pass, and within it the rewrite, that makes the result differ from the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphopt.graph import ir
from graphopt.pipeline.check import Checker
from graphopt.pipeline.execute import Cut, Exclusions, Step, execute
from graphopt.plugin import Pass
from graphopt.report import CheckReport, CheckStatus

if TYPE_CHECKING:
    from graphopt.runtime import Feed

SITES_PER_PASS = 8
"""A pass with more guilty rewrites than this is left out as a whole."""


@dataclass(frozen=True)
class Culprit:
    """What makes the result wrong.

    Attributes:
        spec: the pass, with its options.
        site: where the guilty rewrite is; None if the pass cannot be taken apart.
        detail: what the rewrite did.
        before: the model just before the rewrite (or the pass), which is still right.
        after: the model just after it, which is wrong.
        check: how `after` differs from the original.
        feed: an input on which `before` and `after` differ; None if no single one shows it.
    """

    spec: str
    site: str | None
    detail: str
    before: ir.Model = field(repr=False)
    after: ir.Model = field(repr=False)
    check: CheckReport
    feed: Feed | None = field(repr=False)

    def __str__(self) -> str:
        """One line that names the pass, the place and the difference."""
        place = f" at {self.site} ({self.detail})" if self.site else ""
        return f"{self.spec}{place}: {self.check.reason}"


def find_culprit(
    original: ir.Model,
    plan: Sequence[Pass],
    steps: Sequence[Step],
    checker: Checker,
    exclusions: Exclusions,
) -> Culprit | None:
    """Bisect a run whose result is wrong: first over its steps, then over one step's rewrites.

    Args:
        original: the model that the run began with.
        plan: the passes of the run.
        steps: what `execute` returned for the run.
        checker: compares with the original.
        exclusions: what the run left out already.

    Returns:
        The culprit; None if the untouched original is wrong by itself, or nothing is.
    """

    def run(cut: Cut) -> ir.Model:
        model, _ = execute(original, plan, exclusions=exclusions, cut=cut)
        return model

    def is_wrong(cut: Cut) -> bool:
        report = checker.compare(run(cut), stop_early=True)
        return report.status is CheckStatus.FAILED

    numbers = [step.number for step in steps if step.changed]
    if not numbers or is_wrong(Cut(0)):
        return None
    number = _first(numbers, lambda candidate: is_wrong(Cut(candidate)))
    if number is None:
        return None
    step = steps[number - 1]
    rewrites = step.journal.rewrites
    counts = list(range(1, len(rewrites) + 1))
    count = None
    if counts and not is_wrong(Cut(number, 0)):
        count = _first(counts, lambda candidate: is_wrong(Cut(number, candidate)))
    site, detail = None, ""
    if count is None:
        before, after = run(Cut(number - 1)), run(Cut(number))
    else:
        before, after = run(Cut(number, count - 1)), run(Cut(number, count))
        site, detail = rewrites[count - 1].site, rewrites[count - 1].detail
    check, feed = checker.compare(after), checker.failing_feed(before, after)
    return Culprit(step.spec, site, detail, before, after, check, feed)


def exclude(exclusions: Exclusions, culprit: Culprit) -> Exclusions:
    """The exclusions with the culprit added: its site, or its pass where that is no help."""
    sites = exclusions.sites.get(culprit.spec, frozenset())
    if culprit.site is None or culprit.site in sites or len(sites) >= SITES_PER_PASS:
        return exclusions.with_pass(culprit.spec, culprit.check.reason)
    return exclusions.with_site(culprit.spec, culprit.site)


def _first(candidates: Sequence[int], is_wrong: Callable[[int], bool]) -> int | None:
    """The first candidate that is wrong, given that all after it are wrong too.

    None if even the last is not wrong.
    """
    low, high = 0, len(candidates) - 1
    if not is_wrong(candidates[high]):
        return None
    while low < high:
        middle = (low + high) // 2
        if is_wrong(candidates[middle]):
            high = middle
        else:
            low = middle + 1
    return candidates[low]
