"""One run of a plan: execute, compare, leave the guilty rewrite out, execute again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from graphopt.catalog import PassLike, resolve, spec_of, split_specs, told_apart
from graphopt.errors import EquivalenceError, PassError, RuntimeUnavailableError, UsageError
from graphopt.graph import ir
from graphopt.pipeline.bisection import Culprit, exclude, find_culprit
from graphopt.pipeline.check import Checker
from graphopt.pipeline.execute import Exclusions, Step, execute
from graphopt.plugin import Pass
from graphopt.presets import LEVELS
from graphopt.report import CheckReport, CheckStatus, PassReport, PassStatus

REPAIRS = 24
"""How many guilty rewrites or passes a run leaves out before it gives up."""

_IN_VAIN = 2
"""Rewrites of one pass in a row that may be left out without less error, before all of it is."""
_LESS = 0.5
_ROUNDING = 0.1
"""A larger error is no rounding that a model amplified: each rewrite is wrong by itself."""


def make_plan(
    level: int,
    passes: str | Sequence[PassLike] | None,
    skip: str | Sequence[str] = (),
) -> tuple[Pass, ...]:
    """The passes that a request names, in order.

    Raises:
        UsageError: an unknown level or pass, or one to skip that is not in the plan.
    """
    if passes is None:
        if level not in LEVELS:
            raise UsageError(f"there is no level {level}; levels are 0 to {max(LEVELS)}")
        wanted: Sequence[PassLike] = LEVELS[level]
    else:
        wanted = split_specs(passes) if isinstance(passes, str) else passes
        if isinstance(passes, str) and not wanted:
            raise UsageError(f"'{passes}' names no pass; -O0 runs none")
    plan = told_apart([resolve(item) for item in wanted])
    known = {item.name for item in plan}
    skipped = split_specs(skip) if isinstance(skip, str) else skip
    for name in skipped:
        if name not in known:
            resolve(name)  # an unknown name is an error with a suggestion
            raise UsageError(f"'{name}' is not in the plan, so it cannot be skipped")
    return tuple(item for item in plan if item.name not in skipped)


class Run:
    """The passes of a plan on one model, and what became of them.

    Args:
        original: the model; it is not changed.
        plan: the passes.
        checker: compares with the original; None to compare nothing.
        per_pass: compare after every pass that changed something, not only at the end.
        strict: a pass that has to be undone is an error.
        tell: called with a line about what is being done.

    Attributes:
        check_report: the last comparison of the whole result.
    """

    def __init__(
        self,
        original: ir.Model,
        plan: tuple[Pass, ...],
        checker: Checker | None,
        *,
        per_pass: bool = False,
        strict: bool = False,
        tell: Callable[[str], None],
    ) -> None:
        self.check_report = CheckReport()
        self._original = original
        self._plan = plan
        self._checker = checker
        self._per_pass = per_pass
        self._strict = strict
        self._tell = tell
        self._exclusions = Exclusions()
        self._steps: list[Step] = []
        self._careful = per_pass

    def until_equivalent(self) -> ir.Model:
        """The optimized model, without the rewrites that move the outputs.

        Raises:
            PassError: a pass had to be undone and the run is strict.
        """
        repairs = in_vain = 0
        error = math.inf
        blamed = ""
        while True:
            model = self._execute()
            if self._checker is None:
                return model
            self._tell("comparing with the original")
            self.check_report = self._checker.compare(model)
            if self.check_report.status is not CheckStatus.FAILED:
                return model
            if not self._careful:
                # What one pass broke and another covered up is undone where each is looked at.
                self._careful = True
                continue
            culprit = self._find(self._checker)
            if culprit is None:
                return model
            if self._strict:
                raise PassError(f"the result differs from the original because of {culprit}")
            before, error = error, _largest_error(self.check_report)
            again = culprit.spec == blamed and _LESS * before < error < _ROUNDING
            in_vain, blamed = in_vain + 1 if again else 0, culprit.spec
            if in_vain == _IN_VAIN:
                # A model that amplifies every rounding: no rewrite is to blame more than another.
                reason = f"{self.check_report.reason}, whichever of its rewrites are left out"
                self._exclusions = self._exclusions.with_pass(culprit.spec, reason)
            else:
                self._exclusions = exclude(self._exclusions, culprit)
            repairs += 1
            if repairs == REPAIRS:
                return model

    def first_culprit(self, checker: Checker) -> Culprit | None:
        """The first rewrite that moves the outputs; None if the result is equivalent.

        Raises:
            RuntimeUnavailableError: nothing could be compared.
            EquivalenceError: the result differs, and no pass is to blame.
        """
        report = checker.compare(self._execute())
        if report.status is CheckStatus.FAILED and not self._careful:
            self._careful = True
            report = checker.compare(self._execute())
        if report.status is CheckStatus.NOT_VERIFIED:
            raise RuntimeUnavailableError(f"nothing could be compared: {report.reason}")
        if report.status is not CheckStatus.FAILED:
            return None
        culprit = self._find(checker)
        if culprit is None:
            raise EquivalenceError(
                f"the result differs ({report.reason}), but so does the model before any pass: "
                "no pass is to blame"
            )
        return culprit

    def pass_reports(self) -> list[PassReport]:
        """One report for each pass of the plan, over all rounds, in the plan's order."""
        reports: dict[str, PassReport] = {}
        for item in self._plan:
            spec = spec_of(item)
            reports.setdefault(spec, PassReport(spec, item.promise))
        for step in self._steps:
            report = reports[step.spec]
            report.seconds += step.seconds
            # A later round looks at every place again, so its word is the last.
            report.declined = step.journal.declined
            if step.changed:
                report.status = PassStatus.CHANGED
                report.rewrites.extend(step.journal.rewrites)
            if step.problem is not None:
                report.status, report.problem = PassStatus.UNDONE, step.problem
        for spec, sites in self._exclusions.sites.items():
            report = reports[spec]
            report.status = PassStatus.REPAIRED
            report.left_out = sorted(sites)
            count = "a rewrite" if len(sites) == 1 else f"{len(sites)} rewrites"
            report.problem = f"left out {count} that moved the outputs"
        for spec, reason in self._exclusions.passes.items():
            report = reports[spec]
            report.status = PassStatus.UNDONE
            report.problem = f"moved the outputs: {reason}"
        return list(reports.values())

    def _execute(self) -> ir.Model:
        model, self._steps = execute(
            self._original,
            self._plan,
            exclusions=self._exclusions,
            strict=self._strict,
            stop_when=self._is_wrong if self._per_pass else None,
            careful=self._careful,
            progress=self._tell,
        )
        return model

    def _is_wrong(self, model: ir.Model) -> bool:
        if self._checker is None:
            return False
        return self._checker.compare(model, stop_early=True).status is CheckStatus.FAILED

    def _find(self, checker: Checker) -> Culprit | None:
        self._tell("looking for the guilty rewrite")
        return find_culprit(self._original, self._plan, self._steps, checker, self._exclusions)


def _largest_error(report: CheckReport) -> float:
    errors = [check.relative_error for check in report.outputs]
    return math.inf if any(map(math.isnan, errors)) else max(errors, default=math.inf)
