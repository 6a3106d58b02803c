"""Reductions: a sum does without a channel that is zero; a mean or a maximum does not."""

from __future__ import annotations

from graphopt.pruning.propagation.place import NotUnderstood, Place
from graphopt.pruning.propagation.rule import Rule, standard

_SUMS = ("ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2")
_OTHERS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp")


def _reduced(place: Place) -> set[int]:
    x = place.input(0)
    axes = place.integers("axes")
    if place.has_input(1):
        constant = place.constant(1)
        if constant is None:
            raise NotUnderstood("has axes that are computed")
        axes = tuple(constant.reshape(-1).tolist())
        place.freeze_all(place.optional(1), "reads axes from it")
    if not axes:
        return set() if place.integer("noop_with_empty_axes", 0) else set(range(x.rank))
    return {place.axis_of(x, axis) for axis in axes}


def _relate(place: Place, *, is_sum: bool) -> None:
    x, y = place.input(0), place.output()
    reduced = _reduced(place)
    keep = place.integer("keepdims", 1)
    target = 0
    for axis in range(x.rank):
        if axis not in reduced:
            place.tie(x, axis, y, target)
        elif is_sum:
            place.ignore(x, axis)
        else:
            place.freeze(x, axis, "reduces it to one number that every index decides")
        target += axis not in reduced or bool(keep)


def _relate_sum(place: Place) -> None:
    _relate(place, is_sum=True)


def _relate_other(place: Place) -> None:
    _relate(place, is_sum=False)


def _relate_best(place: Place) -> None:
    """ArgMax, ArgMin."""
    x, y = place.input(0), place.output()
    best = place.axis_of(x, place.integer("axis", 0))
    keep = place.integer("keepdims", 1)
    place.freeze(x, best, "compares along it")
    others = [axis for axis in range(x.rank) if axis != best]
    for axis in others:
        place.tie(x, axis, y, axis if keep or axis < best else axis - 1)


def _relate_top(place: Place) -> None:
    x = place.input(0)
    axis = place.axis_of(x, place.integer("axis", -1))
    for result in place.outputs:
        if result is not None:
            place.same(x, result, but=(axis,))
            place.freeze(result, axis, "sorts it")
    place.freeze(x, axis, "sorts it")
    place.freeze_all(place.optional(1), "reads sizes from it")


REDUCTION_RULES = {
    **standard(_SUMS, Rule(_relate_sum)),
    **standard(_OTHERS, Rule(_relate_other)),
    **standard(("ArgMax", "ArgMin"), Rule(_relate_best)),
    **standard(("TopK",), Rule(_relate_top)),
}
