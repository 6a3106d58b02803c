"""Normalizations and softmaxes: rules against loops that do the operator and count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.cost.counted import (
    Counted,
    Row,
    absolute,
    along,
    argument_of_largest,
    exp,
    largest,
    log,
    mean,
    power,
    rows,
    sqrt,
    squares,
    summed,
)
from tests.cost.one_node import MICROSOFT, Case, check

EPSILON = 1e-5
random = np.random.default_rng(11)
X = random.normal(size=(2, 4, 5)).astype(np.float32)
IMAGE = random.normal(size=(2, 4, 6, 5)).astype(np.float32)
SCALE, SHIFT, SKIP = (random.normal(size=5).astype(np.float32) for _ in range(3))
PER_CHANNEL = [np.abs(random.normal(size=4)).astype(np.float32) + 1 for _ in range(4)]


def exponentials(values: Row) -> tuple[Row, Row, Any]:
    """x - max, exp of that, and the sum of those."""
    top = largest(values)
    lowered = [v - top for v in values]
    raised = [exp(v) for v in lowered]
    return lowered, raised, summed(raised)


def softmax(values: Row) -> Row:
    _, raised, total = exponentials(values)
    return [v / total for v in raised]


def log_softmax(values: Row) -> Row:
    lowered, _, total = exponentials(values)
    shift = log(total)
    return [v - shift for v in lowered]


def hardmax(values: Row) -> Row:
    place = argument_of_largest(values).value
    return [Counted(float(index == place)) for index in range(len(values))]


def centred(values: Row) -> tuple[Row, Any]:
    """x - mean, and the variance."""
    middle = mean(values)
    lowered = [v - middle for v in values]
    return lowered, mean(squares(lowered))


def layer_normalization(values: Row, scale: Any, shift: Any = None) -> Row:
    lowered, variance = centred(values)
    inverse = 1 / sqrt(variance + EPSILON)
    scaled = [v * inverse * s for v, s in zip(lowered, scale, strict=True)]
    return scaled if shift is None else [v + b for v, b in zip(scaled, shift, strict=True)]


def rms_normalization(values: Row, scale: Any) -> Row:
    root = sqrt(mean(squares(values)) + EPSILON)
    return [v / root * s for v, s in zip(values, scale, strict=True)]


def group_normalization(x: Any, scale: Any, shift: Any) -> Any:
    places = x.shape[2] * x.shape[3]
    split = x.reshape(2, 2, 2 * places)
    result = np.empty(split.shape, object)
    for sample, group in np.ndindex(2, 2):
        channels = np.repeat(np.arange(2) + 2 * group, places)
        result[sample, group] = layer_normalization(
            list(split[sample, group]), scale[channels], shift[channels]
        )
    return result.reshape(x.shape)


def instance_normalization(x: Any, scale: Any, shift: Any) -> Any:
    result = np.empty(x.shape, object)
    for sample, channel in np.ndindex(x.shape[:2]):
        lowered, variance = centred(list(x[sample, channel].flat))
        factor = scale[channel] / sqrt(variance + EPSILON)
        normalized = [v * factor + shift[channel] for v in lowered]
        result[sample, channel] = np.array(normalized, object).reshape(x.shape[2:])
    return result


def batch_normalization(x: Any, scale: Any, shift: Any, middle: Any, variance: Any) -> Any:
    factor = scale / np.sqrt(variance + EPSILON)  # constants: folded at load, not counted
    offset = shift - middle * factor
    result = np.empty(x.shape, object)
    for index in np.ndindex(x.shape):
        result[index] = x[index] * factor[index[1]] + offset[index[1]]
    return result


def mean_variance(values: Row) -> Row:
    middle = mean(values)
    squared = middle * middle
    deviation = sqrt(mean(squares(values)) - squared) + 1e-9
    return [(v - middle) / deviation for v in values]


def divided(values: Row, norm: Any) -> Row:
    return [v / norm for v in values]


def local_response(x: Any) -> Any:
    """alpha 0.3, beta 0.75, bias 1.5, over 3 channels; beyond the edge there are zeros."""
    squared = np.empty((2, 6, 6, 5), object)
    squared[:] = Counted(0.0)
    result = np.empty(x.shape, object)
    for n, c, h, w in np.ndindex(x.shape):
        squared[n, c + 1, h, w] = x[n, c, h, w] * x[n, c, h, w]
    for n, c, h, w in np.ndindex(x.shape):
        window = summed(list(squared[n, c : c + 3, h, w]))
        result[n, c, h, w] = x[n, c, h, w] / power(0.3 / 3 * window + 1.5, 0.75)
    return result


def with_skip(normalize: Callable[..., Row]) -> Callable[..., Any]:
    def loop(x: Any, skip: Any, *parameters: Any) -> Any:
        result = np.empty(x.shape, object)
        for n, t in np.ndindex(x.shape[:2]):
            added = [a + b for a, b in zip(x[n, t], skip[n, t], strict=True)]
            result[n, t] = normalize(added, *parameters)
        return result

    return loop


def biased_normalization(values: Row, scale: Any, shift: Any, bias: Any) -> Row:
    return layer_normalization([v + b for v, b in zip(values, bias, strict=True)], scale, shift)


def gated_normalization(gate_of: Callable[[Any], Any]) -> Callable[..., Any]:
    def loop(x: Any, scale: Any, gate: Any) -> Any:
        result = np.empty(x.shape, object)
        for place in np.ndindex(x.shape[:-1]):
            row = rms_normalization(list(x[place]), scale)
            gates = [gate_of(g) for g in gate[place]]
            result[place] = [v * g for v, g in zip(row, gates, strict=True)]
        return result

    return loop


def sigmoid(x: Any) -> Any:
    return 1 / (1 + exp(-x))


def embedded(
    words: Any, segments: Any, table: Any, places: Any, kinds: Any, scale: Any, shift: Any,
    mask: Any = None,
) -> Any:  # fmt: skip
    result = np.empty((*words.shape, table.shape[1]), object)
    for n, t in np.ndindex(words.shape):
        rows_ = [table[int(words[n, t].value)], places[t]]
        if kinds is not None:
            rows_.append(kinds[int(segments[n, t].value)])
        total = [summed(list(values)) for values in zip(*rows_, strict=True)]
        result[n, t] = layer_normalization(total, scale, shift)
    if mask is None:
        return result
    return result, np.array([summed(list(row)) for row in mask], object)


IDS = random.integers(0, 7, (2, 4)).astype(np.int32)
TABLES = [random.normal(size=(n, 5)).astype(np.float32) for n in (7, 6, 2)]
MASK = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)
NORMALIZATIONS = [
    Case(
        "EmbedLayerNormalization",
        embedded,
        [IDS, IDS % 2, *TABLES, SCALE, SHIFT],
        {"epsilon": EPSILON},
        domain=MICROSOFT,
        outputs=2,
    ),
    Case(
        "EmbedLayerNormalization",
        embedded,
        [IDS, None, *TABLES[:2], None, SCALE, SHIFT, MASK],
        {"epsilon": EPSILON},
        domain=MICROSOFT,
        outputs=2,
        label="masked",
    ),
    Case(
        "GatedRMSNorm",
        gated_normalization(lambda g: g * sigmoid(g)),
        [X, SCALE, X[::-1].copy()],
        {"epsilon": EPSILON},
        domain=MICROSOFT,
    ),
    Case(
        "GatedRMSNorm",
        gated_normalization(sigmoid),
        [X, SCALE, X[::-1].copy()],
        {"epsilon": EPSILON, "activation": "sigmoid"},
        domain=MICROSOFT,
        label="sigmoid",
    ),
    Case(
        "SimplifiedLayerNormalization",
        lambda x, s: rows(x, [2], lambda v: rms_normalization(v, s)),
        [X, SCALE],
        {"epsilon": EPSILON},
        opset=1,
    ),
    Case("Softmax", along([2], softmax), [X]),
    Case("Softmax", along([1], softmax), [X], {"axis": 1}, label="axis"),
    Case("Softmax", along([1, 2], softmax), [X], opset=11, label="opset11"),
    Case("LogSoftmax", along([2], log_softmax), [X]),
    Case("Hardmax", along([2], hardmax), [X]),
    Case(
        "LayerNormalization",
        lambda x, s, b: rows(x, [2], lambda v: layer_normalization(v, s, b)),
        [X, SCALE, SHIFT],
    ),
    Case(
        "LayerNormalization",
        lambda x, s: rows(x, [1, 2], lambda v: layer_normalization(v, s.flat)),
        [X, X[0]],
        {"axis": 1},
        label="no shift",
    ),
    Case(
        "RMSNormalization",
        lambda x, s: rows(x, [2], lambda v: rms_normalization(v, s)),
        [X, SCALE],
        {"epsilon": EPSILON},
        opset=23,
    ),
    Case("GroupNormalization", group_normalization, [IMAGE, *PER_CHANNEL[:2]], {"num_groups": 2}),
    Case("InstanceNormalization", instance_normalization, [IMAGE, *PER_CHANNEL[:2]]),
    Case("BatchNormalization", batch_normalization, [IMAGE, *PER_CHANNEL], constants=(1, 2, 3, 4)),
    Case("MeanVarianceNormalization", along([0, 2, 3], mean_variance), [IMAGE]),
    Case(
        "LpNormalization",
        along([1], lambda v: divided(v, sqrt(summed(squares(v))))),
        [X],
        {"axis": 1},
    ),
    Case(
        "LpNormalization",
        along([2], lambda v: divided(v, summed(absolute(v)))),
        [X],
        {"p": 1},
        label="p=1",
    ),
    Case("LRN", local_response, [IMAGE], {"size": 3, "alpha": 0.3, "beta": 0.75, "bias": 1.5}),
    Case(
        "SkipLayerNormalization",
        with_skip(biased_normalization),
        [X, X[::-1].copy(), SCALE, SHIFT, SKIP],
        {"epsilon": EPSILON},
        domain=MICROSOFT,
    ),
    Case(
        "SkipSimplifiedLayerNormalization",
        with_skip(rms_normalization),
        [X, X[::-1].copy(), SCALE],
        {"epsilon": EPSILON},
        domain=MICROSOFT,
    ),
]


@pytest.mark.parametrize("case", NORMALIZATIONS, ids=str)
def test_the_rule_counts_what_a_loop_does(case: Case) -> None:
    check(case)
