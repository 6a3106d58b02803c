"""Runs a model over data and keeps statistics of chosen tensors, in bounded memory.

One collector for all that calibrates: quantization (ranges, histograms), pruning and rounding
(second moments), half precision (largest magnitudes).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph import ir
from graphopt.runtime.histogram import Histogram
from graphopt.runtime.moments import MomentRequest, add_rows
from graphopt.runtime.session import Feed
from graphopt.runtime.statistics import TensorStatistics
from graphopt.runtime.tapping import TappedGroup, tapped_groups

# Values of one feed's tensor that its histogram counts: more tell nothing more.
_COUNTED = 1 << 19


def collect(
    model: ir.Model,
    feeds: Iterable[Feed],
    names: Sequence[str],
    *,
    channel_axes: Mapping[str, int] | None = None,
    bins: int | None = None,
    moments: Mapping[str, MomentRequest] | None = None,
    reference: ir.Model | None = None,
    known: dict[str, TensorStatistics] | None = None,
    done: int = 0,
    max_bytes: int = 1 << 30,
    threads: int = 0,
    provider: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> dict[str, TensorStatistics]:
    """Statistics of tensors of the main graph over all feeds; each feed is used once.

    Tensors are computed in groups, so that those of one group, their references included, take
    at most `max_bytes` for a feed like the first; every group is a session, and runs the whole
    model. No tensor outlives its feed.

    Args:
        model: the model; it is not changed.
        feeds: the data, read once, one feed at a time.
        names: the tensors: values of the main graph, inputs among them.
        channel_axes: name -> axis along which ranges and means are kept as well.
        bins: how many bins each histogram has per octave; None for no histograms. Of a tensor
            with more than a million values in a feed half a million, evenly spread, are counted,
            and its extremes.
        moments: name -> the second moment to sum.
        reference: the model whose tensors are X0 in moments that ask for one.
        known: statistics of the same tensors to add to, kept with the same options; they are
            whole whenever `progress` is called.
        done: how many feeds went into `known`; those to come are numbered from there.
        max_bytes: memory for the tensors of one run.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        provider: where to run, see `Session`.
        progress: called after each feed with the number of feeds done.

    Returns:
        Name -> statistics, in the order of `names`.

    Raises:
        UsageError: a name is no value of the main graph, or a request does not fit its tensor.
        RuntimeUnavailableError: ONNX Runtime cannot run the model.
    """
    channel_axes, moments = channel_axes or {}, moments or {}
    statistics = {} if known is None else known
    for name in names:
        if name not in statistics:
            statistics[name] = TensorStatistics(name)
            if bins is not None:
                statistics[name].keep_histograms(bins)
    options = {"threads": threads, "provider": provider}
    if reference is None and any(request.against is not None for request in moments.values()):
        raise UsageError("a second moment against another model needs that model as `reference`")
    for name in (*channel_axes, *moments):
        if name not in statistics:
            raise UsageError(f"{name!r} is not among the tensors to collect")
    wanted = {name: moments[name].against if name in moments else None for name in statistics}
    groups: list[TappedGroup] = []
    for index, feed in enumerate(feeds, start=done):
        if not groups:
            groups = tapped_groups(model, reference, wanted, feed, max_bytes, options)
        for group in groups:
            for name, value, other in group.run(feed):
                item = statistics[name]
                array = _array(name, value)
                item.add(array)
                if item.histogram is not None:
                    _count(item.histogram, array)
                if name in channel_axes:
                    item.add_channels(array, _axis(name, channel_axes[name], array))
                if name in moments:
                    _add_moment(item, moments[name], array, other, index)
        if progress is not None:
            progress(index + 1)
    return statistics


def _count(histogram: Histogram, array: np.ndarray) -> None:
    """Count a tensor's values; of a very large one a part, spread evenly, and the extremes."""
    flat = array.reshape(-1)
    if flat.size > 2 * _COUNTED:
        # Odd, so that the part does not stand in a few columns of an image.
        histogram.add(np.array([flat.min(), flat.max()]))
        flat = flat[:: flat.size // _COUNTED | 1]
    histogram.add(flat)


def _add_moment(
    item: TensorStatistics, request: MomentRequest, array: np.ndarray, other: Any, index: int
) -> None:
    matched = None if other is None else _array(item.name, other)
    try:
        item.moment = add_rows(item.moment, request, array, matched, item.name, index)
    except (ValueError, IndexError) as error:
        raise UsageError(f"no second moment of {item.name!r}: {error}") from error


def _array(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray | np.generic):
        raise UsageError(f"{name!r} is no tensor: statistics are kept of tensors only")
    array = np.asarray(value)
    if array.dtype.kind in "OUSc":
        raise UsageError(f"{name!r} is {array.dtype}: statistics are kept of real numbers only")
    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def _axis(name: str, axis: int, array: np.ndarray) -> int:
    if not -array.ndim <= axis < array.ndim:
        raise UsageError(f"{name!r} has {array.ndim} dims, there is no channel axis {axis}")
    return axis
