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
    PADDING,
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


def ordered_attention(node: Operator) -> Work:
    """`QOrderedAttention`: three int8 projections with biases, and attention, all int8.

    Each of the five products is scaled, rounded and bounded twice (4), scores and softmax too.
    """
    batch, queries, width = node.input().dims
    columns = sum((node.input(index).dims[1] for index in (5, 6, 7)), start=0)
    heads = node.integer("num_heads", 1)
    past = node.input(18).dims[3] if node.has_input(18) else 0
    projected = batch * queries * columns
    twice = None
    if node.integer("unidirectional", 0):
        twice = twice_visible_pairs(queries, past + queries, past, right=0)
    widths = (node.input(5).dims[1] + node.input(7).dims[1]) // heads
    given = node.has_input(17) + node.has_input(19)
    # The scores and the probabilities are brought to 8 bits, and so is the output.
    scores = attend(
        batch * heads, queries, past + queries, widths, twice_pairs=twice, steps=9 + given
    )
    quantizing = 4 * (projected + node.output().size)
    return combined(Work(projected * width, quantizing + projected), scores)


def packed_attention(node: Operator) -> Work:
    """`PackedAttention`: tokens without padding; input, weights, bias, offsets (batch, S)."""
    tokens, width = node.input().dims
    batch, queries = node.input(3).dims
    columns, widths, heads = _widths(node, node.input(1))
    projection = Work(tokens * width * columns, tokens * columns if node.has_input(2) else 0)
    steps = 1 + node.has_input(5)
    return combined(
        projection, attend(batch * heads, queries, queries, widths, steps=steps, note=PADDING)
    )


def decoder_attention(node: Operator) -> Work:
    """`DecoderAttention`: (S, batch, hidden) and (T, batch, hidden); its flags are data."""
    queries, batch, hidden = node.input().dims
    keys = node.input(1).dims[0]
    heads = node.integer("num_heads", 1)
    projected = batch * hidden * (queries + 2 * keys)
    return combined(
        Work(projected * hidden, projected if node.has_input(4) else 0),
        attend(
            batch * heads,
            queries,
            keys,
            2 * (hidden // heads),
            steps=1 + node.has_input(5),
            note="counts a run without cache",
        ),
    )


def longformer_attention(node: Operator) -> Work:
    """`LongformerAttention`: a window of W tokens on both sides; which are global is data."""
    return _longformer(node, weights=1)


def ordered_longformer_attention(node: Operator) -> Work:
    """`QOrderedLongformerAttention`: the same in int8; its scaling is not counted."""
    return _longformer(node, weights=2)


def _longformer(node: Operator, weights: int) -> Work:
    batch, queries, width = node.input().dims
    columns = node.input(weights).dims[1]
    heads, window = node.integer("num_heads", 1), node.integer("window", 0)
    projected = 2 * batch * queries * columns
    twice = twice_visible_pairs(queries, queries, left=window, right=window)
    note = "counts the window of each token and both projections, not the global tokens' scores"
    return combined(
        Work(projected * width, projected),
        attend(
            batch * heads,
            queries,
            queries,
            2 * (width // heads),
            twice_pairs=twice,
            steps=2,
            note=note,
        ),
    )


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
    Rule(_MICROSOFT, "DecoderMaskedSelfAttention", projected_attention),
    Rule(_MICROSOFT, "QAttention", quantized_attention),
    Rule(_MICROSOFT, "QOrderedAttention", ordered_attention),
    Rule(_MICROSOFT, "PackedAttention", packed_attention),
    Rule(_MICROSOFT, "DecoderAttention", decoder_attention),
    Rule(_MICROSOFT, "LongformerAttention", longformer_attention),
    Rule(_MICROSOFT, "QOrderedLongformerAttention", ordered_longformer_attention),
)
