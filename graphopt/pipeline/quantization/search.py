"""The fastest mixture of integers and floats whose metric is within the budget.

Groups are given up in a fixed order (see `graphopt.quantization.sensitivity`); how many have to
be is found by bisection, so a model of n groups takes log2(n) + 1 evaluations of the metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from graphopt.pipeline.quantization.report import Evaluation

EVALUATIONS = 12
"""A search never takes more of them, and of a hundred groups no more than nine."""


@dataclass(frozen=True)
class Found:
    """The end of a search.

    Attributes:
        given_up: the groups to leave float; None if not even giving up all but one was enough.
        evaluations: what was tried, by number of groups given up.
    """

    given_up: tuple[str, ...] | None
    evaluations: tuple[Evaluation, ...]


def search(
    order: Sequence[str],
    gain: Mapping[str, float],
    measure: Callable[[Sequence[str]], float],
    allows: Callable[[float], bool],
    *,
    first: float,
    evaluations: int = EVALUATIONS,
) -> Found:
    """Find how many groups have to be given up.

    Args:
        order: the groups, those first that are given up first.
        gain: group -> what quantizing it saves.
        measure: the metric of the model with these groups float.
        allows: whether a metric is within the budget.
        first: the metric with no group given up.
        evaluations: at most so many measurements, that one included.
    """
    whole = sum(max(gain.get(name, 0.0), 0.0) for name in order)
    tried: dict[int, Evaluation] = {}

    def judge(count: int, value: float) -> bool:
        lost = sum(max(gain.get(name, 0.0), 0.0) for name in order[:count])
        kept = 1.0 - lost / whole if whole else 1.0
        tried[count] = Evaluation(count, value, kept, allows(value))
        return tried[count].allowed

    def result(count: int | None) -> Found:
        made = tuple(tried[number] for number in sorted(tried))
        return Found(None if count is None else tuple(order[:count]), made)

    if judge(0, first):
        return result(0)
    failing, passing = 0, len(order)
    for _ in range(evaluations - 1):
        if passing - failing < 2:
            break
        middle = _middle(failing, passing, len(order))
        if judge(middle, measure(order[:middle])):
            passing = middle
        else:
            failing = middle
    return result(passing if passing < len(order) else None)


def _middle(failing: int, passing: int, count: int) -> int:
    """Where to try next. Noise is in few groups, so the first try is nearer to the start."""
    if failing == 0 and passing == count:
        return min(max(1, round(math.sqrt(count))), count - 1)
    return (failing + passing) // 2
