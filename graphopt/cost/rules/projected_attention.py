"""Attention operators that begin with the projection of their input.

    projection    batch * S * I * (columns of the weights) MACs, and its bias 1 per element
    rotary        3 per rotated element of query and key
    scores        as in `attention_scores`

A quantized projection takes the input's zero point off (1 per element) and scales its sums (1) by
the product of both scales (as many as the weights have).
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Tensor, Work
from graphopt.cost.quantity import Number
from graphopt.cost.rules.attention_scores import (
    WHOLE_CACHE,
    attend,
    combined,
    twice_visible_pairs,
)


def projected_attention(node: Operator) -> Work:
    """`Attention` of ONNX Runtime: input, weights, bias, mask, past, attention bias."""
    return _projected(node, 0, 1, bias=2, mask=3, past=4, more=5)


def quantized_attention(node: Operator) -> Work:
    """`QAttention`: an integer projection, scaled; then attention in floats."""
    projections = node.input().dims[0] * node.input().dims[1] * node.input(1).dims[1]
    centred = node.input().size if node.has_input(6) else 0
    scaling = Work(elementwise=projections + centred + node.input(4).size)
    return combined(scaling, _projected(node, 0, 1, bias=2, mask=5, past=8))


def _projected(
    node: Operator, data: int, weights: int, *, bias: int, mask: int, past: int, more: int = -1
) -> Work:
    """Self-attention that begins with its projection; `past` is (2, batch, heads, P, size)."""
    batch, queries, width = node.input(data).dims
    columns, widths, heads = _widths(node, node.input(weights))
    before: Number = node.input(past).dims[3] if node.has_input(past) else 0
    keys = before + queries
    shared = bool(node.integer("past_present_share_buffer", 0)) and node.has_input(past)
    if shared:
        keys = node.input(past).dims[3]
        before = keys - queries
    twice = None
    if node.integer("unidirectional", 0):
        twice = twice_visible_pairs(queries, keys, before, right=0)
    projected = batch * queries * columns
    elementwise = projected if node.has_input(bias) else 0
    if node.integer("do_rotary", 0):
        rotated = node.integer("rotary_embedding_dim", 0)
        each = heads * rotated if rotated else columns // 3
        elementwise = elementwise + 6 * batch * queries * each
    return combined(
        Work(projected * width, elementwise),
        attend(
            batch * heads,
            queries,
            keys,
            widths,
            twice_pairs=twice,
            steps=1 + node.has_input(mask) + (more > 0 and node.has_input(more)),
            note=WHOLE_CACHE if shared else "",
        ),
    )


def _widths(node: Operator, weights: Tensor) -> tuple[Number, Number, int]:
    """Columns of a merged projection, head size of keys plus values, heads."""
    columns = weights.dims[1]
    heads = node.integer("num_heads", 1)
    sizes = node.integers("qkv_hidden_sizes")
    if sizes:
        return columns, (sizes[0] + sizes[2]) // heads, heads
    return columns, 2 * (columns // 3) // heads, heads


_MICROSOFT = "com.microsoft"

RULES = (
    Rule(_MICROSOFT, "Attention", projected_attention),
    Rule(_MICROSOFT, "QAttention", quantized_attention),
)
