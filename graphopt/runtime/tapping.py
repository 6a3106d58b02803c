"""Runs a model and gives back chosen tensors, so many at a time that they fit into memory."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from graphopt.graph import ir
from graphopt.runtime.input_sizes import resolve
from graphopt.runtime.session import Feed, Session

# Tensors of unknown size that are exposed together when their sizes are measured.
_PROBED_TOGETHER = 16


def tapped_pairs(
    model: ir.Model,
    reference: ir.Model,
    pairs: Mapping[str, str],
    feeds: Iterable[Feed],
    *,
    max_bytes: int = 256 << 20,
    threads: int = 0,
    provider: str = "cpu",
) -> Iterator[tuple[str, Any, Any]]:
    """The name and the value of each tensor, and that of its partner, feed after feed.

    Args:
        model: the model whose tensors they are.
        reference: the model of the partners, which takes the same feeds.
        pairs: tensor -> partner.
        feeds: the inputs, read once.
        max_bytes: memory for the tensors of one run.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        provider: where to run.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot run one of the models.
    """
    groups: list[TappedGroup] = []
    options = {"threads": threads, "provider": provider}
    for feed in feeds:
        if not groups:
            groups = tapped_groups(model, reference, pairs, feed, max_bytes, options)
        for group in groups:
            yield from group.run(feed)


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
        values: dict[str, Any] = {}
        if self._session is not None:
            taken = self._session.input_names
            known = {name: value for name, value in feed.items() if name in taken}
            values = self._session.run(known, self._computed)
        for name in self._names:
            if name not in values and name in feed:
                values[name] = feed[name]
        return values


class TappedGroup:
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


def tapped_groups(
    model: ir.Model,
    reference: ir.Model | None,
    wanted: Mapping[str, str | None],
    feed: Feed,
    max_bytes: int,
    options: Mapping[str, Any],
) -> list[TappedGroup]:
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
        groups.append(TappedGroup(members, _Part(model, members, options), part))
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
