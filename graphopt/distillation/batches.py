"""Samples in batches, in a new order in each epoch, changed at random if asked.

Feeds are read as they come and mixed in a buffer, so that data of any size fits; the order depends
on the seed and the epoch alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from graphopt.errors import UsageError

Feed = dict[str, Any]
Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]

_MIXED = 4096
_IMAGES_RANK = 4


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


def read_augmentations(texts: Iterable[str]) -> list[Augment]:
    """Random changes of images [N, C, H, W] that keep what they show.

    Args:
        texts: "mirror" (left and right, every second image) or "shift=N" (by up to N pixels
            each way, zeros move in).

    Raises:
        UsageError: a text is none of these.
    """
    found: list[Augment] = []
    for text in texts:
        name, _, number = text.partition("=")
        if name == "mirror" and not number:
            found.append(_mirror)
        elif name == "shift" and number.isdigit() and int(number) > 0:
            found.append(_shift(int(number)))
        else:
            raise UsageError(f"--augment '{text}' is neither 'mirror' nor 'shift=N'")
    return found


def augmented(batch: Feed, augmentations: Iterable[Augment], random: np.random.Generator) -> Feed:
    """The batch with its images changed; what is no image stays."""
    changed = dict(batch)
    for augment in augmentations:
        for name, value in changed.items():
            if value.ndim == _IMAGES_RANK:
                changed[name] = augment(value, random)
    return changed


def _mirror(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    chosen = random.random(len(images)) < 0.5
    return np.where(chosen[:, None, None, None], images[..., ::-1], images)


def _shift(most: int) -> Augment:
    def shift(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
        height, width = images.shape[2:]
        padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)))
        places = random.integers(0, 2 * most + 1, (len(images), 2))
        return np.stack(
            [
                image[:, top : top + height, left : left + width]
                for image, (top, left) in zip(padded, places, strict=True)
            ]
        )

    return shift
