"""Calibration: runs a model over data and chooses the range of each activation.

The data is streamed; what is kept of each tensor does not grow with it. An interrupted run goes
on from its state file and ends with the same ranges as an uninterrupted one, to the last bit.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from graphopt.errors import UsageError
from graphopt.graph import ir
from graphopt.quantization.clipping import METHODS, choose_range, extremes
from graphopt.quantization.ranges import Ranges, digest_of
from graphopt.runtime import (
    Feed,
    TensorStatistics,
    collect,
    load_statistics,
    save_statistics,
)

DEFAULT_METHOD = "mse"
HISTOGRAM_BINS = 256
"""Bins per octave: the clip is found to within 0.4%."""

_MAX_BYTES = 128 << 20
_SECONDS_BETWEEN_SAVES = 5.0
_WITHOUT_HISTOGRAMS = ("minmax", "moving-average")


def calibrate(
    model: ir.Model,
    feeds: Iterable[Feed],
    names: Sequence[str],
    *,
    method: str = DEFAULT_METHOD,
    levels: int = 256,
    symmetric: bool = False,
    percentile: float = 0.9999,
    max_bytes: int = _MAX_BYTES,
    threads: int = 0,
    provider: str = "cpu",
    resume_file: str | os.PathLike[str] | None = None,
    save_every: float = _SECONDS_BETWEEN_SAVES,
    progress: Callable[[int], None] | None = None,
) -> Ranges:
    """The range of each tensor over all feeds.

    Args:
        model: the float model; it is not changed.
        feeds: the data, read once, one feed at a time.
        names: tensors of the main graph, inputs among them.
        method: "minmax", "moving-average", "percentile", "entropy" or "mse".
        levels: how many integers an activation will have: 256 for 8 bits.
        symmetric: whether they will be spread evenly on both sides of zero.
        percentile: the share of the values to cover, for that method.
        max_bytes: memory for the tensors of one run.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        provider: where to run.
        resume_file: where the state is saved on the way. If it exists, the feeds that it has
            seen are passed over. It is deleted at the end.
        save_every: seconds between saves.
        progress: called after each feed with the number of feeds done.

    Raises:
        UsageError: there is no such method or tensor, the data is empty, or the state file
            belongs to another calibration.
        RuntimeUnavailableError: ONNX Runtime cannot run the model.
    """
    statistics, samples = collect_statistics(
        model,
        feeds,
        names,
        method=method,
        max_bytes=max_bytes,
        threads=threads,
        provider=provider,
        resume_file=resume_file,
        save_every=save_every,
        progress=progress,
    )
    tensors = {
        name: choose_range(
            statistics[name], method, levels=levels, symmetric=symmetric, percentile=percentile
        )
        for name in names
    }
    warnings = tuple(_warnings(statistics, method))
    return Ranges(tensors, method, samples, digest_of(model), warnings)


def collect_statistics(
    model: ir.Model,
    feeds: Iterable[Feed],
    names: Sequence[str],
    *,
    method: str = DEFAULT_METHOD,
    max_bytes: int = _MAX_BYTES,
    threads: int = 0,
    provider: str = "cpu",
    resume_file: str | os.PathLike[str] | None = None,
    save_every: float = _SECONDS_BETWEEN_SAVES,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, TensorStatistics], int]:
    """The statistics that `calibrate` chooses ranges from, and the number of feeds.

    Ranges for several methods can be chosen from the same statistics.
    """
    if method not in METHODS:
        raise UsageError(f"there is no method '{method}'; it is one of {', '.join(METHODS)}")
    bins = None if method in _WITHOUT_HISTOGRAMS else HISTOGRAM_BINS
    statistics: dict[str, TensorStatistics] = {}
    done = 0
    state = _State(resume_file, model, names, bins, save_every)
    if state.exists():
        statistics, done = state.load()
    count = done

    def tell(number: int) -> None:
        nonlocal count
        count = number
        state.save_now_and_then(statistics, number)
        if progress is not None:
            progress(number)

    if progress is not None and done:
        progress(done)
    collect(
        model,
        itertools.islice(feeds, done, None),
        names,
        bins=bins,
        known=statistics,
        done=done,
        max_bytes=max_bytes,
        threads=threads,
        provider=provider,
        progress=tell,
    )
    if not count:
        raise UsageError("the calibration data holds no sample")
    state.delete()
    return statistics, count


def _warnings(statistics: Mapping[str, TensorStatistics], method: str) -> Iterator[str]:
    wrong = [item for item in statistics.values() if item.left_out]
    if wrong:
        yield (
            f"{len(wrong)} tensors had values that are NaN or infinite, "
            f"'{wrong[0].name}' {wrong[0].left_out} of them"
        )
    if method in _WITHOUT_HISTOGRAMS:
        return
    far = [i for i in statistics.values() if i.count and extremes(i) != (i.minimum, i.maximum)]
    if far:
        yield (
            f"a few samples lie far outside of all others in {len(far)} tensors ('{far[0].name}': "
            f"{far[0].minimum:.3g} to {far[0].maximum:.3g}); they were left out"
        )


class _State:
    """The file from which an interrupted calibration goes on."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        model: ir.Model,
        names: Sequence[str],
        bins: int | None,
        seconds: float,
    ) -> None:
        self._path = None if path is None else Path(path)
        self._seconds = seconds
        self._saved_at = time.monotonic()
        self._purpose = ""
        if path is not None:
            text = json.dumps([digest_of(model), list(names), bins])
            self._purpose = hashlib.sha256(text.encode()).hexdigest()[:16]

    def exists(self) -> bool:
        return self._path is not None and self._path.exists()

    def load(self) -> tuple[dict[str, TensorStatistics], int]:
        assert self._path is not None  # noqa: S101 - it exists
        statistics = load_statistics(self._path, purpose=self._purpose)
        feeds = statistics.pop(_FEEDS).feeds
        return statistics, feeds

    def save_now_and_then(self, statistics: dict[str, TensorStatistics], feeds: int) -> None:
        now = time.monotonic()
        if self._path is None or now - self._saved_at < self._seconds:
            return
        # A tensor may be missing from some feeds, so the number of feeds has an entry of its own.
        counted = {**statistics, _FEEDS: TensorStatistics(_FEEDS, feeds=feeds)}
        save_statistics(counted, self._path, purpose=self._purpose)
        self._saved_at = time.monotonic()

    def delete(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


_FEEDS = ""
"""No tensor has this name."""
