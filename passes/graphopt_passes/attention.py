"""The parts of attention, as exporters write them, for the passes that make one operator of them.

MatMul(Softmax(MatMul(q, k^T) * s + mask), v), where q, k and v are [batch, heads, positions, size].
The factor may stand on q and on k^T instead, or be a division.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Pattern,
    Rewriter,
    constant,
    constant_array,
    ir,
    known_shape,
    one_of,
    op,
    same_dim,
    variable,
)

_SCORES = op("MatMul", variable("q"), variable("k"), label="scores")
_SCALED = one_of(
    op("Mul", _SCORES, constant("factor"), commutative=True),
    op("Div", _SCORES, constant("divisor")),
    _SCORES,
)
_MASKED = one_of(op("Add", _SCALED, variable("mask"), commutative=True), _SCALED)
_SOFTMAX = op("Softmax", _MASKED, label="softmax")

ATTENTION: tuple[Pattern, ...] = (
    op("MatMul", _SOFTMAX, variable("v")),
    op("MatMul", op("Where", op("IsNaN", _SOFTMAX), constant(), _SOFTMAX, label="guard")),
)


@dataclass(frozen=True)
class Parts:
    """What attention is computed of.

    Attributes:
        query: [batch, heads, positions, size].
        key: the keys as they stand in the product, [batch, heads, size, positions of the keys].
        value: [batch, heads, positions of the keys, width].
        scale: what the scores are multiplied by.
        batch, heads, positions, keys, size, width: these dims.
    """

    query: ir.Value
    key: ir.Value
    value: ir.Value
    scale: float
    batch: int | ir.SymbolicDim
    heads: int
    positions: int | ir.SymbolicDim
    keys: int | ir.SymbolicDim
    size: int
    width: int


def read_parts(match: Match) -> Parts:
    """The parts of a match of `ATTENTION`.

    Raises:
        NotApplicable: they are not what an operator for attention takes.
    """
    if "guard" in match.nodes:
        raise NotApplicable("Softmax is guarded against rows that are masked as a whole")
    if match.node("softmax").attributes.get_int("axis", -1) not in (-1, 3):
        raise NotApplicable("Softmax is not over the last axis")
    query, query_factor = _unscaled(match.value("q"))
    key, key_factor = _unscaled(match.value("k"))
    scale = np.float32(query_factor * key_factor * _factor(match))
    if not scale or not np.isfinite(scale):
        # ONNX Runtime's own operator takes zero for "not given".
        raise NotApplicable("the scores are scaled by zero, or by no finite number")
    value = match.value("v")
    if value.dtype != ir.DataType.FLOAT:
        raise NotApplicable("the numbers are not float32")
    shapes = [known_shape(item) for item in (query, key, value)]
    if any(shape is None or len(shape) != 4 for shape in shapes):
        raise NotApplicable("query, key and value are not of rank 4")
    q, k, v = (shape for shape in shapes if shape is not None)
    heads, size, width = q[1], q[3], v[3]
    if not (isinstance(heads, int) and isinstance(size, int) and isinstance(width, int)):
        raise NotApplicable("the number of heads or their size is not known")
    pairs = ((q[0], k[0]), (q[0], v[0]), (heads, k[1]), (heads, v[1]), (size, k[2]))
    if not all(same_dim(one, other) for one, other in (*pairs, (k[3], v[2]))):
        raise NotApplicable("a batch or a head may be broadcast")
    return Parts(query, key, value, float(scale), q[0], heads, q[2], k[3], size, width)


def rows(rewriter: Rewriter, value: ir.Value, order: tuple[int, ...], width: int) -> ir.Value:
    """[batch, heads, positions, size], or what `order` makes that of, with the heads in a row."""
    moved = rewriter.node("Transpose", [value], {"perm": list(order)})
    target = rewriter.initializer(np.array([0, 0, width], np.int64), "rows")
    return rewriter.node("Reshape", [moved.outputs[0], target]).outputs[0]


def heads_apart(rewriter: Rewriter, value: ir.Value, heads: int, width: int) -> ir.Node:
    """[batch, positions, heads * width] as [batch, heads, positions, width]."""
    target = rewriter.initializer(np.array([0, 0, heads, width], np.int64), "heads")
    apart = rewriter.node("Reshape", [value, target])
    return rewriter.node("Transpose", [apart.outputs[0]], {"perm": [0, 2, 1, 3]})


def _unscaled(value: ir.Value) -> tuple[ir.Value, float]:
    """The value before it was multiplied by a number, and the number."""
    made = value.producer()
    if made is None or made.op_type != "Mul" or made.domain or len(value.uses()) != 1:
        return value, 1.0
    for data, number in (made.inputs, reversed(made.inputs)):
        array = None if number is None else constant_array(number, 1)
        if data is not None and array is not None and array.size == 1 and array.ndim <= 4:
            return data, float(array.reshape(-1)[0])
    return value, 1.0


def _factor(match: Match) -> float:
    """What the scores are multiplied by between the product and the mask."""
    for label in ("factor", "divisor"):
        if label in match.values:
            array = constant_array(match.value(label), 1)
            if array is None or array.size != 1 or array.ndim > 4:
                raise NotApplicable("the scores are not scaled by one number")
            number = float(array.reshape(-1)[0])
            return number if label == "factor" else (1 / number if number else math.inf)
    return 1.0
