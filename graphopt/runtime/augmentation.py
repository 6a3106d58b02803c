"""Random changes of images [N, C, H, W] that keep what they show: more samples out of few."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from graphopt.errors import UsageError
from graphopt.runtime.session import Feed

Augment = Callable[[np.ndarray, np.random.Generator, bool], np.ndarray]
"""Images, the source of chance, whether every image is to change -> images of the same shape."""

_IMAGES_RANK = 4


def read_augmentations(texts: Iterable[str], flag: str = "--augment") -> list[Augment]:
    """What the texts name.

    Args:
        texts: "mirror" (left and right) or "shift=N" (by up to N pixels each way, zeros move in).
        flag: where they were given, for messages.

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
            raise UsageError(f"{flag} '{text}' is neither 'mirror' nor 'shift=N'")
    return found


def augmented(
    feed: Feed,
    augmentations: Iterable[Augment],
    random: np.random.Generator,
    *,
    every: bool = False,
) -> Feed:
    """The feed with its images changed; what is no image stays.

    Args:
        feed: the samples.
        augmentations: of `read_augmentations`, one after another.
        random: the source of chance.
        every: whether each image changes; otherwise half of them are mirrored.
    """
    changed = dict(feed)
    for augment in augmentations:
        for name, value in changed.items():
            if isinstance(value, np.ndarray) and value.ndim == _IMAGES_RANK:
                changed[name] = augment(value, random, every)
    return changed


def with_changed(feeds: Sequence[Feed], augmentations: Iterable[Augment], seed: int) -> list[Feed]:
    """The feeds, and behind them each with every image changed; twice as many each time."""
    random = np.random.default_rng(seed)
    found = list(feeds)
    for augment in augmentations:
        found += [augmented(feed, [augment], random, every=True) for feed in found]
    return found


def check_images(feed: Feed, augmentations: Sequence[Augment], flag: str = "--augment") -> None:
    """Refuse augmentations of what is no image.

    Raises:
        UsageError: no array of the feed has rank 4.
    """
    ranks = {np.ndim(value) for value in feed.values() if isinstance(value, np.ndarray)}
    if augmentations and _IMAGES_RANK not in ranks:
        raise UsageError(f"{flag} changes images [N, C, H, W], and no input is one")


def _mirror(images: np.ndarray, random: np.random.Generator, every: bool) -> np.ndarray:
    chosen = random.random(len(images)) < (1.0 if every else 0.5)
    return np.where(chosen[:, None, None, None], images[..., ::-1], images)


def _shift(most: int) -> Augment:
    def shift(images: np.ndarray, random: np.random.Generator, _: bool) -> np.ndarray:
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
