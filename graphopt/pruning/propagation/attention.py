"""Attention in one node: channel = (head, position in the head); heads go, positions stay.

q[B, S, H*d]   k[B, T, G*d]   v[B, T, G*e]   y[B, S, H*e],   H = G * r
head h of q reads head h // r of k and v, so a head of k and v goes with its r heads of q
"""

from __future__ import annotations

from graphopt.pruning.propagation.place import NotUnderstood, Place, Tensor
from graphopt.pruning.propagation.rule import Change, Rule

_INSIDE = "takes products over it"


def _relate_attention(place: Place) -> None:
    """ONNX Attention, with q, k, v of rank 3 or of rank 4 [B, heads, S, d]."""
    q, k, v, y = place.input(0), place.input(1), place.input(2), place.output()
    if any(result is not None for result in place.outputs[1:]) or any(
        place.optional(index) is not None for index in (4, 5, 6)
    ):
        raise NotUnderstood("keeps a cache, which is not followed")
    if q.rank == 4:
        q_heads, kv_heads = q.sizes[1], k.sizes[1]
    else:
        q_heads, kv_heads = place.integer("q_num_heads", 0), place.integer("kv_num_heads", 0)
    _relate_heads(place, (q, y), (k, v), q_heads, kv_heads)
    mask = place.optional(3)
    if mask is not None:
        place.freeze_all(mask, "masks with it")


def _relate_heads(
    place: Place,
    of_q: tuple[Tensor, ...],
    of_kv: tuple[Tensor, ...],
    q_heads: int,
    kv_heads: int,
) -> None:
    if kv_heads < 1 or q_heads % kv_heads:
        raise NotUnderstood("has heads that do not divide")
    group = place.virtual(kv_heads, preferred=True)
    repeat = place.virtual(q_heads // kv_heads)
    if q_heads > kv_heads:
        place.freeze_virtual(repeat, "reads one key with several queries")
    for tensors, heads in ((of_q, (group, repeat)), (of_kv, (group,))):
        count = q_heads if len(heads) > 1 else kv_heads
        for tensor in tensors:
            if tensor.rank == 4:
                place.product(tensor, 1, heads)
                rest: tuple[int, ...] = (0, 2, 3)
            elif tensor.rank == 3 and tensor.sizes[2] % count == 0:
                inside = place.virtual(tensor.sizes[2] // count)
                if place.relations.sizes[inside] > 1:
                    place.freeze_virtual(inside, _INSIDE)
                place.product(tensor, 2, (*heads, inside))
                rest = (0, 1)
            else:
                raise NotUnderstood("has shapes that do not fit together")
            for axis in rest:
                place.freeze(tensor, axis, _INSIDE)


def _adapt_attention(change: Change) -> None:
    if len(change.input_shape(0)) == 4:
        return
    for index, name in ((0, "q_num_heads"), (1, "kv_num_heads")):
        kept, before = change.kept_input(index, 2), change.input_shape(index)[2]
        if kept is not None and before:
            heads = change.node.attributes.get_int(name, 1)
            change.set_attribute(name, heads * len(kept) // before)


def _adapt_heads(change: Change) -> None:
    kept, before = change.kept_input(0, 2), change.input_shape(0)[2]
    if kept is not None and before:
        heads = change.node.attributes.get_int("num_heads", 1)
        change.set_attribute("num_heads", heads * len(kept) // before)


def _relate_rotary(place: Place) -> None:
    """RotaryEmbedding turns pairs of positions inside each head, all heads alike."""
    x, y = place.input(0), place.output()
    if x.rank == 4:
        place.tie(x, 1, y, 1)
        rest: tuple[int, ...] = (0, 2, 3)
    else:
        count = place.integer("num_heads", 0)
        if x.rank != 3 or count < 1 or x.sizes[2] % count:
            raise NotUnderstood("has heads that do not divide")
        heads, inside = place.virtual(count, preferred=True), place.virtual(x.sizes[2] // count)
        place.freeze_virtual(inside, "turns it in pairs")
        for tensor in (x, y):
            place.product(tensor, 2, (heads, inside))
        rest = (0, 1)
    for tensor in (x, y):
        for axis in rest:
            place.freeze(tensor, axis, "turns it in pairs")


def _adapt_rotary(change: Change) -> None:
    if len(change.input_shape(0)) == 3:
        _adapt_heads(change)


ATTENTION_RULES = {
    ("", "Attention"): Rule(_relate_attention, _adapt_attention),
    ("", "RotaryEmbedding"): Rule(_relate_rotary, _adapt_rotary),
}
