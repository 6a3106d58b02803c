"""Runs passes in rounds, undoing each that raises, breaks the model or its interface.

Execution is deterministic: the same model, plan and exclusions give the same result, so any
prefix of a run can be had again. Bisection stands on that instead of on stored snapshots.

A run first takes the passes at their word: a pass that tells of no change made none, no copy is
kept to go back to, and the model is verified once for each round. Whatever turns out wrong (a step
to undo, an invalid model, a change that nobody told of) ends it, and a careful run begins again
from the original: it compares the model before and after each step, verifies it, and undoes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from graphopt.catalog import spec_of
from graphopt.errors import PassError, ShapeError
from graphopt.graph import all_nodes, clone, ir, patient_collector, replace_content
from graphopt.pipeline.guard import (
    fingerprint,
    first_problem,
    interface_change,
    interface_of,
)
from graphopt.plugin import Journal, Pass, RewritePass
from graphopt.rewrite.worklist import may_match, operators_of
from graphopt.shapes import infer_shapes

ROUNDS = 8
"""A run ends when a round changes nothing; passes that feed each other for longer are cut off."""

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]
StopWhen = Callable[[ir.Model], bool]
"""Looks at the model after each step that changed it; whether the run ends there."""


@dataclass(slots=True)
class Step:
    """One run of one pass.

    Attributes:
        spec: the pass with its options; one spec may run in several rounds.
        changed: whether it left the model different.
        problem: why it was undone; None if it was not.
    """

    number: int
    spec: str
    journal: Journal
    seconds: float = 0.0
    changed: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Exclusions:
    """What bisection found guilty and the run leaves out.

    Attributes:
        sites: by pass spec, the sites where it may not change anything.
        passes: specs of passes that do not run at all, and why.
    """

    sites: Mapping[str, frozenset[str]] = field(default_factory=dict)
    passes: Mapping[str, str] = field(default_factory=dict)

    def with_site(self, spec: str, site: str) -> Exclusions:
        """These and one more site."""
        sites = self.sites.get(spec, frozenset()) | {site}
        return Exclusions({**self.sites, spec: sites}, self.passes)

    def with_pass(self, spec: str, reason: str) -> Exclusions:
        """These and one more pass."""
        return Exclusions(self.sites, {**self.passes, spec: reason})


@dataclass(frozen=True, slots=True)
class Cut:
    """Where to stop: after step `number`, of which only the first `rewrites` are made."""

    number: int
    rewrites: int | None = None


def execute(
    original: ir.Model,
    plan: Sequence[Pass],
    *,
    exclusions: Exclusions | None = None,
    cut: Cut | None = None,
    strict: bool = False,
    stop_when: StopWhen | None = None,
    careful: bool = False,
    progress: Progress | None = None,
) -> tuple[ir.Model, list[Step]]:
    """Run the passes of `plan` on a copy of `original`, in rounds, until nothing changes.

    Args:
        original: the model; it is not changed.
        plan: the passes, in order.
        exclusions: what they may not do.
        cut: where to stop, to have a prefix of a run again.
        strict: a pass that fails is an error instead of being undone.
        stop_when: asked after each step that changed the model.
        careful: believe no pass from the start, so that each change is its own step's; a run with
            a cut is.
        progress: called with the name of each pass before it runs.

    Returns:
        The copy, and what each run of a pass did.

    Raises:
        PassError: a pass failed and the run is strict.
    """

    def run(careful: bool) -> _Execution:
        return _Execution(
            original, exclusions or Exclusions(), cut, careful, strict, stop_when, progress
        )

    with patient_collector():
        done = None
        if not careful and cut is None:
            try:
                done = run(False).all_rounds(plan)
            except _NotAsToldError:
                logger.debug("a step is to be undone, or changed more than it told: begins again")
        if done is None:
            done = run(True).all_rounds(plan)
    return done.model, done.steps


class _NotAsToldError(Exception):
    """A run that took the passes at their word met something that has to be looked into."""


class _Execution:
    """The state of one run."""

    def __init__(
        self,
        original: ir.Model,
        exclusions: Exclusions,
        cut: Cut | None,
        careful: bool,
        strict: bool,
        stop_when: StopWhen | None,
        progress: Progress | None,
    ) -> None:
        self.model = clone(original)
        self.exclusions = exclusions
        self.cut = cut
        self.careful = careful
        self.strict = strict
        self.stop_when = stop_when
        self.progress = progress
        self.steps: list[Step] = []
        self.state = fingerprint(self.model)
        self.interface = interface_of(self.model)
        # What an undo goes back to. Weights are shared with it; None if it is out of date.
        self.snapshot: ir.Model | None = original
        self.untyped = _count_untyped(original)
        self.failed: set[str] = set()
        self.unchanged_at: dict[str, int] = {}
        self.operators_at: tuple[int, frozenset[tuple[str, str]]] | None = None

    def all_rounds(self, plan: Sequence[Pass]) -> _Execution:
        """Run the plan to its end; this execution.

        Raises:
            _NotAsToldError: it was to believe the passes, and cannot.
        """
        for number in range(1, ROUNDS + 1):
            before = self.state
            goes_on = self.round(plan, number)
            changed = self.state != before
            if not self.careful and (
                fingerprint(self.model) != self.state
                or (changed and first_problem(self.model) is not None)
            ):
                raise _NotAsToldError
            if not goes_on or not changed:
                break
            self.refresh_shapes()
        return self

    def round(self, plan: Sequence[Pass], number: int) -> bool:
        """Run the plan once; whether there is more to do."""
        for item in plan:
            if self.cut is not None and len(self.steps) >= self.cut.number:
                return False
            step = self.one(item, number)
            changed = step is not None and step.changed
            if changed and self.stop_when is not None and self.stop_when(self.model):
                return False
        return True

    def one(self, item: Pass, number: int) -> Step | None:
        """Run one pass in a round; None where it is left out, or has nothing new to see."""
        spec = spec_of(item)
        if spec in self.failed or spec in self.exclusions.passes:
            return None
        if self.unchanged_at.get(spec) == self.state.number:
            return None
        if self.progress is not None:
            self.progress(f"{spec} (round {number})" if number > 1 else spec)
        step = self.step(item, spec)
        self.steps.append(step)
        if step.problem is not None:
            self.failed.add(spec)
        if not step.changed:
            self.unchanged_at[spec] = self.state.number
        return step

    def step(self, item: Pass, spec: str) -> Step:
        number = len(self.steps) + 1
        limit = self.cut.rewrites if self.cut is not None and self.cut.number == number else None
        skip = self.exclusions.sites.get(spec, frozenset())
        step = Step(number, spec, Journal(item.name, limit, skip))
        if self.cannot_match(item):
            return step
        if self.careful and self.snapshot is None:
            self.snapshot = clone(self.model)
        started = time.perf_counter()
        state = self.state
        try:
            item.run(self.model, step.journal)
            # A rewrite pass tells of all it does; another may change the model in silence.
            if self.careful or step.journal.rewrites or not _tells(item):
                state = fingerprint(self.model)
            if state != self.state:
                self.state = state
                step.changed = True
                step.problem = self.objection(item)
        except (Exception, SystemExit) as error:
            logger.debug("%s raised", spec, exc_info=True)
            step.problem = f"raised {type(error).__name__}: {' '.join(str(error).split())}"
        step.seconds = time.perf_counter() - started
        if step.problem is not None:
            if not self.careful:
                raise _NotAsToldError
            self.undo(step)
        elif step.changed:
            self.interface = interface_of(self.model)
            self.snapshot = None
        return step

    def cannot_match(self, item: Pass) -> bool:
        """Whether the pass would change nothing, since the model lacks the operators it needs."""
        matched = isinstance(item, RewritePass) and _tells(item)
        if not matched and not item.acts_on:
            return False
        if self.operators_at is None or self.operators_at[0] != self.state.number:
            self.operators_at = (self.state.number, operators_of(self.model))
        present = self.operators_at[1]
        if item.acts_on and not any(("ai.onnx", op_type) in present for op_type in item.acts_on):
            return True
        return isinstance(item, RewritePass) and matched and not may_match(item.patterns, present)

    def objection(self, item: Pass) -> str | None:
        """Why the model cannot stay as the step left it; None if it can."""
        change = interface_change(
            self.interface, interface_of(self.model), drops_defaults=item.drops_defaults
        )
        if change is not None:
            return f"changed the model's interface: {change}"
        if self.careful:
            problem = first_problem(self.model)
            if problem is not None:
                return f"left an invalid model: {problem}"
        untyped, self.untyped = self.untyped, _count_untyped(self.model)
        return self.refresh_shapes() if self.untyped > untyped else None

    def undo(self, step: Step) -> None:
        if self.strict:
            raise PassError(f"{step.spec} was undone: it {step.problem}")
        assert self.snapshot is not None  # noqa: S101 - made before the pass ran
        replace_content(self.model, clone(self.snapshot))
        self.state = fingerprint(self.model)
        self.untyped = _count_untyped(self.model)
        step.changed = False
        step.journal.rewrites.clear()

    def refresh_shapes(self) -> str | None:
        """Infer shapes again; what contradicts itself is a reason to undo the last step."""
        try:
            infer_shapes(self.model)
        except ShapeError as error:
            return f"left shapes that contradict each other: {error}"
        self.state = fingerprint(self.model)
        self.interface = interface_of(self.model)
        self.untyped = _count_untyped(self.model)
        return None


def _tells(item: Pass) -> bool:
    """Whether the pass changes models through a rewriter alone, which tells of each change."""
    return isinstance(item, RewritePass) and type(item).run is RewritePass.run


def _count_untyped(model: ir.Model) -> int:
    return sum(value.shape is None for node in all_nodes(model) for value in node.outputs)
