"""How much to prune: a share of every group, or the least share that meets a target.

MACs, parameters: counted, so the share is found by bisection without pruning anything
latency:          measured on the pruned model, so the share is found in a few prunings
largest drop:     the largest share whose result the metric still allows
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from graphopt.errors import EquivalenceError, UsageError
from graphopt.graph import ir
from graphopt.pipeline.prune_latency import Kept, meet_latency
from graphopt.pipeline.task_metric import Drop
from graphopt.pruning.coupling_costs import PruningCosts, counts_of

Finish = Callable[[ir.Model, Kept], None]
"""Gives a model that lost units its numbers, in place."""

_COUNTED_STEPS = 40
_MEASURED_STEPS = 10
MAC_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


class Judge(Protocol):
    """Measures candidates."""

    def latency_share(self, candidate: ir.Model) -> float:
        """The candidate's latency over the original's."""

    def original_latency(self) -> float:
        """Seconds of one run of the original."""

    def drop_allowed(self, candidate: ir.Model, drop: Drop) -> bool:
        """Whether the metric falls no further than that."""


@dataclass(frozen=True)
class Target:
    """A share of the original's figure, or an absolute figure."""

    amount: float
    relative: bool

    @classmethod
    def read(cls, flag: str, text: str | float, units: Mapping[str, float]) -> Target:
        """Read `50%`, `30M`, `3ms` or a number.

        Raises:
            UsageError: it is none of these.
        """
        match = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?\d+)?)\s*(%|[A-Za-z]*)\s*", str(text))
        unit = match[2].lower() if match else ""
        if match is None or (unit != "%" and unit not in units):
            raise UsageError(f"{flag} '{text}' is not understood; write 50%, or a figure")
        try:
            number = float(match[1])
        except ValueError as error:
            raise UsageError(f"{flag} '{text}' is not understood; write 50%") from error
        if number <= 0 or (unit == "%" and number > 100):
            raise UsageError(f"{flag} is {text}; it must be above 0, and at most 100%")
        return cls(number / 100, True) if unit == "%" else cls(number * units[unit], False)

    def of(self, before: float) -> float:
        """The figure that is asked for, given the original's."""
        return self.amount * before if self.relative else self.amount


@dataclass(frozen=True)
class Budget:
    """What was asked for: exactly one of the first four, or `drop` alone, or one with `drop`."""

    ratio: float | None = None
    macs: Target | None = None
    parameters: Target | None = None
    latency: Target | None = None
    drop: Drop | None = None

    @classmethod
    def read(
        cls,
        *,
        ratio: float | None,
        macs: str | float | None,
        parameters: str | float | None,
        latency: str | float | None,
        max_drop: str | None,
    ) -> Budget:
        """Read the options of a command.

        Raises:
            UsageError: none or several are given, or one is malformed.
        """
        given = [
            name
            for name, value in (
                ("--ratio", ratio),
                ("--target-macs", macs),
                ("--target-params", parameters),
                ("--target-latency", latency),
            )
            if value is not None
        ]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} both say how much to prune; give one")
        if not given and max_drop is None:
            raise UsageError(
                "say how much to prune: --ratio 0.3, --target-macs 50%, --target-params, "
                "--target-latency or --max-drop 1%"
            )
        if ratio is not None and not 0 <= ratio < 1:
            raise UsageError(f"--ratio is {ratio}; it must be at least 0 and below 1")
        return cls(
            ratio,
            None if macs is None else Target.read("--target-macs", macs, MAC_UNITS),
            None if parameters is None else Target.read("--target-params", parameters, MAC_UNITS),
            None if latency is None else Target.read("--target-latency", latency, _SECONDS),
            None if max_drop is None else Drop.parse(max_drop),
        )

    @property
    def measures(self) -> bool:
        """Whether meeting it takes running models."""
        return self.latency is not None or self.drop is not None

    def meet(
        self,
        choose: Callable[[float], Kept],
        build: Callable[[Kept], ir.Model],
        finish: Finish,
        costs: PruningCosts,
        judge: Judge,
        tell: Callable[[str], None],
    ) -> tuple[Kept, ir.Model]:
        """The units that stay, and the model without the others, finished.

        Args:
            choose: for a share of the channels the units that stay; more share, fewer units.
            build: the model that is left, but for its numbers.
            finish: gives it its numbers, in place.
            costs: counts without building.
            judge: measures what was built.
            tell: called with a line about what is being done.

        Raises:
            EquivalenceError: the budget cannot be met.
        """
        if self.ratio is not None:
            found = _built(choose, build, finish, self.ratio, tell)
        elif self.macs is not None:
            target = self.macs.of(costs.macs_before)
            share = _counted_share(choose, costs.macs, target, costs.macs_before, "MACs")
            found = _built(choose, build, finish, share, tell)
        elif self.parameters is not None:
            before = costs.parameters_before
            target = self.parameters.of(before)
            share = _counted_share(choose, costs.parameters, target, before, "parameters")
            found = _built(choose, build, finish, share, tell)
        elif self.latency is not None:
            found = self._meet_latency(choose, build, finish, costs, judge, tell)
        else:
            return self._meet_drop(choose, build, finish, judge, tell)
        if self.drop is not None and not judge.drop_allowed(found[1], self.drop):
            raise EquivalenceError(
                f"the result falls further than --max-drop {self.drop}; prune less, "
                "or give --max-drop alone to prune as much as it allows"
            )
        return found

    def _meet_latency(
        self,
        choose: Callable[[float], Kept],
        build: Callable[[Kept], ir.Model],
        finish: Finish,
        costs: PruningCosts,
        judge: Judge,
        tell: Callable[[str], None],
    ) -> tuple[Kept, ir.Model]:
        """By measurement; the first guess is that latency goes with MACs."""
        assert self.latency is not None  # noqa: S101 - the caller looked
        before = 1.0 if self.latency.relative else judge.original_latency()
        target = self.latency.of(1.0) if self.latency.relative else self.latency.amount / before
        if target >= 1.0:
            raise UsageError(
                f"--target-latency is {target:.0%} of the original's; ask for less than 100%"
            )
        guess = _share_of_macs(choose, costs, target)
        kept, model = meet_latency(target, guess, choose, build, judge.latency_share, tell)
        finish(model, kept)
        return kept, model

    def _meet_drop(
        self,
        choose: Callable[[float], Kept],
        build: Callable[[Kept], ir.Model],
        finish: Finish,
        judge: Judge,
        tell: Callable[[str], None],
    ) -> tuple[Kept, ir.Model]:
        """The largest share that the metric allows."""
        assert self.drop is not None  # noqa: S101 - the caller looked
        low, high = 0.0, 1.0
        best = _built(choose, build, finish, 0.0, tell)
        for step in range(_MEASURED_STEPS - 3):
            share = (low + high) / 2
            kept, candidate = _built(choose, build, finish, share, tell)
            allowed = judge.drop_allowed(candidate, self.drop)
            tell(f"pruning as far as the metric allows: step {step + 1}")
            if allowed:
                low, best = share, (kept, candidate)
            else:
                high = share
        return best


def _built(
    choose: Callable[[float], Kept],
    build: Callable[[Kept], ir.Model],
    finish: Finish,
    share: float,
    tell: Callable[[str], None],
) -> tuple[Kept, ir.Model]:
    tell("pruning")
    kept = choose(share)
    model = build(kept)
    finish(model, kept)
    return kept, model


def _counted_share(
    choose: Callable[[float], Kept],
    count: Callable[[Mapping[str, int]], float],
    target: float,
    before: float,
    what: str,
) -> float:
    """The smallest share whose count is at most the target."""
    least = count(counts_of(choose(1.0)))
    if least > target:
        raise EquivalenceError(
            f"the model cannot get below {least / before:.0%} of its {what}: the rest is frozen "
            "or at its minimum; see --explain"
        )
    low, high = 0.0, 1.0
    if count(counts_of(choose(0.0))) <= target:
        return 0.0
    for _ in range(_COUNTED_STEPS):
        middle = (low + high) / 2
        if count(counts_of(choose(middle))) <= target:
            high = middle
        else:
            low = middle
    return high


def _share_of_macs(choose: Callable[[float], Kept], costs: PruningCosts, fraction: float) -> float:
    try:
        return _counted_share(
            choose, costs.macs, fraction * costs.macs_before, costs.macs_before, "MACs"
        )
    except EquivalenceError:
        return 0.5
