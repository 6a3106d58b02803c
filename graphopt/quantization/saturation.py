"""Weights whose products cannot saturate int16.

    a1*w1 + a2*w2  with 0 <= a <= 255  lies in [-32768, 32767]  for all a
        <=>  max(w1, 0) + max(w2, 0) <= 128  and  min(w1, 0) + min(w2, 0) >= -128

VPMADDUBSW adds the products of two neighbouring weights along the axis that is summed over, the
first two, the next two, and so on (channels innermost for Conv). Activations are raw bytes there,
whatever their zero point, so a is anything up to 255, and the condition is exact.

Where a pair breaks it, the channel's scale is enlarged, the excess of single pairs is taken off
their weights, or some of both: whichever leaves the smaller error, sum((w - w')^2). Seven bits
for all weights, which is the usual remedy, costs every channel four times the error.
"""

from __future__ import annotations

import numpy as np

LARGEST_PAIR = 128

# Steps between the scale that covers the weights and the one at which no pair breaks the bound.
_CANDIDATES = 7


def excess(integers: np.ndarray, axis: int) -> np.ndarray:
    """By how much the worst pair of each channel breaks the bound; 0 where none does, [channels].

    0 is the proof that no sum of two products saturates, for any activations.

    Args:
        integers: a weight; Conv's [M, C/group, ...] with axis 0, a matrix with either axis.
        axis: the axis of the output channels.
    """
    ordered = _ordered(integers, axis).astype(np.int16)
    found = np.zeros(len(ordered), np.int16)
    for pairs in _pairings(ordered):
        found = np.maximum(found, _over(pairs).max(axis=(1, 2), initial=0))
    return found.astype(np.int32)


def without_saturation(
    weight: np.ndarray, scale: np.ndarray, axis: int, integers: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scales [channels] and int8 integers of a weight, such that no pair saturates.

    Args:
        weight: float, symmetric around 0.
        scale: float32 [channels], or [] for one in all: covers the weight.
        axis: the axis of the output channels.
        integers: integers for `scale` to start from, where they are not the nearest; the scale
            is kept then.
    """
    ordered = _ordered(np.asarray(weight, np.float32), axis)
    if integers is not None:
        shaved = _shaved(_ordered(integers, axis).astype(np.int16))
        return scale, _restored(shaved, weight.shape, axis)
    chosen = np.broadcast_to(scale, (len(ordered),)).astype(np.float32)
    over = np.zeros(len(ordered), np.int16)
    nearest = _nearest(ordered, chosen)
    for pairs in _pairings(nearest):
        over = np.maximum(over, _over(pairs).max(axis=(1, 2), initial=0))
    if not over.any():
        return scale, _restored(nearest, weight.shape, axis)
    if scale.ndim == 0:
        chosen = _best_scales(ordered, chosen, np.full(len(ordered), over.max()), shared=True)
    else:
        rows = np.flatnonzero(over)
        chosen[rows] = _best_scales(ordered[rows], chosen[rows], over[rows])
    result = _restored(_shaved(_nearest(ordered, chosen)), weight.shape, axis)
    return (np.asarray(chosen[0]) if scale.ndim == 0 else chosen), result


def _best_scales(
    weight: np.ndarray, scale: np.ndarray, over: np.ndarray, *, shared: bool = False
) -> np.ndarray:
    """The scales [channels] of least error once the excess that they leave is shaved off.

    Args:
        weight: float [channels, places, inner].
        scale: the scales to enlarge.
        over: the excess of each channel at that scale.
        shared: whether all channels have one scale.
    """
    best, least = scale, np.full(len(scale), np.inf)
    for share in np.linspace(0.0, 1.0, _CANDIDATES):
        candidate = (scale * (1 + share * (over + 1) / (LARGEST_PAIR - 1))).astype(np.float32)
        difference = weight - candidate[:, None, None] * _shaved(_nearest(weight, candidate))
        error = np.einsum("cpi,cpi->c", difference, difference)
        if shared:
            error = np.full(len(scale), error.sum())
        best = np.where(error < least, candidate, best)
        least = np.minimum(error, least)
    return best


def _ordered(array: np.ndarray, axis: int) -> np.ndarray:
    """A weight as [channels, places, inner], in the order of summation along the last two.

    Inputs are innermost. Where they are odd in number, some kernels sum pair by pair across the
    places and others pad every place: see `_pairings`.
    """
    first = np.moveaxis(array, axis, 0)
    if first.ndim > 2:
        first = np.moveaxis(first, 1, -1)
    return np.ascontiguousarray(first.reshape(len(first), -1, first.shape[-1]))


def _restored(ordered: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """The inverse of `_ordered`, as int8."""
    first = [shape[axis], *(dim for index, dim in enumerate(shape) if index != axis)]
    if len(shape) > 2:
        moved = ordered.reshape(first[0], *first[2:], first[1])
        return np.moveaxis(np.moveaxis(moved, -1, 1), 0, axis).astype(np.int8)
    return np.moveaxis(ordered.reshape(first), 0, axis).astype(np.int8)


def _pairings(ordered: np.ndarray) -> list[np.ndarray]:
    """The pairs [channels, pairs, 2], once for each way of pairing."""
    channels, places, inner = ordered.shape
    found = [_padded(ordered.reshape(channels, -1)).reshape(channels, -1, 2)]
    if inner % 2 and places > 1:
        found.append(_padded(ordered).reshape(channels, -1, 2))
    return found


def _padded(array: np.ndarray) -> np.ndarray:
    if array.shape[-1] % 2 == 0:
        return array
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, 1)])


def _over(pairs: np.ndarray) -> np.ndarray:
    """By how much each pair is beyond the bound, above or below, [channels, pairs, 1]."""
    first, second = pairs[:, :, 0], pairs[:, :, 1]
    # One weight alone is within the bound, so that both have the same sign where a pair is not.
    total = np.where((first > 0) == (second > 0), np.abs(first + second), 0)
    found: np.ndarray = np.maximum(total - LARGEST_PAIR, 0).astype(np.int16)
    return found[:, :, None]


def _nearest(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    nearest: np.ndarray = np.rint(weight / scale[:, None, None])
    return nearest.clip(-127, 127).astype(np.int16)


def _shaved(ordered: np.ndarray) -> np.ndarray:
    """Integers with the excess of each pair taken off, half from either weight."""
    channels, places, inner = ordered.shape
    size = places * inner
    flat = _shaved_pairs(_padded(ordered.reshape(channels, -1)))[:, :size]
    shaved = flat.reshape(channels, places, inner)
    if inner % 2 and places > 1:
        rows = _padded(shaved)
        rows = _shaved_pairs(rows.reshape(channels, -1)).reshape(rows.shape)
        shaved = rows[:, :, :inner]
    return shaved


def _shaved_pairs(flat: np.ndarray) -> np.ndarray:
    pairs = flat.reshape(len(flat), -1, 2)
    over = _over(pairs)[:, :, 0]
    rows, columns = np.nonzero(over)
    if not len(rows):
        return flat
    result = pairs.copy()
    beyond = over[rows, columns]
    sign = np.where(pairs[rows, columns, 0] > 0, 1, -1).astype(np.int16)
    result[rows, columns, 0] -= sign * (beyond // 2)
    result[rows, columns, 1] -= sign * (beyond - beyond // 2)
    return result.reshape(len(flat), -1)
