"""Samples in batches, in a new order in each epoch.

Feeds are read as they come and mixed in a buffer, so that data of any size fits; the order depends
on the seed and the epoch alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

Feed = dict[str, Any]

_MIXED = 4096


def shuffled(feeds: Iterable[Feed], random: np.random.Generator) -> Iterator[Feed]:
    """The feeds in another order, mixed within a few thousand of them."""
    buffer: list[Feed] = []
    for feed in feeds:
        buffer.append(feed)
        if len(buffer) > _MIXED:
            place = int(random.integers(len(buffer)))
            buffer[place], buffer[-1] = buffer[-1], buffer[place]
            yield buffer.pop()
    random.shuffle(buffer)
    yield from buffer


def batches(feeds: Iterable[Feed], size: int) -> Iterator[Feed]:
    """Feeds joined along their first axis; the last batch may be smaller.

    A feed of other sizes than the one before begins a batch of its own.
    """
    some: list[Feed] = []
    for feed in feeds:
        if some and _sizes(some[0]) != _sizes(feed):
            yield _joined(some)
            some = []
        some.append(feed)
        if len(some) == size:
            yield _joined(some)
            some = []
    if some:
        yield _joined(some)


def _sizes(feed: Feed) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, np.shape(value)[1:]) for name, value in sorted(feed.items())]


def _joined(some: list[Feed]) -> Feed:
    return {name: np.concatenate([np.asarray(feed[name]) for feed in some]) for name in some[0]}
