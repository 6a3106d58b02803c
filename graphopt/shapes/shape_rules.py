"""The shapes of outputs where ONNX's own inference has none, or is slower than need be.

`quick_outputs` answers for the common operators whose result follows from the input shapes
alone, so that ONNX's inference need not be asked. `refined_dims` improves what it said about
operators whose result depends on dims or on numbers that are known only as expressions.
"""

from collections.abc import Callable, Sequence

from graphopt.graph import ir
from graphopt.shapes import arithmetic
from graphopt.shapes.broadcasting import Contradiction, Dims, broadcast
from graphopt.shapes.expression import Dim
from graphopt.shapes.facts import Fact, refine_dims
from graphopt.shapes.node_view import NodeView, normalized_axis
from graphopt.shapes.sizing_rules import SIZING_RULES
from graphopt.shapes.window_rules import WINDOW_RULES

_MAX_SIZE = 2**63 - 1
# One input's dtype and shape, unchanged.
_UNARY = frozenset(
    """
    Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu
    GroupNormalization HardSigmoid HardSwish Hardmax Identity LeakyRelu Log LogSoftmax
    MeanVarianceNormalization Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softmax
    Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu
    """.split()  # noqa: SIM905 - easier to read
)


_ARITHMETIC = frozenset(
    ["Add", "Sub", "Mul", "Div", "Mod", "Pow", "And", "Or", "Xor", "Max", "Min", "Sum", "Mean"]
)


_COMPARISONS = frozenset(["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])


def quick_outputs(view: NodeView) -> list[Fact] | None:
    """The facts of all outputs where they follow simply from the inputs; None: ask ONNX."""
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
        dims = broadcast(shapes, view.nonempty)
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
    padded = [*(_possible(shape) for shape in added), *([None] * (len(dims) - len(added)))]
    return [refine_dims(old, new) for old, new in zip(dims, padded, strict=False)]


def _possible(dims: Dims | None) -> Dims | None:
    """Without sizes that no tensor has: such a node fails at run time, which is its business."""
    if dims is None:
        return None
    return tuple(dim if not isinstance(dim, int) or 0 <= dim <= _MAX_SIZE else None for dim in dims)


def _is_complete(dims: Dims | None) -> bool:
    return dims is not None and all(dim is not None for dim in dims)


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
                total = arithmetic.add(total, dim)
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


def _broadcast_rule(view: NodeView) -> list[Dims | None] | None:
    try:
        shapes = [view.dims(index) for index in range(len(view.inputs))]
        return [broadcast(shapes, view.nonempty)]
    except Contradiction:
        return None


def _matmul(view: NodeView) -> list[Dims | None] | None:
    left, right = view.dims(0), view.dims(1)
    if left is None or right is None or not left or not right:
        return None
    try:
        batch = broadcast([left[:-2], right[:-2]], view.nonempty)
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
    wide = [arithmetic.multiply(dim, block) for dim in (h, w)]
    return [(n, arithmetic.floor_divide(c, block * block), *wide)]


def _space_to_depth(view: NodeView) -> list[Dims | None] | None:
    dims, block = view.dims(0), view.int_attribute("blocksize", 0)
    if dims is None or len(dims) != 4 or block < 1:
        return None
    n, c, h, w = dims
    small = [arithmetic.floor_divide(dim, block) for dim in (h, w)]
    return [(n, arithmetic.multiply(c, block * block), *small)]


def _attention(view: NodeView) -> list[Dims | None] | None:
    query, value = view.dims(0), view.dims(2)
    if query is None or value is None or len(query) != len(value):
        return None
    if len(query) == 4:
        return [(*query[:3], value[3])]
    # Heads are side by side in the last dim; with as many for queries as for values it stays.
    same = view.int_attribute("q_num_heads", 0) == view.int_attribute("kv_num_heads", 0)
    return [(*query[:2], value[2] if same else None)] if len(query) == 3 else None


_RULES: dict[str, Callable[[NodeView], list[Dims | None] | None]] = {
    **SIZING_RULES,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Gather": _gather,
    "Where": _broadcast_rule,
    "MatMul": _matmul,
    "Attention": _attention,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    **dict.fromkeys(_ARITHMETIC | _COMPARISONS, _broadcast_rule),
    **WINDOW_RULES,
}
