"""What BatchNormalization, Mul, Add, Sub and Div by a constant do: t -> factor*t + offset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.plugin import NotApplicable, ir
from graphopt_passes.parameters import integer, optional_input, parameter, real


@dataclass(frozen=True)
class Affine:
    """`factor*t + offset`, both float64 of shape [channels] or [1]."""

    factor: np.ndarray
    offset: np.ndarray


def batchnorm_affine(node: ir.Node) -> Affine:
    """The factor and offset of a BatchNormalization in inference.

    Raises:
        NotApplicable: it is in training mode, or a parameter is no constant or no use.
    """
    # Before opset 14 the further outputs are what makes it training.
    if any(output.name for output in node.outputs[1:]) or integer(node, "training_mode", 0):
        raise NotApplicable("BatchNormalization is in training mode")
    if not integer(node, "spatial", 1):
        raise NotApplicable("BatchNormalization with spatial=0 normalizes every position")
    scale, offset, mean, variance = (
        parameter(optional_input(node, index), f"BatchNormalization {name}").astype(np.float64)
        for index, name in enumerate(("scale", "B", "mean", "var"), start=1)
    )
    if len({array.shape for array in (scale, offset, mean, variance)}) > 1 or scale.ndim != 1:
        raise NotApplicable("BatchNormalization parameters differ in shape")
    denominator = variance + real(node, "epsilon", 1e-5)
    if (denominator <= 0).any():
        raise NotApplicable("BatchNormalization var + epsilon is not positive")
    factor = scale / np.sqrt(denominator)
    return Affine(factor, offset - mean * factor)


def elementwise_affine(node: ir.Node, linear: ir.Node, constant: ir.Value) -> Affine:
    """The factor and offset of a Mul, Add, Sub or Div of `linear` and a constant.

    Raises:
        NotApplicable: the constant varies along another axis than the channels, raises the
            rank, or is not finite.
    """
    values = _per_channel(parameter(constant, "the constant"), linear).astype(np.float64)
    one, zero = np.ones(1), np.zeros(1)
    if node.op_type == "Add":
        return Affine(one, values)
    if node.op_type == "Mul":
        return Affine(values, zero)
    if node.op_type == "Div":
        if not values.all():
            raise NotApplicable("the constant divides by zero")
        return Affine(1 / values, zero)
    if node.inputs[0] is constant:
        return Affine(-one, values)
    return Affine(one, -values)


def _per_channel(array: np.ndarray, linear: ir.Node) -> np.ndarray:
    """The constant as [channels] or [1], by how it broadcasts against the output of `linear`."""
    rank = parameter(linear.inputs[1], f"{linear.op_type} weight").ndim  # the output's too
    if array.ndim > rank:
        raise NotApplicable(f"the constant of rank {array.ndim} raises the rank of the output")
    shape = (1,) * (rank - array.ndim) + array.shape
    varying = [axis for axis, size in enumerate(shape) if size != 1 and axis != 1]
    if varying:
        raise NotApplicable(f"the constant varies along axis {varying[0]}, not along the channels")
    return array.reshape(-1)
