"""Shapes that come from numbers: the targets, counts, bounds and pads of Reshape and others."""

from collections.abc import Callable

from graphopt.shapes import arithmetic
from graphopt.shapes.broadcasting import Contradiction, Dims, broadcast
from graphopt.shapes.expression import Dim, Expression
from graphopt.shapes.node_view import NodeView, normalized_axis
from graphopt.shapes.slicing import equal_parts, slice_parameters, sliced_dim, split_sizes


def _dim_elements(view: NodeView, index: int) -> Dims | None:
    """The elements of a 1-D input as dims; as unknown ones where only their count is known."""
    elements = view.elements(index)
    if elements is not None:
        if elements.ndim != 1:
            return None
        return tuple(e if isinstance(e, int | Expression) else None for e in elements)
    shape = view.dims(index)
    if shape is not None and len(shape) == 1 and isinstance(shape[0], int) and shape[0] <= 64:
        return (None,) * shape[0]
    return None


def _reshape(view: NodeView) -> list[Dims | None] | None:
    target = _dim_elements(view, 1)
    if target is None:
        return None
    return [reshaped(view.dims(0), target, bool(view.int_attribute("allowzero", 0)))]


def reshaped(source: Dims | None, target: Dims, allow_zero: bool) -> Dims:
    """The shape of Reshape. `target` holds its elements, None where one is unknown.

    An element that is an expression may be 0 in some run, which means "copy this dim" unless
    `allow_zero`. Then the expression is still the dim where the element counts force it.
    """
    result: list[Dim] = []
    inferred: int | None = None
    unsure: list[int] = []
    for axis, size in enumerate(target):
        if size is None:
            # It may be -1 or 0 as well.
            unsure.append(axis)
            result.append(None)
        elif isinstance(size, int):
            if size == -1:
                inferred = axis
                result.append(None)
            elif size == 0 and not allow_zero:
                copied = source[axis] if source is not None and axis < len(source) else None
                result.append(copied)
            else:
                result.append(size if size >= 0 else None)
        elif not arithmetic.is_non_negative(size):
            # It may be -1 in some run.
            unsure.append(axis)
            result.append(None)
        else:
            result.append(size)
    count = None if source is None else arithmetic.product(source)
    symbolic = [
        axis
        for axis, size in enumerate(target)
        if isinstance(size, Expression) and axis not in unsure
    ]
    if not allow_zero and not _zeros_agree(source, target, symbolic, count, inferred, unsure):
        for axis in symbolic:
            result[axis] = None
    _solve(result, count)
    return tuple(result)


def _zeros_agree(
    source: Dims | None,
    target: Dims,
    symbolic: list[int],
    count: Dim,
    inferred: int | None,
    unsure: list[int],
) -> bool:
    """Whether each expression in `target` is the dim even in a run where it is 0."""
    doubtful = [
        axis
        for axis in symbolic
        if not arithmetic.is_positive(target[axis])
        # 0 copies the dim, which is 0 then too.
        and not (source is not None and axis < len(source) and source[axis] == target[axis])
    ]
    if not doubtful:
        return True
    if count is None or unsure:
        return False
    # The element counts agree as polynomials: an expression of 0 would make an empty tensor of
    # one that is not, unless it stands for an empty dim.
    others = arithmetic.product(size for axis, size in enumerate(target) if axis != inferred)
    if inferred is None:
        return others == count
    return arithmetic.divide_exactly(count, others) is not None


def _solve(result: list[Dim], count: Dim) -> None:
    """Fills the only unknown dim from the element count, in place."""
    unknown = [axis for axis, dim in enumerate(result) if dim is None]
    if len(unknown) != 1 or count is None:
        return
    known = arithmetic.product(dim for dim in result if dim is not None)
    # No element at all says nothing about the one dim that is missing.
    if known is None or known == 0:
        return
    result[unknown[0]] = arithmetic.floor_divide(count, known)


def _flatten(view: NodeView) -> list[Dims | None] | None:
    dims = view.dims(0)
    if dims is None:
        return [(None, None)]
    axis = view.int_attribute("axis", 1)
    axis = axis + len(dims) if axis < 0 else axis
    if not 0 <= axis <= len(dims):
        return None
    return [(arithmetic.product(dims[:axis]), arithmetic.product(dims[axis:]))]


def _non_negative(dim: Dim) -> Dim:
    return dim if arithmetic.is_non_negative(dim) else None


def _constant_of_shape(view: NodeView) -> list[Dims | None] | None:
    target = _dim_elements(view, 0)
    return None if target is None else [tuple(_non_negative(dim) for dim in target)]


def _expand(view: NodeView) -> list[Dims | None] | None:
    target = _dim_elements(view, 1)
    if target is None:
        return None
    try:
        wanted = tuple(_non_negative(dim) for dim in target)
        return [broadcast([view.dims(0), wanted], view.nonempty)]
    except Contradiction:
        return None


def _range(view: NodeView) -> list[Dims | None] | None:
    start, limit, delta = (view.scalar(index) for index in range(3))
    if not isinstance(delta, int) or delta == 0:
        return [(None,)]
    span = arithmetic.subtract(limit, start) if delta > 0 else arithmetic.subtract(start, limit)
    return [(arithmetic.maximum(0, arithmetic.ceil_divide(span, abs(delta))),)]


def _slice(view: NodeView) -> list[Dims | None] | None:
    dims = view.dims(0)
    if dims is None:
        return None
    parameters = slice_parameters(view, len(dims))
    if parameters is None:
        return None
    result = list(dims)
    for axis, start, end, step in parameters:
        result[axis] = sliced_dim(dims[axis], start, end, step)
    return [tuple(result)]


def _tile(view: NodeView) -> list[Dims | None] | None:
    dims, repeats = view.dims(0), _dim_elements(view, 1)
    if dims is None or repeats is None or len(dims) != len(repeats):
        return None
    return [
        tuple(arithmetic.multiply(d, _non_negative(r)) for d, r in zip(dims, repeats, strict=True))
    ]


def _pad(view: NodeView) -> list[Dims | None] | None:
    dims = view.dims(0)
    if dims is None:
        return None
    pads: Dims | None
    axes = list(range(len(dims)))
    if view.version < 11:
        pads = tuple(view.ints_attribute("pads") or view.ints_attribute("paddings") or ())
    else:
        pads = _dim_elements(view, 1)
        if view.fact(3) is not None:
            given = view.integers(3)
            if given is None:
                return None
            normalized = [normalized_axis(axis, len(dims)) for axis in given]
            axes = [axis for axis in normalized if axis is not None]
            if len(axes) != len(given) or len(set(axes)) != len(axes):
                return None
    if pads is None or len(pads) != 2 * len(axes):
        return None
    result = list(dims)
    for position, axis in enumerate(axes):
        both = arithmetic.add(pads[position], pads[position + len(axes)])
        result[axis] = _non_negative(arithmetic.add(dims[axis], both))
    return [tuple(result)]


def _one_hot(view: NodeView) -> list[Dims | None] | None:
    dims, depth = view.dims(0), view.scalar(1)
    if dims is None:
        return None
    axis = normalized_axis(view.int_attribute("axis", -1), len(dims) + 1)
    return None if axis is None else [(*dims[:axis], _non_negative(depth), *dims[axis:])]


def _top_k(view: NodeView) -> list[Dims | None] | None:
    dims, count = view.dims(0), view.scalar(1)
    if dims is None:
        return None
    axis = normalized_axis(view.int_attribute("axis", -1), len(dims))
    if axis is None:
        return None
    shape = (*dims[:axis], _non_negative(count), *dims[axis + 1 :])
    return [shape, shape]


def _split(view: NodeView) -> list[Dims | None] | None:
    dims = view.dims(0)
    if dims is None:
        return None
    axis = normalized_axis(view.int_attribute("axis", 0), len(dims))
    if axis is None:
        return None
    total, sizes = dims[axis], None
    if isinstance(total, int):
        known = split_sizes(view, total)
        sizes = None if known is None else tuple[Dim, ...](known)
    elif view.fact(1) is not None:
        sizes = _dim_elements(view, 1)
    elif "split" in view.attributes:
        sizes = tuple(view.ints_attribute("split") or ())
    else:
        sizes = equal_parts(total, len(view.outputs), view)
    if sizes is None or len(sizes) != len(view.outputs):
        return None
    return [(*dims[:axis], _non_negative(size), *dims[axis + 1 :]) for size in sizes]


SIZING_RULES: dict[str, Callable[[NodeView], list[Dims | None] | None]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Range": _range,
    "Slice": _slice,
    "Tile": _tile,
    "Pad": _pad,
    "OneHot": _one_hot,
    "TopK": _top_k,
    "Split": _split,
}
