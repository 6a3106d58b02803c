"""Which group loses how many units: the least error for what is saved.

    at each step remove the units with the least  (rise of scale_g * error_g) / (fall of cost)

taken over several units at once where that is cheaper for each, which walks the lower convex hull
of the error curves. The cost is that of the whole model, so what one group saves in a layer that
another has already made narrow counts for less.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from graphopt.pruning.importance import Ranking

_AHEAD = 12


@dataclass(frozen=True)
class Step:
    """One step of a path: a group then keeps `count` units, and the model costs `cost`."""

    group: str
    count: int
    cost: float


@dataclass(frozen=True)
class Path:
    """From the whole model to the smallest one, in order of error for saving."""

    before: float
    steps: tuple[Step, ...]

    def counts(self, target: float) -> dict[str, int]:
        """The units that each group keeps at the first step that costs at most `target`.

        Where no step does: those at the last one.
        """
        counts: dict[str, int] = {}
        if self.before <= target:
            return counts
        for step in self.steps:
            counts[step.group] = step.count
            if step.cost <= target:
                break
        return counts


def allocation_path(
    rankings: Mapping[str, Ranking],
    cost: Callable[[Mapping[str, int]], float],
    *,
    scales: Mapping[str, float] | None = None,
    floors: Mapping[str, int] | None = None,
    steps: Mapping[str, int] | None = None,
) -> Path:
    """The whole path; a budget is a place on it.

    Args:
        rankings: for a group's name its error curve.
        cost: of the model whose groups keep so many units; groups left out keep all.
        scales: what one unit of a group's error does to the model's outputs; 1 where left out.
        floors: the least units a group keeps; 1 where left out.
        steps: units kept are a multiple of this; 1 where left out. The first removal of a group
            whose units are no multiple brings it to one.
    """
    scales, floors, steps = scales or {}, floors or {}, steps or {}
    counts = {name: len(ranking.order) for name, ranking in rankings.items()}
    current = cost({})
    path: list[Step] = []

    def candidate(name: str) -> tuple[float, int] | None:
        return _best(
            rankings[name].errors * scales.get(name, 1.0),
            counts,
            name,
            max(floors.get(name, 1), 1),
            max(steps.get(name, 1), 1),
            lambda wanted: current - cost(wanted),
        )

    queue: list[tuple[float, str, int]] = []
    for name in counts:
        found = candidate(name)
        if found is not None:
            heapq.heappush(queue, (found[0], name, found[1]))
    while queue:
        name = heapq.heappop(queue)[1]
        fresh = candidate(name)
        if fresh is None:
            continue
        # Others may have made this layer narrower since: savings only shrink, so an entry that
        # is out of date is never too high, and looking again when it comes up is enough.
        if queue and fresh[0] > queue[0][0] * (1 + 1e-12) + 1e-300:
            heapq.heappush(queue, (fresh[0], name, fresh[1]))
            continue
        counts[name] = fresh[1]
        current = cost(counts)
        path.append(Step(name, fresh[1], current))
        following = candidate(name)
        if following is not None:
            heapq.heappush(queue, (following[0], name, following[1]))
    return Path(cost({}), tuple(path))


def _best(
    errors: np.ndarray,
    counts: Mapping[str, int],
    name: str,
    floor: int,
    step: int,
    saving: Callable[[Mapping[str, int]], float],
) -> tuple[float, int] | None:
    """The least error for saving of the next removals from a group, and what it then keeps."""
    channels, have = len(errors) - 1, counts[name]
    first = (have - 1) // step * step
    best: tuple[float, int] | None = None
    stride = max(1, channels // (_AHEAD * 8) // step) * step
    # Savings are linear in one group's units: one call tells them all.
    per_unit = saving({**counts, name: have - 1}) if have > 1 else 0.0
    if per_unit <= 0:
        return None
    for number in range(_AHEAD):
        count = first - number * stride
        if count < floor:
            break
        rise = float(errors[channels - count] - errors[channels - have])
        ratio = max(rise, 0.0) / (per_unit * (have - count))
        if best is None or ratio < best[0] * (1 - 1e-9):
            best = ratio, count
    return best
