"""Normalize groups of channels by ONNX Runtime's InstanceNormalization, which it has a kernel for.

    GroupNormalization(x, g, b)
        ->  Reshape(InstanceNormalization(Reshape(x, [0, groups, size]), 1, 0), shape(x)) * g + b

ONNX Runtime has no GroupNormalization on the CPU: it takes one apart into means, casts and shapes.
Declined where a dim of x behind the batch is not known, where scale and bias are not constants, for
doubles, which InstanceNormalization does not take, and where the mean is not taken in single
precision.
"""

from __future__ import annotations

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant,
    constant_array,
    ir,
    known_shape,
    op,
    variable,
)
from graphopt_passes.operands import no_references


class ConvertGroupNormalization(RewritePass):
    """Normalize groups of channels by InstanceNormalization, a scale and a bias."""

    name = "convert-group-normalization"
    promise = Promise.EQUIVALENT
    patterns = (op("GroupNormalization", variable("x"), constant("scale"), constant("bias")),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the operators, or say what is not known of this one."""
        node, data = match.root, match.value("x")
        no_references(node)
        if data.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            raise NotApplicable(f"'{data.name}' is not of single or half precision")
        if node.attributes.get_int("stash_type", 1) != ir.DataType.FLOAT:
            raise NotApplicable("the mean is not taken in single precision")
        shape = known_shape(data)
        sizes = [] if shape is None else [dim for dim in shape[1:] if isinstance(dim, int)]
        if shape is None or len(sizes) != len(shape) - 1 or len(shape) < 3 or 0 in sizes:
            raise NotApplicable(f"the dims of '{data.name}' behind the batch are not known")
        groups = node.attributes.get_int("num_groups", 0)
        if groups < 1 or sizes[0] % groups:
            raise NotApplicable("the channels do not make so many groups")
        kind = data.dtype.numpy()
        target = np.array([0, groups, int(np.prod(sizes)) // groups], np.int64)
        value = rewriter.node("Reshape", [data, rewriter.initializer(target, "groups")]).outputs[0]
        epsilon = node.attributes.get_float("epsilon", 1e-5)
        neutral = [
            rewriter.initializer(np.full(groups, number, kind), label)
            for label, number in (("scale", 1), ("bias", 0))
        ]
        made = rewriter.node("InstanceNormalization", [value, *neutral], {"epsilon": epsilon})
        back = rewriter.initializer(np.array([0, *sizes], np.int64), "shape")
        made = rewriter.node("Reshape", [made.outputs[0], back])
        for op_type, label in (("Mul", "scale"), ("Add", "bias")):
            held = match.value(label)
            spread = _by_channel(held, sizes)
            operands = [made.outputs[0], rewriter.initializer(spread, held.name or label)]
            made = rewriter.node(op_type, operands)
        rewriter.replace(node, made)


def _by_channel(value: ir.Value, sizes: list[int]) -> np.ndarray:
    """One number for each channel, with axes of 1 for what stands behind the channels."""
    array = constant_array(value)
    if array is None or array.shape != (sizes[0],):
        raise NotApplicable(f"'{value.name}' is not one number for each channel")
    return array.reshape(-1, *[1] * (len(sizes) - 1))
