"""The shapes of outputs where ONNX's own inference has none, or is slower than need be.

`quick_outputs` answers for the common operators whose result follows from the input shapes
alone, so that ONNX's inference need not be asked. `refined_dims` improves what it said about
operators whose result depends on dims or on numbers that are known only as expressions.
"""

from collections.abc import Callable, Sequence

from graphopt.graph import ir
from graphopt.shapes import expression
from graphopt.shapes.broadcasting import Contradiction, Dims, broadcast
from graphopt.shapes.expression import Dim, Expression
from graphopt.shapes.facts import Fact, refine_dims
from graphopt.shapes.node_view import NodeView, normalized_axis
from graphopt.shapes.value_rules import slice_parameters, split_sizes
from graphopt.shapes.window_rules import WINDOW_RULES

# One input's dtype and shape, unchanged.
_UNARY = frozenset(
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu"
    " HardSigmoid HardSwish Hardmax Identity LeakyRelu Log LogSoftmax Mish Neg Not Reciprocal"
    " Relu Round Selu Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh"
    " ThresholdedRelu".split()
)
_ARITHMETIC = frozenset("Add Sub Mul Div Mod Pow And Or Xor Max Min Sum Mean".split())
_COMPARISONS = frozenset("Equal Less LessOrEqual Greater GreaterOrEqual".split())


def quick_outputs(view: NodeView) -> list[Fact] | None:
    """The facts of all outputs where they follow simply from the inputs; None: ask ONNX.

    Raises:
        Contradiction: the inputs do not fit together whatever the sizes.
    """
    # Before 7 there was another kind of broadcasting.
    if view.version < 7 or len(view.outputs) != 1 or not view.inputs or view.inputs[0] is None:
        return None
    first = view.inputs[0]
    if first.dtype is None or first.dims is None:
        return None
    op_type = view.op_type
    if op_type in _UNARY:
        return [Fact(first.dtype, first.dims)]
    if op_type in _ARITHMETIC or op_type in _COMPARISONS:
        return _broadcast_outputs(view, first)
    if op_type == "Cast" and "to" in view.attributes:
        return [Fact(ir.DataType(view.int_attribute("to", 0)), first.dims)]
    if op_type == "Transpose" and not view.unresolved:
        permutation = view.ints_attribute("perm") or list(reversed(range(len(first.dims))))
        if sorted(permutation) != list(range(len(first.dims))):
            return None
        return [Fact(first.dtype, tuple(first.dims[axis] for axis in permutation))]
    if op_type == "Shape" and "start" not in view.attributes and "end" not in view.attributes:
        return [Fact(ir.DataType.INT64, (len(first.dims),))]
    return None


def _broadcast_outputs(view: NodeView, first: Fact) -> list[Fact] | None:
    shapes: list[Dims | None] = []
    for fact in view.inputs:
        if fact is None or fact.dims is None:
            return None
        # Types that differ are for ONNX to judge (Pow may mix them).
        if fact.dtype != first.dtype and view.op_type != "Pow":
            return None
        shapes.append(fact.dims)
    try:
        dims = broadcast(shapes)
    except Contradiction:
        return None
    dtype = ir.DataType.BOOL if view.op_type in _COMPARISONS else first.dtype
    return [Fact(dtype, dims)]


def refined_dims(view: NodeView, dims: Sequence[Dims | None]) -> list[Dims | None]:
    """`dims` of the outputs, with what the rules of this module add to them."""
    if all(_is_complete(shape) for shape in dims):
        return list(dims)
    rule = _RULES.get(view.op_type)
    if rule is None or view.unresolved or view.version < 7:
        return list(dims)
    added = rule(view)
    if added is None:
        return list(dims)
    padded = [*added, *([None] * (len(dims) - len(added)))]
    return [refine_dims(old, new) for old, new in zip(dims, padded, strict=False)]


def _is_complete(dims: Dims | None) -> bool:
    return dims is not None and all(dim is not None for dim in dims)


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


# Reshape -----------------------------------------------------------------------------------


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
        elif not expression.is_non_negative(size):
            # It may be -1 in some run.
            unsure.append(axis)
            result.append(None)
        else:
            result.append(size)
    count = None if source is None else expression.product(source)
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
        if not expression.is_positive(target[axis])
        # 0 copies the dim, which is 0 then too.
        and not (source is not None and axis < len(source) and source[axis] == target[axis])
    ]
    if not doubtful:
        return True
    if count is None or unsure:
        return False
    # The element counts agree as polynomials: an expression of 0 would make an empty tensor of
    # one that is not, unless it stands for an empty dim.
    others = expression.product(size for axis, size in enumerate(target) if axis != inferred)
    if inferred is None:
        return others == count
    return expression.divide_exactly(count, others) is not None


def _solve(result: list[Dim], count: Dim) -> None:
    """Fills the only unknown dim from the element count, in place."""
    unknown = [axis for axis, dim in enumerate(result) if dim is None]
    if len(unknown) != 1 or count is None:
        return
    known = expression.product(dim for dim in result if dim is not None)
    # No element at all says nothing about the one dim that is missing.
    if known is None or known == 0:
        return
    result[unknown[0]] = expression.floor_divide(count, known)


def _flatten(view: NodeView) -> list[Dims | None] | None:
    dims = view.dims(0)
    if dims is None:
        return [(None, None)]
    axis = view.int_attribute("axis", 1)
    axis = axis + len(dims) if axis < 0 else axis
    if not 0 <= axis <= len(dims):
        return None
    return [(expression.product(dims[:axis]), expression.product(dims[axis:]))]


# From numbers ------------------------------------------------------------------------------


def _non_negative(dim: Dim) -> Dim:
    return dim if expression.is_non_negative(dim) else None


def _constant_of_shape(view: NodeView) -> list[Dims | None] | None:
    target = _dim_elements(view, 0)
    return None if target is None else [tuple(_non_negative(dim) for dim in target)]


def _expand(view: NodeView) -> list[Dims | None] | None:
    target = _dim_elements(view, 1)
    if target is None:
        return None
    try:
        return [broadcast([view.dims(0), tuple(_non_negative(dim) for dim in target)])]
    except Contradiction:
        return None


def _range(view: NodeView) -> list[Dims | None] | None:
    scalars: list[Dim] = []
    for index in range(3):
        elements = view.elements(index)
        if elements is None or elements.size != 1:
            return [(None,)]
        element = elements.reshape(())[()]
        scalars.append(element if isinstance(element, int | Expression) else None)
    start, limit, delta = scalars
    if not isinstance(delta, int) or delta == 0:
        return [(None,)]
    span = expression.subtract(limit, start) if delta > 0 else expression.subtract(start, limit)
    return [(expression.maximum(0, expression.ceil_divide(span, abs(delta))),)]


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


def sliced_dim(size: Dim, start: Dim, end: Dim, step: Dim) -> Dim:
    """The length of `[start:end:step]` along an axis of `size`; None if it is not certain."""
    if not isinstance(step, int) or size is None:
        return None
    if step > 0:
        first, last = _clamped(start, size, 0, size), _clamped(end, size, 0, size)
        span = expression.subtract(last, first)
    else:
        top = expression.subtract(size, 1)
        # A backward slice of an empty axis clamps to -1 and is empty all the same.
        first, last = _clamped(start, size, 0, top), _clamped(end, size, -1, top)
        span = expression.subtract(first, last)
    return expression.maximum(0, expression.ceil_divide(span, abs(step)))


def _clamped(position: Dim, size: Dim, low: Dim, high: Dim) -> Dim:
    """A start or end, counted from the back if negative, then clamped."""
    if position is None:
        return None
    greatest = expression.upper_bound(position)
    if not expression.is_non_negative(position):
        if greatest is None or greatest >= 0:
            return None
        position = expression.add(position, size)
    # INT_MAX and the like mean "to the end"; no axis is that long.
    if isinstance(position, int) and position >= 2**31 - 1:
        return high
    return expression.minimum(expression.maximum(position, low), high)


def _tile(view: NodeView) -> list[Dims | None] | None:
    dims, repeats = view.dims(0), _dim_elements(view, 1)
    if dims is None or repeats is None or len(dims) != len(repeats):
        return None
    return [tuple(expression.multiply(d, _non_negative(r)) for d, r in zip(dims, repeats, strict=True))]


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
        both = expression.add(pads[position], pads[position + len(axes)])
        result[axis] = _non_negative(expression.add(dims[axis], both))
    return [tuple(result)]


def _one_hot(view: NodeView) -> list[Dims | None] | None:
    dims, depth = view.dims(0), view.elements(1)
    if dims is None or depth is None or depth.size != 1:
        return None
    count = depth.reshape(())[()]
    rank = len(dims) + 1
    axis = normalized_axis(view.int_attribute("axis", -1), rank)
    if axis is None:
        return None
    dim = _non_negative(count if isinstance(count, int | Expression) else None)
    return [(*dims[:axis], dim, *dims[axis:])]


def _top_k(view: NodeView) -> list[Dims | None] | None:
    dims, k = view.dims(0), view.elements(1)
    if dims is None or k is None or k.size != 1:
        return None
    axis = normalized_axis(view.int_attribute("axis", -1), len(dims))
    count = k.reshape(())[()]
    if axis is None or not isinstance(count, int | Expression):
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
        sizes = _equal_parts(total, len(view.outputs), view)
    if sizes is None or len(sizes) != len(view.outputs):
        return None
    return [(*dims[:axis], _non_negative(size), *dims[axis + 1 :]) for size in sizes]


def _equal_parts(total: Dim, count: int, view: NodeView) -> Dims | None:
    """The parts of an axis of symbolic length: all equal where it is a multiple of the count."""
    part = expression.divide_exactly(total, count)
    if part is not None:
        return (part,) * count
    if view.version < 18 or total is None:
        return None
    part = expression.ceil_divide(total, count)
    last = expression.subtract(total, expression.multiply(part, count - 1))
    return (*((part,) * (count - 1)), last) if expression.is_non_negative(last) else None


# Movement ----------------------------------------------------------------------------------


def _squeeze(view: NodeView) -> list[Dims | None] | None:
    dims, axes = view.dims(0), view.axes(1)
    if dims is None:
        return None
    if axes is None:
        if view.fact(1) is not None or any(not isinstance(dim, int) for dim in dims):
            return None
        return [tuple(dim for dim in dims if dim != 1)]
    chosen = {normalized_axis(axis, len(dims)) for axis in axes}
    return None if None in chosen else [tuple(d for a, d in enumerate(dims) if a not in chosen)]


def _unsqueeze(view: NodeView) -> list[Dims | None] | None:
    dims, axes = view.dims(0), view.axes(1)
    if dims is None or axes is None:
        return None
    rank = len(dims) + len(axes)
    chosen = {normalized_axis(axis, rank) for axis in axes}
    if None in chosen or len(chosen) != len(axes):
        return None
    rest = iter(dims)
    return [tuple(1 if axis in chosen else next(rest) for axis in range(rank))]


def _concat(view: NodeView) -> list[Dims | None] | None:
    shapes = [view.dims(index) for index in range(len(view.inputs))]
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes) or len({len(shape) for shape in known}) != 1:
        return None
    axis = normalized_axis(view.int_attribute("axis", 0), len(known[0]))
    if axis is None:
        return None
    result: list[Dim] = []
    for position, column in enumerate(zip(*known, strict=True)):
        if position == axis:
            total: Dim = 0
            for dim in column:
                total = expression.add(total, dim)
            result.append(total)
        else:
            # They are equal in every run that works: the one that says most stands for all.
            integers = [dim for dim in column if isinstance(dim, int)]
            named = [dim for dim in column if dim is not None]
            result.append(integers[0] if integers else named[0] if named else None)
    return [tuple(result)]


def _gather(view: NodeView) -> list[Dims | None] | None:
    data, indices = view.dims(0), view.dims(1)
    if data is None or indices is None:
        return None
    axis = normalized_axis(view.int_attribute("axis", 0), len(data))
    return None if axis is None else [(*data[:axis], *indices, *data[axis + 1 :])]


def _where(view: NodeView) -> list[Dims | None] | None:
    return _broadcast_rule(view)


def _broadcast_rule(view: NodeView) -> list[Dims | None] | None:
    try:
        return [broadcast([view.dims(index) for index in range(len(view.inputs))])]
    except Contradiction:
        return None


def _matmul(view: NodeView) -> list[Dims | None] | None:
    left, right = view.dims(0), view.dims(1)
    if left is None or right is None or not left or not right:
        return None
    try:
        batch = broadcast([left[:-2], right[:-2]])
    except Contradiction:
        return None
    if batch is None:
        return None
    rows = left[-2:-1] if len(left) > 1 else ()
    columns = right[-1:] if len(right) > 1 else ()
    return [(*batch, *rows, *columns)]


def _depth_to_space(view: NodeView) -> list[Dims | None] | None:
    dims, block = view.dims(0), view.int_attribute("blocksize", 0)
    if dims is None or len(dims) != 4 or block < 1:
        return None
    n, c, h, w = dims
    wide = [expression.multiply(dim, block) for dim in (h, w)]
    return [(n, expression.floor_divide(c, block * block), *wide)]


def _space_to_depth(view: NodeView) -> list[Dims | None] | None:
    dims, block = view.dims(0), view.int_attribute("blocksize", 0)
    if dims is None or len(dims) != 4 or block < 1:
        return None
    n, c, h, w = dims
    small = [expression.floor_divide(dim, block) for dim in (h, w)]
    return [(n, expression.multiply(c, block * block), *small)]


_RULES: dict[str, Callable[[NodeView], list[Dims | None] | None]] = {
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
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Gather": _gather,
    "Where": _where,
    "MatMul": _matmul,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    **{name: _broadcast_rule for name in _ARITHMETIC | _COMPARISONS},
    **WINDOW_RULES,
}
