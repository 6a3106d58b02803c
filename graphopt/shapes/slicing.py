"""What Slice and Split do to one axis."""

from graphopt.shapes import arithmetic
from graphopt.shapes.elementwise_values import as_dim
from graphopt.shapes.expression import Dim, upper_bound
from graphopt.shapes.node_view import NodeView, normalized_axis


def slice_parameters(view: NodeView, rank: int) -> list[tuple[int, Dim, Dim, Dim]] | None:
    """(axis, start, end, step) of each sliced axis, None where an axis or step is unknown."""
    if view.version < 10:
        starts: list[Dim] | None = list(view.ints_attribute("starts") or [])
        ends: list[Dim] | None = list(view.ints_attribute("ends") or [])
        axes = view.ints_attribute("axes")
        steps: list[int] | None = None
    else:
        starts, ends = _dim_list(view, 1), _dim_list(view, 2)
        axes, steps = view.integers(3), view.integers(4)
        if (view.fact(3) is not None and axes is None) or (
            view.fact(4) is not None and steps is None
        ):
            return None
    if starts is None or ends is None or len(starts) != len(ends):
        return None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(axes) == len(steps) == len(starts) or 0 in steps:
        return None
    normalized = [normalized_axis(axis, rank) for axis in axes]
    result = [
        (axis, start, end, step)
        for axis, start, end, step in zip(normalized, starts, ends, steps, strict=True)
        if axis is not None
    ]
    if len(result) != len(axes) or len({axis for axis, *_ in result}) != len(result):
        return None
    return list(result)


def _dim_list(view: NodeView, index: int) -> list[Dim] | None:
    elements = view.elements(index)
    if elements is not None:
        return [as_dim(element) for element in elements.flat]
    dims = view.dims(index)
    if dims is not None and len(dims) == 1 and isinstance(dims[0], int) and dims[0] <= 16:
        return [None] * dims[0]
    return None


def clamped_slice(start: int, end: int, step: int, size: int) -> tuple[int, int]:
    """Start and end as ONNX clamps them; end is -1 where a backward slice reaches the front."""
    start = start + size if start < 0 else start
    end = end + size if end < 0 else end
    if step > 0:
        return min(max(start, 0), size), min(max(end, 0), size)
    return min(max(start, 0), size - 1), min(max(end, -1), size - 1)


def sliced_dim(size: Dim, start: Dim, end: Dim, step: Dim) -> Dim:
    """The length of `[start:end:step]` along an axis of `size`; None if it is not certain."""
    if not isinstance(step, int) or size is None:
        return None
    if step > 0:
        first, last = _clamped(start, size, 0, size), _clamped(end, size, 0, size)
        span = arithmetic.subtract(last, first)
    else:
        top = arithmetic.subtract(size, 1)
        # A backward slice of an empty axis clamps to -1 and is empty all the same.
        first, last = _clamped(start, size, 0, top), _clamped(end, size, -1, top)
        span = arithmetic.subtract(first, last)
    return arithmetic.maximum(0, arithmetic.ceil_divide(span, abs(step)))


def _clamped(position: Dim, size: Dim, low: Dim, high: Dim) -> Dim:
    """A start or end, counted from the back if negative, then clamped."""
    if position is None:
        return None
    # INT_MAX and INT_MIN mean "to the end"; no axis is that long.
    if isinstance(position, int) and abs(position) >= 2**31 - 1:
        return high if position > 0 else low
    greatest = upper_bound(position)
    if not arithmetic.is_non_negative(position):
        if greatest is None or greatest >= 0:
            return None
        position = arithmetic.add(position, size)
    return arithmetic.minimum(arithmetic.maximum(position, low), high)


def split_sizes(view: NodeView, total: int) -> list[int] | None:
    """The sizes of the parts of a Split of an axis of `total` elements."""
    sizes = view.ints_attribute("split") if "split" in view.attributes else view.integers(1)
    if sizes is not None:
        return sizes
    if view.fact(1) is not None:
        return None
    count = view.int_attribute("num_outputs", len(view.outputs))
    if count <= 0:
        return None
    part = -(-total // count)
    if view.version < 18 and total % count:
        return None
    last = total - part * (count - 1)
    return [part] * (count - 1) + [last] if last >= 0 else None


def equal_parts(total: Dim, count: int, view: NodeView) -> tuple[Dim, ...] | None:
    """The parts of an axis of symbolic length: all equal where it is a multiple of the count."""
    part = arithmetic.divide_exactly(total, count)
    if part is not None:
        return (part,) * count
    if view.version < 18 or total is None:
        return None
    part = arithmetic.ceil_divide(total, count)
    last = arithmetic.subtract(total, arithmetic.multiply(part, count - 1))
    return (*((part,) * (count - 1)), last) if arithmetic.is_non_negative(last) else None
