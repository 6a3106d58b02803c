"""Remove arithmetic whose other operand changes nothing.

    x * 1, 1 * x, x / 1                              -> x
    Pow(x, 1)                                        -> x    but for 64-bit integers
    x + 0, 0 + x, x - 0                              -> x    integers
    x + (-0.0), -0.0 + x, x - 0.0                    -> x    floats
    And(x, true), Or(x, false), Xor(x, false)        -> x    and the other way round

The neutral operand is a constant of any shape that x does not broadcast to: each of its dims is
1 or known to be that of x, and its rank is not above that of x. A symbolic dim of x proves
nothing about a constant's dim of 5.

Runtimes raise 64-bit integers to a power in double precision, which loses digits. It does not
hold either for floats in x + 0.0 and x - (-0.0): they turn -0.0 into 0.0, so the bits
change.
"""

from __future__ import annotations

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant_array,
    constant_tensor,
    ir,
    known_shape,
    op,
    same_dim,
)

_NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1, "Pow": 1, "And": 1, "Or": 0, "Xor": 0}
_COMMUTATIVE = frozenset({"Add", "Mul", "And", "Or", "Xor"})


class EliminateNeutralArithmetic(RewritePass):
    """Remove additions of zero, multiplications by one, and the like."""

    name = "eliminate-neutral-arithmetic"
    promise = Promise.EXACT
    patterns = (op(tuple(_NEUTRAL)),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Let the consumers of the node read the operand that is not neutral."""
        node = match.root
        left, right = node.inputs
        if left is None or right is None:
            return
        if _is_uniform(right, _NEUTRAL[node.op_type]):
            kept, neutral = left, right
        elif node.op_type in _COMMUTATIVE and _is_uniform(left, _NEUTRAL[node.op_type]):
            kept, neutral = right, left
        else:
            return
        if not _keeps_shape(neutral, kept):
            raise NotApplicable(f"it may broadcast '{kept.name}'")
        if node.op_type == "Pow" and kept.dtype in (ir.DataType.INT64, ir.DataType.UINT64):
            raise NotApplicable("the runtime may round a 64-bit integer")
        if node.op_type in ("Add", "Sub") and not _keeps_signed_zero(node.op_type, neutral):
            raise NotApplicable("it turns -0.0 into 0.0")
        rewriter.replace(node, kept)


def _is_uniform(value: ir.Value, number: int) -> bool:
    """Whether every element of a constant is `number`, of whichever sign if that is zero."""
    tensor = constant_tensor(value)
    if tensor is None or tensor.size == 0 or not _is_real(tensor.dtype):
        return False
    array = constant_array(value)
    # Most constants differ at the first element, and a large one need not be read then.
    return array is not None and bool(array.flat[0] == number) and bool((array == number).all())


def _is_real(dtype: ir.DataType) -> bool:
    return dtype.is_integer() or dtype.is_floating_point() or dtype == ir.DataType.BOOL


def _keeps_shape(neutral: ir.Value, kept: ir.Value) -> bool:
    tensor = constant_tensor(neutral)
    dims = () if tensor is None else tensor.shape.numpy()
    if not dims:
        return True
    shape = known_shape(kept)
    if shape is None or len(dims) > len(shape):
        return False
    trailing = list(shape)[len(shape) - len(dims) :]
    return all(dim == 1 or same_dim(dim, own) for dim, own in zip(dims, trailing, strict=True))


def _keeps_signed_zero(op_type: str, neutral: ir.Value) -> bool:
    array = constant_array(neutral)
    if array is None or neutral.dtype is None or not neutral.dtype.is_floating_point():
        return True
    negative = np.signbit(array)
    return bool(negative.all()) if op_type == "Add" else not bool(negative.any())
