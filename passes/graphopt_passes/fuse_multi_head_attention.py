"""Attend in ONNX Runtime's own operator.

    MatMul(Softmax(MatMul(q, k^T) * s + mask), v)
        ->  heads(com.microsoft.MultiHeadAttention(rows(q), rows(k), rows(v), mask, scale = s))

q, k and v are [batch, heads, positions, size]; rows() puts the heads beside each other,
[batch, positions, heads * size], and heads() takes them apart again: merge-movements cancels them
against what stands around. The factor may stand on q and on k^T instead, or be a division. A mask
of any kind is added as it is; one that is the same for all positions is expanded, as the operator
wants it. Declined where the number of heads or their size is not known, where the mask is not known
to fit, where Softmax is not over the last axis or is guarded against NaN, below opset 15 and in
functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
    one_of,
    op,
    same_dim,
    variable,
)
from graphopt_passes.contributed import DOMAIN, use_contributed

Dims = Sequence[int | ir.SymbolicDim]

_SCORES = op("MatMul", variable("q"), variable("k"), label="scores")
_SCALED = one_of(
    op("Mul", _SCORES, constant("factor"), commutative=True),
    op("Div", _SCORES, constant("divisor")),
    _SCORES,
)
_MASKED = one_of(op("Add", _SCALED, variable("mask"), commutative=True), _SCALED)

_SOFTMAX = op("Softmax", _MASKED, label="softmax")


@dataclass(frozen=True)
class FuseMultiHeadAttention(RewritePass):
    """Attend in ONNX Runtime's own operator."""

    name = "fuse-multi-head-attention"
    promise = Promise.EQUIVALENT
    patterns = (
        op("MatMul", _SOFTMAX, variable("v")),
        op("MatMul", op("Where", op("IsNaN", _SOFTMAX), constant(), _SOFTMAX, label="guard")),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the MultiHeadAttention, or say what does not fit it."""
        if "guard" in match.nodes:
            raise NotApplicable("Softmax is guarded against rows that are masked as a whole")
        if match.node("softmax").attributes.get_int("axis", -1) not in (-1, 3):
            raise NotApplicable("Softmax is not over the last axis")
        query, query_factor = _unscaled(match.value("q"))
        key, key_factor = _unscaled(match.value("k"))
        scale = np.float32(query_factor * key_factor * _factor(match))
        if not scale or not np.isfinite(scale):
            # The operator takes zero for "not given".
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
        inputs: list[ir.Value | None] = [
            _rows(rewriter, query, (0, 2, 1, 3), heads * size),
            _rows(rewriter, key, (0, 3, 1, 2), heads * size),
            _rows(rewriter, value, (0, 2, 1, 3), heads * width),
        ]
        if "mask" in match.values:
            mask = _fitting(rewriter, match.value("mask"), match.value("q"), (*q[:3], k[3]))
            inputs += [None, None, mask]
        use_contributed(rewriter, match.root)
        made = rewriter.node(
            "MultiHeadAttention",
            inputs,
            {"num_heads": heads, "scale": float(scale)},
            domain=DOMAIN,
        )
        # No inference knows the operator; without its shape the moves around it stay.
        made.outputs[0].type = value.type
        made.outputs[0].shape = ir.Shape([q[0], q[2], heads * width])
        target = rewriter.initializer(np.array([0, 0, heads, width], np.int64), "heads")
        apart = rewriter.node("Reshape", [made.outputs[0], target])
        rewriter.replace(
            match.root, rewriter.node("Transpose", [apart.outputs[0]], {"perm": [0, 2, 1, 3]})
        )


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


def _rows(rewriter: Rewriter, value: ir.Value, order: Sequence[int], width: int) -> ir.Value:
    """[batch, heads, positions, size], or what `order` makes that of, with the heads in a row."""
    moved = rewriter.node("Transpose", [value], {"perm": list(order)})
    target = rewriter.initializer(np.array([0, 0, width], np.int64), "rows")
    return rewriter.node("Reshape", [moved.outputs[0], target]).outputs[0]


def _fitting(rewriter: Rewriter, mask: ir.Value, query: ir.Value, scores: Dims) -> ir.Value:
    """The mask in rank 4, with a row for each position of the query.

    Raises:
        NotApplicable: it is not known to fit, or stretches the scores.
    """
    shape = known_shape(mask)
    if shape is None or len(shape) > 4:
        raise NotApplicable("the rank of the mask is not known, or above 4")
    dims = [*([1] * (4 - len(shape))), *shape]
    if not all(
        same_dim(dim, own) or (dim == 1 and axis < 3)
        for axis, (dim, own) in enumerate(zip(dims, scores, strict=True))
    ):
        raise NotApplicable("the mask is not known to fit the scores")
    if len(shape) < 4:
        axes = rewriter.initializer(np.arange(4 - len(shape)), "axes")
        mask = rewriter.node("Unsqueeze", [mask, axes]).outputs[0]
    if not same_dim(dims[2], scores[2]):
        size = rewriter.node("Shape", [query], {"start": 2, "end": 3}).outputs[0]
        one = rewriter.initializer(np.array([1], np.int64), "one")
        target = rewriter.node("Concat", [size, one], {"axis": 0}).outputs[0]
        mask = rewriter.node("Expand", [mask, target]).outputs[0]
    return mask
