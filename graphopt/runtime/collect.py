"""Runs a model over data and keeps statistics of chosen tensors, in bounded memory.

One collector for all that calibrates: quantization (ranges, histograms), pruning and rounding
(second moments), half precision (largest magnitudes).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph import ir
from graphopt.runtime.histogram import Histogram
from graphopt.runtime.input_sizes import resolve
from graphopt.runtime.moments import MomentRequest, add_rows
from graphopt.runtime.session import Feed, Session
from graphopt.runtime.statistics import TensorStatistics

# Tensors of unknown size that are exposed together when their sizes are measured.
_PROBED_TOGETHER = 16


def collect(
    model: ir.Model,
    feeds: Iterable[Feed],
    names: Sequence[str],
    *,
    channel_axes: Mapping[str, int] | None = None,
    bins: int | None = None,
    moments: Mapping[str, MomentRequest] | None = None,
    reference: ir.Model | None = None,
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
        bins: how many bins each histogram has at most; None for no histograms.
        moments: name -> the second moment to sum.
        reference: the model whose tensors are X0 in moments that ask for one.
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
    statistics = {name: TensorStatistics(name) for name in names}
    options = {"threads": threads, "provider": provider}
    if reference is None and any(request.against is not None for request in moments.values()):
        raise UsageError("a second moment against another model needs that model as `reference`")
    for name in (*channel_axes, *moments):
        if name not in statistics:
            raise UsageError(f"{name!r} is not among the tensors to collect")
    for item in statistics.values():
        item.histogram = None if bins is None else Histogram(bins)
    wanted = {name: moments[name].against if name in moments else None for name in statistics}
    groups: list[_Group] = []
    for index, feed in enumerate(feeds):
        if not groups:
            groups = _groups(model, reference, wanted, feed, max_bytes, options)
        for group in groups:
            for name, value, other in group.run(feed):
                item = statistics[name]
                array = _array(name, value)
                item.add(array)
                if item.histogram is not None:
                    item.histogram.add(array)
                if name in channel_axes:
                    item.add_channels(array, _axis(name, channel_axes[name], array))
                if name in moments:
                    matched = None if other is None else _array(name, other)
                    try:
                        item.moment = add_rows(
                            item.moment, moments[name], array, matched, name, index
                        )
                    except (ValueError, IndexError) as error:
                        raise UsageError(f"no second moment of {name!r}: {error}") from error
        if progress is not None:
            progress(index + 1)
    return statistics


class _Part:
    """Some tensors of one model, computed in one run."""

    def __init__(self, model: ir.Model, names: Iterable[str], options: Mapping[str, Any]) -> None:
        self._names = list(dict.fromkeys(names))
        inputs = {value.name for value in model.graph.inputs}
        self._computed = [name for name in self._names if name not in inputs]
        self._session = (
            Session(model, outputs=self._computed, **options) if self._computed else None
        )

    def run(self, feed: Feed) -> dict[str, Any]:
        """The tensors by name; an input is what the feed has for it."""
        values = {} if self._session is None else self._session.run(feed, self._computed)
        for name in self._names:
            if name not in values and name in feed:
                values[name] = feed[name]
        return values


class _Group:
    """Tensors that are in memory at the same time, each with its reference."""

    def __init__(self, wanted: Mapping[str, str | None], part: _Part, other: _Part | None) -> None:
        self._wanted = wanted
        self._part = part
        self._other = other

    def run(self, feed: Feed) -> Iterator[tuple[str, Any, Any]]:
        """Name, value, and the reference's value (or None)."""
        values = self._part.run(feed)
        references = {} if self._other is None else self._other.run(feed)
        for name, against in self._wanted.items():
            if name in values:
                other = None if against is None else references[against]
                yield name, values.pop(name), other


def _groups(
    model: ir.Model,
    reference: ir.Model | None,
    wanted: Mapping[str, str | None],
    feed: Feed,
    max_bytes: int,
    options: Mapping[str, Any],
) -> list[_Group]:
    """Split the tensors into groups of at most `max_bytes`, or of one tensor."""
    sizes = _sizes(model, wanted, feed, options)
    against = [other for other in wanted.values() if other is not None]
    other_sizes = {} if reference is None else _sizes(reference, against, feed, options)
    split: list[dict[str, str | None]] = []
    filled = 0
    for name, other in wanted.items():
        size = sizes[name] + (0 if other is None else other_sizes[other])
        if not split or filled + size > max_bytes:
            split.append({})
            filled = 0
        split[-1][name] = other
        filled += size
    groups = []
    for members in split:
        others = [other for other in members.values() if other is not None]
        part = None if reference is None or not others else _Part(reference, others, options)
        groups.append(_Group(members, _Part(model, members, options), part))
    return groups


def _sizes(
    model: ir.Model, names: Iterable[str], feed: Feed, options: Mapping[str, Any]
) -> dict[str, int]:
    """The bytes of each tensor for a feed: from its shape, or measured."""
    symbols: dict[str, int] = {}
    for value in model.graph.inputs:
        fed = feed.get(value.name or "")
        if value.shape is not None and isinstance(fed, np.ndarray):
            for dim, size in zip(value.shape.dims, fed.shape, strict=False):
                if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                    symbols[str(dim.value)] = size
    values = {output.name: output for node in model.graph for output in node.outputs}
    sizes: dict[str, int] = {}
    unknown = []
    for name in dict.fromkeys(names):
        known = _bytes(values.get(name), symbols)
        if known is None:
            unknown.append(name)
        else:
            sizes[name] = known
    for start in range(0, len(unknown), _PROBED_TOGETHER):
        part = unknown[start : start + _PROBED_TOGETHER]
        found = _Part(model, part, options).run(feed)
        sizes.update((name, int(getattr(found.get(name), "nbytes", 0))) for name in part)
    return sizes


def _bytes(value: ir.Value | None, symbols: Mapping[str, int]) -> int | None:
    if value is None or value.shape is None or value.dtype is None:
        return None
    size = float(value.dtype.itemsize) if value.dtype != ir.DataType.STRING else 16.0
    for dim in value.shape.dims:
        known = resolve(dim, symbols)
        if known is None:
            return None
        size *= known
    return int(size)


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
