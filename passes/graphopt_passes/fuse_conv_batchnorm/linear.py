"""How Conv, ConvTranspose, Gemm and MatMul take up a factor and an offset per channel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphopt.plugin import NotApplicable, Rewriter, ir, known_shape
from graphopt_passes.affine import Affine
from graphopt_passes.parameters import integer, optional_input, parameter, real
from graphopt_passes.scaled_weights import rounded, scaled


def fold_affine(linear: ir.Node, affine: Affine, rewriter: Rewriter) -> ir.Node:
    """A new operator that computes `factor * linear + offset`.

    Raises:
        NotApplicable: a parameter is no constant, or the result leaves the type's range.
    """
    weight = parameter(linear.inputs[1], f"{linear.op_type} weight")
    if weight.dtype.kind in "iu":
        raise NotApplicable(f"{linear.op_type} multiplies integers")
    weight_shape, factor_shape = _layout(linear, weight.shape)
    channels = math.prod(factor_shape)
    factor = _for_channels(affine.factor, channels)
    offset = _for_channels(affine.offset, channels)
    # beta goes into the new bias; only Gemm has one.
    bias = _bias(linear, real(linear, "beta", 1.0) * factor, offset, weight.dtype)

    inputs = [linear.inputs[0], linear.inputs[1]]
    weight_name = (linear.inputs[1].name if linear.inputs[1] is not None else None) or "weight"
    if (factor != 1).any():  # else a shared weight would be copied for nothing
        made = scaled(weight.reshape(weight_shape), factor.reshape(factor_shape))
        inputs[1] = rewriter.initializer(made.reshape(weight.shape), weight_name)
    if bias is not None:
        old_bias = optional_input(linear, 2)
        bias_name = (old_bias.name if old_bias is not None else None) or f"{weight_name}_bias"
        inputs.append(rewriter.initializer(bias, bias_name))
    attributes = [held for held in linear.attributes.values() if held.name != "beta"]
    op_type = "Gemm" if linear.op_type == "MatMul" else linear.op_type
    return rewriter.node(op_type, inputs, attributes)


def channel_count(linear: ir.Node) -> int:
    """The channels that a Conv, ConvTranspose or Gemm makes.

    Raises:
        NotApplicable: its weight is no constant, or has a shape that does not fit.
    """
    weight = parameter(linear.inputs[1], f"{linear.op_type} weight")
    return math.prod(_layout(linear, weight.shape)[1])


def _layout(linear: ir.Node, shape: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """A shape for the weight, and one for the factors that broadcasts against it."""
    name = linear.op_type
    if name == "Conv" and len(shape) >= 3:
        return shape, (shape[0], *[1] * (len(shape) - 1))
    if name == "ConvTranspose" and len(shape) >= 3:
        # [inputs, outputs/group, ...] is [group, inputs/group, outputs/group, ...].
        groups = integer(linear, "group", 1)
        if groups >= 1 and shape[0] % groups == 0:
            grouped = (groups, shape[0] // groups, *shape[1:])
            return grouped, (groups, 1, shape[1], *[1] * (len(shape) - 2))
    if name == "Gemm" and len(shape) == 2:
        return shape, ((shape[0], 1) if integer(linear, "transB", 0) else (1, shape[1]))
    if name == "MatMul":
        data = linear.inputs[0]
        rank = None if data is None or (known := known_shape(data)) is None else len(known)
        if rank != 2 or len(shape) != 2:
            raise NotApplicable("MatMul is not known to multiply two matrices")
        return shape, (1, shape[1])
    raise NotApplicable(f"{name} weight has a shape that does not fit")


def _for_channels(array: np.ndarray, channels: int) -> np.ndarray:
    if array.size not in (1, channels):
        raise NotApplicable(f"there are {array.size} factors for {channels} channels")
    return np.broadcast_to(array, (channels,))


def _bias(
    linear: ir.Node, factor: np.ndarray, offset: np.ndarray, dtype: np.dtype
) -> np.ndarray | None:
    """`factor * bias + offset`, rounded to `dtype`; None where there is none and need be none."""
    value = optional_input(linear, 2)
    if value is not None:
        bias = parameter(value, f"{linear.op_type} bias")
        if bias.ndim == 2 and bias.shape[0] > 1 and bias.shape[1] != factor.size:
            raise NotApplicable(f"{linear.op_type} bias has one value per row: it would grow")
        exact = bias.astype(np.float64) * factor + offset
    elif offset.any() or linear.op_type == "MatMul":  # Gemm needs one before opset 11
        exact = offset
    else:
        return None
    result = rounded(exact, dtype)
    if not np.isfinite(result).all():
        raise NotApplicable(f"the fused bias overflows {dtype.name}")
    return result
