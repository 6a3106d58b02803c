"""The arena that ONNX Runtime's CPU kernels get their memory from, as bookkeeping without memory.

It is a best-fit allocator with coalescing. Requests are rounded up to 256 bytes and get the
smallest free chunk that fits; a chunk is split only where what is left is as large as the request
(or 128 MiB), so a tensor may sit in a chunk of almost twice its size. When nothing fits, the
arena takes a new region, the first of 1 MiB and each later one at least twice as large as the
one before. Free neighbours within a region merge.
"""

from __future__ import annotations

from dataclasses import dataclass

_ALIGNMENT = 256
_FIRST_REGION = 1 << 20
_MOST_WASTE = 128 << 20


@dataclass(slots=True, eq=False)
class Chunk:
    """A piece of a region; `left` and `right` are its neighbours there."""

    size: int
    place: int
    used: bool = False
    left: Chunk | None = None
    right: Chunk | None = None


class Arena:
    """Hands out chunks and takes them back.

    Attributes:
        used: bytes in chunks that are handed out, padding included.
        peak: the most that `used` has been.
    """

    def __init__(self) -> None:
        self.used = 0
        self.peak = 0
        self._region = _FIRST_REGION
        self._end = 0
        self._free: list[Chunk] = []

    def allocate(self, size: int) -> Chunk | None:
        """A chunk of at least `size` bytes; None for a request of nothing."""
        if not size:
            return None
        needed = rounded(size)
        fitting = [chunk for chunk in self._free if chunk.size >= needed]
        chunk = min(fitting, key=_order) if fitting else self._extend(needed)
        self._free.remove(chunk)
        rest = chunk.size - needed
        if rest >= min(needed, _MOST_WASTE):
            new = Chunk(rest, chunk.place + needed, left=chunk, right=chunk.right)
            if chunk.right is not None:
                chunk.right.left = new
            chunk.right = new
            chunk.size = needed
            self._free.append(new)
        chunk.used = True
        self.used += chunk.size
        self.peak = max(self.peak, self.used)
        return chunk

    def release(self, chunk: Chunk | None) -> None:
        """Take a chunk back."""
        if chunk is None:
            return
        self.used -= chunk.size
        chunk.used = False
        if chunk.right is not None and not chunk.right.used:
            self._free.remove(chunk.right)
            _merge(chunk, chunk.right)
        if chunk.left is not None and not chunk.left.used:
            _merge(chunk.left, chunk)
        else:
            self._free.append(chunk)

    def _extend(self, needed: int) -> Chunk:
        if needed > self._region:
            while needed > self._region:
                self._region *= 2
            size = self._region
        else:
            size = self._region
            self._region *= 2
        chunk = Chunk(size, self._end)
        self._end += size
        self._free.append(chunk)
        return chunk


def rounded(size: int) -> int:
    """`size` as the arena allots it, up to a multiple of 256 bytes."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _order(chunk: Chunk) -> tuple[int, int]:
    return chunk.size, chunk.place


def _merge(left: Chunk, right: Chunk) -> None:
    left.size += right.size
    left.right = right.right
    if right.right is not None:
        right.right.left = left
