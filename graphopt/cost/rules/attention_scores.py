"""Scaled dot-product attention: what every operator of the attention family has inside.

For each of the pairs of a query and a key that it may see, in each head:

    q . k                                head size            MACs
    p . v                                value's head size    MACs
    scale, mask, softcap                 1, 1 and 2 (and 1 tanh), where they are there
    softmax over the n visible keys      4n - 2, and n exp    per row

The pairs are exact where the mask is part of the operator. With S queries after P keys of a past,
out of T keys in all, a causal mask leaves

    sum over i < S of min(T, i + P + 1)  =  S * P + S * (S + 1) / 2    for T = P + S

and a window of `left` keys back and `right` ahead leaves what lies between the two diagonals.
A runtime that computes the whole rectangle and masks it afterwards does up to twice as much. A
mask that comes as data hides nothing here, for what is in it is not known before the run.
"""

from __future__ import annotations

from graphopt.cost.operator import Work
from graphopt.cost.quantity import Number, maximum, minimum

WHOLE_CACHE = "counts the whole length of the cache"
PADDING = "counts every sequence in full length"


def twice_visible_pairs(
    queries: Number,
    keys: Number,
    past: Number = 0,
    *,
    left: int | None = None,
    right: int | None = None,
) -> Number:
    """Twice the pairs (i, j), j < keys, with i + past - left <= j <= i + past + right.

    Twice, because half of it need not be an integer before it is multiplied out.

    Args:
        queries: how many i.
        keys: how many j.
        past: how many keys precede the first query.
        left: how far back a query sees; None for all the way.
        right: how far ahead; 0 is a causal mask.
    """
    if right is None:
        up_to: Number = 2 * queries * keys
    else:
        up_to = _twice_below(queries, keys, past + right)
    return up_to if left is None else up_to - _twice_below(queries, keys, past - left - 1)


def attend(
    runs: Number,
    queries: Number,
    keys: Number,
    widths: Number,
    *,
    twice_pairs: Number | None = None,
    steps: int = 1,
    softcap: bool = False,
    sink: bool = False,
    note: str = "",
) -> Work:
    """The attention of `runs` heads (the batch times the heads of the queries).

    Args:
        runs: how often it happens.
        queries: rows.
        keys: columns.
        widths: the head size of the keys plus that of the values.
        twice_pairs: twice the visible pairs of one head; None for all.
        steps: elementwise operations on each pair before the softmax: scale, mask, bias.
        softcap: whether scores go through softcap * tanh(score / softcap).
        sink: whether the softmax has one more term, of no key.
        note: what a person must know.
    """
    twice = 2 * queries * keys if twice_pairs is None else twice_pairs
    pairs = runs * twice // 2
    rows = runs * queries
    # Of the softmax, 4n - 2; a sink adds a comparison, a subtraction, an exp and an addition.
    elementwise = pairs * (steps + 2 * softcap + 4) - rows * (2 - 3 * sink)
    return Work(
        macs=runs * twice * widths // 2,
        elementwise=elementwise,
        transcendentals=pairs * (1 + softcap) + rows * sink,
        note=note,
    )


def combined(*parts: Work) -> Work:
    """The work of one node that does several things; their notes one after the other."""
    macs: Number = 0
    elementwise: Number = 0
    transcendentals: Number = 0
    for part in parts:
        macs = macs + part.macs
        elementwise = elementwise + part.elementwise
        transcendentals = transcendentals + part.transcendentals
    notes = "; ".join(part.note for part in parts if part.note)
    return Work(macs, elementwise, transcendentals, note=notes)


def _twice_below(queries: Number, keys: Number, diagonal: Number) -> Number:
    """Twice the pairs (i, j), j < keys, with j <= i + diagonal."""
    return _twice_ramp(diagonal + queries, keys) - _twice_ramp(diagonal, keys)


def _twice_ramp(length: Number, top: Number) -> Number:
    """Twice the sum of min(t, top) for t from 1 to `length`; 0 for a negative length."""
    length = maximum(length, 0)
    rising = minimum(length, top)
    return rising * (rising + 1) + 2 * (length - rising) * top
