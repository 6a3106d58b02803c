"""QuantizeLinear and DequantizeLinear: y[i] = (x[i] - zero_point[c]) * scale[c].

Per channel the scale goes with its axis; in blocks of b, index i of the axis has scale i // b.
"""

from __future__ import annotations

from graphopt.pruning.groups import Role
from graphopt.pruning.propagation.place import NotUnderstood, Place, Tensor
from graphopt.pruning.propagation.rule import Rule, standard


def _relate(place: Place) -> None:
    x, y = place.input(0), place.output()
    place.same(x, y)
    for index in (1, 2):
        parameter = place.optional(index)
        if parameter is None or all(size == 1 for size in parameter.sizes):
            continue
        axis = place.axis_of(x, place.integer("axis", 1))
        block = place.integer("block_size", 0)
        if parameter.rank == 1 and not block:
            place.tie(parameter, 0, x, axis)
            _role(place, index, parameter, 0)
        elif block and parameter.rank == x.rank:
            _relate_blocked(place, x, parameter, axis, block)
        else:
            raise NotUnderstood("has scales that fit neither channels nor blocks")


def _role(place: Place, index: int, parameter: Tensor, axis: int) -> None:
    if not place.input(0).parameter:
        place.weight(index, axis, Role.VECTOR)


def _relate_blocked(place: Place, x: Tensor, scale: Tensor, axis: int, block: int) -> None:
    for number in range(x.rank):
        if number != axis:
            place.tie(x, number, scale, number)
        elif x.sizes[axis] % block:
            place.freeze(x, axis, "has a last block that is not full")
        else:
            outer, inner = place.virtual(x.sizes[axis] // block), place.virtual(block)
            if block > 1:
                place.freeze_virtual(inner, "has one scale for it")
            place.tie_axis(scale, axis, outer)
            place.product(x, axis, (outer, inner))


def _relate_dynamic(place: Place) -> None:
    """One scale for the whole tensor: a channel that is zero does not widen its range."""
    place.same(place.input(0), place.output())


QUANTIZATION_RULES = {
    **standard(("QuantizeLinear", "DequantizeLinear"), Rule(_relate)),
    **standard(("DynamicQuantizeLinear",), Rule(_relate_dynamic)),
}
