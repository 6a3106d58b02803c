"""Second moments of what a layer sees, summed over the data in bounded memory.

A layer computes X W for rows X: for a MatMul the rows are the tensor's, for a convolution they
are its patches (channel-major: channel, then kernel position, as in the weight). What is kept is
X^T X0, its column sums and the number of rows, in float64. X0 is X itself, or the same rows of
another model's tensor. That is all that least-squares repair of a pruned layer, OBS scores and
GPTQ rounding need: memory grows with the square of the columns, not with the data.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_CHUNK_ELEMENTS = 4 << 20


@dataclass(frozen=True)
class Patches:
    """The geometry of a convolution that reads the tensor [N, C, spatial...].

    Attributes:
        kernel: the kernel's spatial shape.
        strides: one per spatial dim; () for ones.
        pads: begins, then ends, as in ONNX; () for zeros.
        dilations: one per spatial dim; () for ones.
        groups: the convolution's groups; each has a moment of its own.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    groups: int = 1


@dataclass(frozen=True)
class MomentRequest:
    """What to sum for a tensor.

    Attributes:
        axis: the axis whose entries are the columns (of a MatMul's input: the last); every
            other axis makes rows. Not used with `patches`.
        patches: take the patches of a convolution as rows.
        rows_per_feed: at most so many rows of each feed, drawn at random; None for all.
        seed: which ones are drawn.
        against: the tensor of the reference model whose rows are X0; None for X itself.
    """

    axis: int = -1
    patches: Patches | None = None
    rows_per_feed: int | None = None
    seed: int = 0
    against: str | None = None


@dataclass
class SecondMoment:
    """The sums; all zeros before the first rows.

    Attributes:
        matrix: [groups, d, d0], the sum of X^T X0.
        sums: [groups, d], the column sums of X.
        reference_sums: [groups, d0], those of X0.
        rows: how many rows were summed.
    """

    matrix: np.ndarray
    sums: np.ndarray
    reference_sums: np.ndarray
    rows: int = 0

    def merge(self, other: "SecondMoment") -> None:
        """Add the sums of another one of the same shape."""
        self.matrix += other.matrix
        self.sums += other.sums
        self.reference_sums += other.reference_sums
        self.rows += other.rows


def add_rows(
    moment: SecondMoment | None,
    request: MomentRequest,
    values: np.ndarray,
    reference: np.ndarray | None,
    name: str,
    index: int,
) -> SecondMoment:
    """Add the rows of one feed.

    Args:
        moment: the sums so far; None at the first feed.
        request: which rows.
        values: the tensor.
        reference: the other model's tensor, or None to take `values` twice.
        name: the tensor's name, which with the seed and `index` decides the rows drawn.
        index: the number of the feed.
    """
    if reference is not None and rows_of(request, reference) != rows_of(request, values):
        raise ValueError(f"{name} and its reference do not have the same rows")
    total = rows_of(request, values)
    chosen = np.arange(total)
    if request.rows_per_feed is not None and request.rows_per_feed < total:
        random = np.random.default_rng([request.seed, index, zlib.crc32(name.encode())])
        chosen = np.sort(random.choice(total, request.rows_per_feed, replace=False))
    left = _Rows(request, values)
    right = left if reference is None else _Rows(request, reference)
    if moment is None:
        shape = (left.groups, left.columns, right.columns)
        moment = SecondMoment(np.zeros(shape), np.zeros(shape[:2]), np.zeros(shape[::2]))
    step = max(1, _CHUNK_ELEMENTS // (left.groups * max(left.columns, right.columns)))
    for start in range(0, len(chosen), step):
        picked = chosen[start : start + step]
        x = left.take(picked)
        x0 = x if right is left else right.take(picked)
        moment.matrix += np.matmul(x.transpose(0, 2, 1), x0)
        moment.sums += x.sum(axis=1)
        moment.reference_sums += x0.sum(axis=1)
    moment.rows += len(chosen)
    return moment


def rows_of(request: MomentRequest, values: np.ndarray) -> int:
    """How many rows the tensor makes."""
    if request.patches is None:
        return int(values.size // max(values.shape[request.axis], 1))
    out = _output_dims(request.patches, values.shape[2:])
    return int(values.shape[0] * np.prod(out, dtype=np.int64))


def patch_rows(patches: Patches, values: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each sample, [groups, positions, channels/groups * kernel], one at a time."""
    request = MomentRequest(patches=patches)
    for sample in range(values.shape[0]):
        rows = _Rows(request, values[sample : sample + 1])
        yield rows.take(np.arange(rows_of(request, values[sample : sample + 1])))


class _Rows:
    """Gives chosen rows of a tensor as float64 [groups, rows, columns], without making them all."""

    def __init__(self, request: MomentRequest, values: np.ndarray) -> None:
        self._patches = request.patches
        if request.patches is None:
            moved = np.moveaxis(values, request.axis, -1)
            self.groups, self.columns = 1, moved.shape[-1]
            self._values = moved.reshape(-1, self.columns)
            return
        patches = request.patches
        channels = values.shape[1] // patches.groups
        self.groups = patches.groups
        self.columns = channels * int(np.prod(patches.kernel, dtype=np.int64))
        rank = len(patches.kernel)
        pads = patches.pads or (0,) * 2 * rank
        border = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
        self._values = np.pad(values, border) if any(pads) else values
        self._strides = patches.strides or (1,) * rank
        self._dilations = patches.dilations or (1,) * rank
        self._out = _output_dims(patches, values.shape[2:])

    def take(self, rows: np.ndarray) -> np.ndarray:
        if self._patches is None:
            taken = self._values[rows].astype(np.float64)
            return np.asarray(taken[None])
        kernel = self._patches.kernel
        sample, *position = np.unravel_index(rows, (self._values.shape[0], *self._out))
        index: list[np.ndarray] = []
        for axis, place in enumerate(position):
            starts = place * self._strides[axis]
            offsets = np.arange(kernel[axis]) * self._dilations[axis]
            shape = [1] * (2 + len(kernel))
            shape[0], shape[2 + axis] = len(rows), kernel[axis]
            index.append((starts[:, None] + offsets[None, :]).reshape(shape))
        channels = np.arange(self._values.shape[1]).reshape(1, -1, *[1] * len(kernel))
        samples = sample.reshape(-1, 1, *[1] * len(kernel))
        taken = self._values[(samples, channels, *index)].astype(np.float64)
        grouped = taken.reshape(len(rows), self.groups, self.columns)
        return np.ascontiguousarray(grouped.transpose(1, 0, 2))


def _output_dims(patches: Patches, spatial: tuple[int, ...]) -> tuple[int, ...]:
    rank = len(patches.kernel)
    pads = patches.pads or (0,) * 2 * rank
    strides = patches.strides or (1,) * rank
    dilations = patches.dilations or (1,) * rank
    return tuple(
        max(
            0,
            (spatial[i] + pads[i] + pads[rank + i] - dilations[i] * (patches.kernel[i] - 1) - 1)
            // strides[i]
            + 1,
        )
        for i in range(rank)
    )
