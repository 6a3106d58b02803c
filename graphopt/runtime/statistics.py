"""What is kept of a tensor's values over the data, in memory that does not grow with the data."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import OutputError, UsageError, reason_of
from graphopt.runtime.histogram import Histogram
from graphopt.runtime.moments import SecondMoment

_FORMAT = 2
# There are few extremes, and nobody needs them to the last digit.
_EXTREME_BINS = 64


@dataclass
class ChannelStatistics:
    """The same for each entry along one axis, over finite values.

    Attributes:
        axis: the axis.
        minimum: [channels].
        maximum: [channels].
        sums: [channels], in float64.
        square_sums: [channels], in float64.
        count: [channels], how many finite values each has had.
    """

    axis: int
    minimum: np.ndarray
    maximum: np.ndarray
    sums: np.ndarray
    square_sums: np.ndarray
    count: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """The mean of each channel."""
        return np.asarray(self.sums / np.maximum(self.count, 1))

    @property
    def variance(self) -> np.ndarray:
        """The variance of each channel (of the population)."""
        mean_square = self.square_sums / np.maximum(self.count, 1)
        return np.asarray(np.maximum(mean_square - self.mean**2, 0.0))

    def merge(self, other: "ChannelStatistics") -> None:
        """Add what another one saw of the same channels."""
        self.minimum = np.minimum(self.minimum, other.minimum)
        self.maximum = np.maximum(self.maximum, other.maximum)
        self.sums = self.sums + other.sums
        self.square_sums = self.square_sums + other.square_sums
        self.count = self.count + other.count


@dataclass
class TensorStatistics:
    """What is known of one tensor. Ranges, sums and counts are over finite values only.

    Attributes:
        name: the tensor's name.
        feeds: how many feeds it was seen in.
        count: how many finite values it had in all.
        left_out: how many values were NaN or infinite.
        minimum: the smallest value; inf while there is none.
        maximum: the largest value; -inf while there is none.
        total: the sum, in float64.
        square_total: the sum of squares, in float64.
        feed_minimum_total: the sum of each feed's minimum.
        feed_maximum_total: the sum of each feed's maximum.
        channels: the same per channel, if asked for.
        histogram: the histogram, if asked for.
        feed_minima: the histogram of each feed's minimum, kept with the other one.
        feed_maxima: the histogram of each feed's maximum.
        moment: the second moment, if asked for.
    """

    name: str
    feeds: int = 0
    count: int = 0
    left_out: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    total: float = 0.0
    square_total: float = 0.0
    feed_minimum_total: float = 0.0
    feed_maximum_total: float = 0.0
    channels: ChannelStatistics | None = None
    histogram: Histogram | None = None
    feed_minima: Histogram | None = None
    feed_maxima: Histogram | None = None
    moment: SecondMoment | None = None

    @property
    def mean(self) -> float:
        """The mean; NaN while there is no value."""
        return self.total / self.count if self.count else math.nan

    @property
    def variance(self) -> float:
        """The variance (of the population); NaN while there is no value."""
        if not self.count:
            return math.nan
        return max(self.square_total / self.count - self.mean**2, 0.0)

    @property
    def absolute_maximum(self) -> float:
        """The largest magnitude; 0 while there is no value."""
        return max(abs(self.minimum), abs(self.maximum)) if self.count else 0.0

    @property
    def average_minimum(self) -> float:
        """The mean over the feeds of each one's minimum: an outlier counts once, not for all."""
        return self.feed_minimum_total / self.feeds if self.feeds else math.nan

    @property
    def average_maximum(self) -> float:
        """The mean over the feeds of each one's maximum."""
        return self.feed_maximum_total / self.feeds if self.feeds else math.nan

    def keep_histograms(self, bins: int) -> None:
        """Keep histograms from now on, of the values and of the extremes of each feed.

        Args:
            bins: bins per octave of the values' histogram.
        """
        self.histogram = Histogram(bins)
        self.feed_minima, self.feed_maxima = Histogram(_EXTREME_BINS), Histogram(_EXTREME_BINS)

    def add(self, values: np.ndarray) -> None:
        """Take in the tensor of one feed."""
        flat = values.reshape(-1)
        if flat.dtype.kind not in "fiub" or flat.dtype.itemsize < 4:
            flat = flat.astype(np.float32)  # float16 would overflow in the sums
        if flat.dtype.kind == "f":
            finite = np.isfinite(flat)
            if not finite.all():
                self.left_out += int(flat.size - np.count_nonzero(finite))
                flat = flat[finite]
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        self.feeds += 1
        self.count += flat.size
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.total += float(flat.sum(dtype=np.float64))
        self.square_total += _square_sum(flat)
        self.feed_minimum_total += low
        self.feed_maximum_total += high
        if self.feed_minima is not None and self.feed_maxima is not None:
            self.feed_minima.add(np.array([low]))
            self.feed_maxima.add(np.array([high]))

    def add_channels(self, values: np.ndarray, axis: int) -> None:
        """Take in the channels of the tensor of one feed."""
        rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).astype(np.float64)
        finite = np.isfinite(rows)
        kept = np.where(finite, rows, 0.0)
        seen = ChannelStatistics(
            axis,
            np.where(finite, rows, np.inf).min(axis=1, initial=np.inf),
            np.where(finite, rows, -np.inf).max(axis=1, initial=-np.inf),
            kept.sum(axis=1),
            np.einsum("ij,ij->i", kept, kept),
            finite.sum(axis=1),
        )
        if self.channels is None:
            self.channels = seen
        else:
            self.channels.merge(seen)

    def merge(self, other: "TensorStatistics") -> None:
        """Add what was seen of the same tensor elsewhere, with the same options."""
        for part in _PARTS:
            mine, theirs = getattr(self, part), getattr(other, part)
            if (mine is None) != (theirs is None) and self.feeds and other.feeds:
                raise ValueError(f"statistics of {self.name!r} with and without {part}")
            if mine is not None and theirs is not None:
                mine.merge(theirs)
            elif theirs is not None:
                setattr(self, part, theirs)
        self.feeds += other.feeds
        self.count += other.count
        self.left_out += other.left_out
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.total += other.total
        self.square_total += other.square_total
        self.feed_minimum_total += other.feed_minimum_total
        self.feed_maximum_total += other.feed_maximum_total


def _square_sum(flat: np.ndarray) -> float:
    """The sum of squares in float64, a piece at a time."""
    total = 0.0
    for start in range(0, flat.size, 1 << 20):
        piece = flat[start : start + (1 << 20)].astype(np.float64)
        total += float(piece @ piece)
    return total


_SCALARS = (
    *("name", "feeds", "count", "left_out", "minimum", "maximum", "total", "square_total"),
    *("feed_minimum_total", "feed_maximum_total"),
)
_HISTOGRAM = (
    Histogram,
    ("bins", "minimum", "maximum", "top", "zeros", "left_out"),
    ("positive", "negative"),
)
_PARTS: dict[str, tuple[type, tuple[str, ...], tuple[str, ...]]] = {
    "channels": (
        ChannelStatistics,
        ("axis",),
        ("minimum", "maximum", "sums", "square_sums", "count"),
    ),
    "histogram": _HISTOGRAM,
    "feed_minima": _HISTOGRAM,
    "feed_maxima": _HISTOGRAM,
    "moment": (SecondMoment, ("rows",), ("matrix", "sums", "reference_sums")),
}


def save_statistics(
    statistics: Mapping[str, TensorStatistics],
    path: str | os.PathLike[str],
    *,
    purpose: str = "",
) -> None:
    """Write statistics to an `.npz`, from which they load as the same numbers.

    The file is written beside and renamed: an interruption leaves the old one or the new one.

    Args:
        statistics: what to write.
        path: where to.
        purpose: what they were collected for, to be asked for again when they are loaded.
    """
    arrays: dict[str, np.ndarray] = {}
    entries = []
    for number, item in enumerate(statistics.values()):
        entry: dict[str, Any] = {key: getattr(item, key) for key in _SCALARS}
        for part, (_, scalars, fields) in _PARTS.items():
            held = getattr(item, part)
            if held is not None:
                entry[part] = {key: getattr(held, key) for key in scalars}
                for key in fields:
                    arrays[f"{number}.{part}.{key}"] = getattr(held, key)
        entries.append(entry)
    header = json.dumps({"format": _FORMAT, "purpose": purpose, "tensors": entries})
    whole = Path(path)
    beside = whole.with_name(f".{whole.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:  # a file object keeps numpy from adding .npz
            np.savez(file, header=np.array(header), **arrays)  # type: ignore[arg-type]
        beside.replace(whole)
    except OSError as error:
        raise OutputError(f"cannot write '{whole}': {reason_of(error)}") from error
    finally:
        beside.unlink(missing_ok=True)


def load_statistics(
    path: str | os.PathLike[str], *, purpose: str = ""
) -> dict[str, TensorStatistics]:
    """Read what `save_statistics` wrote.

    Raises:
        UsageError: the file cannot be read, is something else, or was written for another
            purpose.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            header = json.loads(str(data["header"]))
            if header["format"] != _FORMAT:
                raise UsageError(f"{path} was written by another version: collect again")
            if header["purpose"] != purpose:
                raise UsageError(
                    f"{path} was written for another model, other tensors or other options: "
                    "delete it to start again"
                )
            statistics = {}
            for number, entry in enumerate(header["tensors"]):
                item = TensorStatistics(**{key: entry[key] for key in _SCALARS})
                for part, (kind, _, fields) in _PARTS.items():
                    if part in entry:
                        held = {key: data[f"{number}.{part}.{key}"] for key in fields}
                        setattr(item, part, kind(**entry[part], **held))
                statistics[item.name] = item
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} holds no statistics: {reason_of(error)}") from error
    return statistics
