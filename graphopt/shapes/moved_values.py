"""The numbers in small tensors, through operators that make, move and reduce them."""

import math
from collections.abc import Callable

import numpy as np

from graphopt.shapes import arithmetic
from graphopt.shapes.elementwise_values import Rule, elements_or_unknown
from graphopt.shapes.expression import Dim, Expression
from graphopt.shapes.facts import MAX_ELEMENTS, MAX_RANK, Elements, object_array, plain_element
from graphopt.shapes.node_view import NodeView, normalized_axis
from graphopt.shapes.slicing import clamped_slice, slice_parameters, split_sizes

_EXACT_IN_DOUBLES = 2**53


def _shape(view: NodeView) -> list[Elements | None] | None:
    dims = view.dims(0)
    if dims is None:
        return None
    rank = len(dims)
    start, end = view.int_attribute("start", 0), view.int_attribute("end", rank)
    start = min(max(start + rank if start < 0 else start, 0), rank)
    end = min(max(end + rank if end < 0 else end, 0), rank)
    chosen = dims[start:end]
    return [object_array(chosen, (len(chosen),))]


def _size(view: NodeView) -> list[Elements | None] | None:
    dims = view.dims(0)
    return None if dims is None else [object_array([arithmetic.product(dims)], ())]


def _identity(view: NodeView) -> list[Elements | None] | None:
    return [view.elements(0)]


def _gather(view: NodeView) -> list[Elements | None] | None:
    data, indices = view.elements(0), view.elements(1)
    if data is None or indices is None:
        return None
    axis = normalized_axis(view.int_attribute("axis", 0), data.ndim)
    flat = view.integers(1)
    if axis is None or flat is None:
        return None
    size = data.shape[axis]
    if any(not -size <= index < size for index in flat):
        return None
    if len(flat) * data.size > MAX_ELEMENTS**2:
        return None
    positions = np.array(flat, dtype=np.int64).reshape(indices.shape)
    return [_as_array(np.take(data, positions, axis=axis))]


def _as_array(result: object) -> Elements:
    if isinstance(result, np.ndarray):
        return result
    return object_array([result], ())


def _slice(view: NodeView) -> list[Elements | None] | None:
    data = view.elements(0)
    if data is None:
        return None
    bounds = slice_parameters(view, data.ndim)
    if bounds is None:
        return None
    selection: list[slice] = [slice(None)] * data.ndim
    for axis, start, end, step in bounds:
        size = data.shape[axis]
        if not isinstance(start, int) or not isinstance(end, int) or not isinstance(step, int):
            return None
        begin, stop = clamped_slice(start, end, step, size)
        # A negative stop means "before the first", which Python spells None.
        selection[axis] = slice(begin, None if stop < 0 else stop, step)
    return [data[tuple(selection)]]


def _concat(view: NodeView) -> list[Elements | None] | None:
    parts = [elements_or_unknown(view, i, view.elements(i)) for i in range(len(view.inputs))]
    known = [part for part in parts if part is not None]
    if len(known) != len(parts) or not known or known[0].ndim == 0:
        return None
    axis = normalized_axis(view.int_attribute("axis", 0), known[0].ndim)
    if axis is None or sum(part.size for part in known) > MAX_ELEMENTS:
        return None
    return [np.concatenate(known, axis=axis)]


def _unsqueeze(view: NodeView) -> list[Elements | None] | None:
    data, axes = view.elements(0), view.axes(1)
    if data is None or axes is None:
        return None
    rank = data.ndim + len(axes)
    chosen = {normalized_axis(axis, rank) for axis in axes}
    if None in chosen or len(chosen) != len(axes):
        return None
    sizes = iter(data.shape)
    return [data.reshape([1 if axis in chosen else next(sizes) for axis in range(rank)])]


def _squeeze(view: NodeView) -> list[Elements | None] | None:
    data, axes = view.elements(0), view.axes(1)
    if data is None:
        return None
    if axes is None:
        if view.fact(1) is not None:
            return None
        return [data.reshape([size for size in data.shape if size != 1])]
    chosen = {normalized_axis(axis, data.ndim) for axis in axes}
    if any(axis is None or data.shape[axis] != 1 for axis in chosen):
        return None
    return [data.reshape([s for axis, s in enumerate(data.shape) if axis not in chosen])]


def _reshape(view: NodeView) -> list[Elements | None] | None:
    data = view.elements(0)
    target = view.integers(1)
    if data is None or target is None or any(size < -1 for size in target):
        return None
    if not view.int_attribute("allowzero", 0):
        if any(size == 0 and axis >= data.ndim for axis, size in enumerate(target)):
            return None
        target = [data.shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    try:
        return [data.reshape(target)]
    except ValueError:
        return None


def _flatten(view: NodeView) -> list[Elements | None] | None:
    data = view.elements(0)
    if data is None:
        return None
    axis = view.int_attribute("axis", 1)
    axis = axis + data.ndim if axis < 0 else axis
    if not 0 <= axis <= data.ndim:
        return None
    return [data.reshape(math.prod(data.shape[:axis]), math.prod(data.shape[axis:]))]


def _transpose(view: NodeView) -> list[Elements | None] | None:
    data = view.elements(0)
    if data is None:
        return None
    permutation = view.ints_attribute("perm")
    if permutation is not None and sorted(permutation) != list(range(data.ndim)):
        return None
    return [data.transpose(permutation)]


def _small_shape(sizes: list[int] | None) -> tuple[int, ...] | None:
    # Beside an empty axis another one may have any size; numpy cannot hold that.
    if sizes is None or any(not 0 <= size <= MAX_ELEMENTS for size in sizes):
        return None
    if math.prod(sizes) > MAX_ELEMENTS or len(sizes) > MAX_RANK:
        return None
    return tuple(sizes)


def _constant_of_shape(view: NodeView) -> list[Elements | None] | None:
    shape = _small_shape(view.integers(0))
    if shape is None:
        return None
    attribute = view.attributes.get("value")
    fill: object = np.float32(0)
    if attribute is not None:
        array = attribute.as_tensor().numpy()
        if array.size != 1:
            return None
        fill = plain_element(array.reshape(())[()])
    return [object_array([fill] * math.prod(shape), shape)]


def _range(view: NodeView) -> list[Elements | None] | None:
    bounds = [view.integers(index) for index in range(3)]
    if any(bound is None or len(bound) != 1 for bound in bounds):
        return None
    start, limit, delta = (bound[0] for bound in bounds if bound)
    if delta == 0:
        return None
    count = max(0, -((start - limit) // delta))
    if count > MAX_ELEMENTS:
        return None
    return [object_array(range(start, start + count * delta, delta), (count,))]


def _expand(view: NodeView) -> list[Elements | None] | None:
    data, target = view.elements(0), _small_shape(view.integers(1))
    if data is None or target is None:
        return None
    try:
        shape = np.broadcast_shapes(data.shape, target)
    except ValueError:
        return None
    if math.prod(shape) > MAX_ELEMENTS:
        return None
    return [np.broadcast_to(data, shape)]


def _tile(view: NodeView) -> list[Elements | None] | None:
    data, repeats = view.elements(0), view.integers(1)
    if data is None or repeats is None or view.version < 6 or len(repeats) != data.ndim:
        return None
    if (
        any(not 0 <= repeat <= MAX_ELEMENTS for repeat in repeats)
        or data.size * math.prod(repeats) > MAX_ELEMENTS
    ):
        return None
    return [np.tile(data, repeats)]


def _reduction(function: Callable[[Dim, Dim], Dim], initial: int | None) -> Rule:
    def rule(view: NodeView) -> list[Elements | None] | None:
        data = view.elements(0)
        if data is None or (data.size == 0 and initial is None):
            return None
        axes = view.axes(1)
        if axes is None and view.fact(1) is not None:
            return None
        if not axes:
            if view.int_attribute("noop_with_empty_axes", 0):
                return [data]
            axes = list(range(data.ndim))
        chosen = [normalized_axis(axis, data.ndim) for axis in axes]
        if any(axis is None for axis in chosen):
            return None
        keep = bool(view.int_attribute("keepdims", 1))
        reduced = _reduce(data, [a for a in chosen if a is not None], keep, function, initial)
        return [reduced]

    return rule


def _reduce(
    data: Elements,
    axes: list[int],
    keep: bool,
    function: Callable[[Dim, Dim], Dim],
    initial: int | None,
) -> Elements:
    kept = [axis for axis in range(data.ndim) if axis not in axes]
    shape = tuple(
        1 if axis in axes else size
        for axis, size in enumerate(data.shape)
        if keep or axis not in axes
    )
    # Of an empty tensor -1 would not say which size is meant.
    sizes = [math.prod(data.shape[axis] for axis in part) for part in (kept, axes)]
    rows = data.transpose(kept + axes).reshape(sizes)
    results: list[object] = []
    for row in rows:
        items = [item if isinstance(item, int | Expression) else None for item in row]
        total: Dim = initial if initial is not None else items.pop(0)
        for item in items:
            total = function(total, item)
            if isinstance(total, int) and abs(total) >= _EXACT_IN_DOUBLES:
                # Runtimes sum and multiply integers in double precision.
                total = None
        results.append(total)
    return object_array(results, shape)


def _split(view: NodeView) -> list[Elements | None] | None:
    data = view.elements(0)
    if data is None or data.ndim == 0:
        return None
    axis = normalized_axis(view.int_attribute("axis", 0), data.ndim)
    if axis is None:
        return None
    sizes = split_sizes(view, data.shape[axis])
    if sizes is None or sum(sizes) != data.shape[axis] or len(sizes) != len(view.outputs):
        return None
    return list(np.split(data, np.cumsum(sizes)[:-1].tolist(), axis=axis))


def _scatter_nd(view: NodeView) -> list[Elements | None] | None:
    data, updates = view.elements(0), view.elements(2)
    indices = view.elements(1)
    flat = view.integers(1)
    if data is None or updates is None or indices is None or flat is None:
        return None
    if view.text_attribute("reduction", "none") != "none" or indices.ndim == 0:
        return None
    rows = np.array(flat, dtype=np.int64).reshape(-1, indices.shape[-1])
    width = indices.shape[-1]
    if (
        width == 0
        or width > data.ndim
        or updates.shape != (*indices.shape[:-1], *data.shape[width:])
    ):
        return None
    if any(not -s <= i < s for row in rows for i, s in zip(row, data.shape, strict=False)):
        return None
    positions = {tuple(int(i) % s for i, s in zip(r, data.shape, strict=False)) for r in rows}
    if len(positions) != len(rows):
        return None
    result = data.copy()
    for row, update in zip(rows, updates.reshape((len(rows), *data.shape[width:])), strict=True):
        result[tuple(row)] = update
    return [result]


def _scatter_elements(view: NodeView) -> list[Elements | None] | None:
    data, updates = view.elements(0), view.elements(2)
    indices, flat = view.elements(1), view.integers(1)
    if data is None or updates is None or indices is None or flat is None:
        return None
    if view.text_attribute("reduction", "none") != "none" or updates.shape != indices.shape:
        return None
    axis = normalized_axis(view.int_attribute("axis", 0), data.ndim)
    if axis is None or indices.ndim != data.ndim:
        return None
    size = data.shape[axis]
    if any(not -size <= index < size for index in flat):
        return None
    result, written = data.copy(), set()
    for position, index in zip(np.ndindex(indices.shape), flat, strict=True):
        place = (*position[:axis], index % size, *position[axis + 1 :])
        if place in written or any(p >= s for p, s in zip(place, data.shape, strict=True)):
            return None
        written.add(place)
        result[place] = updates[position]
    return [result]


MOVED_VALUES: dict[str, Rule] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _identity,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Expand": _expand,
    "Tile": _tile,
    "ReduceProd": _reduction(arithmetic.multiply, 1),
    "ReduceSum": _reduction(arithmetic.add, 0),
    "ReduceMax": _reduction(arithmetic.maximum, None),
    "ReduceMin": _reduction(arithmetic.minimum, None),
    "Split": _split,
    "ScatterND": _scatter_nd,
    "ScatterElements": _scatter_elements,
}
