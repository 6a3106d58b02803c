"""Operators that cut axes up and join them: Reshape, Flatten, Squeeze, Expand, Tile, ...

Both shapes of a Reshape are cut at every boundary that either has, counted from the last axis:
[32, 8, 8] -> [4, 512] is (4, 8, 8, 8) on both sides, where 32 = (4, 8) and 512 = (8, 8, 8).
Each axis is the row-major product of its pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod

import numpy as np

from graphopt.graph import ir
from graphopt.pruning.propagation.activation import broadcast
from graphopt.pruning.propagation.place import NotUnderstood, Place, Tensor
from graphopt.pruning.propagation.rule import Change, Rule, standard

_MERGED = "joins and cuts its axes where they do not meet"


def relate_reshape(place: Place, x: Tensor, y: Tensor) -> None:
    """Relate two tensors that hold the same elements in the same order."""
    if 0 in x.sizes:
        raise NotUnderstood("has no elements")
    if prod(x.sizes) != prod(y.sizes):
        if all(x.fixed) and all(y.fixed):
            raise NotUnderstood("has shapes that do not fit together")
        _relate_ends(place, x, y)
        return
    # Boundary number n of a tensor stands before its last n axes.
    ends = [
        [1, *accumulate(reversed(tensor.sizes), lambda total, size: total * size)]
        for tensor in (x, y)
    ]
    common = sorted(set(ends[0]) & set(ends[1]))
    for low, high in pairwise(common):
        parts = [
            (tensor, _between(tensor, end, low, high))
            for tensor, end in zip((x, y), ends, strict=True)
        ]
        cuts = sorted({end for both in ends for end in both if low <= end <= high})
        _relate_part(place, parts, cuts)


def _relate_ends(place: Place, x: Tensor, y: Tensor) -> None:
    """Dims that vary hide how the middle is cut: tie the equal axes at both ends."""
    shared = min(x.rank, y.rank)
    head = 0
    while head < shared and _equal(x, head, y, head):
        place.tie(x, head, y, head)
        head += 1
    tail = 0
    while tail < shared - head and _equal(x, x.rank - 1 - tail, y, y.rank - 1 - tail):
        place.tie(x, x.rank - 1 - tail, y, y.rank - 1 - tail)
        tail += 1
    for tensor in (x, y):
        for axis in range(head, tensor.rank - tail):
            place.freeze(tensor, axis, "cuts it in a way that depends on sizes that vary")


def _equal(x: Tensor, axis: int, y: Tensor, other: int) -> bool:
    return x.sizes[axis] == y.sizes[other] and x.fixed[axis] == y.fixed[other]


def _between(tensor: Tensor, ends: Sequence[int], low: int, high: int) -> list[tuple[int, int]]:
    """The axes of more than one index between two boundaries, each with its lower boundary."""
    return [
        (tensor.rank - 1 - number, ends[number])
        for number in range(tensor.rank)
        if tensor.sizes[tensor.rank - 1 - number] > 1 and low <= ends[number] < high
    ]


def _relate_part(
    place: Place, parts: list[tuple[Tensor, list[tuple[int, int]]]], cuts: list[int]
) -> None:
    (x, x_axes), (y, y_axes) = parts
    if len(x_axes) == 1 and len(y_axes) == 1:
        place.tie(x, x_axes[0][0], y, y_axes[0][0])
        return
    if any(high % low for low, high in pairwise(cuts)):
        for tensor, axes in parts:
            for axis, _ in axes:
                place.freeze(tensor, axis, _MERGED)
        return
    pieces = {low: place.virtual(high // low) for low, high in pairwise(cuts)}
    for tensor, axes in parts:
        for axis, low in axes:
            high = low * tensor.sizes[axis]
            inside = [cut for cut in reversed(cuts[:-1]) if low <= cut < high]
            place.product(tensor, axis, [pieces[cut] for cut in inside])


def _relate_reshape(place: Place) -> None:
    x, y = place.input(0), place.output()
    if place.version >= 5:
        _ignore_sizes(place, 1)
        if place.constant(1) is None and _computed_target(place.node, x, y) is None:
            raise NotUnderstood("has a target shape that only running the model tells")
    relate_reshape(place, x, y)


def _computed_target(node: ir.Node, x: Tensor, y: Tensor) -> np.ndarray | None:
    """A target that is computed while the model runs, as a constant; None if it cannot be."""
    if node.attributes.get_int("allowzero", 0):
        return None
    entries = [size if fixed else -1 for size, fixed in zip(y.sizes, y.fixed, strict=True)]
    for axis, entry in enumerate(entries):
        if entries.count(-1) < 2:
            break
        # The sizes of dims that vary are stand-ins, which are equal where the dims are.
        if entry == -1 and axis < x.rank and not x.fixed[axis] and x.sizes[axis] == y.sizes[axis]:
            entries[axis] = 0
    return None if entries.count(-1) > 1 else np.array(entries, np.int64)


def _ignore_sizes(place: Place, index: int) -> None:
    """An input that holds sizes is rewritten, not pruned."""
    sizes = place.optional(index)
    if sizes is not None:
        place.freeze_all(sizes, "reads sizes from it")


def _adapt_reshape(change: Change) -> None:
    shape = change.output_shape(0)
    kept = [change.kept_output(0, axis) for axis in range(len(shape))]
    if all(indices is None for indices in kept):
        # Only the inside of an axis that is copied as it is can have changed, which is no change.
        kept_in = [change.kept_input(0, axis) for axis in range(len(change.input_shape(0)))]
        if all(indices is None for indices in kept_in):
            return
    if change.version < 5:
        entries = list(change.node.attributes.get_ints("shape", ()))
    else:
        constant = change.constant(1)
        entries = [] if constant is None else constant.reshape(-1).tolist()
    source = change.input_shape(0)
    allow_zero = change.node.attributes.get_int("allowzero", 0)
    computed = not entries and bool(shape)
    varying = sum(size is None for size in shape)
    rewritten = []
    for axis, size in enumerate(shape):
        indices = kept[axis]
        if size is not None:
            rewritten.append(size if indices is None else len(indices))
        elif computed:
            copied = axis < len(source) and source[axis] is None and change.same_dim(axis)
            rewritten.append(0 if varying > 1 and copied and not allow_zero else -1)
            varying -= rewritten[-1] == 0
        else:
            rewritten.append(entries[axis])
    if change.version < 5:
        change.set_attribute("shape", rewritten)
    else:
        change.set_constant(1, np.array(rewritten, np.int64))


def _relate_flatten(place: Place) -> None:
    relate_reshape(place, place.input(0), place.output())


def _relate_squeeze(place: Place) -> None:
    for index in range(1, len(place.inputs)):
        _ignore_sizes(place, index)
    x, y = place.input(0), place.output()
    dropped = place.integers("axes")
    if place.has_input(1):
        constant = place.constant(1)
        if constant is None:
            raise NotUnderstood("has axes that are computed")
        dropped = tuple(constant.reshape(-1).tolist())
    if dropped is None:
        gone = {axis for axis, size in enumerate(x.sizes) if size == 1 and x.fixed[axis]}
    else:
        gone = {place.axis_of(x, axis) for axis in dropped}
    kept = [axis for axis in range(x.rank) if axis not in gone]
    if len(kept) != y.rank:
        raise NotUnderstood("has shapes that do not fit together")
    for target, axis in enumerate(kept):
        place.tie(x, axis, y, target)


def _relate_unsqueeze(place: Place) -> None:
    for index in range(1, len(place.inputs)):
        _ignore_sizes(place, index)
    x, y = place.input(0), place.output()
    added = place.integers("axes")
    if place.has_input(1):
        constant = place.constant(1)
        if constant is None:
            raise NotUnderstood("has axes that are computed")
        added = tuple(constant.reshape(-1).tolist())
    new = {place.axis_of(y, axis) for axis in added or ()}
    kept = [axis for axis in range(y.rank) if axis not in new]
    if len(kept) != x.rank:
        raise NotUnderstood("has shapes that do not fit together")
    for axis, target in enumerate(kept):
        place.tie(x, axis, y, target)


def _relate_expand(place: Place) -> None:
    _ignore_sizes(place, 1)
    x, y = place.input(0), place.output()
    broadcast(place, x, y)
    shift = y.rank - x.rank
    for axis in range(y.rank):
        stretched = axis < shift or (x.sizes[axis - shift] == 1 and y.sizes[axis] != 1)
        if stretched:
            place.freeze(y, axis, "repeats one index along it")
            if place.constant(1) is None and not y.fixed[axis]:
                raise NotUnderstood("has a target shape that only running the model tells")


def _adapt_expand(change: Change) -> None:
    shape, source = change.output_shape(0), change.input_shape(0)
    shift = len(shape) - len(source)
    kept = [change.kept_output(0, axis) for axis in range(len(shape))]
    if all(indices is None for indices in kept):
        return
    entries = []
    constant = change.constant(1)
    given = None if constant is None else constant.reshape(-1).tolist()
    for axis, size in enumerate(shape):
        copied = axis >= shift and source[axis - shift] == size and size != 1
        if copied or (size is None and given is None):
            entries.append(1)  # an entry of 1 copies the input's size
        elif size is None and given is not None:
            entries.append(given[axis - len(shape)] if len(given) >= len(shape) - axis else 1)
        else:
            entries.append(size or 1)
    change.set_constant(1, np.array(entries, np.int64))


def _relate_tile(place: Place) -> None:
    for index in range(1, len(place.inputs)):
        _ignore_sizes(place, index)
    repeats = place.constant(1)
    x, y = place.input(0), place.output()
    if repeats is None or place.version < 6 or repeats.size != x.rank or x.rank != y.rank:
        raise NotUnderstood("has repeats that are computed")
    for axis, times in enumerate(repeats.reshape(-1).tolist()):
        if times == 1:
            place.tie(x, axis, y, axis)
            continue
        if x.sizes[axis] * times != y.sizes[axis]:
            raise NotUnderstood("has shapes that do not fit together")
        outer, inner = place.virtual(times), place.virtual(x.sizes[axis])
        if times > 1:
            place.freeze_virtual(outer, "repeats it whole")
        place.product(y, axis, (outer, inner))
        place.tie_axis(x, axis, inner)


RESHAPING_RULES = {
    **standard(("Reshape",), Rule(_relate_reshape, _adapt_reshape)),
    **standard(("Flatten",), Rule(_relate_flatten)),
    **standard(("Squeeze",), Rule(_relate_squeeze)),
    **standard(("Unsqueeze",), Rule(_relate_unsqueeze)),
    **standard(("Expand",), Rule(_relate_expand, _adapt_expand)),
    **standard(("Tile",), Rule(_relate_tile)),
}
