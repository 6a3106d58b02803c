"""Chooses by measuring which groups run in integers, so that the result is faster than float.

    float and int8, kernel by kernel -> minimum cut -> candidates -> race -> the fastest

A kernel's time in its place is measured, not predicted, since what surrounds it decides it: the
layout its input comes in, the fusions it takes part in. The costs of changing type between
groups are not seen until a mixture runs; so the cut is made for several weights of them, the
mixtures race each other, and the best is measured kernel by kernel for another cut.
What comes out has won against float with every number of threads, or is float.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphopt.graph import ir
from graphopt.quantization.group_costs import CostModel
from graphopt.quantization.group_cut import cheapest_float_groups
from graphopt.quantization.group_times import GroupTimes, attribute
from graphopt.quantization.groups import Placement
from graphopt.quantization.stopwatch import Race, RunningStopwatch, Stopwatch

if TYPE_CHECKING:
    from graphopt.runtime import Feed

Build = Callable[[Mapping[str, str]], ir.Model]
"""Groups to leave float -> why, to the model in which all others are quantized."""

FLOAT = "float"
ALL = "int8"
_WORTH = 0.98  # float is exact, and half of nothing is noise: less is not worth the error
_WEIGHTS = (1.0, 0.4, 2.0)  # of conversions, whose costs are guesses until a mixture has run
_FINALISTS, _HEATS = 2, 3
_PRODUCTS = {"products": ("Conv", "Gemm", "MatMul"), "matrices": ("Gemm", "MatMul")}


@dataclass(frozen=True)
class Choice:
    """What to quantize.

    Attributes:
        winner: "int8" (all that may be), "mixed", the name of one of the others that were given,
            or "float".
        float_groups: group -> why it stays float; of all groups if the winner is not QDQ int8.
        gains: group -> seconds that integers save it with one thread, conversions at its border
            apart; negative where they cost. All groups that were measured.
        ratios: candidate -> threads -> its time relative to float's, of those in the last race.
        seconds: candidate -> threads -> seconds of one run, likewise; float's included.
        reason: why it is float, one sentence; "" otherwise.
    """

    winner: str
    float_groups: Mapping[str, str]
    gains: Mapping[str, float] = field(default_factory=dict)
    ratios: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    seconds: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    reason: str = ""


def choose_groups(
    model: ir.Model,
    placement: Placement,
    build: Build,
    feed: Feed,
    *,
    fixed: Mapping[str, str] | None = None,
    others: Mapping[str, ir.Model] | None = None,
    threads: Sequence[int] = (1, 0),
    stopwatch: Stopwatch | None = None,
    refinements: int = 2,
    progress: Callable[[str], None] | None = None,
) -> Choice:
    """Find the fastest set of groups to run in integers.

    Args:
        model: the float model that was placed. Not changed.
        placement: its groups.
        build: makes the model in which all groups but some are quantized.
        feed: the inputs to measure with; their sizes decide what is fast.
        fixed: groups that stay float whatever is measured -> why.
        others: further candidates by name, such as a dynamically quantized model.
        threads: numbers of threads with none of which the result may be slower than float; 0 is
            ONNX Runtime's default.
        stopwatch: what measures; by default ONNX Runtime on this machine.
        refinements: how often to measure the best mixture kernel by kernel and cut again.
        progress: told what is being measured, a few words each time.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot run the model on this feed.
    """
    watch = stopwatch or RunningStopwatch(model, feed)
    contest = _Contest(model, placement, build, dict(fixed or {}), watch, progress)
    for name, other in (others or {}).items():
        contest.enter(name, other)
    contest.measure_kernels(feed)
    contest.cut_and_race(refinements)
    return contest.decide(tuple(dict.fromkeys(threads)))


class _Contest:
    """The candidates so far, and what is known of them."""

    def __init__(
        self,
        model: ir.Model,
        placement: Placement,
        build: Build,
        fixed: dict[str, str],
        watch: Stopwatch,
        progress: Callable[[str], None] | None,
    ) -> None:
        self._model = model
        self._placement = placement
        self._build = build
        self._watch = watch
        self._progress = progress or (lambda _: None)
        self._fixed = {
            **{group.name: group.slow for group in placement.groups if group.slow},
            **fixed,
        }
        self._models: dict[str, ir.Model] = {FLOAT: model}
        self._sets: dict[str, frozenset[str]] = {}
        self._ratios: dict[str, float] = {FLOAT: 1.0}
        self._costs: CostModel | None = None

    def enter(self, name: str, model: ir.Model) -> None:
        """Let a model take part that is no set of groups."""
        self._models[name] = model

    def measure_kernels(self, feed: Feed) -> None:
        """Measure float and all in integers, group by group."""
        if not self._placement.groups:
            return
        self._enter_groups(frozenset(self._fixed), ALL)
        if ALL not in self._models:
            return
        self._progress("measuring every kernel, in float and in integers")
        self._costs = CostModel(self._model, self._placement, feed)
        for name in (FLOAT, ALL):
            self._costs.learn(self._float_groups(name), self._times(name))

    def cut_and_race(self, refinements: int) -> None:
        """Race what the minimum cut proposes, learn from the best, and again."""
        self._race()
        if self._costs is None:
            return
        for attempt in range(1 + refinements):
            if attempt:
                best = min(self._sets, key=self._ratios.__getitem__)
                self._costs.learn(self._sets[best], self._times(best))
            else:
                self._enter_products()
            for number, cut in enumerate(
                self._cuts(self._costs, _WEIGHTS[:1] if attempt else _WEIGHTS)
            ):
                self._enter_groups(cut, f"mixed {attempt + 1}.{number + 1}")
            if self._models.keys() == self._ratios.keys():
                break
            self._race()

    def decide(self, threads: Sequence[int]) -> Choice:
        """The fastest that is faster than float with every number of threads."""
        faster = sorted(
            (name for name, ratio in self._ratios.items() if name != FLOAT and ratio < 1.0),
            key=self._ratios.__getitem__,
        )
        gains = {} if self._costs is None else self._costs.gains()
        if not faster:
            return self._left_float(gains, {}, self._best_lost())
        ratios: dict[str, dict[int, float]] = {}
        races: list[Race] = []
        winners: list[str] = []
        # The next best have their turn where the best are faster with one thread alone.
        for first in range(0, min(len(faster), _HEATS * _FINALISTS), _FINALISTS):
            finalists = faster[first : first + _FINALISTS]
            self._progress(f"racing {' and '.join(finalists)} against float")
            models = {name: self._models[name] for name in (FLOAT, *finalists)}
            races = [self._watch.race(models, count, 5) for count in threads]
            for name in finalists:
                ratios[name] = {race.threads: race.ratio(name, FLOAT) for race in races}
            winners = [name for name in finalists if max(ratios[name].values()) <= _WORTH]
            if winners:
                break
        if not winners:
            return self._left_float(gains, _seconds(races), _lost(ratios), ratios)
        winner = min(winners, key=lambda name: _geometric_mean(ratios[name].values()))
        if winner not in self._sets:
            reason = f"{winner} quantization is faster as a whole"
            left = {group.name: reason for group in self._placement.groups}
            return Choice(winner, left, gains, ratios, _seconds(races))
        left = self._reasons(self._sets[winner])
        kind = ALL if winner == ALL else "mixed"
        return Choice(kind, left, gains, ratios, _seconds(races))

    def _enter_products(self) -> None:
        """Enter the mixtures in which nothing but products, or matrix products, is integers.

        They are what a cut from the times of other mixtures may miss: all conversions are at
        the products, where ONNX Runtime fuses them.
        """
        for name, operators in _PRODUCTS.items():
            left = {
                group.name
                for group in self._placement.groups
                if group.name in self._fixed or group.op_type not in operators
            }
            self._enter_groups(frozenset(left), f"mixed {name}")

    def _cuts(self, costs: CostModel, weights: Sequence[float]) -> list[frozenset[str]]:
        fixed = frozenset(self._fixed)
        found = [
            cheapest_float_groups(costs.costs(), always_float=fixed, border_weight=weight)
            for weight in weights
        ]
        return list(dict.fromkeys(found))

    def _enter_groups(self, float_groups: frozenset[str], name: str) -> bool:
        """Build a candidate, unless it is there already or quantizes nothing."""
        every = {group.name for group in self._placement.groups}
        if float_groups in self._sets.values() or every <= float_groups:
            return False
        self._sets[name] = float_groups
        self._models[name] = self._build(self._reasons(float_groups))
        return True

    def _reasons(self, float_groups: frozenset[str]) -> dict[str, str]:
        """Why each of these groups stays float, in the order of the graph."""
        found = {}
        for group in self._placement.groups:
            if group.name in self._fixed:
                found[group.name] = self._fixed[group.name]
            elif group.name in float_groups and self._costs is not None:
                found[group.name] = self._costs.reason(group.name)
        return found

    def _float_groups(self, name: str) -> frozenset[str]:
        if name == FLOAT:
            return frozenset(group.name for group in self._placement.groups)
        return self._sets[name]

    def _times(self, name: str) -> GroupTimes:
        return attribute(self._watch.kernels(self._models[name]), self._placement.groups)

    def _race(self) -> None:
        """Race those with one thread that have not raced yet, beside float and the best."""
        new = [name for name in self._models if name not in self._ratios]
        if not new:
            return
        self._progress(f"racing {len(new)} candidates against float")
        best = min(self._ratios, key=self._ratios.__getitem__)
        names = dict.fromkeys([FLOAT, best, *new])
        race = self._watch.race({name: self._models[name] for name in names}, 1, 3)
        for name in names:
            self._ratios[name] = race.ratio(name, FLOAT)

    def _best_lost(self) -> str:
        rest = {name: ratio for name, ratio in self._ratios.items() if name != FLOAT}
        if not rest:
            return "there is nothing that could be quantized"
        name = min(rest, key=rest.__getitem__)
        return _lost({name: {1: rest[name]}})

    def _left_float(
        self,
        gains: Mapping[str, float],
        seconds: Mapping[str, Mapping[int, float]],
        reason: str,
        ratios: Mapping[str, Mapping[int, float]] | None = None,
    ) -> Choice:
        left = {
            group.name: self._fixed.get(group.name, f"nothing is faster in integers: {reason}")
            for group in self._placement.groups
        }
        return Choice(FLOAT, left, gains, ratios or {}, seconds, reason)


def _lost(ratios: Mapping[str, Mapping[int, float]]) -> str:
    """What the candidate nearest to float took, where it is slowest."""
    name = min(ratios, key=lambda one: max(ratios[one].values()))
    threads, ratio = max(ratios[name].items(), key=lambda item: item[1])
    count = "the default number of threads" if threads == 0 else f"{threads} thread(s)"
    kind = name if not name.startswith("mixed") else "the best mixture"
    return f"with {count} {kind} takes {ratio:.2f} times as long as float"


def _seconds(races: Sequence[Race]) -> dict[str, dict[int, float]]:
    names = races[0].seconds if races else ()
    return {name: {race.threads: race.typical(name) for race in races} for name in names}


def _geometric_mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.exp(sum(math.log(number) for number in numbers) / len(numbers))
