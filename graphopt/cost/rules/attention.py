"""Attention on query, key and value: how each operator gives their shapes, and what it adds.

The scores are those of `attention_scores`. Beside them:

    biases        of query, key and value: 1 per element
    rotary        3 per rotated element of query and key
    normalized q and k    RMSNormalization of each head

Where a cache is a buffer of full length, whose used part is given as data, all of it counts
unless the length is a constant; a note says so.
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.quantity import Number, product
from graphopt.cost.rules.attention_scores import (
    PADDING,
    WHOLE_CACHE,
    attend,
    combined,
    twice_visible_pairs,
)
from graphopt.cost.rules.formulas import normalized


def attention(node: Operator) -> Work:
    """ONNX's `Attention`: Q, K, V, mask, past key and value, lengths; 3-D or 4-D."""
    query, key, value = node.input(), node.input(1), node.input(2)
    if len(query.dims) == 3:
        heads: Number = node.integer("q_num_heads", 1)
        kept = node.integer("kv_num_heads", 1)
        batch, queries = query.dims[:2]
        new = key.dims[1]
        widths = query.dims[2] // heads + value.dims[2] // kept
    else:
        batch, heads, queries = query.dims[:3]
        new = key.dims[2]
        widths = query.dims[3] + value.dims[3]
    past: Number = node.input(4).dims[2] if node.has_input(4) else 0
    keys = past + new
    # With lengths, the queries are taken to be the last of a full cache.
    offset = keys - queries if node.has_input(6) else past
    return attend(
        batch * heads,
        queries,
        keys,
        widths,
        twice_pairs=twice_visible_pairs(
            queries,
            keys,
            offset,
            left=_bound(node, "left_window_size"),
            right=0 if node.integer("is_causal", 0) else _bound(node, "right_window_size"),
        ),
        steps=1 + node.has_input(3),
        softcap=node.number("softcap", 0.0) > 0,
        note=PADDING if node.has_input(6) else "",
    )


def flexible_attention(node: Operator) -> Work:
    """`FlexAttention`: Q, K, V in 4-D; what its subgraphs do to the scores is not counted."""
    batch, heads, queries, width = node.input().dims
    keys, value_width = node.input(2).dims[2:]
    note = "counts without its score_mod and prob_mod, and without what they mask"
    return attend(batch * heads, queries, keys, width + value_width, note=note)


def multi_head_attention(node: Operator) -> Work:
    """`MultiHeadAttention`: query, key, value, bias, mask, bias of scores, past, its length."""
    return _multi_head(node, bias=3, mask=4, more=5, past=6, length=8)


def decoder_multi_head_attention(node: Operator) -> Work:
    """`DecoderMaskedMultiHeadAttention`: one query; its inputs in an order of their own."""
    return _multi_head(node, bias=10, mask=3, more=4, past=5, length=7)


def group_query_attention(node: Operator) -> Work:
    """`GroupQueryAttention`: causal, in a cache; a window of W keys holds the query's own."""
    window = node.integer("local_window_size", -1)
    causal = bool(node.integer("causal", 1))
    sink = node.has_input(11) or node.integer("smooth_softmax", 0) == 1
    return _grouped(
        node,
        past=3,
        total=6,
        rotary=7,
        left=window - 1 if causal and window > 0 else None,
        right=0 if causal else None,
        steps=1 + node.has_input(10),
        sink=sink,
        rms=node.has_input(14),
    )


def _multi_head(node: Operator, *, bias: int, mask: int, more: int, past: int, length: int) -> Work:
    """Query, key and value are 3-D, or 4-D where they come from a cache, or 5-D if packed."""
    query = node.input()
    heads = node.integer("num_heads", 1)
    batch, queries = query.dims[:2]
    if len(query.dims) == 5 or not node.has_input(1):
        # (batch, S, heads, 3, size), or the three side by side in one row.
        new, each = queries, product(query.dims[2:]) // 3
        widths: Number = 2 * each // heads
        biased = query.size
    else:
        key = node.input(1)
        if len(key.dims) == 5:  # (batch, L, heads, 2, size)
            new, value_width = key.dims[1], key.dims[4]
            biased = query.size + key.size
        elif len(key.dims) == 4:  # (batch, heads, L, size), projected before
            new, value_width = key.dims[2], node.input(2).dims[3]
            biased = query.size
        else:
            new, value_width = key.dims[1], node.input(2).dims[2] // heads
            biased = query.size + key.size + node.input(2).size
        widths = query.dims[2] // heads + value_width
    before: Number = node.input(past).dims[2] if node.has_input(past) else 0
    keys = before + new
    shared = node.has_input(length) and node.has_input(past)
    if shared:
        keys = before
        before = keys - queries
    twice = None
    if node.integer("unidirectional", 0):
        twice = twice_visible_pairs(queries, keys, before, right=0)
    return combined(
        Work(elementwise=biased if node.has_input(bias) else 0),
        attend(
            batch * heads,
            queries,
            keys,
            widths,
            twice_pairs=twice,
            steps=1 + node.has_input(mask) + node.has_input(more),
            note=WHOLE_CACHE if shared else "",
        ),
    )


def _grouped(
    node: Operator,
    *,
    past: int,
    total: int,
    rotary: int,
    left: int | None,
    right: int | None,
    steps: int = 1,
    sink: bool = False,
    rms: bool = False,
    note: str = "",
) -> Work:
    """More heads for queries than for keys and values; query alone may hold all three."""
    heads, kept = node.integer("num_heads", 1), node.integer("kv_num_heads", 1)
    batch, queries, columns = node.input().dims
    if node.has_input(1):
        size, new = columns // heads, node.input(1).dims[1]
    else:
        size, new = columns // (heads + 2 * kept), queries
    notes = [note] if note else []
    lengths = node.input(total).elements if node.has_input(total) else None
    if lengths is not None and len(lengths) == 1 and lengths[0] is not None:
        keys = lengths[0]
    else:
        keys = new + (node.input(past).dims[2] if node.has_input(past) else 0)
        if node.has_input(past):
            notes.append("counts all of the past, which padding or a longer buffer may be part of")
    per_token = batch * queries * heads + batch * new * kept
    elementwise: Number = 0
    roots: Number = 0
    if node.integer("do_rotary", 0):
        elementwise = 3 * per_token * (2 * node.input(rotary).dims[-1])
    if rms:
        more, roots = normalized(per_token * size, per_token, centred=False)
        elementwise = elementwise + more
    twice = twice_visible_pairs(queries, keys, keys - queries, left=left, right=right)
    return combined(
        Work(elementwise=elementwise, transcendentals=roots),
        attend(
            batch * heads,
            queries,
            keys,
            2 * size,
            twice_pairs=twice,
            steps=steps,
            softcap=node.number("softcap", 0.0) > 0,
            sink=sink,
            note="; ".join(notes),
        ),
    )


def _bound(node: Operator, name: str) -> int | None:
    """A window's size; -1 is none."""
    size = node.integer(name, -1)
    return None if size < 0 else size


_MICROSOFT = "com.microsoft"

RULES = (
    Rule("", "Attention", attention),
    Rule("ai.onnx.preview", "FlexAttention", flexible_attention),
    Rule(_MICROSOFT, "MultiHeadAttention", multi_head_attention),
    Rule(_MICROSOFT, "DecoderMaskedMultiHeadAttention", decoder_multi_head_attention),
    Rule(_MICROSOFT, "GroupQueryAttention", group_query_attention),
)
