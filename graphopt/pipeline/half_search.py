"""Finds what must stay float32 by bisection: O(k log n) runs for k culprits among n clusters.

Clusters are in the order of the model. Half in a prefix and float32 behind it is right for the
empty prefix and wrong for the whole; the first prefix that is wrong ends in a culprit. It stays
float32 from then on, and the search goes on behind it, until the whole is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Accepts = Callable[[frozenset[str]], bool]
"""Whether the model is right with these sites in float32."""

MOST_CULPRITS = 24


def find_culprits(sites: Sequence[str], accepts: Accepts) -> frozenset[str] | None:
    """The sites to keep in float32 so that the model is right.

    Args:
        sites: what is half now, in the order of the model.
        accepts: called O(log n) times for each culprit.

    Returns:
        None where the model is wrong although all of it is float32, or where there are more
        than MOST_CULPRITS.
    """
    if not accepts(frozenset(sites)):
        return None
    culprits: set[str] = set()
    low = 0
    for _ in range(MOST_CULPRITS):
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
    return frozenset(culprits) if accepts(frozenset(culprits)) else None
