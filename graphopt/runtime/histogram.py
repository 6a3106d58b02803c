"""A histogram whose range grows with the data and whose counts stay exact.

Bin k holds the values in [k*w, (k+1)*w). The width w is a power of two, so a value's bin is
found without rounding, and the bins of one width nest in those of the next: when the range has
outgrown the number of bins, w is doubled and pairs of bins are added up. The result depends
only on the values, not on their order or on how they were split up and merged: it is the one
that the final width would have given from the start. What is not known is where in its bin a
value lies: a quantile is off by at most w, and w is less than 4 / bins of the range of the data
(or, where all values are nearly the same, 2^-22 of their magnitude).
"""

import math
from dataclasses import dataclass, field

import numpy as np

_CHUNK = 1 << 20
# Bins do not get finer than 2^-24 of the largest magnitude: float32 has no more digits.
_FINEST = 24


@dataclass
class Histogram:
    """Counts of finite values.

    Attributes:
        bins: the most bins to keep.
        minimum: the smallest value, inf while there is none.
        maximum: the largest value, -inf while there is none.
        exponent: each bin is `2 ** exponent` wide.
        first: the number k of the first bin.
        counts: the count of each bin from there to the one of the maximum, int64.
        left_out: how many values were NaN or infinite.
    """

    bins: int
    minimum: float = math.inf
    maximum: float = -math.inf
    exponent: int = 0
    first: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    left_out: int = 0

    @property
    def width(self) -> float:
        """The width of a bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def edges(self) -> np.ndarray:
        """The `len(counts) + 1` edges of the bins, ascending."""
        return np.asarray(np.ldexp(np.arange(len(self.counts) + 1.0) + self.first, self.exponent))

    def add(self, values: np.ndarray) -> None:
        """Count the values of an array of any shape."""
        flat = values.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            chunk = flat[start : start + _CHUNK].astype(np.float64)
            finite = chunk[np.isfinite(chunk)]
            self.left_out += chunk.size - finite.size
            if finite.size:
                self._cover(float(finite.min()), float(finite.max()))
                numbers = np.floor(np.ldexp(finite, -self.exponent)).astype(np.int64)
                self.counts += np.bincount(numbers - self.first, minlength=len(self.counts))

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another histogram with as many bins, which stays as it is."""
        if other.bins != self.bins:
            raise ValueError(f"histograms of {self.bins} and {other.bins} bins cannot be merged")
        self.left_out += other.left_out
        if len(other.counts):
            self._cover(other.minimum, other.maximum)
            self._count(other.first, other.counts, self.exponent - other.exponent)

    def absolute(self) -> "Histogram":
        """The histogram of the magnitudes, with the same width: negative bins are mirrored."""
        result = Histogram(self.bins, left_out=self.left_out)
        if len(self.counts):
            numbers = self.first + np.arange(len(self.counts))
            mirrored = np.where(numbers < 0, -numbers - 1, numbers)
            result.exponent = self.exponent
            result.counts = np.zeros(int(mirrored.max()) + 1, np.int64)
            np.add.at(result.counts, mirrored, self.counts)
            result.maximum = max(abs(self.minimum), abs(self.maximum))
            result.minimum = max(0.0, self.minimum, -self.maximum)
        return result

    def quantile(self, fraction: float) -> float:
        """The value that `fraction` of the values do not exceed, to within the width of a bin."""
        if not len(self.counts):
            return math.nan
        sums = np.cumsum(self.counts)
        index = min(int(np.searchsorted(sums, fraction * sums[-1])), len(sums) - 1)
        middle = (self.first + index + 0.5) * self.width
        return min(max(middle, self.minimum), self.maximum)

    def _cover(self, low: float, high: float) -> None:
        """Make the bins reach from `low` to `high`, and as coarse as that takes."""
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        exponent = _exponent(self.minimum, self.maximum, self.bins)
        first, counts = self.first, self.counts
        coarser = exponent - self.exponent
        self.exponent = exponent
        self.first = _number(self.minimum, exponent)
        self.counts = np.zeros(_number(self.maximum, exponent) - self.first + 1, np.int64)
        if len(counts):
            self._count(first, counts, coarser)

    def _count(self, first: int, counts: np.ndarray, coarser: int) -> None:
        """Add counts of bins that are `2 ** -coarser` times as wide as the own ones."""
        numbers = (first + np.arange(len(counts))) >> coarser
        np.add.at(self.counts, numbers - self.first, counts)


def _number(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))


def _exponent(low: float, high: float, bins: int) -> int:
    """The exponent of the finest bins that suffice; it never falls as the range grows."""
    _, magnitude = math.frexp(max(abs(low), abs(high)))
    exponent = magnitude - _FINEST
    if high > low:
        _, spread = math.frexp((high - low) / bins)
        exponent = max(exponent, spread - 1)
    while _number(high, exponent) - _number(low, exponent) >= bins:
        exponent += 1
    return exponent
