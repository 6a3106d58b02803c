"""A histogram with the bins of a floating-point number: as fine at 0.001 as at 1000.

A bin holds the values whose sign, exponent and first bits of the mantissa are the same, so
each octave [2^e, 2^(e+1)) has `bins` bins of equal width, and a value's bin is its first bits:
no range has to be known beforehand, and one outlier does not coarsen the bins of the rest. The
40 highest octaves are kept; what is smaller than 2^-40 of the largest magnitude counts as zero.

The result depends only on the values, not on their order or on how they were split up and
merged. What is not known is where in its bin a value lies: a quantile is off by at most its
magnitude / `bins`.
"""

import math
from dataclasses import dataclass, field

import numpy as np

OCTAVES = 40
"""The digits of float32 and 16 more, so that they are left when an outlier is taken off."""

_CHUNK = 1 << 17
_MANTISSA = 23
_BIAS = 127
_EMPTY = -1000


def _no_counts() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass
class Histogram:
    """Counts of finite values, as float32.

    Attributes:
        bins: bins per octave, a power of two up to 2048.
        minimum: the smallest value, inf while there is none.
        maximum: the largest value, -inf while there is none.
        top: the highest octave kept holds magnitudes in [2^top, 2^(top+1)).
        zeros: how many values are zero, or next to it.
        positive: [40 * bins], the counts of positive values by ascending magnitude; [0] while
            there are none.
        negative: the same of negative values.
        left_out: how many values were NaN or infinite.
    """

    bins: int = 256
    minimum: float = math.inf
    maximum: float = -math.inf
    top: int = _EMPTY
    zeros: int = 0
    positive: np.ndarray = field(default_factory=_no_counts)
    negative: np.ndarray = field(default_factory=_no_counts)
    left_out: int = 0

    def __post_init__(self) -> None:
        if self.bins & (self.bins - 1) or not 1 <= self.bins <= 2048:
            raise ValueError(f"{self.bins} bins per octave: it must be a power of two up to 2048")

    @property
    def count(self) -> int:
        """How many values were counted."""
        return int(self.zeros + self.positive.sum() + self.negative.sum())

    def add(self, values: np.ndarray) -> None:
        """Count the values of an array of any shape."""
        flat = np.asarray(values).reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            self._add(np.ascontiguousarray(flat[start : start + _CHUNK], np.float32))

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another histogram with as many bins, which stays as it is."""
        if other.bins != self.bins:
            raise ValueError(f"histograms of {self.bins} and {other.bins} bins cannot be merged")
        self.left_out += other.left_out
        self.zeros += other.zeros
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self._raise_top(other.top)
        if other.top != _EMPTY:
            self._count(other.positive, other.negative, other._lowest)

    def intervals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lower ends, upper ends (float64) and counts of the bins that hold values, ascending.

        The ends are trimmed to the minimum and the maximum; zero is an interval without width.
        """
        edges = self._edges()
        low = np.concatenate([-edges[:0:-1], [0.0], edges[:-1]])
        high = np.concatenate([-edges[-2::-1], [0.0], edges[1:]])
        empty = np.zeros(len(edges) - 1, np.int64)
        negative = self.negative[::-1] if len(self.negative) else empty
        positive = self.positive if len(self.positive) else empty
        counts = np.concatenate([negative, [self.zeros], positive])
        held = counts > 0
        low, high, counts = low[held], high[held], counts[held]
        return np.maximum(low, self.minimum), np.minimum(high, self.maximum), counts

    def quantile(self, fraction: float) -> float:
        """The value that `fraction` of the values do not exceed, up to 1 / `bins` of it."""
        low, high, counts = self.intervals()
        if not len(counts):
            return math.nan
        sums = np.cumsum(counts)
        wanted = fraction * sums[-1]
        index = min(int(np.searchsorted(sums, wanted)), len(sums) - 1)
        before = sums[index] - counts[index]
        within = min(max((wanted - before) / counts[index], 0.0), 1.0)
        return float(low[index] + within * (high[index] - low[index]))

    @property
    def _lowest(self) -> int:
        """The key of the first bin kept: exponent field and first bits of the mantissa."""
        return (self.top - OCTAVES + 1 + _BIAS) * self.bins

    def _edges(self) -> np.ndarray:
        """The ends of the bins of positive values, ascending; none where there are none."""
        if self.top == _EMPTY:
            return np.zeros(1)
        within = 1 + np.arange(self.bins) / self.bins
        octaves = np.ldexp(1.0, np.arange(self.top - OCTAVES + 1, self.top + 1))
        edges = (octaves[:, None] * within).reshape(-1)
        return np.append(edges, math.ldexp(1.0, self.top + 1))

    def _add(self, chunk: np.ndarray) -> None:
        finite = chunk
        low, high = (float(chunk.min()), float(chunk.max())) if chunk.size else (0.0, 0.0)
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = chunk[np.isfinite(chunk)]
            self.left_out += chunk.size - finite.size
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        if not finite.size:
            return
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self._raise_top(_octave(max(abs(low), abs(high))))
        shift = np.uint32(_MANTISSA - (self.bins.bit_length() - 1))
        bits = finite.view(np.uint32)
        # Number 0 is for what counts as zero, then come the bins that are kept.
        none = np.uint32(max(self._lowest, self.bins) - 1)
        size = OCTAVES * self.bins + 1
        if low >= 0:
            # The sign bit of -0.0 is shifted out.
            numbers = np.maximum((bits << np.uint32(1)) >> (shift + np.uint32(1)), none) - none
            counts = np.bincount(numbers, minlength=size)
            negative = counts[:0]
        else:
            numbers = np.maximum((bits & np.uint32(0x7FFFFFFF)) >> shift, none) - none
            numbers += (bits >> np.uint32(31)) * np.uint32(size)
            counts = np.bincount(numbers, minlength=2 * size)
            self.zeros += int(counts[size])
            negative = counts[size + 1 :]
        self.zeros += int(counts[0])
        self._count(counts[1:size], negative, int(none) + 1)

    def _raise_top(self, top: int) -> None:
        """Make room for a higher octave; the lowest ones become zeros."""
        if top <= self.top:
            return
        moved = (top - self.top) * self.bins if self.top != _EMPTY else 0
        for name in ("positive", "negative"):
            held = getattr(self, name)
            if len(held) and moved:
                self.zeros += int(held[:moved].sum())
                shifted = np.zeros_like(held)
                shifted[: max(len(held) - moved, 0)] = held[moved:]
                setattr(self, name, shifted)
        self.top = top

    def _count(self, positive: np.ndarray, negative: np.ndarray, lowest: int) -> None:
        """Add counts of bins whose first one has the key `lowest`."""
        for name, counts in (("positive", positive), ("negative", negative)):
            if not counts.any():
                continue
            dropped = max(self._lowest - lowest, 0)
            self.zeros += int(counts[:dropped].sum())
            kept = counts[dropped:]
            if not kept.any():
                continue
            if not len(getattr(self, name)):
                setattr(self, name, np.zeros(OCTAVES * self.bins, np.int64))
            start = lowest + dropped - self._lowest
            held = getattr(self, name)
            kept = kept[: len(held) - start]  # beyond are empty bins: `top` was raised before
            held[start : start + len(kept)] += kept


def _octave(magnitude: float) -> int:
    """The e of the octave [2^e, 2^(e+1)) that holds a magnitude; the lowest one for zero."""
    return max(math.frexp(magnitude)[1] - 1, 1 - _BIAS) if magnitude else 1 - _BIAS
