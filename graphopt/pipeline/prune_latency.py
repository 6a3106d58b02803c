"""Prune to a latency: guess, measure, correct, until a measured result is near enough.

    share of what can be removed -> measured latency over the original's
    next share: where the line between the two measured neighbours around the target meets it

Latency is no smooth function of the channels (a kernel likes multiples of 8 or 16), and a single
measurement is noisy: a hit is measured again before it is believed, and what is known of a share
is the mean of its measurements. Candidates are measured with the numbers that pruning left: those
of a repair take no other time (0.1% to 0.8% apart on three models, as a model and itself are).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from graphopt.errors import EquivalenceError
from graphopt.graph import ir

Kept = dict[str, np.ndarray]

LATENCY_TOLERANCE = 0.03
"""How far from a requested latency a result may be."""

LATENCY_ROUND_TO = 8
"""The multiple of channels to keep where a latency is asked for: others run on slow kernels."""

_CANDIDATES = 14
_STEPS = 50
"""Shares that are tried: many may give a candidate that is known."""
_CONFIRMATIONS = 3
_NEAR = 0.02
"""How near the mean of the measurements must be: the rest is left to the noise of the last one."""


@dataclass(slots=True)
class _Candidate:
    kept: Kept
    model: ir.Model
    shares: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return float(np.mean(self.measured))


class _Search:
    """The candidates so far."""

    def __init__(self, target: float) -> None:
        self.target = target
        self.seen: dict[tuple[tuple[str, int], ...], _Candidate] = {}

    def miss(self, candidate: _Candidate) -> float:
        """How far from the target it is, relative to that."""
        return abs(candidate.mean / self.target - 1)

    def next_share(self) -> float:
        """Where the line between two neighbours in share, one slower, one faster, meets the target.

        Of several pairs the widest is taken: a close one already has been looked into.
        """
        points = [_Point(0.0, 1.0)]
        for each in self.seen.values():
            points += (_Point(share, each.mean) for share in each.shares)
        points.sort(key=lambda point: point.share)
        if points[-1].share < 1.0 and all(point.ratio > self.target for point in points):
            return (points[-1].share + 1.0) / 2
        pairs = [
            (slow, fast)
            for slow, fast in itertools.pairwise(points)
            if slow.ratio > self.target >= fast.ratio
        ]
        if not pairs:
            return points[-1].share / 2
        slow, fast = max(pairs, key=lambda pair: pair[1].share - pair[0].share)
        part = (slow.ratio - self.target) / max(slow.ratio - fast.ratio, 1e-9)
        # Near an end the line says little that its neighbour does not: keep away from both.
        return slow.share + min(max(part, 0.15), 0.85) * (fast.share - slow.share)


def meet_latency(
    target: float,
    guess: float,
    choose: Callable[[float], Kept],
    build: Callable[[Kept], ir.Model],
    latency_share: Callable[[ir.Model], float],
    tell: Callable[[str], None],
) -> tuple[Kept, ir.Model]:
    """The units that stay, and the model, whose latency is `target` times the original's.

    Args:
        target: the latency wanted, over the original's.
        guess: the share to begin with.
        choose: for a share, 0 to 1, the units that stay.
        build: the model that is left.
        latency_share: measures one, over the original's.
        tell: called with a line about each measurement.

    Raises:
        EquivalenceError: no share was found whose latency is within the tolerance.
    """
    search = _Search(target)
    share = guess
    for _ in range(_STEPS):
        kept = choose(share)
        key = tuple(sorted((name, len(units)) for name, units in kept.items()))
        if key not in search.seen:
            if len(search.seen) == _CANDIDATES:
                break
            search.seen[key] = _Candidate(kept, build(kept))
        candidate = search.seen[key]
        candidate.shares.append(share)
        again = False
        while len(candidate.measured) < _CONFIRMATIONS:
            candidate.measured.append(latency_share(candidate.model))
            said = "measured again" if again else "of the original's"
            tell(f"pruning to a latency: {candidate.measured[-1]:.0%} {said}")
            if search.miss(candidate) > _NEAR:
                break
            again = True
        if search.miss(candidate) <= _NEAR:
            return candidate.kept, candidate.model
        share = search.next_share()
    while len((best := min(search.seen.values(), key=search.miss)).measured) < _CONFIRMATIONS:
        best.measured.append(latency_share(best.model))
        tell(f"pruning to a latency: {best.measured[-1]:.0%} measured again")
    if search.miss(best) > LATENCY_TOLERANCE:
        raise EquivalenceError(
            f"no number of channels gives {target:.0%} of the original's latency: the nearest was "
            f"{best.mean:.0%}; ask for that, or see with --explain what is frozen"
        )
    return best.kept, best.model


@dataclass(frozen=True, slots=True)
class _Point:
    share: float
    ratio: float
