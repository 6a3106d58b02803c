"""Leave out an Expand where the elementwise operator behind would broadcast anyway.

    op(Expand(x, shape), y, ...)   ->  op(x, y, ...)       op: Add, Mul, Equal, Where, ...

Every axis that Expand makes larger has its size in another operand of the operator too; a free
size counts where it is known to be the same. Other operators that read the Expand keep it. So do
Pow, Max and Min: runtimes compute a power by one exponent, and which of two zeros is the larger, in
other ways when they broadcast, and the results differ in their last bit or in the sign of zero.

Declined where the result may get smaller, where shapes are not known, and where x has axes of its
own both before and behind one that is repeated, and fewer than 128 numbers behind: runtimes
broadcast such an operand row by row, and were slower with it than with an Expand ahead (0.6x to
0.8x with rows of 8 and 64 numbers, 1.0x to 1.8x with longer ones). Free sizes count as 128.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    ir,
    known_shape,
    op,
    same_dim,
    variable,
)

_ELEMENTWISE = (
    "Add",
    "And",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Mean",
    "Mod",
    "Mul",
    "Or",
    "Sub",
    "Sum",
    "Where",
    "Xor",
)
_SHORTEST_ROW = 128
_EXPAND = op("Expand", shared=True)


class EliminateExpands(RewritePass):
    """Leave out an Expand where the elementwise operator behind would broadcast anyway."""

    name = "eliminate-expands"
    promise = Promise.EXACT
    patterns = (
        op(_ELEMENTWISE, _EXPAND),
        op(_ELEMENTWISE, variable(), _EXPAND),
        op(("Where", "Mean", "Sum"), variable(), variable(), _EXPAND),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Let the operator read what each Expand reads, or say which size would be lost."""
        root = match.root
        operands = list(root.inputs)
        refusals = []
        for index, value in enumerate(operands):
            read = _expanded(value)
            if value is None or read is None:
                continue
            others = [other for at, other in enumerate(operands) if at != index]
            try:
                _check(value, read, others)
            except NotApplicable as refusal:
                refusals.append(refusal)
            else:
                operands[index] = read
        if operands == list(root.inputs):
            raise refusals[0]
        rewriter.replace(root, rewriter.node(root.op_type, operands, root.attributes.values()))


def _expanded(value: ir.Value | None) -> ir.Value | None:
    """What the Expand that makes a value reads; None where it is no Expand."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Expand" or node.domain not in ("", "ai.onnx"):
        return None
    return node.inputs[0]


def _check(expanded: ir.Value, x: ir.Value, others: Sequence[ir.Value | None]) -> None:
    """Refuse an Expand that gives the result of the operator a size, or that pays."""
    result, own = known_shape(expanded), known_shape(x)
    if result is None or own is None:
        raise NotApplicable(f"the shape of '{expanded.name}' is not known")
    shapes = [known_shape(other) for other in others if other is not None]
    sizes = [1] * (len(result) - len(own)) + list(own)
    repeated = [
        axis
        for axis, (size, mine) in enumerate(zip(result, sizes, strict=True))
        if not same_dim(size, mine)
    ]
    for axis in repeated:
        behind = len(result) - axis
        if not any(
            shape is not None and len(shape) >= behind and same_dim(shape[-behind], result[axis])
            for shape in shapes
        ):
            raise NotApplicable(f"no other operand is known to have axis {axis} of Expand's size")
    _check_rows(sizes, repeated)
    missing = len(result) - len(own)
    if missing and not any(shape is not None and len(shape) >= len(result) for shape in shapes):
        raise NotApplicable("the result may lose an axis")


def _check_rows(sizes: Sequence[int | ir.SymbolicDim], repeated: Sequence[int]) -> None:
    """Refuse an operand that would be broadcast in short rows, each of them repeated."""
    kept = [axis for axis, size in enumerate(sizes) if axis not in repeated and size != 1]
    inner = max((axis for axis in repeated if kept and kept[0] < axis < kept[-1]), default=None)
    if inner is None:
        return
    row = math.prod(size if isinstance(size, int) else _SHORTEST_ROW for size in sizes[inner:])
    if row < _SHORTEST_ROW:
        raise NotApplicable(f"rows of {row} numbers would be repeated, which Expand does faster")
