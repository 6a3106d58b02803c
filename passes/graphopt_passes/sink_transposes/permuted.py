"""How an operator computes the same on permuted data: attributes, parameters and constants.

With `order` the permutation of a Transpose, `before` its input and `after` its output,
after[i] = before[order[i]] for dims: what an operator does along axis `a` of `after` it does
along axis `order[a]` of `before`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphopt.plugin import (
    NotApplicable,
    Rewriter,
    constant_array,
    constant_tensor,
    ir,
    known_shape,
)
from graphopt_passes.operands import given, integers, rank
from graphopt_passes.reduced_axes import REDUCTIONS, keeps_dims

Order = tuple[int, ...]

_LARGEST_CONSTANT = 1 << 20

_UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh Elu "
    "Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish "
    "Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign "
    "Sqrt Tan Tanh ThresholdedRelu"
)
_BROADCASTING = (
    "Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less "
    "LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor"
)


@dataclass
class Form:
    """The operator as it stands on permuted data.

    Attributes:
        attributes: those that change.
        constants: new parameters by the index of the input.
        data: the indices of the inputs that are permuted; None for all.
    """

    attributes: dict[str, object] = field(default_factory=dict)
    constants: dict[int, np.ndarray] = field(default_factory=dict)
    data: tuple[int, ...] | None = (0,)


Rule = Callable[[ir.Node, Order, int], Form]


def form_of(node: ir.Node, order: Order, opset: int) -> Form:
    """The form of `node` for data that has not been permuted by `order` yet.

    Raises:
        NotApplicable: it depends on the layout, or something needed is not known.
    """
    rule = _RULES.get(node.op_type)
    if rule is None or node.domain not in ("", "ai.onnx"):
        raise NotApplicable(f"{node.op_type} depends on the layout")
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        raise NotApplicable(f"{node.op_type} takes an attribute from the function's caller")
    form = rule(node, order, opset)
    for output in node.outputs:
        if rank(output) != len(order):
            raise NotApplicable(f"'{output.name}' is not known to have rank {len(order)}")
    return form


def data_inputs(node: ir.Node, form: Form) -> list[int]:
    """The indices of the inputs that hold data in the layout."""
    places = range(len(node.inputs)) if form.data is None else form.data
    return [place for place in places if given(node, place) is not None]


def needs_no_transpose(value: ir.Value, order: Order) -> bool:
    """Whether the value is a constant small enough to permute now, or has one element."""
    tensor = constant_tensor(value)
    if tensor is not None:
        fits = len(tensor.shape) <= len(order) and tensor.size <= _LARGEST_CONSTANT
        return fits and constant_array(value) is not None
    shape = known_shape(value)
    return shape is not None and len(shape) <= len(order) and all(dim == 1 for dim in shape)


def unpermuted(value: ir.Value, order: Order, rewriter: Rewriter) -> ir.Value:
    """A value that `needs_no_transpose`, as it broadcasts against unpermuted data."""
    array = constant_array(value)
    if array is None or array.ndim == 0 or all(dim == 1 for dim in array.shape):
        return value
    full = array.reshape((1,) * (len(order) - array.ndim) + array.shape)
    inverse = np.argsort(order)
    return rewriter.initializer(np.ascontiguousarray(full.transpose(inverse)), value.name or "c")


def _elementwise(node: ir.Node, order: Order, opset: int) -> Form:
    return Form()


def _broadcasting(node: ir.Node, order: Order, opset: int) -> Form:
    for value in node.inputs:
        if value is not None and not needs_no_transpose(value, order) and rank(value) != len(order):
            raise NotApplicable(f"'{value.name}' broadcasts from another rank")
    return Form(data=None)


def _single_axis(default: int) -> Rule:
    def rule(node: ir.Node, order: Order, opset: int) -> Form:
        if node.op_type in ("Softmax", "LogSoftmax", "Hardmax") and opset < 13:
            raise NotApplicable(f"{node.op_type} takes all axes behind its own before opset 13")
        axis = node.attributes.get_int("axis", default)
        every = None if node.op_type == "Concat" else (0,)
        return Form({"axis": order[axis % len(order)]}, data=every)

    return rule


def _arg(node: ir.Node, order: Order, opset: int) -> Form:
    if not keeps_dims(node):
        raise NotApplicable(f"{node.op_type} drops its axis")
    return _single_axis(0)(node, order, opset)


def _reducing(node: ir.Node, order: Order, opset: int) -> Form:
    if not keeps_dims(node):
        raise NotApplicable(f"{node.op_type} drops its axes")
    axes = integers(node, "axes", 1)
    if axes is None or not axes:
        return Form()
    moved = sorted(order[axis % len(order)] for axis in axes)
    if "axes" in node.attributes:
        return Form({"axes": moved})
    return Form(constants={1: np.array(moved, np.int64)})


def _pad(node: ir.Node, order: Order, opset: int) -> Form:
    pads = integers(node, "pads", 1)
    if pads is None or given(node, 3) is not None or len(pads) != 2 * len(order):
        raise NotApplicable("Pad takes some axes only")
    sides = np.array(pads, np.int64).reshape(2, len(order))[:, np.argsort(order)].reshape(-1)
    if "pads" in node.attributes:
        return Form({"pads": sides.tolist()})
    return Form(constants={1: sides})


def _slice(node: ir.Node, order: Order, opset: int) -> Form:
    starts = integers(node, "starts", 1)
    axes = integers(node, "axes", 3)
    chosen = list(range(len(starts or ()))) if axes is None else axes
    moved = [order[axis % len(order)] for axis in chosen]
    if "starts" in node.attributes:
        return Form({"axes": moved})
    # All operands of Slice have one type.
    ends = given(node, 2)
    narrow = ends is not None and ends.dtype == ir.DataType.INT32
    return Form(constants={3: np.array(moved, np.int32 if narrow else np.int64)})


def _resize(node: ir.Node, order: Order, opset: int) -> Form:
    if opset < 11 or "axes" in node.attributes:
        raise NotApplicable("Resize takes some axes only")
    if node.attributes.get_string("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise NotApplicable("Resize crops")
    for place in (2, 3):
        value = given(node, place)
        if value is None:
            continue
        array = constant_array(value, 64)
        if array is None:
            raise NotApplicable("the size of Resize is not constant")
        if array.size == len(order):
            return Form(constants={place: np.ascontiguousarray(array[np.argsort(order)])})
    raise NotApplicable("Resize has no size")


def _quantization(node: ir.Node, order: Order, opset: int) -> Form:
    scale = given(node, 1)
    shape = None if scale is None else known_shape(scale)
    if shape is None or "block_size" in node.attributes:
        raise NotApplicable("the shape of the scale is not known")
    if all(dim == 1 for dim in shape):
        return Form()
    return Form({"axis": order[node.attributes.get_int("axis", 1) % len(order)]})


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY.split(), _elementwise),
    **dict.fromkeys(_BROADCASTING.split(), _broadcasting),
    **dict.fromkeys(REDUCTIONS, _reducing),
    "Softmax": _single_axis(-1),
    "LogSoftmax": _single_axis(-1),
    "Hardmax": _single_axis(-1),
    "Concat": _single_axis(0),
    "Split": _single_axis(0),
    "ArgMax": _arg,
    "ArgMin": _arg,
    "Pad": _pad,
    "Slice": _slice,
    "Resize": _resize,
    "QuantizeLinear": _quantization,
    "DequantizeLinear": _quantization,
}


def is_agnostic(op_type: str) -> bool:
    """Whether there is a rule for the operator at all."""
    return op_type in _RULES


def inverse(order: Sequence[int]) -> Order:
    """The permutation that undoes `order`."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))
