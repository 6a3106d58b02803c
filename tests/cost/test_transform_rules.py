"""Resampling, transforms, scatters and text: rules against loops that do them and count."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.cost.counted import Counted, accumulate, cos, larger
from tests.cost.one_node import MICROSOFT, Case, check

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


def grid_sampled_nearest(x: Any, grid: Any) -> Any:
    """Corners aligned."""
    result = np.empty((*x.shape[:2], *grid.shape[1:3]), object)
    for n, h, w in np.ndindex(result.shape[0], *result.shape[2:]):
        places = [
            round((grid[n, h, w, axis] + 1) * (size - 1) / 2).value
            for axis, size in ((1, x.shape[2]), (0, x.shape[3]))
        ]
        result[n, :, h, w] = x[n, :, places[0], places[1]]
    return result


def keys_weights(fraction: Any) -> list[Any]:
    """Of the four places around, a = -0.75: distances, two inner and two outer polynomials."""
    distances = [fraction + 1, fraction, 1 - fraction, 2 - fraction]

    def outer(d: Any) -> Any:
        return ((-0.75 * d + 3.75) * d - 6) * d + 3

    def inner(d: Any) -> Any:
        return (1.25 * d - 2.25) * d * d + 1

    return [f(d) for f, d in zip((outer, inner, inner, outer), distances, strict=True)]


def grid_sampled_cubic(x: Any, grid: Any) -> Any:
    """Corners not aligned; the grid keeps away from the edges."""
    result = np.empty((*x.shape[:2], *grid.shape[1:3]), object)
    for n, h, w in np.ndindex(result.shape[0], *result.shape[2:]):
        taps = []
        for axis, size in ((1, x.shape[2]), (0, x.shape[3])):
            pixel = ((grid[n, h, w, axis] + 1) * size - 1) / 2
            low = math.floor(pixel)
            weights = keys_weights(pixel - low)
            taps.append([(low.value - 1 + i, weight) for i, weight in enumerate(weights)])
        for c in range(x.shape[1]):
            result[n, c, h, w] = interpolated(x[n, c], taps)
    return result


def asymmetric_taps(before: int) -> list[list[tuple[int, float]]]:
    """Twice as many places after, the first of each two on a place before."""
    after = [(place // 2, place % 2 / 2) for place in range(2 * before)]
    return [[(low, 1 - fraction), (min(low + 1, before - 1), fraction)] for low, fraction in after]


def affine_grid(theta: Any, _: Any) -> Any:
    result = np.empty((2, 3, 4, 2), object)
    for n, h, w, axis in np.ndindex(result.shape):
        place = [(2 * w + 1) / 4 - 1, (2 * h + 1) / 3 - 1, 1]
        value = Counted(0.0)
        for entry, coordinate in zip(theta[n, axis], place, strict=True):
            value = accumulate(value, entry, coordinate)
        result[n, h, w, axis] = value
    return result


def fourier(x: Any, *, inverse: bool = False, outputs: int | None = None) -> Any:
    """Along axis 1 of (N, n, 1 or 2), by the definition; all n outputs, or the first few."""
    n = x.shape[1]
    result = np.empty((x.shape[0], outputs or n, 2), object)
    for batch, k in np.ndindex(result.shape[:2]):
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
        frames.append(fourier(np.array(frame, object).reshape(1, 8, 1), outputs=5)[0])
    return np.array(frames, object)[None]


def window(constant: float, factor: float) -> Any:
    def loop(size: Any) -> Any:
        step = 2 * math.pi / size
        found = [constant - factor * cos(Counted(i) * step) for i in range(int(size))]
        return np.array(found, object)

    return loop


def blackman_window(size: Any) -> Any:
    one, two = 2 * math.pi / size, 4 * math.pi / size
    found = [
        0.42 - 0.5 * cos(Counted(i) * one) + 0.08 * cos(Counted(i) * two) for i in range(int(size))
    ]
    return np.array(found, object)


def elements_scattered(combine: Any) -> Any:
    """Along axis 1."""

    def loop(x: Any, indices: Any, updates: Any) -> Any:
        result = x.copy()
        for row, column in np.ndindex(indices.shape):
            place = (row, int(indices[row, column]))
            result[place] = combine(result[place], updates[row, column])
        return result

    return loop


def murmured(x: Any) -> Any:
    """MurmurHash3_x86_32 of one word with seed 0; a rotation is two shifts and an or."""
    mask = 2**32 - 1

    def times(a: Any, b: int) -> Any:
        return Counted((a * b).value & mask)

    def rotated(a: Any, bits: int) -> Any:
        high, low = a << bits, a >> (32 - bits)
        return Counted((high | low).value & mask)

    result = []
    for word in x:
        k = times(rotated(times(word, 0xCC9E2D51), 15), 0x1B873593)
        h = rotated(k ^ 0, 13)
        h = Counted((h * 5 + 0xE6546B64).value & mask)
        h = h ^ 4
        h = times(h ^ (h >> 16), 0x85EBCA6B)
        h = times(h ^ (h >> 13), 0xC2B2AE35)
        result.append(h ^ (h >> 16))
    return np.array(result, object)


def blocked(ids: Any, scores: Any) -> Any:
    """Scores of tokens that would repeat a pair; the last token is held against each other."""
    result = scores.copy()
    for sample in range(len(ids)):
        last = ids[sample, -1]
        for place in range(ids.shape[1] - 1):
            if (ids[sample, place] == last).value:
                result[sample, int(ids[sample, place + 1].value)] = Counted(-math.inf)
    return result


def weighted_counts(x: Any) -> Any:
    """How often each of 4, 2 and 7 occurs, weighted; counting is looking up."""
    counts = [sum(int(v.value) == word for v in x) for word in (4, 2, 7)]
    return np.array(
        [Counted(n) * weight for n, weight in zip(counts, (0.5, 2.0, 3.0), strict=True)], object
    )


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
        "GridSample",
        grid_sampled,
        [PIXELS, random.uniform(-1.2, 1.2, (1, 3, 5, 2)).astype(np.float32)],
        {"mode": "bilinear"},
        domain=MICROSOFT,
        label="of the runtime",
    ),
    Case(
        "GridSample",
        grid_sampled_nearest,
        [PIXELS, random.uniform(-1, 1, (1, 3, 5, 2)).astype(np.float32)],
        {"mode": "nearest", "align_corners": 1},
        opset=20,
        label="nearest",
    ),
    Case(
        "GridSample",
        grid_sampled_cubic,
        [PIXELS, random.uniform(-0.2, 0.2, (1, 3, 5, 2)).astype(np.float32)],
        {"mode": "cubic"},
        opset=20,
        label="cubic",
    ),
    Case(
        "Upsample",
        lambda x, *_: resized(x, asymmetric_taps(4), asymmetric_taps(6)),
        [PIXELS, np.array([1, 1, 2, 2], np.float32)],
        {"mode": "linear"},
        opset=9,
        constants=(1,),
        label="linear",
    ),
    Case(
        "Resize",
        lambda x, *_: resized(x, linear_taps(4, 7), linear_taps(6, 9), linear_taps(3, 5)),
        [random.normal(size=(1, 1, 4, 6, 3)).astype(np.float32), None, None, ints(1, 1, 7, 9, 5)],
        {"mode": "linear"},
        constants=(3,),
        label="trilinear",
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
        {"onesided": 1},
        constants=(1,),
    ),
    Case("HannWindow", window(0.5, 0.5), [np.array(9)], constants=(0,)),
    Case("HammingWindow", window(25 / 46, 21 / 46), [np.array(9)], constants=(0,)),
    Case("BlackmanWindow", blackman_window, [np.array(9)], constants=(0,)),
    Case(
        "ScatterElements",
        elements_scattered(lambda a, b: a + b),
        [PIXELS[0, 0], ints([2, 0], [1, 1]), PIXELS[0, 1, :2, :2]],
        {"axis": 1, "reduction": "add"},
        opset=18,
        constants=(1,),
        label="add",
    ),
    Case(
        "ScatterElements",
        elements_scattered(larger),
        [PIXELS[0, 0], ints([2, 0], [1, 1]), PIXELS[0, 1, :2, :2]],
        {"axis": 1, "reduction": "max"},
        opset=18,
        constants=(1,),
        label="max",
    ),
    Case(
        "ScatterElements",
        elements_scattered(lambda _, b: b),
        [PIXELS[0, 0], ints([2, 0], [1, 3]), PIXELS[0, 1, :2, :2]],
        {"axis": 1},
        opset=18,
        constants=(1,),
        label="put",
    ),
    Case(
        "Scatter",
        elements_scattered(lambda _, b: b),
        [PIXELS[0, 0], ints([2, 0], [1, 3]), PIXELS[0, 1, :2, :2]],
        {"axis": 1},
        opset=10,
        constants=(1,),
    ),
    Case(
        "MurmurHash3",
        murmured,
        [random.integers(0, 2**31, 5).astype(np.uint32)],
        domain=MICROSOFT,
    ),
    Case(
        "NGramRepeatBlock",
        blocked,
        [ints([3, 1, 2, 3, 4, 3], [0, 1, 0, 1, 2, 1]), PIXELS[0, :, 0]],
        {"ngram_size": 2},
        domain=MICROSOFT,
    ),
    Case(
        "TfIdfVectorizer",
        weighted_counts,
        [np.array([4, 2, 4, 9, 4], np.int32)],
        {
            "mode": "TFIDF",
            "min_gram_length": 1,
            "max_gram_length": 1,
            "max_skip_count": 0,
            "ngram_counts": [0],
            "ngram_indexes": [0, 1, 2],
            "pool_int64s": [4, 2, 7],
            "weights": [0.5, 2.0, 3.0],
        },
    ),
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
    Case("NonZero", non_zeros, [np.array([[0, 1.5], [2, 0]], np.float32)]),
    Case(
        "Range",
        lambda *_: np.array([Counted(2.0) + Counted(i) * 3.0 for i in range(4)], object),
        [np.array(v, np.float32) for v in (2, 14, 3)],
        constants=(0, 1, 2),
    ),
    Case(
        "Range",
        lambda *_: np.array([Counted(2.0) + Counted(i) * 3.0 for i in range(4)], object),
        [np.array(v, np.float32) for v in (2, 14, 3)],
        domain=MICROSOFT,
        constants=(0, 1, 2),
        label="of the runtime",
    ),
]


@pytest.mark.parametrize("case", ARITHMETIC, ids=str)
def test_the_rule_counts_what_a_loop_does(case: Case) -> None:
    check(case)
