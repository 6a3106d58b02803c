"""The numbers in small tensors, carried through the operators of shape arithmetic.

Each rule gives the elements of the outputs or None. An element is an exact fact: an integer,
an expression in dims of the inputs, a concrete floating-point scalar, or None for unknown.
"""

import math
from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np

from graphopt.graph import ir
from graphopt.shapes import expression
from graphopt.shapes.expression import Dim, Expression
from graphopt.shapes.facts import MAX_ELEMENTS, Elements, object_array
from graphopt.shapes.node_view import NodeView, normalized_axis

Rule = Callable[[NodeView], Sequence[Elements | None] | None]

_FLOAT_TYPES = {
    ir.DataType.FLOAT: np.float32,
    ir.DataType.DOUBLE: np.float64,
    ir.DataType.FLOAT16: np.float16,
    ir.DataType.BFLOAT16: ml_dtypes.bfloat16,
}
_INTEGER_RANGES = {
    ir.DataType.BOOL: (0, 1),
    ir.DataType.INT8: (-(2**7), 2**7 - 1),
    ir.DataType.UINT8: (0, 2**8 - 1),
    ir.DataType.INT16: (-(2**15), 2**15 - 1),
    ir.DataType.UINT16: (0, 2**16 - 1),
    ir.DataType.INT32: (-(2**31), 2**31 - 1),
    ir.DataType.UINT32: (0, 2**32 - 1),
    ir.DataType.INT64: (-(2**63), 2**63 - 1),
    ir.DataType.UINT64: (0, 2**64 - 1),
}
# A dim of a tensor that fits into a machine. Times 128 it still fits into an int32; nothing
# longer is claimed of 32-bit arithmetic, and nothing symbolic of narrower types.
_MAX_INT32_FACTOR = 128


def fitting(element: object, dtype: ir.DataType | None) -> object:
    """`element` where it certainly does not wrap around in `dtype`, else None."""
    limits = None if dtype is None else _INTEGER_RANGES.get(dtype)
    if limits is None:
        float_type = None if dtype is None else _FLOAT_TYPES.get(dtype)
        if float_type is not None and isinstance(element, float_type):
            return element
        # Doubles hold every dim exactly.
        exact = dtype == ir.DataType.DOUBLE and isinstance(element, Expression)
        return element if exact and _is_small(element) else None
    if isinstance(element, int):
        return element if limits[0] <= element <= limits[1] else None
    if isinstance(element, Expression):
        if limits[0] == 0 and not expression.is_non_negative(element):
            return None
        if dtype in (ir.DataType.INT64, ir.DataType.UINT64):
            return element
        return element if limits[1] >= 2**31 - 1 and _is_small(element) else None
    return None


def _is_small(element: object) -> bool:
    """Whether an expression is at most a few times one dim, also in its parts."""
    if not isinstance(element, Expression):
        return False
    factor = sum(abs(c) for monomial, c in element.terms if monomial)
    degree = max(sum(power for _, power in monomial) for monomial, _ in element.terms)
    return degree <= 1 and factor <= _MAX_INT32_FACTOR and element.depth == 0


def known_outputs(view: NodeView, dtypes: Sequence[ir.DataType | None]) -> list[Elements | None]:
    """The elements of each output, as far as they are known and fit their dtype."""
    unknown: list[Elements | None] = [None] * len(dtypes)
    rule = _RULES.get(view.op_type)
    # Before 7 operators broadcast and default in other ways, and nobody exports that any more.
    if rule is None or view.unresolved or view.version < 7:
        return unknown
    if view.op_type not in _FROM_DIMS and all(
        fact is None or fact.elements is None for fact in view.inputs
    ):
        return unknown
    results = rule(view)
    if results is None:
        return unknown
    checked: list[Elements | None] = []
    for dtype, elements in zip(dtypes, results, strict=False):
        if elements is None or elements.size > MAX_ELEMENTS:
            checked.append(None)
            continue
        fitted = object_array((fitting(e, dtype) for e in elements.flat), elements.shape)
        # An empty tensor is known entirely; one of which nothing is known is not worth a note.
        worth = fitted.size == 0 or any(e is not None for e in fitted.flat)
        checked.append(fitted if worth else None)
    return checked + unknown[len(checked) :]


# Elementwise -------------------------------------------------------------------------------


def _elementwise(function: Callable[..., object], arity: int) -> Rule:
    vectorized = np.frompyfunc(function, arity, 1)

    def rule(view: NodeView) -> list[Elements | None] | None:
        arrays = [view.elements(index) for index in range(arity)]
        if len(view.inputs) != arity:
            return None
        shaped = [_or_unknown(view, index, array) for index, array in enumerate(arrays)]
        if any(array is None for array in shaped):
            return None
        return [_broadcast_apply(vectorized, shaped)]

    return rule


def _or_unknown(view: NodeView, index: int, elements: Elements | None) -> Elements | None:
    """The elements, or as many unknown ones where only the small static shape is known."""
    if elements is not None:
        return elements
    dims = view.dims(index)
    if dims is None or not all(isinstance(dim, int) for dim in dims):
        return None
    shape = tuple(dim for dim in dims if isinstance(dim, int))
    count = math.prod(shape)
    return object_array([None] * count, shape) if count <= MAX_ELEMENTS else None


def _broadcast_apply(
    vectorized: np.ufunc, arrays: Sequence[Elements | None]
) -> Elements | None:
    try:
        result = vectorized(*arrays)
    except ValueError:
        return None
    if isinstance(result, np.ndarray):
        return result if result.size <= MAX_ELEMENTS else None
    return object_array([result], ())


def _variadic(function: Callable[[object, object], object]) -> Rule:
    vectorized = np.frompyfunc(function, 2, 1)

    def rule(view: NodeView) -> list[Elements | None] | None:
        result: Elements | None = None
        for index in range(len(view.inputs)):
            array = _or_unknown(view, index, view.elements(index))
            if array is None:
                return None
            result = array if result is None else _broadcast_apply(vectorized, [result, array])
            if result is None:
                return None
        return [result]

    return rule


def _arithmetic(
    on_dims: Callable[[Dim, Dim], Dim], on_floats: Callable[[np.floating, np.floating], object]
) -> Callable[[object, object], object]:
    def apply(a: object, b: object) -> object:
        if isinstance(a, np.generic) and isinstance(b, np.generic):
            with np.errstate(all="ignore"):
                return on_floats(a, b)  # type: ignore[arg-type]
        return on_dims(_as_dim(a), _as_dim(b))

    return apply


def _as_dim(element: object) -> Dim:
    """The element as a dim; a double that is a small integer counts, beside an expression."""
    if isinstance(element, int | Expression):
        return element
    if isinstance(element, np.float64) and element.is_integer() and abs(element) <= 2**20:
        return int(element)
    return None


def _only_integers(a: Dim, b: Dim) -> Dim:
    return expression.truncated_divide(a, b)


def _divide_floats(a: np.floating, b: np.floating) -> object:
    return a / b if b != 0 else None


def _divide(a: object, b: object) -> object:
    if isinstance(a, np.generic) and isinstance(b, np.generic):
        with np.errstate(all="ignore"):
            return _divide_floats(a, b)  # type: ignore[arg-type]
    if isinstance(a, np.generic) or isinstance(b, np.generic):
        # A double quotient with an expression is exact only where nothing is left over.
        return expression.divide_exactly(_as_dim(a), _as_dim(b))
    return _only_integers(_as_dim(a), _as_dim(b))


def _compared(accept: Callable[[int], bool], on_floats: Callable[[object, object], object]) -> Rule:
    def apply(a: object, b: object) -> object:
        if isinstance(a, np.generic) and isinstance(b, np.generic):
            return int(bool(on_floats(a, b)))
        order = expression.compare(_as_dim(a), _as_dim(b))
        return None if order is None else int(accept(order))

    return _elementwise(apply, 2)


def _equal_elements(a: object, b: object) -> object:
    if isinstance(a, np.generic) and isinstance(b, np.generic):
        return int(bool(a == b))
    order = expression.compare(_as_dim(a), _as_dim(b))
    return None if order is None else int(order == 0)


def _where_element(condition: object, a: object, b: object) -> object:
    if isinstance(condition, int):
        return a if condition else b
    if isinstance(a, int | Expression) and a == b:
        return a
    return None


def _and(a: object, b: object) -> object:
    if a == 0 or b == 0:
        return 0
    return 1 if a == 1 and b == 1 else None


def _or(a: object, b: object) -> object:
    if a == 1 or b == 1:
        return 1
    return 0 if a == 0 and b == 0 else None


def _not(a: object) -> object:
    return None if a is None else 1 - a  # type: ignore[operator]


def _negate(a: object) -> object:
    return -a if isinstance(a, np.generic) else expression.negate(_as_dim(a))


def _absolute(a: object) -> object:
    if isinstance(a, np.generic):
        return abs(a)  # type: ignore[arg-type]
    if expression.is_non_negative(_as_dim(a)):
        return a
    return abs(a) if isinstance(a, int) else None


def _rounding(function: Callable[[np.floating], object]) -> Rule:
    def apply(a: object) -> object:
        # In a floating-point tensor an expression is an integer already.
        return function(a) if isinstance(a, np.floating) else _as_dim(a)

    return _elementwise(apply, 1)


def _modulo(view: NodeView) -> list[Elements | None] | None:
    fmod = view.int_attribute("fmod", 0)

    def apply(a: object, b: object) -> object:
        left, right = _as_dim(a), _as_dim(b)
        if isinstance(a, np.generic) or isinstance(b, np.generic) or right == 0:
            return None
        if isinstance(left, int) and isinstance(right, int):
            return int(math.fmod(left, right)) if fmod and abs(left) < 2**52 else left % right
        # For a dividend that is not negative both kinds agree.
        if fmod and not expression.is_non_negative(left):
            return None
        return expression.modulo(left, right)

    return _elementwise(apply, 2)(view)


def _power(a: object, b: object) -> object:
    if isinstance(b, np.generic) and float(b).is_integer():
        b = int(float(b))
    if isinstance(a, int | Expression) and isinstance(b, int) and 0 <= b <= 8:
        return expression.product([a] * b)
    return None


def _cast(view: NodeView) -> list[Elements | None] | None:
    elements = view.elements(0)
    source = view.inputs[0]
    if elements is None or source is None or "to" not in view.attributes:
        return None
    target = ir.DataType(view.int_attribute("to", 0))
    return [
        object_array((cast_element(e, source.dtype, target) for e in elements.flat), elements.shape)
    ]


def cast_element(element: object, source: ir.DataType | None, target: ir.DataType) -> object:
    """The element after a Cast; None where rounding or wrapping may change it."""
    if target == ir.DataType.BOOL:
        if isinstance(element, np.generic):
            return None if np.isnan(element) else int(bool(element))
        if isinstance(element, int):
            return int(element != 0)
        return 1 if expression.is_positive(_as_dim(element)) else None
    float_type = _FLOAT_TYPES.get(target)
    if float_type is not None:
        if isinstance(element, Expression):
            return element if target == ir.DataType.DOUBLE else None
        if isinstance(element, int):
            converted = float_type(element) if abs(element) < 2**53 else None
            return converted if converted is not None and float(converted) == element else None
        if isinstance(element, np.generic):
            converted = float_type(float(element))
            # Rounding twice, or to a type of other rules, is the runtime's business.
            return converted if float(converted) == float(element) else None
        return None
    if isinstance(element, np.generic):
        number = float(element)
        return int(number) if math.isfinite(number) and abs(number) < 2**53 else None
    return element


# Movement ----------------------------------------------------------------------------------


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
    return None if dims is None else [object_array([expression.product(dims)], ())]


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


def clamped_slice(start: int, end: int, step: int, size: int) -> tuple[int, int]:
    """Start and end as ONNX clamps them; end is -1 where a backward slice reaches the front."""
    start = start + size if start < 0 else start
    end = end + size if end < 0 else end
    if step > 0:
        return min(max(start, 0), size), min(max(end, 0), size)
    return min(max(start, 0), size - 1), min(max(end, -1), size - 1)


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
        return [_as_dim(element) for element in elements.flat]
    dims = view.dims(index)
    if dims is not None and len(dims) == 1 and isinstance(dims[0], int) and dims[0] <= 16:
        return [None] * dims[0]
    return None


def _concat(view: NodeView) -> list[Elements | None] | None:
    parts = [_or_unknown(view, i, view.elements(i)) for i in range(len(view.inputs))]
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
    if sizes is None or any(size < 0 for size in sizes) or math.prod(sizes) > MAX_ELEMENTS:
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


def plain_element(scalar: object) -> object:
    """A numpy scalar as an element: int for integers and bools, itself for floats."""
    if isinstance(scalar, np.bool_ | np.integer):
        return int(scalar)
    if isinstance(scalar, np.floating | ml_dtypes.bfloat16):
        return scalar
    return None


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
    if any(repeat < 0 for repeat in repeats) or data.size * math.prod(repeats) > MAX_ELEMENTS:
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
    rows = data.transpose(kept + axes).reshape(math.prod(data.shape[a] for a in kept), -1)
    results: list[object] = []
    for row in rows:
        items = [item if isinstance(item, int | Expression) else None for item in row]
        total: Dim = initial if initial is not None else items.pop(0)
        for item in items:
            total = function(total, item)
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
    if width == 0 or width > data.ndim or updates.shape != (*indices.shape[:-1], *data.shape[width:]):
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


_ROUNDINGS: dict[str, Callable[[np.floating], object]] = {
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
}

# These say something of a tensor whose elements are unknown.
_FROM_DIMS = frozenset({"Shape", "Size"})

_RULES: dict[str, Rule] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _identity,
    "Cast": _cast,
    "Add": _elementwise(_arithmetic(expression.add, lambda a, b: a + b), 2),
    "Sub": _elementwise(_arithmetic(expression.subtract, lambda a, b: a - b), 2),
    "Mul": _elementwise(_arithmetic(expression.multiply, lambda a, b: a * b), 2),
    "Div": _elementwise(_divide, 2),
    "Mod": _modulo,
    "Pow": _elementwise(_power, 2),
    "Neg": _elementwise(_negate, 1),
    "Abs": _elementwise(_absolute, 1),
    "Not": _elementwise(_not, 1),
    "And": _elementwise(_and, 2),
    "Or": _elementwise(_or, 2),
    "Equal": _elementwise(_equal_elements, 2),
    "Less": _compared(lambda order: order < 0, lambda a, b: a < b),  # type: ignore[operator]
    "LessOrEqual": _compared(lambda order: order <= 0, lambda a, b: a <= b),  # type: ignore[operator]
    "Greater": _compared(lambda order: order > 0, lambda a, b: a > b),  # type: ignore[operator]
    "GreaterOrEqual": _compared(lambda order: order >= 0, lambda a, b: a >= b),  # type: ignore[operator]
    "Where": _elementwise(_where_element, 3),
    "Max": _variadic(_arithmetic(expression.maximum, lambda a, b: None)),
    "Min": _variadic(_arithmetic(expression.minimum, lambda a, b: None)),
    **{name: _rounding(function) for name, function in _ROUNDINGS.items()},
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
    "ReduceProd": _reduction(expression.multiply, 1),
    "ReduceSum": _reduction(expression.add, 0),
    "ReduceMax": _reduction(expression.maximum, None),
    "ReduceMin": _reduction(expression.minimum, None),
    "Split": _split,
    "ScatterND": _scatter_nd,
    "ScatterElements": _scatter_elements,
}
