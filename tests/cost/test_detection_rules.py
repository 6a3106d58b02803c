"""Regions, selection and search: rules against loops that do the operator and count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.cost.counted import Counted, Row, choose, largest, summed
from tests.cost.one_node import MICROSOFT, Case, check, run, work_of

random = np.random.default_rng(5)
IMAGE = random.normal(size=(2, 3, 6, 7)).astype(np.float32)
BOXES = np.array([[0.5, 0.7, 4.2, 4.6], [1.1, 0.2, 5.3, 3.9]], np.float32)
SCORES = random.uniform(0, 1, (1, 2, 6)).astype(np.float32)
DISTINCT = random.permutation(24).reshape(2, 3, 4).astype(np.float32)


def neighbours(y: float, x: float, height: int, width: int) -> list[tuple[int, int, float]]:
    """The four places around (y, x), and their weights in a bilinear interpolation."""
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    down, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, u = (y - top if down > top else 0.0), (x - left if right > left else 0.0)
    return [
        (top, left, (1 - v) * (1 - u)),
        (top, right, (1 - v) * u),
        (down, left, v * (1 - u)),
        (down, right, v * u),
    ]


def interpolated(image: Any, taps: list[tuple[int, int, float]]) -> Any:
    """Three times a * u + b * v; the weights along one axis are the sums of two products."""
    (a, b, c, d), weights = [image[y, x] for y, x, _ in taps], [weight for _, _, weight in taps]
    v = weights[2] + weights[3]
    u = weights[1] + weights[3]
    upper, lower = a * (1 - u) + b * u, c * (1 - u) + d * u
    return upper * (1 - v) + lower * v


def region_aligned(ratio: int, take: Any) -> Any:
    """Cells of 2 x 2, each of ratio x ratio samples; `take` gets the map and the samples' taps."""

    def loop(x: Any, rois: Any, batch: Any) -> Any:
        result = np.empty((len(rois), x.shape[1], 2, 2), object)
        for region, channel, row, column in np.ndindex(result.shape):
            left, top, right, bottom = (float(v) - 0.5 for v in rois[region])
            high, wide = (bottom - top) / 2, (right - left) / 2
            taps = [
                neighbours(
                    top + (row + (i + 0.5) / ratio) * high,
                    left + (column + (j + 0.5) / ratio) * wide,
                    *x.shape[2:],
                )
                for i, j in np.ndindex(ratio, ratio)
            ]
            result[region, channel, row, column] = take(x[int(batch[region]), channel], taps)
        return result

    return loop


def mean_of_samples(image: Any, taps: Any) -> Any:
    weighted = [[image[y, x] * weight for y, x, weight in sample] for sample in taps]
    return summed([v for sample in weighted for v in sample]) / len(taps)


def largest_product(image: Any, taps: Any) -> Any:
    return largest([image[y, x] * weight for sample in taps for y, x, weight in sample])


def region_pooled(x: Any, rois: Any) -> Any:
    """Regions that are the whole map of their sample, in cells of 2 x 2."""
    result = np.empty((len(rois), x.shape[1], 2, 2), object)
    height, width = x.shape[2] // 2, x.shape[3] // 2
    for region, channel, row, column in np.ndindex(result.shape):
        cell = x[int(rois[region, 0].value), channel, row * height :, column * width :]
        result[region, channel, row, column] = largest(list(cell[:height, :width].flat))
    return result


def cropped(x: Any, boxes: Any, batch: Any, size: Any) -> Any:
    """Corners aligned: the first and the last place are the box's edges."""
    rows, columns = (int(v) for v in size)
    result = np.empty((len(boxes), x.shape[1], rows, columns), object)
    height, width = x.shape[2:]
    for box, channel, i, j in np.ndindex(result.shape):
        top, left, bottom, right = (float(v) for v in boxes[box])
        y = (top + i * (bottom - top) / (rows - 1)) * (height - 1)
        z = (left + j * (right - left) / (columns - 1)) * (width - 1)
        result[box, channel, i, j] = interpolated(
            x[int(batch[box]), channel], neighbours(y, z, height, width)
        )
    return result


def passing(scores: Any) -> list[tuple[int, ...]]:
    return [place for place in np.ndindex(scores.shape) if (scores[place] > 0.3).value]


def suppressed(_boxes: Any, scores: Any, *_limits: Any) -> Any:
    """Boxes that do not overlap: all that pass the threshold, the best first."""
    chosen: list[tuple[int, ...]] = []
    found = passing(scores)
    for label in range(scores.shape[1]):
        of_class = [place for place in found if place[1] == label]
        chosen += sorted(of_class, key=lambda place: -scores[place].value)
    return np.array(chosen)


def top(x: Any, k: Any) -> Any:
    """A scan that holds each element against the least of those kept."""
    result = np.empty((*x.shape[:-1], int(k[0])), object)
    for place in np.ndindex(x.shape[:-1]):
        kept: Row = []
        for value in x[place]:
            least = min((v.value for v in kept), default=-math.inf)
            if (value > least).value or len(kept) < int(k[0]):
                kept = sorted([*kept, value], key=lambda v: -v.value)[: int(k[0])]
        result[place] = kept
    return result


def distinct(x: Any) -> Any:
    """In order of their values; each element is looked up once."""
    seen: dict[float, Counted] = {}
    for value in x.flat:
        found = value == Counted(seen.get(value.value, Counted(math.nan)).value)
        if not found.value:
            seen[value.value] = value
    return np.array([seen[key] for key in sorted(seen)], object)


def warped(costs: Any) -> Any:
    """The cheapest way from corner to corner; finding it back takes no arithmetic."""
    rows, columns = costs.shape
    held = np.empty((rows + 1, columns + 1), object)
    held[:] = Counted(math.inf)
    held[0, 0] = Counted(0.0)
    back = {}
    for i, j in np.ndindex(rows, columns):
        best, way = held[i, j], (i, j)
        for place in ((i, j + 1), (i + 1, j)):
            nearer = held[place] < best
            best, way = choose(nearer, held[place], best), choose(nearer, place, way)
        held[i + 1, j + 1] = costs[i, j] + best
        back[i + 1, j + 1] = way
    path, place = [], (rows, columns)
    while place[0] and place[1]:
        path.append((place[0] - 1, place[1] - 1))
        place = back[place]
    return np.array(path[::-1]).T


CELLS = {"output_height": 2, "output_width": 2}
SAMPLES = np.array([1, 0])
ROIS = [
    Case(
        "RoiAlign",
        region_aligned(2, mean_of_samples),
        [IMAGE, BOXES, SAMPLES],
        {**CELLS, "sampling_ratio": 2},
        constants=(1, 2),
        label="mean",
    ),
    Case(
        "RoiAlign",
        region_aligned(2, largest_product),
        [IMAGE, BOXES, SAMPLES],
        {**CELLS, "sampling_ratio": 2, "mode": "max"},
        constants=(1, 2),
        label="max",
    ),
    Case(
        "RoiAlign",
        region_aligned(1, largest_product),
        [IMAGE, BOXES, SAMPLES],
        {**CELLS, "sampling_ratio": 1, "mode": "max"},
        constants=(1, 2),
        label="max of one sample",
    ),
    Case(
        "MaxRoiPool",
        region_pooled,
        [IMAGE[..., :6], np.array([[1, 0, 0, 5, 5], [0, 0, 0, 5, 5]], np.float32)],
        {"pooled_shape": [2, 2]},
    ),
    Case(
        "CropAndResize",
        cropped,
        [IMAGE, BOXES / 8, SAMPLES.astype(np.int32), np.array([3, 4], np.int32)],
        {"mode": "bilinear"},
        domain=MICROSOFT,
        constants=(1, 2, 3),
    ),
]
APART = np.array([[[10 * i, 0, 10 * i + 5, 5] for i in range(6)]], np.float32)
SEARCHES = [
    Case(
        "NonMaxSuppression",
        suppressed,
        [APART, SCORES, np.array(9), np.array(0.5, np.float32), np.array(0.3, np.float32)],
        constants=(0, 2, 3, 4),
    ),
    Case("TopK", top, [DISTINCT, np.array([2])], constants=(1,), outputs=2),
    Case("Unique", distinct, [np.array([2, 1, 1, 3, 4, 3], np.float32)]),
    Case(
        "Unique",
        distinct,
        [np.array([1, 1, 2, 3, 3, 4], np.float32)],
        domain=MICROSOFT,
        outputs=3,
        label="of the runtime",
    ),
    Case(
        "DynamicTimeWarping",
        warped,
        [random.uniform(0, 1, (5, 7)).astype(np.float32)],
        domain=MICROSOFT,
    ),
]


@pytest.mark.parametrize("case", [*ROIS, *SEARCHES], ids=str)
def test_the_rule_counts_what_a_loop_does(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", SEARCHES, ids=str)
def test_what_depends_on_the_data_says_so(case: Case) -> None:
    assert "depends on the data" in work_of(case, *run(case)).note
