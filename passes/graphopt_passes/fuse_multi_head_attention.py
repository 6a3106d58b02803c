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

from collections.abc import Sequence

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    ir,
    known_shape,
    same_dim,
)
from graphopt_passes.attention import ATTENTION, heads_apart, read_parts, rows
from graphopt_passes.contributed import DOMAIN, use_contributed

Dims = Sequence[int | ir.SymbolicDim]


class FuseMultiHeadAttention(RewritePass):
    """Attend in ONNX Runtime's own operator."""

    name = "fuse-multi-head-attention"
    promise = Promise.EQUIVALENT
    patterns = ATTENTION

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the MultiHeadAttention, or say what does not fit it."""
        parts = read_parts(match)
        heads, size, width = parts.heads, parts.size, parts.width
        inputs: list[ir.Value | None] = [
            rows(rewriter, parts.query, (0, 2, 1, 3), heads * size),
            rows(rewriter, parts.key, (0, 3, 1, 2), heads * size),
            rows(rewriter, parts.value, (0, 2, 1, 3), heads * width),
        ]
        if "mask" in match.values:
            scores = (parts.batch, heads, parts.positions, parts.keys)
            mask = _fitting(rewriter, match.value("mask"), match.value("q"), scores)
            inputs += [None, None, mask]
        use_contributed(rewriter, match.root)
        made = rewriter.node(
            "MultiHeadAttention",
            inputs,
            {"num_heads": heads, "scale": parts.scale},
            domain=DOMAIN,
        )
        # No inference knows the operator; without its shape the moves around it stay.
        made.outputs[0].type = parts.value.type
        made.outputs[0].shape = ir.Shape([parts.batch, parts.positions, heads * width])
        rewriter.replace(match.root, heads_apart(rewriter, made.outputs[0], heads, width))


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
