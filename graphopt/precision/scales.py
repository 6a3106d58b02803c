"""Scales of quantized weights that half cannot hold: those of channels that are next to nothing.

    w = s q,  s = [2e-3, 1e-19]     ->     s = [2e-3, 6e-8]

A scale of 0 is refused by kernels. The smallest half number in its place moves a weight by at most
127 * 2^-24, which is less than half rounds the largest weights of the tensor by.
"""

from __future__ import annotations

import numpy as np

from graphopt.graph import constant_tensor, ir
from graphopt.precision.flow import Flow, Use
from graphopt.precision.formats import HalfFormat


def scales_weights(use: Use) -> bool:
    """Whether a tensor is read as the scale of weights."""
    node = use.holder
    return (
        isinstance(node, ir.Node)
        and node.op_type == "DequantizeLinear"
        and use.index == 1
        and constant_tensor(node.inputs[0]) is not None
    )


def raised_scales(flow: Flow, half: HalfFormat) -> dict[ir.Value, np.ndarray]:
    """Scales of weights some of which vanish in half -> half numbers none of which is 0."""
    raised = {}
    for tensor in flow.constants():
        held = constant_tensor(tensor.value)
        if held is None or not tensor.uses or not all(map(scales_weights, tensor.uses)):
            continue
        exact = held.numpy()
        rounded = half.rounded(exact)
        vanished = (rounded == 0) & (exact > 0)
        if vanished.any() and half.smallest <= half.roundoff * float(exact.max()):
            raised[tensor.value] = np.where(vanished, np.float32(half.smallest), rounded)
    return raised
