"""Operators that move whole channels about: Transpose, DepthToSpace, SpaceToDepth."""

from __future__ import annotations

import numpy as np

from graphopt.pruning.propagation.place import NotUnderstood, Place, Tensor
from graphopt.pruning.propagation.rule import Rule, standard


def _relate_transpose(place: Place) -> None:
    x, y = place.input(0), place.output()
    order = place.integers("perm") or tuple(reversed(range(x.rank)))
    if sorted(order) != list(range(x.rank)) or y.rank != x.rank:
        raise NotUnderstood("has shapes that do not fit together")
    for target, axis in enumerate(order):
        place.tie(x, axis, y, target)


def _relate_blocks(place: Place, deep: Tensor, wide: Tensor, *, depth_first: bool) -> None:
    """deep[N, C*r*r, H, W] and wide[N, C, H*r, W*r]: channel c is r*r channels of `deep`."""
    block = place.integer("blocksize", 1)
    if deep.rank != 4 or wide.rank != 4 or deep.sizes[1] != wide.sizes[1] * block * block:
        raise NotUnderstood("has shapes that do not fit together")
    place.tie(deep, 0, wide, 0)
    channel, square = place.virtual(wide.sizes[1]), place.virtual(block * block)
    if block > 1:
        place.freeze_virtual(square, "lays it out in space")
    place.tie_axis(wide, 1, channel)
    place.product(deep, 1, (channel, square) if depth_first else (square, channel))


def _relate_depth_to_space(place: Place) -> None:
    """DCR: channel = (i, j, c); CRD: channel = (c, i, j)."""
    crd = place.text("mode", "DCR") == "CRD"
    _relate_blocks(place, place.input(0), place.output(), depth_first=crd)


def _relate_space_to_depth(place: Place) -> None:
    """Channel of the result = (i, j, c)."""
    _relate_blocks(place, place.output(), place.input(0), depth_first=False)


def _relate_trilu(place: Place) -> None:
    x, y = place.input(0), place.output()
    place.same(x, y)
    for axis in range(x.rank - 2, x.rank):
        place.freeze(x, axis, "compares positions along it")


def _relate_reverse(place: Place) -> None:
    x, y = place.input(0), place.output()
    place.same(x, y)
    for name, default in (("batch_axis", 1), ("time_axis", 0)):
        place.freeze(x, place.integer(name, default), "turns it around")


def _relate_cumulative(place: Place) -> None:
    x, y = place.input(0), place.output()
    axis = place.constant(1)
    place.same(x, y)
    for number in range(x.rank) if axis is None else [place.axis_of(x, int(axis.reshape(-1)[0]))]:
        place.freeze(x, number, "accumulates along it")


def _relate_shape(place: Place) -> None:
    """The sizes that are read must stay; a size that varies is none of a channel."""
    x = place.input(0)
    start = place.integer("start", 0)
    end = place.integer("end", x.rank)
    for axis in range(x.rank)[slice(start, end)]:
        if _is_read(place, axis - range(x.rank)[slice(start, end)].start):
            place.freeze(x, axis, "reads its size")
    for axis in range(x.rank):
        place.ignore(x, axis)


def _is_read(place: Place, position: int) -> bool:
    """Whether anybody looks at one entry of a shape, other than by an index that is known."""
    from graphopt.graph import constant_array

    value = place.node.outputs[0]
    if value.is_graph_output():
        return True
    for usage in value.uses():
        node = usage.node
        if node.op_type != "Gather" or usage.idx != 0 or node.domain:
            return True
        indices = constant_array(node.inputs[1], 64)
        count = place.output().sizes[0]
        if indices is None or any(
            (index + count if index < 0 else index) == position
            for index in np.asarray(indices).reshape(-1).tolist()
        ):
            return True
    return False


def _relate_size(place: Place) -> None:
    place.freeze_all(place.input(0), "reads its size")


MOVEMENT_RULES = {
    **standard(("Transpose",), Rule(_relate_transpose)),
    **standard(("DepthToSpace",), Rule(_relate_depth_to_space)),
    **standard(("SpaceToDepth",), Rule(_relate_space_to_depth)),
    **standard(("Trilu",), Rule(_relate_trilu)),
    **standard(("ReverseSequence",), Rule(_relate_reverse)),
    **standard(("CumSum", "CumProd"), Rule(_relate_cumulative)),
    **standard(("Shape",), Rule(_relate_shape)),
    **standard(("Size",), Rule(_relate_size)),
}
