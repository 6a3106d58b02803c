"""Finds what must stay float32 so that the model is right, in O(k log n) runs.

What is rounded first is amplified by all that follows, and a model that begins in float32 needs
no more Casts than one whose inputs are cast, if it is cut where one tensor passes. So where a
quarter of the model is beginning enough, the shortest one is sought that makes the rest right.

Few culprits, such as a sum that overflows, are found one by one. Clusters are in the order of
the model: half in a prefix and float32 behind it is right for the empty prefix and wrong for the
whole, and the first prefix that is wrong ends in a culprit. It stays float32 from then on, and
the search goes on behind it, until the whole is right.

Some models amplify every rounding: each operator errs a little, and the sum is too much. There
the first wrong prefix ends in an operator like any other, and leaving it out changes nothing.
Then pieces of the model are measured alone in half, the one that errs most is halved again and
again, and as many pieces go to half as stay right, the ones that err least for their size first.
Independent roundings add up in squares, so that is the order of error^2 / size. It takes many
Casts, so a beginning of up to half the model is taken before.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

Accepts = Callable[[frozenset[str]], bool]
"""Whether the model is right with these sites in float32."""

Errs = Callable[[frozenset[str]], float]
"""The largest error of an output, over its scale, with these sites in float32."""

Casts = Callable[[frozenset[str]], int]
"""How many Casts the model has with these sites in float32."""

MOST_CULPRITS = 24
_IN_VAIN = 2
"""Culprits in a row that may leave the error as it was, before it counts as spread."""

_LESS = 0.9
_FIRST_PIECES = 8
_MOST_SPLITS = 16
_MOST_CUTS = 24
"""Cuts behind the shortest beginning that are looked at for one with fewer Casts."""


def find_culprits(
    sites: Sequence[str], accepts: Accepts, errs: Errs, casts: Casts
) -> frozenset[str] | None:
    """The sites to keep in float32 so that the model is right.

    Args:
        sites: what is half now, in the order of the model.
        accepts: called O(log n) times for each of at most MOST_CULPRITS culprits.
        errs: called once for each culprit, and 40 times where the error is spread.
        casts: called where the error is spread; runs nothing.

    Returns:
        None where the model is wrong although all of it is float32.
    """
    if not accepts(frozenset(sites)):
        return None
    quarter = (len(sites) + 3) // 4
    if math.isfinite(errs(frozenset())) and accepts(frozenset(sites[:quarter])):
        return _shortest_beginning(sites, 0, quarter, accepts, casts)
    culprits: set[str] = set()
    low = in_vain = 0
    error = math.inf
    while low < len(sites) and len(culprits) < MOST_CULPRITS and in_vain < _IN_VAIN:
        if accepts(frozenset(culprits)):
            return frozenset(culprits)
        high = len(sites)
        # Half up to `low` is right, half up to `high` is wrong.
        while high - low > 1:
            middle = (low + high) // 2
            if accepts(frozenset(sites[middle:]) | culprits):
                low = middle
            else:
                high = middle
        culprits.add(sites[high - 1])
        low = high
        before, error = error, errs(frozenset(culprits))
        stuck = math.isfinite(error) and error > _LESS * before
        in_vain = in_vain + 1 if stuck else 0
    if accepts(frozenset(culprits)):
        return frozenset(culprits)
    half = len(sites) // 2
    if accepts(frozenset(sites[:half])):
        return _shortest_beginning(sites, 0, half, accepts, casts)
    return _least_harmful(sites, accepts, errs)


def _shortest_beginning(
    sites: Sequence[str], low: int, high: int, accepts: Accepts, casts: Casts
) -> frozenset[str]:
    """The first sites, no more than make the rest right, or a few more where that saves Casts.

    Args:
        sites: what is half now, in the order of the model.
        low: so many in float32 are too few.
        high: so many are enough.
        accepts: whether the model is right.
        casts: counts its Casts.
    """
    while high - low > 1:
        middle = (low + high) // 2
        if accepts(frozenset(sites[:middle])):
            high = middle
        else:
            low = middle
    # Behind the middle of a small model a Cast is saved by converting nothing.
    cuts = range(high, min(high + _MOST_CUTS, len(sites) // 2 + 1))
    best = min(cuts, key=lambda end: casts(frozenset(sites[:end])), default=high)
    longer = frozenset(sites[:best])
    return longer if best != high and accepts(longer) else frozenset(sites[:high])


class _Piece(NamedTuple):
    """Consecutive sites; the smallest in order errs the most, and is the longest of those."""

    minus_error: float
    minus_size: int
    start: int

    @property
    def end(self) -> int:
        """The site behind the last."""
        return self.start - self.minus_size

    @property
    def harm(self) -> float:
        """error^2 / size."""
        return self.minus_error**2 / -self.minus_size


def _least_harmful(sites: Sequence[str], accepts: Accepts, errs: Errs) -> frozenset[str]:
    """The sites left after as many as possible went to half; all of it is right in float32."""
    every = frozenset(sites)

    def measured(start: int, end: int) -> _Piece:
        error = errs(every - frozenset(sites[start:end]))
        return _Piece(-math.inf if math.isnan(error) else -error, start - end, start)

    bounds = [len(sites) * index // _FIRST_PIECES for index in range(_FIRST_PIECES + 1)]
    pieces = [measured(a, b) for a, b in itertools.pairwise(bounds) if b > a]
    heapq.heapify(pieces)
    whole: list[_Piece] = []
    for _ in range(_MOST_SPLITS):
        while pieces and pieces[0].minus_size == -1:
            whole.append(heapq.heappop(pieces))
        if not pieces:
            break
        piece = heapq.heappop(pieces)
        middle = (piece.start + piece.end) // 2
        heapq.heappush(pieces, measured(piece.start, middle))
        heapq.heappush(pieces, measured(middle, piece.end))
    order = sorted(pieces + whole, key=lambda piece: (piece.harm, piece.start))

    def float32(count: int) -> frozenset[str]:
        half = order[:count]
        return every - {site for piece in half for site in sites[piece.start : piece.end]}

    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        if accepts(float32(middle)):
            low = middle
        else:
            high = middle
    return float32(low)
