"""Chooses a tensor's range from what was seen of it: where to clip.

    min-max          [min, max] over all data, outliers included
    moving average   the mean of each feed's minimum and maximum
    percentile       [q(1-p), q(p)], p = 99.99% of the values
    entropy          T = argmin KL(P || Q_T), P the histogram clipped at T, Q_T what the levels
                     keep of it (as TensorRT's calibrator), on each side of zero
    mse              [lo, hi] = argmin E(x - q(x))^2
                              = argmin  step^2 / 12 * P(lo <= x <= hi) + E(clipped part)^2,
                     step = (hi - lo) / (levels - 1)

The last three leave out what is beyond the extremes of all feeds but the most extreme 2% (one of
them at least), where that is less than a quarter of the whole: a single broken sample must not
decide, and the squared error would let it. An outlier in every feed is no broken sample; it stays.
"""

from __future__ import annotations

import math

import numpy as np

from graphopt.errors import UsageError
from graphopt.quantization.ranges import Range
from graphopt.runtime import TensorStatistics

METHODS = ("minmax", "moving-average", "percentile", "entropy", "mse")

_PERCENTILE = 0.9999
_EXTREME_FEEDS = 0.02
_FEWEST_FEEDS = 4
_BEYOND = 4.0
_ENTROPY_BINS = 2048
_FACTORS = np.linspace(1.0, 0.1, 91)


def choose_range(
    statistics: TensorStatistics,
    method: str,
    *,
    levels: int = 256,
    symmetric: bool = False,
    percentile: float = _PERCENTILE,
) -> Range:
    """The range of a tensor; [0, 0] where it has had no finite value.

    Args:
        statistics: what was seen, histograms included unless the method is min-max or
            moving average.
        method: one of `METHODS`.
        levels: how many integers there will be.
        symmetric: whether the integers will be spread evenly on both sides of zero.
        percentile: the share of the values to cover, for that method.

    Raises:
        UsageError: there is no such method.
    """
    if method not in METHODS:
        raise UsageError(f"there is no method '{method}'; it is one of {', '.join(METHODS)}")
    if not statistics.count:
        return Range(0.0, 0.0)
    if method == "minmax":
        return Range(statistics.minimum, statistics.maximum)
    if method == "moving-average":
        return Range(statistics.average_minimum, statistics.average_maximum)
    low, high, counts = _seen(statistics)
    if not len(counts):
        return Range(0.0, 0.0)
    if method == "percentile":
        return _percentile(low, high, counts, percentile)
    if method == "entropy":
        return _entropy(low, high, counts, levels)
    return _least_squares(low, high, counts, levels, symmetric)


def extremes(statistics: TensorStatistics) -> tuple[float, float]:
    """The minimum and maximum that a single broken feed does not decide."""
    minima, maxima = statistics.feed_minima, statistics.feed_maxima
    if minima is None or maxima is None or statistics.feeds < _FEWEST_FEEDS:
        return statistics.minimum, statistics.maximum
    # Rounded up to whole feeds, so that one is left out even of a few; the next one decides.
    share = (math.ceil(statistics.feeds * _EXTREME_FEEDS) + 0.5) / statistics.feeds
    low, high = minima.quantile(share), maxima.quantile(1 - share)
    return (
        low if statistics.minimum < min(_BEYOND * low, 0.0) else statistics.minimum,
        high if statistics.maximum > max(_BEYOND * high, 0.0) else statistics.maximum,
    )


def _seen(statistics: TensorStatistics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bins within the extremes."""
    if statistics.histogram is None:
        raise ValueError(f"no histogram was kept of {statistics.name!r}")
    low, high, counts = statistics.histogram.intervals()
    least, most = extremes(statistics)
    inside = (high >= least) & (low <= most)
    return np.maximum(low[inside], least), np.minimum(high[inside], most), counts[inside]


def _percentile(low: np.ndarray, high: np.ndarray, counts: np.ndarray, share: float) -> Range:
    sums = np.cumsum(counts)
    first = min(int(np.searchsorted(sums, (1 - share) * sums[-1], side="right")), len(sums) - 1)
    last = min(int(np.searchsorted(sums, share * sums[-1])), len(sums) - 1)
    return Range(float(low[first]), float(high[last]))


def _entropy(low: np.ndarray, high: np.ndarray, counts: np.ndarray, levels: int) -> Range:
    """Each side of zero by itself: an asymmetric range has a clip on either."""
    sides = int(low[0] < 0) + int(high[-1] > 0)
    share = levels // max(sides, 1)
    positive, negative = low >= 0, high <= 0
    above = below = 0.0
    if high[-1] > 0:
        above = _clip(low[positive], high[positive], counts[positive], share)
    if low[0] < 0:
        flipped = (-high[negative][::-1], -low[negative][::-1], counts[negative][::-1])
        below = _clip(*flipped, share)
    return Range(-below, above)


def _clip(low: np.ndarray, high: np.ndarray, counts: np.ndarray, levels: int) -> float:
    """The magnitude to clip at: TensorRT's argmin of the KL divergence.

    Zeros are left out: they are exact whatever the clip is, and after a ReLU they are most.
    """
    some = high > 0
    low, high, counts = low[some], high[some], counts[some]
    if not len(counts):
        return 0.0
    top = float(high[-1])
    edges = np.linspace(0.0, top, _ENTROPY_BINS + 1)
    # The counts of evenly wide bins: within a bin of the histogram values are spread evenly.
    knots = np.concatenate([[low[0]], high])
    sums = np.concatenate([[0.0], np.cumsum(counts)])
    histogram = np.diff(np.interp(edges, knots, sums))
    best, clip = math.inf, top
    for size in range(levels, _ENTROPY_BINS + 1, 8):
        divergence = _divergence(histogram, size, levels)
        if divergence < best:
            best, clip = divergence, float(edges[size])
    return clip


def _divergence(histogram: np.ndarray, size: int, levels: int) -> float:
    inside = histogram[:size]
    reference = inside.copy()
    reference[-1] += histogram[size:].sum()
    level = np.arange(size) * levels // size
    held = inside > 0
    total = np.bincount(level, weights=inside, minlength=levels)
    bins = np.bincount(level, weights=held, minlength=levels)
    kept = np.where(held, (total / np.maximum(bins, 1))[level], 0.0)
    mass, kept_mass = reference.sum(), kept.sum()
    if not kept_mass:
        return math.inf
    p, q = reference / mass, kept / kept_mass
    some = p > 0
    # What the clip put into an empty last bin is infinitely surprising to Q; make it merely very.
    return float(np.sum(p[some] * np.log(p[some] / np.maximum(q[some], 1e-9))))


def _least_squares(
    low: np.ndarray, high: np.ndarray, counts: np.ndarray, levels: int, symmetric: bool
) -> Range:
    """Shrink both ends together, then each by itself, on a grid of factors."""
    least, most = min(float(low[0]), 0.0), max(float(high[-1]), 0.0)
    if symmetric:
        most = max(-least, most)
        factor = _FACTORS[
            np.argmin([_error(low, high, counts, -most * f, most * f, levels) for f in _FACTORS])
        ]
        clip = float(most * factor)
        return Range(max(-clip, min(float(low[0]), 0.0)), min(clip, max(float(high[-1]), 0.0)))
    errors = [_error(low, high, counts, least * f, most * f, levels) for f in _FACTORS]
    bottom = top = float(_FACTORS[int(np.argmin(errors))])
    for _ in range(2):
        if least < 0:
            errors = [_error(low, high, counts, least * f, most * top, levels) for f in _FACTORS]
            bottom = float(_FACTORS[int(np.argmin(errors))])
        if most > 0:
            errors = [_error(low, high, counts, least * bottom, most * f, levels) for f in _FACTORS]
            top = float(_FACTORS[int(np.argmin(errors))])
    return Range(least * bottom, most * top)


def _error(
    low: np.ndarray,
    high: np.ndarray,
    counts: np.ndarray,
    bottom: float,
    top: float,
    levels: int,
) -> float:
    """The sum of the squared errors with a range; zeros are exact and cost nothing."""
    middle = (low + high) / 2
    clipped = middle - np.clip(middle, bottom, top)
    rounding = ((top - bottom) / (levels - 1)) ** 2 / 12
    inside = (clipped == 0) & (middle != 0)
    return float(counts @ (clipped**2) + rounding * counts[inside].sum())
