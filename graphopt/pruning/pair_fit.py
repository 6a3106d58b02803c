"""Two convolutions with an activation between them, fitted together to what the second gave.

    minimize over both  sum (y - aim)^2        y = a(x W1 + b1) W2 + b2 + s

One after the other, the first is held to the channels that the original had, of which some are
gone: together they may make other ones. Each round linearizes y where it is (Gauss-Newton) and goes
as far as a few conjugate gradients lead, damped as Levenberg and Marquardt do. Where samples that
are not fitted to are no better off, the round is forgotten, and the next one is damped more. `aim`
is the target, or where an activation cuts off both what is there already.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.pruning.linear_layers import Layer
from graphopt.pruning.repair_targets import Aim
from graphopt.runtime import Patches

_ROUNDS = 3
_CONJUGATE_STEPS = 10
_DAMPING = 1e-3
_HARDER = 10.0
_HELD = 4
"""One of so many samples is not fitted to."""
_ROWS_PER_COLUMN = 40
_MANY_SAMPLES = 96
FEWEST_SAMPLES = 2 * _HELD
"""With fewer than so many, or memory for fewer, nothing is fitted."""
_BYTES = 256 << 20
"""What the columns of either layer may take."""
_PRODUCTS = 5e9
"""Multiplications of columns and weight of either layer: a fit does it some two hundred times."""
_FEWEST_ROWS = 10
"""Where memory and multiplications allow fewer rows for each column, nothing is fitted."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A layer and the one before it.

    Attributes:
        first: a convolution.
        second: the convolution that alone reads what the activation behind `first` gives.
        low: what that activation raises its input to.
        high: what it cuts it off at.
    """

    first: Layer
    second: Layer
    low: float
    high: float

    @property
    def columns(self) -> int:
        """The columns of the layer that has more."""
        return max(self.first.columns, self.second.columns)


def pairs_of(layers: dict[str, Layer], aims: dict[str, Aim]) -> dict[str, Pair]:
    """By the name of the second layer the pairs of a graph."""
    by_output = {layer.output: name for name, layer in layers.items()}
    found = {}
    for name, layer in layers.items():
        activation = layer.data.producer()
        if activation is None or len(layer.data.uses()) != 1 or layer.data.is_graph_output():
            continue
        source = activation.inputs[0] if activation.inputs else None
        before = by_output.get(source) if source is not None else None
        if before is None or aims[before].branch is not None or not _bounded(aims[before]):
            continue
        first = layers[before]
        if _is_plain(first) and _is_plain(layer):
            found[name] = Pair(first, layer, aims[before].low, aims[before].high)
    return found


def samples_for(pair: Pair, between: int, behind: int) -> int:
    """How many samples to fit to, as memory and time allow; 0 where that is too few.

    Args:
        pair: the layers.
        between: positions of what the first gives, for one sample.
        behind: positions of what the second gives.
    """
    wanted = max(-(-_ROWS_PER_COLUMN * pair.columns // behind), _MANY_SAMPLES)
    for layer, positions in ((pair.first, between), (pair.second, behind)):
        entries = layer.columns * positions
        allowed = min(_BYTES // (4 * entries), int(_PRODUCTS // (entries * layer.outputs)))
        if allowed * positions < _FEWEST_ROWS * layer.columns:
            return 0
        wanted = min(wanted, allowed)
    return wanted


def fit_pair(
    pair: Pair,
    x: np.ndarray,
    target: np.ndarray,
    branch: np.ndarray | None,
    *,
    low: float = -math.inf,
    high: float = math.inf,
) -> tuple[float, float]:
    """Give both layers better numbers, where there are some.

    Args:
        pair: the layers; their weights and biases are changed in place.
        x: [samples, channels, height, width], what the first reads.
        target: [samples, outputs, height', width'] of the sum of the second layer and `branch`.
        branch: what is added to the second; None for nothing.
        low: what the activation behind that sum raises it to.
        high: what it cuts it off at.

    Returns:
        The mean squared error on samples that were not fitted to, relative to the variance of the
        target, before and after.
    """
    held = np.arange(len(x)) % _HELD == _HELD - 1
    parts = [
        _Problem(pair, x[some], target[some], None if branch is None else branch[some], low, high)
        for some in (~held, held)
    ]
    fitted, judged = parts
    numbers = fitted.start()
    before = best = judged.error(numbers)
    changed, damping = False, _DAMPING
    for _ in range(_ROUNDS):
        trial = numbers + fitted.step(numbers, damping)
        figure = judged.error(trial)
        if figure < best:
            numbers, best, changed = trial, figure, True
        else:
            damping *= _HARDER
    if changed:
        fitted.write(numbers)
    wanted = np.clip(target, low, high)
    scale = max(float(wanted.var(axis=(0, 2, 3), dtype=np.float64).mean()), 1e-30)
    return before / scale, best / scale


def _bounded(aim: Aim) -> bool:
    return aim.low > -math.inf or aim.high < math.inf


def _is_plain(layer: Layer) -> bool:
    """A convolution of images in one group, that says its pads."""
    automatic = layer.node.attributes.get_string("auto_pad", "NOTSET")
    return (
        layer.patches is not None
        and layer.groups == 1
        and len(layer.patches.kernel) == 2
        and layer.bias is not None
        and automatic in ("NOTSET", "VALID")
    )


class _Columns:
    """The columns of a convolution: offset-major, [positions, kernel * channels]."""

    def __init__(self, patches: Patches, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self._patches = patches
        self._strides = patches.strides or (1, 1)
        self._dilations = patches.dilations or (1, 1)
        pads = patches.pads or (0, 0, 0, 0)
        self._pads = ((0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0))
        self.out = [
            (shape[1 + axis] + pads[axis] + pads[axis + 2] - 1 - self._dilations[axis] * (k - 1))
            // self._strides[axis]
            + 1
            for axis, k in enumerate(patches.kernel)
        ]

    def of(self, x: np.ndarray) -> np.ndarray:
        """The columns of [samples, height, width, channels]."""
        padded = np.pad(x, self._pads)
        rows = np.empty((len(x), *self.out, self._kernel, x.shape[-1]), np.float32)
        for number, window in enumerate(self._windows()):
            rows[:, :, :, number] = padded[window]
        return rows.reshape(-1, self._kernel * x.shape[-1])

    def back(self, columns: np.ndarray) -> np.ndarray:
        """The adjoint of `of`: each entry added where it came from."""
        samples, height, width, channels = self.shape
        (top, bottom), (left, right) = self._pads[1:3]
        padded = np.zeros(
            (samples, height + top + bottom, width + left + right, channels), np.float32
        )
        parts = columns.reshape(samples, *self.out, self._kernel, channels)
        for number, window in enumerate(self._windows()):
            padded[window] += parts[:, :, :, number]
        return padded[:, top : top + height, left : left + width]

    @property
    def _kernel(self) -> int:
        return int(math.prod(self._patches.kernel))

    def _windows(self) -> Iterator[tuple[slice, ...]]:
        for offset in np.ndindex(*self._patches.kernel):
            yield (
                slice(None),
                *(
                    slice(
                        offset[axis] * self._dilations[axis],
                        offset[axis] * self._dilations[axis]
                        + self._strides[axis] * (self.out[axis] - 1)
                        + 1,
                        self._strides[axis],
                    )
                    for axis in range(2)
                ),
            )


class _Problem:
    """The two layers over some samples; numbers are one vector: W1, b1, W2, b2."""

    def __init__(
        self,
        pair: Pair,
        x: np.ndarray,
        target: np.ndarray,
        branch: np.ndarray | None,
        low: float,
        high: float,
    ) -> None:
        self._pair, self._low, self._high = pair, low, high
        first, second = pair.first.patches, pair.second.patches
        if first is None or second is None:
            raise AssertionError("pairs are of convolutions")
        images = np.ascontiguousarray(x.transpose(0, 2, 3, 1), np.float32)
        outer = _Columns(first, images.shape)
        self._inner = _Columns(second, (len(x), *outer.out, pair.first.outputs))
        self._x = outer.of(images)
        self._target = _rows(target)
        self._branch = None if branch is None else _rows(branch)
        self._shapes = [
            (self._x.shape[1], pair.first.outputs),
            (pair.first.outputs,),
            (pair.second.columns, pair.second.outputs),
            (pair.second.outputs,),
        ]
        self._ends = np.cumsum([math.prod(shape) for shape in self._shapes])[:-1]

    def start(self) -> np.ndarray:
        """The numbers that the layers have."""
        parts: list[np.ndarray] = []
        for layer in (self._pair.first, self._pair.second):
            parts += [_offset_major(layer, layer.matrix()[0]), layer.bias_vector()]
        return np.concatenate([part.reshape(-1) for part in parts])

    def write(self, numbers: np.ndarray) -> None:
        """Give the layers these numbers."""
        parts = self._parts(numbers)
        for layer, matrix, bias in zip(
            (self._pair.first, self._pair.second), parts[::2], parts[1::2], strict=True
        ):
            layer.write(_channel_major(layer, matrix)[None], bias)

    def error(self, numbers: np.ndarray) -> float:
        """The mean squared error behind the activation."""
        *_, y = self._forward(numbers)
        difference = np.clip(y, self._low, self._high)
        difference -= np.clip(self._target, self._low, self._high)
        return float(np.square(difference, dtype=np.float64).mean())

    def step(self, numbers: np.ndarray, damping: float) -> np.ndarray:
        """Where a few conjugate gradients lead, from these numbers."""
        _, _, second, _ = self._parts(numbers)
        gate, columns, y = self._forward(numbers)
        missing = self._target - y
        # What both leave beyond a bound is right.
        right = (self._target <= self._low) & (y <= self._low)
        right |= (self._target >= self._high) & (y >= self._high)
        missing[right] = 0.0
        counts = (~right).astype(np.float32)

        def forward(direction: np.ndarray) -> np.ndarray:
            w1, b1, w2, b2 = self._parts(direction.astype(np.float32))
            hidden = (self._x @ w1 + b1) * gate
            rows = self._inner.of(hidden.reshape(self._inner.shape))
            return np.asarray((rows @ second32 + columns @ w2 + b2) * counts)

        def backward(rows: np.ndarray) -> np.ndarray:
            rows = rows * counts
            hidden = self._inner.back(rows @ second32.T).reshape(gate.shape) * gate
            parts = (self._x.T @ hidden, hidden.sum(0), columns.T @ rows, rows.sum(0))
            return np.concatenate([part.reshape(-1).astype(np.float64) for part in parts])

        second32 = second.astype(np.float32)
        scale = self._scale(gate, columns, second)
        hold = damping * scale
        residual = backward(missing)
        found = np.zeros_like(numbers)
        eased = residual / (scale + hold)
        direction, size = eased, float(residual @ eased)
        for _ in range(_CONJUGATE_STEPS):
            if not size > 0:
                break
            through = forward(direction)
            bent = backward(through) + hold * direction
            length = size / max(float(direction @ bent), 1e-300)
            found = found + length * direction
            residual = residual - length * bent
            eased = residual / (scale + hold)
            last, size = size, float(residual @ eased)
            direction = eased + size / last * direction
        return found

    def _forward(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the activation lets through, the second layer's columns, and the sum."""
        w1, b1, w2, b2 = self._parts(numbers.astype(np.float32))
        before = self._x @ w1 + b1
        hidden = np.clip(before, self._pair.low, self._pair.high)
        columns = self._inner.of(hidden.reshape(self._inner.shape))
        y = columns @ w2 + b2
        if self._branch is not None:
            y += self._branch
        return (hidden == before).astype(np.float32), columns, y

    def _scale(self, gate: np.ndarray, columns: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The diagonal of the squared Jacobian, roughly: as if factors were independent."""
        rows = len(self._target)
        through = np.square(second).reshape(-1, self._pair.first.outputs, second.shape[1])
        reach = through.sum((0, 2)) * gate.mean(0, dtype=np.float64) * rows
        inputs = np.square(self._x).mean(0, dtype=np.float64)
        hidden = np.square(columns).mean(0, dtype=np.float64) * rows
        parts = (
            inputs[:, None] * reach,
            reach,
            np.repeat(hidden[:, None], second.shape[1], 1),
            np.full(second.shape[1], float(rows)),
        )
        scale = np.concatenate([part.reshape(-1) for part in parts])
        return np.asarray(np.maximum(scale, 1e-6 * scale.mean()))

    def _parts(self, numbers: np.ndarray) -> list[np.ndarray]:
        split = np.split(numbers, self._ends)
        return [part.reshape(shape) for part, shape in zip(split, self._shapes, strict=True)]


def _rows(images: np.ndarray) -> np.ndarray:
    moved = images.transpose(0, 2, 3, 1)
    return np.asarray(moved.reshape(-1, moved.shape[-1]), np.float32, order="C")


def _offset_major(layer: Layer, matrix: np.ndarray) -> np.ndarray:
    kernel = _kernel(layer)
    moved = matrix.reshape(-1, kernel, matrix.shape[1]).transpose(1, 0, 2)
    return np.asarray(moved.reshape(matrix.shape))


def _channel_major(layer: Layer, matrix: np.ndarray) -> np.ndarray:
    kernel = _kernel(layer)
    moved = matrix.reshape(kernel, -1, matrix.shape[1]).transpose(1, 0, 2)
    return np.asarray(moved.reshape(matrix.shape))


def _kernel(layer: Layer) -> int:
    return 1 if layer.patches is None else int(math.prod(layer.patches.kernel))
