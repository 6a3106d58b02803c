"""Which units stay, for any share of what can be saved: importance and allocation together.

    share of a group's units:  the same of every group, the least important first
    share of the MACs:         along the path of least output error for what is saved

With data the order and the errors are second-order and scaled by what they do to the outputs;
without, they are those of the weights alone, and every group loses the same share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph import ir
from graphopt.pruning.allocation import Path, allocation_path
from graphopt.pruning.coupling_costs import PruningCosts, unit_width
from graphopt.pruning.groups import Groups
from graphopt.pruning.importance import Ranking, ranked, second_order_rankings
from graphopt.pruning.importance_measures import geometric_median_scores, norm_scale_scores
from graphopt.pruning.importance_sensitivity import output_scales
from graphopt.pruning.magnitude import magnitude_scores
from graphopt.pruning.statistics import consumer_moments, feeds_of
from graphopt.runtime import Feed

MEASURES = ("second-order", "l1", "l2", "geometric-median", "bn-scale", "random")

_SENSITIVITY_SAMPLES = 96

Kept = dict[str, np.ndarray]


@dataclass(frozen=True)
class Choice:
    """Rankings and a path, from which any budget is met.

    Attributes:
        rankings: for a prunable group's name in which order its units go.
        path: which group loses units next.
        scales: what a unit of a group's error does to the outputs; empty where not measured.
        unranked: why a group has no second-order ranking; its magnitudes rank it.
    """

    rankings: dict[str, Ranking]
    path: Path
    scales: dict[str, float]
    unranked: dict[str, str]

    def along_path(self, share: float) -> Kept:
        """The units that stay where this share of the cost that can be saved is saved."""
        steps = self.path.steps
        if not steps or share <= 0:
            return {}
        target = self.path.before - share * (self.path.before - steps[-1].cost)
        counts = self.path.counts(target)
        return {name: self.rankings[name].kept(count) for name, count in counts.items()}


def make_choice(
    model: ir.Model,
    original: ir.Model,
    groups: Groups,
    costs: PruningCosts,
    feeds: Sequence[Feed],
    *,
    measure: str,
    round_to: int = 1,
    least: int = 1,
    seed: int = 0,
    threads: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Choice:
    """Rank the units of every prunable group, and the groups against each other.

    Args:
        model: the prepared model in which the groups were found.
        original: the model before preparation, whose norms `bn-scale` reads.
        groups: of `find_groups`.
        costs: of the same model and groups.
        feeds: unlabelled inputs; [] for none.
        measure: one of `MEASURES`; "second-order" needs feeds.
        round_to: keep a multiple of this many channels in each group, where it can be.
        least: keep at least this many channels.
        seed: which rows are drawn, and of random importance.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        tell: called with a line about what is being done.

    Raises:
        UsageError: there is no such measure, or it needs data.
    """
    if measure not in MEASURES:
        raise UsageError(f"there is no importance '{measure}'; use one of {', '.join(MEASURES)}")
    if measure == "second-order" and not feeds:
        raise UsageError("second-order importance needs data; give some with --calib")
    unranked: dict[str, str] = {}
    scales: dict[str, float] = {}
    if measure == "second-order":
        tell("collecting second moments")
        moments = consumer_moments(model, groups, feeds, seed=seed, threads=threads)
        tell("ranking channels")
        fallback = magnitude_scores(model, groups, "l2", seed)
        rankings, unranked = second_order_rankings(model, groups, moments, fallback=fallback)
    else:
        moments = {}
        rankings = ranked(_scores(model, original, groups, measure, seed))
    if feeds:
        tell("measuring what each group does to the outputs")
        few = feeds_of(feeds, _SENSITIVITY_SAMPLES)
        scales = output_scales(model, groups, rankings, moments, few, threads=threads)
    steps, floors = {}, {}
    for name in rankings:
        width = unit_width(groups, name)
        steps[name] = round_to // math.gcd(round_to, width)
        floors[name] = max(math.ceil(least / width), 1)
    path = allocation_path(rankings, costs.macs, scales=scales, steps=steps, floors=floors)
    return Choice(rankings, path, scales, unranked)


def _scores(
    model: ir.Model, original: ir.Model, groups: Groups, measure: str, seed: int
) -> dict[str, np.ndarray]:
    if measure == "geometric-median":
        return geometric_median_scores(model, groups)
    if measure == "bn-scale":
        return norm_scale_scores(original, groups)
    return magnitude_scores(model, groups, measure, seed)
