"""Finds which axis of a tensor holds the channels, from the operators that say so.

A convolution, a pooling or a batch normalization has its channels on axis 1 and the picture behind
it. From a tensor the walk goes through everything that leaves the axes where they are, and through
Transposes, in both directions, until it meets such operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

from graphopt.graph._onnx_ir import ir
from graphopt.graph.constants import constant_array, constant_tensor

Order = tuple[int, ...]


class Layout(StrEnum):
    """Where the channels are. Of signals (rank 3) and volumes (rank 5) too, whatever the name."""

    NCHW = "nchw"
    """On axis 1."""
    NHWC = "nhwc"
    """On the last axis."""


RANKS = (3, 4, 5)
"""Ranks of what has channels and a place: signals, pictures, volumes."""

# Operators that take their channels on axis 1, and the inputs that hold them.
_CHANNELS_FIRST: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(
        (
            *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "FusedConv"),
            *("MaxPool", "AveragePool", "LpPool", "MaxRoiPool", "RoiAlign", "GridSample"),
            *("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool", "BatchNormalization"),
            *("InstanceNormalization", "GroupNormalization", "LRN"),
            *("DepthToSpace", "SpaceToDepth"),
        ),
        (0,),
    ),
    "MaxUnpool": (0, 1),
}
_ONE_TENSOR = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Cast CastLike Ceil Celu Clip Cos Cosh CumSum "
    "DequantizeLinear Dropout Elu Erf Exp Expand Floor Gelu Hardmax HardSigmoid HardSwish "
    "Identity IsInf IsNaN LayerNormalization LeakyRelu Log LogSoftmax LpNormalization "
    "MeanVarianceNormalization Mish Neg Not Pad QuantizeLinear Reciprocal ReduceL1 ReduceL2 "
    "ReduceMax ReduceMean ReduceMin ReduceSum Relu Resize Round Selu Shrink Sigmoid Sign Sin Sinh "
    "Slice Softmax Softplus Softsign Split Sqrt Swish Tan Tanh ThresholdedRelu Tile Upsample"
)
_SEVERAL_TENSORS = (
    "Add And Concat Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or "
    "PRelu Pow Sub Sum Where Xor"
)
# Operators that leave the axes where they are, and the inputs that have them; None for all.
_AXES_KEPT: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(_ONE_TENSOR.split(), (0,)),
    **dict.fromkeys(_SEVERAL_TENSORS.split()),
}
_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})


def to_channels_last(rank: int) -> Order:
    """The permutation of a Transpose from channels on axis 1 to channels on the last axis."""
    return (0, *range(2, rank), 1)


def to_channels_first(rank: int) -> Order:
    """The permutation of a Transpose from channels on the last axis to channels on axis 1."""
    return (0, rank - 1, *range(1, rank - 1))


def layouts_of(tensor: ir.Value) -> dict[Layout, str]:
    """The layouts in which operators take or give a tensor, each with one that does.

    Nothing where no operator says, and two where operators contradict each other. Ranks are those
    that are known: infer shapes first.
    """
    rank = _rank(tensor)
    if rank not in RANKS:
        return {}
    last = to_channels_first(rank)
    found: dict[Layout, str] = {}
    seen = {tensor}
    # With each value, the tensor's axis that stands on each of its own.
    waiting = [(tensor, tuple(range(rank)))]
    while waiting and len(found) < len(Layout):
        value, axes = waiting.pop()
        for node, place in _neighbours(value):
            if node.domain not in _DOMAINS:
                continue
            for said in _axes_said(node, place):
                order = tuple(axes[axis] for axis in said)
                if order == tuple(range(rank)):
                    found.setdefault(Layout.NCHW, _named(node))
                elif order == last:
                    found.setdefault(Layout.NHWC, _named(node))
            for other, moved in _alike(node, place, axes):
                if other not in seen and _rank(other) == rank and not _is_given(other):
                    seen.add(other)
                    waiting.append((other, moved))
    return found


def _neighbours(value: ir.Value) -> Iterator[tuple[ir.Node, int | None]]:
    """The nodes at a value: with the place where they read it, None for the one that makes it."""
    producer = value.producer()
    if producer is not None:
        yield producer, None
    for usage in value.uses():
        yield usage.node, usage.idx


def _axes_said(node: ir.Node, place: int | None) -> list[Order]:
    """The axes of a node's data as N, C and the picture's, where the operator tells which."""
    places = _CHANNELS_FIRST.get(node.op_type)
    if places is not None:
        value = node.outputs[0] if place is None else node.inputs[place]
        rank = _rank(value)
        if rank is None or (place is not None and place not in places):
            return []
        return [tuple(range(rank))]
    if node.op_type in ("Resize", "Upsample") and place in (None, 0):
        return _axes_resized(node)
    return []


def _axes_resized(node: ir.Node) -> list[Order]:
    """As `_axes_said`, for what makes pictures larger: both their axes, and no other, change."""
    before = node.inputs[0]
    rank = _rank(before)
    if before is None or before.shape is None or rank != 4:
        return []
    scaled: set[int] = set()
    held = node.attributes.get("scales")
    if held is not None and not held.is_ref():
        scaled = {axis for axis, scale in enumerate(held.as_floats()) if scale != 1}
    for value in node.inputs[1:4]:
        array = constant_array(value, rank)
        if array is None or array.size != rank:
            continue
        old = [1.0] * rank if array.dtype.kind == "f" else list(before.shape)
        pairs = list(zip(old, array.tolist(), strict=True))
        scaled = {
            axis
            for axis, (was, becomes) in enumerate(pairs)
            if isinstance(was, int | float) and was != becomes
        }
    if scaled == {2, 3}:
        return [(0, 1, 2, 3)]
    return [(0, 3, 1, 2)] if scaled == {1, 2} else []


def _alike(node: ir.Node, place: int | None, axes: Order) -> list[tuple[ir.Value, Order]]:
    """The other values of a node, with their axes in terms of those of the one at `place`."""
    if node.op_type == "Transpose" and node.inputs[0] is not None:
        order = _permutation(node, len(axes))
        if order is None:
            return []
        if place is not None:
            return [(node.outputs[0], tuple(axes[axis] for axis in order))]
        moved = [0] * len(axes)
        for at, axis in enumerate(order):
            moved[axis] = axes[at]
        return [(node.inputs[0], tuple(moved))]
    if node.op_type not in _AXES_KEPT:
        return []
    if node.op_type.startswith("Reduce") and not node.attributes.get_int("keepdims", 1):
        return []
    places = _AXES_KEPT[node.op_type]
    if place is not None and places is not None and place not in places:
        return []
    data = node.inputs if places is None else [node.inputs[at] for at in places]
    return [(value, axes) for value in (*data, *node.outputs) if value is not None]


def _permutation(node: ir.Node, rank: int) -> Order | None:
    held = node.attributes.get("perm")
    if held is None:
        return tuple(reversed(range(rank)))
    if held.is_ref():
        return None
    order: Sequence[int] = held.as_ints()
    return tuple(order) if sorted(order) == list(range(rank)) else None


def _is_given(value: ir.Value) -> bool:
    """Whether the value is a weight: what shares one has not the layout in common."""
    return value.is_initializer() or constant_tensor(value) is not None


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _named(node: ir.Node) -> str:
    name = node.name or (node.outputs[0].name if node.outputs else "")
    return f"{node.op_type} '{name}'"
