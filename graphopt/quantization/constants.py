"""Parameters of weights and biases.

    s_bias = s_x * s_w,   b_q = round(b / s_bias),   |b_q| <= 2^30
    so  s_w >= |b| / (s_x * 2^30)    for every output channel

Half the range of int32 is left to the sum that the bias is added to. A channel whose weights are
all 0 takes any scale; it gets one that keeps 24 bits of its bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.graph import ir
from graphopt.quantization.backends.backend import Format
from graphopt.quantization.parameters import (
    SMALLEST_SCALE,
    Parameters,
    limits,
    parameters_of_weight,
)

LARGEST_BIAS = 2**30
"""The largest magnitude of a bias in integers."""

_BITS_OF_A_LONE_BIAS = 24


@dataclass(frozen=True, eq=False)
class QuantizedConstant:
    """A weight or a bias at one input of one node.

    Attributes:
        node: the node, by its first output.
        index: which input.
        tensor: the name of the float constant.
        parameters: its scale and zero point.
        integers: its integers where they are not the nearest ones; None where they are.
    """

    node: str
    index: int
    tensor: str
    parameters: Parameters
    integers: np.ndarray | None = None

    def quantize(self, array: np.ndarray) -> np.ndarray:
        """The integers of the float constant `array`."""
        return self.parameters.quantize(array) if self.integers is None else self.integers


def channel_axis(node: ir.Node, index: int, rank: int) -> int | None:
    """The axis of a constant operand that has one entry per output channel; None without one.

    Conv [M, C/group, ...]: 0. ConvTranspose [C, M/group, ...]: 1, the same entry in each group.
    Gemm's B: its columns, which transB makes rows. MatMul's B [K, N]: 1. Operands on the left
    give rows of the output, not channels; a stack of matrices has no scales per column in
    ONNX Runtime.
    """
    if index != 1:
        return None
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            return 1
        case "Gemm":
            return 0 if node.attributes.get_int("transB", 0) else 1
        case "MatMul" if rank == 2:
            return 1
    return None


def weight_parameters(array: np.ndarray, form: Format, axis: int | None) -> Parameters:
    """The parameters of a weight by itself, a scale per channel where form and axis allow it.

    Raises:
        UsageError: a number is not finite.
    """
    return parameters_of_weight(
        array, form.dtype, symmetric=form.symmetric, axis=axis if form.per_channel else None
    )


def fit_bias(
    weight: Parameters, array: np.ndarray, bias: np.ndarray, input_scale: np.ndarray
) -> Parameters:
    """The parameters of a weight, enlarged where the bias would not fit its integers.

    Args:
        weight: the parameters of the weight.
        array: the weight.
        bias: float [channels], in as many groups as the weight's channels are repeated.
        input_scale: the scale of the other operand, [].
    """
    largest = np.abs(bias.astype(np.float64))
    repeats = 1
    if weight.axis is None:
        largest = largest.max(initial=0.0)
    else:
        repeats = len(bias) // len(weight.scale)
        largest = largest.reshape(repeats, -1).max(axis=0)
    least = largest / (float(input_scale) * LARGEST_BIAS)
    scale = np.maximum(weight.scale, least)
    if weight.axis is not None:
        over = tuple(i for i in range(array.ndim) if i != weight.axis)
        lone = (np.abs(array).max(axis=over) == 0) & (largest > 0)
        exact = np.maximum(largest / (float(input_scale) * 2**_BITS_OF_A_LONE_BIAS), SMALLEST_SCALE)
        scale = np.where(lone, exact, scale)
    # Rounded up: rounding down could leave the bias just outside.
    rounded = scale.astype(np.float32)
    rounded = np.where(rounded < scale, np.nextafter(rounded, np.float32(np.inf)), rounded)
    if np.array_equal(rounded, weight.scale):
        return weight
    return Parameters(weight.dtype, rounded.astype(np.float32), weight.zero_point, weight.axis)


def bias_parameters(
    dtype: ir.DataType, input_scale: np.ndarray, weight_scale: np.ndarray, channels: int
) -> Parameters:
    """The parameters of a bias [channels]: the product of the scales, multiplied in float32.

    One scale where the weight has one; where a ConvTranspose in groups has fewer than channels,
    they are repeated.
    """
    product = np.asarray(input_scale, np.float32) * np.asarray(weight_scale, np.float32)
    product = np.maximum(product, np.finfo(np.float32).tiny).astype(np.float32)
    limits(dtype)
    if product.ndim == 0:
        return Parameters(dtype, product, np.zeros((), dtype.numpy()))
    scale = np.tile(product, channels // len(product))
    return Parameters(dtype, scale, np.zeros(scale.shape, dtype.numpy()), 0)
