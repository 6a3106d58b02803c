"""A matrix in blocks of integers of 4 or 8 bits, each block with a scale of its own.

    W[n, k] = (q[n, k] - z[n, k // b]) * s[n, k // b]        n outputs, k inputs, b the block size

Each block of inputs of each output has its own scale (and zero point). A block's scale is the
one of a few, with either sign of the scale, that leaves the least squared error: the full range
of a signed integer is not symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Fractions of the range that is covered; what lies outside is clipped."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """A matrix in blocks of integers.

    Attributes:
        bits: 4 or 8.
        size: how many inputs make a block; the last one of a row may be shorter.
        integers: [outputs, inputs], int64, unsigned: 0 .. 2^bits - 1.
        scale: [outputs, blocks], float32; may be negative.
        zero_point: [outputs, blocks], the integer that stands for 0; 2^(bits-1) where symmetric.
    """

    bits: int
    size: int
    integers: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray

    @property
    def is_symmetric(self) -> bool:
        """Whether the zero point is the middle throughout."""
        return bool((self.zero_point == 1 << (self.bits - 1)).all())

    def with_integers(self, integers: np.ndarray) -> Blocks:
        """The same scales with other integers."""
        return replace(self, integers=integers)

    def dequantize(self) -> np.ndarray:
        """The matrix [outputs, inputs] that it stands for, float32."""
        inputs = self.integers.shape[1]
        scale, zero = (
            np.repeat(array, self.size, axis=1)[:, :inputs]
            for array in (self.scale, self.zero_point)
        )
        return np.asarray((self.integers - zero).astype(np.float32) * scale)

    def element_parameters(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and zero point of every element, [outputs, inputs], for `round_second_order`."""
        inputs = self.integers.shape[1]
        scale = np.repeat(self.scale.astype(np.float64), self.size, axis=1)[:, :inputs]
        return scale, np.repeat(self.zero_point, self.size, axis=1)[:, :inputs]

    def packed_integers(self) -> np.ndarray:
        """uint8 [outputs, blocks, bytes of a block]; of 4 bits the first in the low half."""
        outputs, inputs = self.integers.shape
        padded = np.zeros((outputs, self.scale.shape[1] * self.size), np.uint8)
        padded[:, :inputs] = self.integers
        return _packed(padded.reshape(outputs, -1, self.size), self.bits)

    def packed_zero_points(self) -> np.ndarray:
        """uint8 [outputs, bytes of a row's zero points], in the same order."""
        outputs, count = self.zero_point.shape
        padded = np.zeros((outputs, count + count % 2 * (self.bits == 4)), np.uint8)
        padded[:, :count] = self.zero_point
        return _packed(padded, self.bits)


def quantize_in_blocks(
    matrix: np.ndarray, *, bits: int = 4, size: int = 32, symmetric: bool = True
) -> Blocks:
    """Round a matrix [outputs, inputs] to nearest, block by block."""
    outputs, inputs = matrix.shape
    count = -(-inputs // size)
    padded = np.zeros((outputs, count * size))
    padded[:, :inputs] = matrix
    blocks = padded.reshape(outputs, count, size)
    highest = (1 << bits) - 1
    middle = 1 << (bits - 1)
    best_error = np.full((outputs, count), np.inf)
    scale = np.ones((outputs, count), np.float32)
    zero = np.full((outputs, count), middle, np.int64)
    for candidate, offset in _candidates(blocks, highest, middle, symmetric):
        rounded = np.clip(np.rint(blocks / candidate[:, :, None]) + offset[:, :, None], 0, highest)
        seen = (rounded - offset[:, :, None]) * candidate[:, :, None]
        error = np.square(seen - blocks).sum(axis=2)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        scale = np.where(better, candidate, scale)
        zero = np.where(better, offset, zero)
    rounded = np.rint(blocks / scale[:, :, None]) + zero[:, :, None]
    integers = np.clip(rounded, 0, highest).astype(np.int64).reshape(outputs, -1)[:, :inputs]
    return Blocks(bits, size, np.ascontiguousarray(integers), scale.astype(np.float32), zero)


def _candidates(
    blocks: np.ndarray, highest: int, middle: int, symmetric: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(scale, zero point) pairs to try for each block, both [outputs, blocks]."""
    low = np.minimum(blocks.min(axis=2), 0.0)
    high = np.maximum(blocks.max(axis=2), 0.0)
    found = []
    for shrink in _SHRINKS:
        if symmetric:
            largest = np.maximum(-low, high) * shrink
            for steps in (middle - 1, middle, -middle):
                candidate = _float32(largest / steps)
                found.append((candidate, np.full(candidate.shape, middle)))
        else:
            candidate = _float32((high - low) * shrink / highest)
            offset = np.clip(np.rint(-low * shrink / candidate), 0, highest).astype(np.int64)
            found.append((candidate, offset))
    return found


def _float32(scale: np.ndarray) -> np.ndarray:
    """As stored; a block of zeros gets scale 1."""
    stored = scale.astype(np.float32)
    return np.where(np.abs(stored) < np.finfo(np.float32).tiny, np.float32(1), stored)


def _packed(array: np.ndarray, bits: int) -> np.ndarray:
    if bits == 8:
        return array
    return np.asarray(array[..., 0::2] | (array[..., 1::2] << 4), np.uint8)
