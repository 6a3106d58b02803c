"""Prune to a latency: guess, measure, correct, until a measured result is near enough.

    share of what can be removed -> measured latency over the original's
    next share: where the line between the two measured neighbours around the target meets it

Latency is no smooth function of the channels (a kernel likes multiples of 8 or 16), and a single
measurement is noisy: a hit is measured again before it is believed, and what is known of a share
is the mean of its measurements. It depends on the numbers too, by some hundredths (some kernels
are faster on some of them), so a hit is finished, which takes longer than to measure it, and the
finished model is what counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from graphopt.errors import EquivalenceError
from graphopt.graph import ir

Kept = dict[str, np.ndarray]
Finish = Callable[[ir.Model, Kept], None]
"""Gives a model that lost units its numbers, in place."""

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
    finished: bool = False

    @property
    def mean(self) -> float:
        return float(np.mean(self.measured))


class _Search:
    """The candidates so far, and what finishing did to the latency of those that were near."""

    def __init__(self, target: float) -> None:
        self.target = target
        self.seen: dict[tuple[tuple[str, int], ...], _Candidate] = {}
        self._finishing: list[float] = []

    def ratio(self, candidate: _Candidate) -> float:
        """The latency over the original's, of the finished model, or what it will be about."""
        if candidate.finished or not self._finishing:
            return candidate.mean
        return candidate.mean * float(np.mean(self._finishing))

    def near(self, candidate: _Candidate) -> bool:
        """Whether it is nearer to the target than it has to be."""
        return abs(self.ratio(candidate) / self.target - 1) <= _NEAR

    def note_finished(self, candidate: _Candidate, measured: list[float]) -> None:
        """Take the figures of the finished model for those of the one that was not."""
        self._finishing.append(float(np.mean(measured)) / candidate.mean)
        candidate.measured, candidate.finished = measured, True

    def next_share(self) -> float:
        """Where the line between two neighbours in share, one slower, one faster, meets the target.

        Of several pairs the widest is taken: a close one already has been looked into.
        """
        points = [_Point(0.0, 1.0)]
        for each in self.seen.values():
            points += (_Point(share, self.ratio(each)) for share in each.shares)
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
    finish: Finish,
    latency_share: Callable[[ir.Model], float],
    tell: Callable[[str], None],
) -> tuple[Kept, ir.Model]:
    """The units that stay, and the model, finished, whose latency is `target` times the original's.

    Args:
        target: the latency wanted, over the original's.
        guess: the share to begin with.
        choose: for a share, 0 to 1, the units that stay.
        build: the model that is left, but for its numbers.
        finish: gives it its numbers, in place.
        latency_share: measures one, over the original's.
        tell: called with a line about each measurement.

    Raises:
        EquivalenceError: no share was found whose latency is within the tolerance.
    """
    search = _Search(target)
    share = guess

    def measure(candidate: _Candidate, again: str) -> float:
        found = latency_share(candidate.model)
        tell(f"pruning to a latency: {found:.0%}{again}")
        return found

    for _ in range(_STEPS):
        kept = choose(share)
        key = tuple(sorted((name, len(units)) for name, units in kept.items()))
        if key not in search.seen:
            if len(search.seen) == _CANDIDATES:
                break
            search.seen[key] = _Candidate(kept, build(kept))
        candidate = search.seen[key]
        candidate.shares.append(share)
        if len(candidate.measured) < _CONFIRMATIONS:
            candidate.measured.append(measure(candidate, " of the original's"))
        if search.near(candidate) and not candidate.finished:
            finish(candidate.model, kept)
            search.note_finished(candidate, [measure(candidate, ", repaired")])
        while search.near(candidate) and len(candidate.measured) < _CONFIRMATIONS:
            candidate.measured.append(measure(candidate, ", measured again"))
        if search.near(candidate):
            return candidate.kept, candidate.model
        share = search.next_share()
    while True:  # finishing moves the nearest, and then another may be nearer
        best = min(search.seen.values(), key=lambda each: abs(search.ratio(each) / target - 1))
        if best.finished:
            break
        finish(best.model, best.kept)
        search.note_finished(best, [measure(best, ", repaired") for _ in range(_CONFIRMATIONS)])
    if abs(best.mean / target - 1) > LATENCY_TOLERANCE:
        raise EquivalenceError(
            f"no number of channels gives {target:.0%} of the original's latency: the nearest was "
            f"{best.mean:.0%}; ask for that, or see with --explain what is frozen"
        )
    return best.kept, best.model


@dataclass(frozen=True, slots=True)
class _Point:
    share: float
    ratio: float
