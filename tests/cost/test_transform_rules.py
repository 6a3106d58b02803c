"""Resampling, transforms, scatters and trees: rules against loops that do them and count."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.cost.counted import Counted, accumulate, choose, cos
from tests.cost.one_node import Case, check

random = np.random.default_rng(3)


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def weighted(values: Sequence[Any], weights: Sequence[Any]) -> Any:
    """Products and their sum."""
    result = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        result = result + value * weight
    return result


def interpolated(image: Any, taps: Sequence[Sequence[tuple[int, Any]]]) -> Any:
    """Along the first axis, between values that are interpolated along the others."""
    if not taps:
        return image
    between = [interpolated(image[place], taps[1:]) for place, _ in taps[0]]
    return weighted(between, [weight for _, weight in taps[0]])


def linear_taps(before: int, after: int, *, widen: bool = False) -> list[list[tuple[int, float]]]:
    """For each place after, the places before and their weights (half-pixel centres)."""
    found = []
    stretch = max(1.0, before / after) if widen else 1.0
    for place in range(after):
        centre = (place + 0.5) * before / after - 0.5
        first = math.floor(centre - stretch) + 1
        reach = range(first, first + math.ceil(2 * stretch))
        raw = [max(0.0, 1 - abs(tap - centre) / stretch) for tap in reach]
        weights = [w / sum(raw) for w in raw]
        clipped = [min(max(tap, 0), before - 1) for tap in reach]
        found.append(list(zip(clipped, weights, strict=True)))
    return found


def cubic_taps(before: int, after: int) -> list[list[tuple[int, float]]]:
    """The same with Keys' kernel, a = -0.75."""
    found = []
    for place in range(after):
        centre = (place + 0.5) * before / after - 0.5
        first = math.floor(centre) - 1
        taps = []
        for tap in range(first, first + 4):
            d = abs(tap - centre)
            near = (1.25 * d - 2.25) * d * d + 1
            far = ((-0.75 * d + 3.75) * d - 6) * d + 3
            taps.append((min(max(tap, 0), before - 1), near if d <= 1 else far))
        found.append(taps)
    return found


def resized(x: Any, *axes: list[list[tuple[int, float]]]) -> Any:
    """Resampled along the last axes, each with its taps."""
    outer = x.shape[: x.ndim - len(axes)]
    result = np.empty((*outer, *(len(axis) for axis in axes)), object)
    for index in np.ndindex(result.shape):
        taps = [axis[place] for axis, place in zip(axes, index[len(outer) :], strict=True)]
        result[index] = interpolated(x[index[: len(outer)]], taps)
    return result


def grid_sampled(x: Any, grid: Any) -> Any:
    """Bilinear, zeros outside, corners not aligned."""
    result = np.empty((*x.shape[:2], *grid.shape[1:3]), object)
    for n, h, w in np.ndindex(result.shape[0], *result.shape[2:]):
        taps = []
        for axis, size in ((1, x.shape[2]), (0, x.shape[3])):
            pixel = ((grid[n, h, w, axis] + 1) * size - 1) / 2
            low = math.floor(pixel)
            fraction = pixel - low
            rest = 1 - fraction
            taps.append([(low.value, rest), (low.value + 1, fraction)])
        for c in range(x.shape[1]):
            result[n, c, h, w] = interpolated(_Zeros(x[n, c]), taps)
    return result


class _Zeros:
    """An array that is zero outside."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __getitem__(self, place: int) -> Any:
        if self._array is None or not 0 <= place < len(self._array):
            return Counted(0.0) if self._array is None or self._array.ndim == 1 else _Zeros(None)
        item = self._array[place]
        return _Zeros(item) if isinstance(item, np.ndarray) else item


def affine_grid(theta: Any, _: Any) -> Any:
    result = np.empty((2, 3, 4, 2), object)
    for n, h, w, axis in np.ndindex(result.shape):
        place = [(2 * w + 1) / 4 - 1, (2 * h + 1) / 3 - 1, 1]
        value = Counted(0.0)
        for entry, coordinate in zip(theta[n, axis], place, strict=True):
            value = accumulate(value, entry, coordinate)
        result[n, h, w, axis] = value
    return result


def fourier(x: Any, *, inverse: bool = False) -> Any:
    """Along axis 1 of (N, n, 1 or 2), by the definition."""
    n = x.shape[1]
    result = np.empty((x.shape[0], n, 2), object)
    for batch, k in np.ndindex(x.shape[0], n):
        real, imaginary = Counted(0.0), Counted(0.0)
        for j in range(n):
            angle = 2 * math.pi * j * k / n * (1 if inverse else -1)
            real = accumulate(real, x[batch, j, 0], math.cos(angle))
            imaginary = accumulate(imaginary, x[batch, j, 0], math.sin(angle))
            if x.shape[2] == 2:
                real = accumulate(real, x[batch, j, 1], -math.sin(angle))
                imaginary = accumulate(imaginary, x[batch, j, 1], math.cos(angle))
        result[batch, k] = [real / n, imaginary / n] if inverse else [real, imaginary]
    return result


def short_time_fourier(x: Any, _: Any, window: Any) -> Any:
    frames = []
    for start in range(0, 9, 4):
        frame = [v * w for v, w in zip(x[0, start : start + 8, 0], window, strict=True)]
        frames.append(fourier(np.array(frame, object).reshape(1, 8, 1))[0, :5])
    return np.array(frames, object)[None]


def hann_window(size: Any) -> Any:
    step = 2 * math.pi / size
    return np.array([0.5 - 0.5 * cos(Counted(i) * step) for i in range(int(size))], object)


def scattered(x: Any, indices: Any, updates: Any) -> Any:
    result = x.copy()
    for (place,), update in zip(indices, updates, strict=True):
        result[place] = [a + b for a, b in zip(result[place], update, strict=True)]
    return result


def folded(columns: Any) -> Any:
    """2 x 2 blocks of one channel, side by side with stride 1, added into a 3 x 3 image."""
    image = np.array([[None] * 3] * 3, object)
    image[:] = Counted(0.0)
    for (row, column), block in itertools.product(np.ndindex(2, 2), range(4)):
        place = (row + block // 2, column + block % 2)
        image[place] = image[place] + columns[0, block, 2 * row + column]
    return image[None, None]


def forest(x: Any) -> Any:
    """Two trees of depth 2: x0 <= 0 then x1 <= 0, and x2 <= 0 then x0 <= 1."""
    result = np.empty((len(x), 1), object)
    for index, row in enumerate(x):
        score = Counted(0.0)
        for (top, below, limit), leaves in TREES:
            first = row[top] <= 0
            second = row[below] <= limit
            leaf = choose(first, choose(second, *leaves[:2]), choose(second, *leaves[2:]))
            score = score + leaf
        result[index, 0] = score
    return result


TREES = [((0, 1, 0.0), (1.0, 2.0, 3.0, 4.0)), ((2, 0, 1.0), (10.0, 20.0, 30.0, 40.0))]


def forest_attributes() -> dict[str, Any]:
    """Nodes 0 to 6 of each tree: the root, two branches, four leaves."""
    found: dict[str, list[Any]] = defaultdict(list)
    for tree, ((top, below, limit), leaves) in enumerate(TREES):
        for place in range(7):
            branch = place < 3
            found["nodes_treeids"].append(tree)
            found["nodes_nodeids"].append(place)
            found["nodes_featureids"].append((top if place == 0 else below) if branch else 0)
            found["nodes_values"].append(limit if place in (1, 2) else 0.0)
            found["nodes_modes"].append("BRANCH_LEQ" if branch else "LEAF")
            found["nodes_truenodeids"].append(2 * place + 1 if branch else 0)
            found["nodes_falsenodeids"].append(2 * place + 2 if branch else 0)
        for leaf, weight in enumerate(leaves):
            found["target_treeids"].append(tree)
            found["target_nodeids"].append(3 + leaf)
            found["target_ids"].append(0)
            found["target_weights"].append(weight)
    return {**found, "n_targets": 1}


def non_zeros(x: Any) -> Any:
    return np.array([index for index in np.ndindex(x.shape) if (x[index] != 0).value]).T


PIXELS = random.normal(size=(1, 2, 4, 6)).astype(np.float32)
SIGNAL = random.normal(size=(2, 6, 2)).astype(np.float32)
ARITHMETIC = [
    Case(
        "Resize",
        lambda x, *_: resized(x, linear_taps(4, 8), linear_taps(6, 9)),
        [PIXELS, None, None, ints(1, 2, 8, 9)],
        {"mode": "linear"},
        constants=(3,),
        label="linear",
    ),
    Case(
        "Resize",
        lambda x, *_: resized(x, linear_taps(4, 2, widen=True), linear_taps(6, 3, widen=True)),
        [PIXELS, None, None, ints(1, 2, 2, 3)],
        {"mode": "linear", "antialias": 1},
        constants=(3,),
        label="antialias",
    ),
    Case(
        "Resize",
        lambda x, *_: resized(x, cubic_taps(4, 7), cubic_taps(6, 9)),
        [PIXELS, None, None, ints(1, 2, 7, 9)],
        {"mode": "cubic"},
        constants=(3,),
        label="cubic",
    ),
    Case(
        "GridSample",
        grid_sampled,
        [PIXELS, random.uniform(-1.2, 1.2, (1, 3, 5, 2)).astype(np.float32)],
        {"mode": "bilinear"},
        opset=16,
    ),
    Case(
        "AffineGrid",
        affine_grid,
        [random.normal(size=(2, 2, 3)).astype(np.float32), ints(2, 1, 3, 4)],
        constants=(1,),
    ),
    Case("DFT", fourier, [SIGNAL[..., :1]], {"axis": 1}, opset=17, label="real"),
    Case("DFT", fourier, [SIGNAL], {"axis": 1}, opset=17, label="complex"),
    Case(
        "DFT",
        lambda x: fourier(x, inverse=True),
        [SIGNAL],
        {"axis": 1, "inverse": 1},
        opset=17,
        label="inverse",
    ),
    Case(
        "STFT",
        short_time_fourier,
        [
            random.normal(size=(1, 16, 1)).astype(np.float32),
            np.array(4),
            np.hanning(8).astype(np.float32),
        ],
        constants=(1,),
    ),
    Case("HannWindow", hann_window, [np.array(9)], constants=(0,)),
    Case(
        "ScatterND",
        scattered,
        [PIXELS[0, 0], ints([2], [0]), PIXELS[0, 1, :2]],
        {"reduction": "add"},
        opset=18,
        constants=(1,),
    ),
    Case(
        "Col2Im",
        lambda x, *_: folded(x),
        [random.normal(size=(1, 4, 4)).astype(np.float32), ints(3, 3), ints(2, 2)],
        constants=(1, 2),
    ),
    Case(
        "TreeEnsembleRegressor",
        forest,
        [random.normal(size=(5, 3)).astype(np.float32)],
        forest_attributes(),
        opset=1,
        domain="ai.onnx.ml",
    ),
    Case(
        "Scaler",
        lambda x: np.array([[(v - 0.5) * 2 for v in row] for row in x], object),
        [PIXELS[0, 0]],
        {"offset": [0.5], "scale": [2.0]},
        opset=1,
        domain="ai.onnx.ml",
    ),
    Case("NonZero", non_zeros, [np.array([[0, 1.5], [2, 0]], np.float32)]),
    Case(
        "Range",
        lambda *_: np.array([Counted(2.0) + Counted(i) * 3.0 for i in range(4)], object),
        [np.array(v, np.float32) for v in (2, 14, 3)],
        constants=(0, 1, 2),
    ),
]


@pytest.mark.parametrize("case", ARITHMETIC, ids=str)
def test_the_rule_counts_what_a_loop_does(case: Case) -> None:
    check(case)
