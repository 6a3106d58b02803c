"""Operators that take axes apart and put them together: Concat, Split, Slice, Gather, Pad."""

from __future__ import annotations

import numpy as np

from graphopt.graph import constant_array
from graphopt.pruning.groups import Role
from graphopt.pruning.propagation.place import NotUnderstood, Place, Tensor
from graphopt.pruning.propagation.rule import Change, Rule, standard


def _relate_concat(place: Place) -> None:
    y = place.output()
    axis = place.axis_of(y, place.integer("axis", 1))
    offset = 0
    for tensor in place.inputs:
        if tensor is None:
            continue
        place.same(tensor, y, but=(axis,))
        size = tensor.sizes[axis]
        if not tensor.fixed[axis] or not y.fixed[axis]:
            place.freeze(tensor, axis, "joins parts whose sizes vary")
            place.freeze(y, axis, "joins parts whose sizes vary")
            continue
        position = np.arange(size)
        place.match(tensor, axis, position, y, axis, offset + position)
        offset += size


def _relate_split(place: Place) -> None:
    x = place.input(0)
    axis = place.axis_of(x, place.integer("axis", 0))
    if place.has_input(1):
        place.freeze_all(place.input(1), "reads sizes from it")
        if place.constant(1) is None:
            raise NotUnderstood("has sizes that only running the model tells")
    offset = 0
    for number, part in enumerate(place.outputs):
        if part is None:
            raise NotUnderstood(f"lacks its output {number}")
        place.same(part, x, but=(axis,))
        if not x.fixed[axis] or not part.fixed[axis]:
            raise NotUnderstood("has sizes that vary")
        position = np.arange(part.sizes[axis])
        place.match(x, axis, offset + position, part, axis, position)
        offset += part.sizes[axis]
    if offset != x.sizes[axis]:
        raise NotUnderstood("has shapes that do not fit together")


def _adapt_split(change: Change) -> None:
    rank = len(change.input_shape(0))
    axis = change.node.attributes.get_int("axis", 0) % rank
    if change.kept_input(0, axis) is None:
        return
    sizes = []
    for number in range(len(change.node.outputs)):
        kept = change.kept_output(number, axis)
        sizes.append(change.output_shape(number)[axis] or 0 if kept is None else len(kept))
    if change.version < 13:
        change.set_attribute("split", sizes)
    else:
        change.remove_attribute("num_outputs")
        change.set_constant(1, np.array(sizes, np.int64))


def slice_parameters(
    place: Place | Change,
) -> tuple[list[int], list[int], list[int], list[int]] | None:
    """Starts, ends, axes and steps of a Slice; None where they are computed."""
    if place.version < 10:
        attributes = place.node.attributes
        starts = list(attributes.get_ints("starts", ()))
        ends = list(attributes.get_ints("ends", ()))
        axes = list(attributes.get_ints("axes", range(len(starts))))
        return starts, ends, axes, [1] * len(starts)
    read = [place.constant(1), place.constant(2)]
    if read[0] is None or read[1] is None:
        return None
    starts, ends = (array.reshape(-1).tolist() for array in read if array is not None)
    inputs = place.node.inputs
    rest: list[list[int]] = []
    for index, default in ((3, list(range(len(starts)))), (4, [1] * len(starts))):
        if index >= len(inputs) or inputs[index] is None:
            rest.append(default)
            continue
        array = place.constant(index)
        if array is None:
            return None
        rest.append(array.reshape(-1).tolist())
    return starts, ends, rest[0], rest[1]


def _computed_slice_axes(place: Place, x: Tensor) -> set[int]:
    """The axes that a Slice with computed bounds cuts; all where they are computed too."""
    if not place.has_input(3):
        count = place.input(1).sizes[0]
        return set(range(count))
    axes = place.constant(3)
    if axes is None:
        return set(range(x.rank))
    return {place.axis_of(x, axis) for axis in axes.reshape(-1).tolist()}


def _relate_slice(place: Place) -> None:
    x, y = place.input(0), place.output()
    if x.rank != y.rank:
        raise NotUnderstood("has shapes that do not fit together")
    for index in range(1, len(place.inputs)):
        if place.optional(index) is not None:
            place.freeze_all(place.optional(index), "reads positions from it")
    parameters = slice_parameters(place)
    if parameters is None:
        cut = _computed_slice_axes(place, x)
        place.same(x, y, but=sorted(cut))
        for axis in sorted(cut):
            for tensor in (x, y):
                place.freeze(tensor, axis, "cuts it where only running the model tells")
        return
    ranges = {
        place.axis_of(x, axis): slice(*_bounds(start, end, step))
        for start, end, axis, step in zip(*parameters, strict=True)
    }
    for axis in range(x.rank):
        cut_here = ranges.get(axis, slice(None))
        taken = np.arange(x.sizes[axis])[cut_here] if x.fixed[axis] else None
        if taken is not None and len(taken) != y.sizes[axis]:
            raise NotUnderstood("has shapes that do not fit together")
        if taken is None:
            if x.sizes[axis] == y.sizes[axis] and axis not in ranges:
                place.tie(x, axis, y, axis)
            else:
                place.freeze(x, axis, "cuts it")
                place.freeze(y, axis, "cuts it")
        elif (
            cut_here.step not in (None, 1, -1)
            and len(ranges) > 1
            and not _is_alone(ranges, axis, x)
        ):
            place.freeze(x, axis, "takes every so many of it, and cuts other axes too")
            place.freeze(y, axis, "takes every so many of it, and cuts other axes too")
        elif len(taken) == x.sizes[axis] and cut_here.step != -1:
            place.tie(x, axis, y, axis)
        else:
            place.match(x, axis, taken, y, axis, np.arange(len(taken)))


def _is_alone(ranges: dict[int, slice], axis: int, x: Tensor) -> bool:
    """Whether the other axes that a Slice names are taken whole."""
    return all(
        other == axis or (x.fixed[other] and range(x.sizes[other])[cut] == range(x.sizes[other]))
        for other, cut in ranges.items()
    )


def _bounds(start: int, end: int, step: int) -> tuple[int, int | None, int]:
    """Bounds as Python takes them: ONNX writes "to the very front" as a large negative end."""
    limit = 1 << 40
    if step < 0 and end < -limit:
        return start, None, step
    return max(-limit, min(start, limit)), max(-limit, min(end, limit)), step


def _adapt_slice(change: Change) -> None:
    parameters = slice_parameters(change)
    if parameters is None:
        return
    starts, ends, axes, steps = (list(items) for items in parameters)
    changed = False
    shape = change.input_shape(0)
    for number, axis in enumerate(axes):
        position = axis % len(shape)
        kept, size = change.kept_input(0, position), shape[position]
        if kept is None or size is None:
            continue
        cut = slice(*_bounds(starts[number], ends[number], steps[number]))
        taken = np.isin(kept, np.arange(size)[cut]).nonzero()[0]
        if abs(steps[number]) > 1:
            # What is left of every so many is no longer evenly spaced.
            change.become_gather(position, taken if steps[number] > 0 else taken[::-1])
            return
        first, last = int(taken[0]), int(taken[-1])
        changed = True
        if steps[number] > 0:
            starts[number], ends[number] = first, last + 1
        else:
            starts[number], ends[number] = last, first - 1 if first else -(2**31)
    if not changed:
        return
    if change.version < 10:
        change.set_attribute("starts", starts)
        change.set_attribute("ends", ends)
    else:
        kind = np.int64
        for index, entries in ((1, starts), (2, ends)):
            old = change.constant(index)
            change.set_constant(index, np.array(entries, kind if old is None else old.dtype))


def _relate_gather(place: Place) -> None:
    x, indices, y = place.input(0), place.input(1), place.output()
    axis = place.axis_of(x, place.integer("axis", 0))
    if y.rank != x.rank - 1 + indices.rank:
        raise NotUnderstood("has shapes that do not fit together")
    for number in range(x.rank):
        if number != axis:
            place.tie(x, number, y, number if number < axis else number - 1 + indices.rank)
            place.weight(0, number, Role.PRODUCER)
    constant = constant_array(place.node.inputs[1], 1 << 16)
    if constant is not None and indices.rank == 1 and x.fixed[axis] and x.sizes[axis] > 1:
        taken = np.asarray(constant, np.int64)
        taken = np.where(taken < 0, taken + x.sizes[axis], taken)
        if taken.size and taken.min() >= 0 and taken.max() < x.sizes[axis]:
            place.match(x, axis, taken, y, axis, np.arange(len(taken)))
            place.freeze_all(indices, "reads positions from it")
            return
    place.freeze(x, axis, "picks from it by position")
    if not indices.parameter:
        for number in range(indices.rank):
            place.tie(indices, number, y, axis + number)
        return
    place.freeze_all(indices, "reads positions from it")
    for number in range(indices.rank):
        place.freeze(y, axis + number, "picks from it by position")


def _adapt_gather(change: Change) -> None:
    rank = len(change.input_shape(0))
    axis = change.node.attributes.get_int("axis", 0) % rank
    kept_in = change.kept_input(0, axis)
    constant = change.constant(1)
    if kept_in is None or constant is None:
        return
    size = change.input_shape(0)[axis] or 0
    taken = np.where(constant < 0, constant + size, constant)
    kept_out = change.kept_output(0, axis)
    if kept_out is not None:
        taken = taken[kept_out]
    change.set_constant(1, np.searchsorted(kept_in, taken).astype(constant.dtype))


def _relate_pad(place: Place) -> None:
    x = place.input(0)
    for index in range(1, len(place.inputs)):
        if place.optional(index) is not None:
            place.freeze_all(place.optional(index), "reads sizes from it")
    if place.version < 11:
        given = place.integers("pads") or place.integers("paddings")
    else:
        constant = place.constant(1)
        given = None if constant is None else tuple(constant.reshape(-1).tolist())
    axes = tuple(range(x.rank))
    if place.has_input(3):
        listed = place.constant(3)
        if listed is None:
            raise NotUnderstood("has axes that are computed")
        axes = tuple(place.axis_of(x, axis) for axis in listed.reshape(-1).tolist())
    before: list[int | None] = [0] * x.rank
    after: list[int | None] = [0] * x.rank
    if given is not None and len(given) != 2 * len(axes):
        raise NotUnderstood("has shapes that do not fit together")
    for number, axis in enumerate(axes):
        before[axis] = None if given is None else given[number]
        after[axis] = None if given is None else given[number + len(axes)]
    constant_mode = place.text("mode", "constant") == "constant"
    for axis in range(x.rank):
        _relate_padded(place, axis, before[axis], after[axis], constant_mode=constant_mode)


def _relate_padded(
    place: Place, axis: int, before: int | None, after: int | None, *, constant_mode: bool
) -> None:
    x, y = place.input(0), place.output()
    if before == 0 and after == 0:
        place.tie(x, axis, y, axis)
        return
    known = before is not None and after is not None and x.fixed[axis] and y.fixed[axis]
    if not known or not constant_mode or before is None or after is None or min(before, after) < 0:
        for tensor in (x, y):
            place.freeze(tensor, axis, "pads it")
        return
    position = np.arange(x.sizes[axis])
    place.match(x, axis, position, y, axis, before + position)


def _adapt_pad(change: Change) -> None:
    """Indices that are filled with a constant can go as others can."""
    shape, padded = change.input_shape(0), change.output_shape(0)
    rank = len(shape)
    if change.version < 11:
        name = "pads" if "pads" in change.node.attributes else "paddings"
        pads = list(change.node.attributes.get_ints(name, ()))
        axes = list(range(rank))
    else:
        constant = change.constant(1)
        pads = [] if constant is None else constant.reshape(-1).tolist()
        listed = change.constant(3)
        axes = list(range(rank)) if listed is None else [int(a) % rank for a in listed.reshape(-1)]
    before = list(pads)
    for number, axis in enumerate(axes):
        kept, size, whole = change.kept_output(0, axis), shape[axis], padded[axis]
        if kept is None or size is None or whole is None or not pads:
            continue
        low = pads[number]
        pads[number] = int((kept < low).sum())
        pads[number + len(axes)] = int((kept >= low + size).sum())
    if pads == before:
        return
    if change.version < 11:
        change.set_attribute(name, pads)
    else:
        change.set_constant(1, np.array(pads, np.int64))


INDEXING_RULES = {
    **standard(("Concat",), Rule(_relate_concat)),
    **standard(("Split",), Rule(_relate_split, _adapt_split)),
    **standard(("Slice",), Rule(_relate_slice, _adapt_slice)),
    **standard(("Gather",), Rule(_relate_gather, _adapt_gather)),
    **standard(("Pad",), Rule(_relate_pad, _adapt_pad)),
}
