"""Norms: a channel goes with its own scale and shift, unless its statistics mix channels."""

from __future__ import annotations

import math

from graphopt.pruning.groups import Role
from graphopt.pruning.propagation.activation import broadcast, vector_roles
from graphopt.pruning.propagation.place import NotUnderstood, Place, Tensor
from graphopt.pruning.propagation.rule import Change, Rule, standard

_STATISTICS = "takes its statistics over it"


def _vectors(place: Place, indices: range, x: Tensor) -> None:
    for index in indices:
        vector = place.optional(index)
        if vector is None:
            continue
        if vector.rank != 1:
            raise NotUnderstood("has parameters that are not one number for each channel")
        place.tie(vector, 0, x, 1)
        place.weight(index, 0, Role.VECTOR)


def _relate_batch(place: Place) -> None:
    x, y = place.input(0), place.output()
    if place.integer("training_mode", 0) or sum(o is not None for o in place.outputs) > 1:
        raise NotUnderstood("is in training mode")
    if not place.integer("spatial", 1):
        raise NotUnderstood("has statistics for every position")
    place.same(x, y)
    if x.rank < 2:
        raise NotUnderstood("has no axis of channels")
    _vectors(place, range(1, 5), x)


def _relate_instance(place: Place) -> None:
    x, y = place.input(0), place.output()
    if x.rank < 3:
        raise NotUnderstood("has no axis of channels")
    place.same(x, y)
    for axis in range(2, x.rank):
        place.freeze(x, axis, _STATISTICS)
    _vectors(place, range(1, 3), x)


def _relate_layer(place: Place) -> None:
    x, y = place.input(0), place.output()
    start = place.axis_of(x, place.integer("axis", -1))
    place.same(x, y)
    for axis in range(start, x.rank):
        place.freeze(x, axis, _STATISTICS)
    for index in (1, 2):
        if place.optional(index) is not None:
            broadcast(place, place.input(index), y)
            vector_roles(place, index, y)
    for extra in place.outputs[1:]:
        place.freeze_all(extra, _STATISTICS)


def _relate_group(place: Place) -> None:
    x, y = place.input(0), place.output()
    groups = place.integer("num_groups", 0)
    if x.rank < 2 or groups < 1 or not x.fixed[1] or x.sizes[1] % groups:
        raise NotUnderstood("has channels that its groups do not divide")
    place.same(x, y)
    for axis in range(2, x.rank):
        place.freeze(x, axis, _STATISTICS)
    outer, inner = place.virtual(groups), place.virtual(x.sizes[1] // groups)
    if place.relations.sizes[inner] > 1:
        place.freeze_virtual(inner, _STATISTICS)
    place.product(x, 1, (outer, inner))
    for index in (1, 2):
        vector = place.input(index)
        if vector.sizes == (groups,) and place.version < 21:
            place.tie_axis(vector, 0, outer)
        else:
            place.tie(vector, 0, x, 1)
        place.weight(index, 0, Role.VECTOR)


def _adapt_group(change: Change) -> None:
    kept = change.kept_input(0, 1)
    before = change.input_shape(0)[1]
    if kept is not None and before:
        groups = change.node.attributes.get_int("num_groups", 1)
        change.set_attribute("num_groups", math.ceil(groups * len(kept) / before))


def _relate_lrn(place: Place) -> None:
    x, y = place.input(0), place.output()
    place.same(x, y)
    place.freeze(x, 1, "divides by a sum over its neighbours")


def _relate_mean_variance(place: Place) -> None:
    x, y = place.input(0), place.output()
    place.same(x, y)
    for axis in place.integers("axes") or (0, 2, 3):
        place.freeze(x, place.axis_of(x, axis), _STATISTICS)


def _relate_softmax(place: Place) -> None:
    x, y = place.input(0), place.output()
    old = place.version < 13
    start = place.axis_of(x, place.integer("axis", 1 if old else -1))
    place.same(x, y)
    # Before operator set 13 all axes from this one on are taken together.
    for axis in range(start, x.rank if old else start + 1):
        place.freeze(x, axis, "normalizes over it")


def _relate_lp(place: Place) -> None:
    """A channel that is zero adds nothing to the norm, so it can go."""
    place.axis_of(place.input(0), place.integer("axis", -1))
    place.same(place.input(0), place.output())


NORMALIZATION_RULES = {
    **standard(("BatchNormalization",), Rule(_relate_batch)),
    **standard(("InstanceNormalization",), Rule(_relate_instance)),
    **standard(
        ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"),
        Rule(_relate_layer),
    ),
    **standard(("GroupNormalization",), Rule(_relate_group, _adapt_group)),
    **standard(("LRN",), Rule(_relate_lrn)),
    **standard(("MeanVarianceNormalization",), Rule(_relate_mean_variance)),
    **standard(("Softmax", "LogSoftmax", "Hardmax"), Rule(_relate_softmax)),
    **standard(("LpNormalization",), Rule(_relate_lp)),
}
