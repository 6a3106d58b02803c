"""Reductions and pooling: rules against loops that do the operator and count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tests.cost.counted import (
    Counted,
    Row,
    absolute,
    along,
    argument_of_largest,
    choose,
    exp,
    largest,
    log,
    mean,
    power,
    sqrt,
    squares,
    summed,
)
from tests.cost.one_node import MICROSOFT, Case, check

random = np.random.default_rng(11)
X = random.normal(size=(2, 4, 5)).astype(np.float32)
POSITIVE = np.abs(X) + np.float32(0.5)
IMAGE = random.normal(size=(2, 4, 6, 5)).astype(np.float32)
AXIS_1 = np.array([1], np.int64)


def product(values: Row) -> Any:
    result = values[0]
    for value in values[1:]:
        result = result * value
    return result


def least(values: Row) -> Any:
    result = values[0]
    for value in values[1:]:
        result = choose(value < result, value, result)
    return result


def running(values: Row, combine: Callable[[Any, Any], Any]) -> Row:
    result = [values[0]]
    for value in values[1:]:
        result.append(combine(result[-1], value))
    return result


def running_exclusive(values: Row) -> Row:
    return [Counted(0.0), *running(values[:-1], lambda a, b: a + b)]


REDUCTIONS = [
    Case("ReduceSum", along([1], summed), [X, AXIS_1], constants=(1,)),
    Case("ReduceSum", along([0, 1, 2], summed), [X], label="all"),
    Case("ReduceMean", along([1], mean), [X, AXIS_1], constants=(1,)),
    Case(
        "ReduceMean",
        along([0, 2], mean, keep=False),
        [X],
        {"axes": [0, 2], "keepdims": 0},
        opset=13,
        label="opset13",
    ),
    Case("ReduceMax", along([1], largest), [X, AXIS_1], constants=(1,)),
    Case("ReduceMin", along([1], least), [X, AXIS_1], constants=(1,)),
    Case("ReduceProd", along([1], product), [X, AXIS_1], constants=(1,)),
    Case("ReduceL1", along([1], lambda v: summed(absolute(v))), [X, AXIS_1], constants=(1,)),
    Case("ReduceL2", along([1], lambda v: sqrt(summed(squares(v)))), [X, AXIS_1], constants=(1,)),
    Case("ReduceSumSquare", along([1], lambda v: summed(squares(v))), [X, AXIS_1], constants=(1,)),
    Case("ReduceLogSum", along([1], lambda v: log(summed(v))), [POSITIVE, AXIS_1], constants=(1,)),
    Case(
        "ReduceLogSumExp",
        along([1], lambda v: log(summed([exp(x) for x in v]))),
        [X, AXIS_1],
        constants=(1,),
    ),
    Case("ArgMax", along([2], argument_of_largest), [X], {"axis": 2}),
    Case("ArgMin", along([2], lambda v: argument_of_least(v)), [X], {"axis": 2}),
    Case(
        "CumProd",
        along([1], lambda v: running(v, lambda a, b: a * b)),
        [X, np.array(1)],
        opset=26,
        constants=(1,),
        reference=True,
    ),
    Case(
        "CumSum",
        along([1], lambda v: running(v, lambda a, b: a + b)),
        [X, np.array(1)],
        constants=(1,),
    ),
    Case(
        "CumSum",
        along([1], running_exclusive),
        [X, np.array(1)],
        {"exclusive": 1},
        constants=(1,),
        label="exclusive",
    ),
]


def pooled(x: Any, kernel: Sequence[int], stride: int, pad: int, outside: float, take: Any) -> Any:
    """Each window of the last axes goes through `take`; places on padding hold `outside`."""
    axes = len(kernel)
    padded = np.empty((*x.shape[:-axes], *(d + 2 * pad for d in x.shape[-axes:])), object)
    padded[:] = Counted(outside)
    padded[(..., *(slice(pad, pad + d) for d in x.shape[-axes:]))] = x
    sizes = [(d - k) // stride + 1 for d, k in zip(padded.shape[-axes:], kernel, strict=True)]
    result = np.empty((*x.shape[:-axes], *sizes), object)
    for index in np.ndindex(result.shape):
        window = [
            slice(place * stride, place * stride + k)
            for place, k in zip(index[-axes:], kernel, strict=True)
        ]
        result[index] = take(list(padded[(*index[:-axes], *window)].flat))
    return result


def euclidean(values: Row) -> Any:
    return sqrt(summed(squares(values)))


def argument_of_least(values: Row) -> Any:
    best, place = values[0], 0
    for index, value in enumerate(values[1:], 1):
        better = value < best
        best, place = choose(better, value, best), choose(better, index, place)
    return Counted(place)


def log_softmax(values: Row) -> Row:
    top = largest(values)
    lowered = [v - top for v in values]
    shift = log(summed([exp(v) for v in lowered]))
    return [v - shift for v in lowered]


def loss(reduction: str, *, softmax: bool) -> Any:
    """Of (N, C, d) for targets (N, d), with a weight for each class or without."""

    def loop(x: Any, target: Any, weight: Any = None) -> Any:
        terms = np.empty(target.shape, object)
        weights = []
        for n, d in np.ndindex(target.shape):
            row = list(x[n, :, d])
            label = int(target[n, d])
            terms[n, d] = -(log_softmax(row) if softmax else row)[label]
            if weight is not None:
                terms[n, d] = terms[n, d] * weight[label]
                weights.append(weight[label])
        if reduction == "none":
            return terms
        total = summed(list(terms.flat))
        if reduction == "sum":
            return np.array(total, object)
        divisor = terms.size if weight is None else summed(weights)
        return np.array(total / divisor, object)

    return loop


CLASSES = random.normal(size=(3, 5, 2)).astype(np.float32)
LABELS = random.integers(0, 5, (3, 2))
IMPORTANCE = random.uniform(0.5, 1.5, 5).astype(np.float32)
LOSSES = [
    Case(
        op_type,
        loss(reduction, softmax=op_type.startswith("Softmax")),
        [CLASSES, LABELS, *weights],
        {"reduction": reduction},
        constants=(1,),
        reference=True,
        label=f"{reduction}{' weighted' if weights else ''}",
    )
    for op_type in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
    for reduction in ("none", "sum", "mean")
    for weights in ([], [IMPORTANCE])
]


def average_of_valid(x: Any) -> Any:
    """3 x 3 with stride 2 and a border of 1 that counts no place; its zeros are added all the same.

    How many places of a window are real depends on where it lies alone.
    """
    sums = pooled(x, (3, 3), 2, 1, 0.0, summed)
    real = np.pad(np.ones(x.shape[2:]), 1)
    for place in np.ndindex(sums.shape):
        row, column = (2 * i for i in place[2:])
        sums[place] = sums[place] / real[row : row + 3, column : column + 3].sum()
    return sums


BYTES = random.integers(0, 256, (1, 4, 5, 3)).astype(np.uint8)  # channels last
POOLS = [
    Case(
        "AveragePool",
        average_of_valid,
        [IMAGE],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        label="without the border",
    ),
    Case(
        "NhwcMaxPool",
        lambda x: pooled(x.transpose(0, 3, 1, 2), (2, 2), 1, 0, 0, largest).transpose(0, 2, 3, 1),
        [BYTES],
        {"kernel_shape": [2, 2]},
        domain=MICROSOFT,
    ),
    Case(
        "MaxPool",
        lambda x: pooled(x, (3, 2), 2, 1, -np.inf, largest),
        [IMAGE],
        {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    Case(
        "MaxPool",
        lambda x: pooled(x, (3,), 1, 0, 0, largest),
        [X],
        {"kernel_shape": [3]},
        label="1d",
    ),
    Case(
        "AveragePool",
        lambda x: pooled(x, (3, 3), 2, 1, 0, mean),
        [IMAGE],
        {
            "kernel_shape": [3, 3],
            "strides": [2, 2],
            "pads": [1, 1, 1, 1],
            "count_include_pad": 1,
        },
    ),
    Case(
        "LpPool", lambda x: pooled(x, (2, 2), 1, 0, 0, euclidean), [IMAGE], {"kernel_shape": [2, 2]}
    ),
    Case(
        "LpPool",
        lambda x: pooled(x, (2, 2), 1, 0, 0, lambda v: summed(absolute(v))),
        [IMAGE],
        {"kernel_shape": [2, 2], "p": 1},
        label="p=1",
    ),
    Case(
        "LpPool",
        lambda x: pooled(
            x, (2, 2), 1, 0, 0, lambda v: power(summed([power(abs(a), 3) for a in v]), 1 / 3)
        ),
        [IMAGE],
        {"kernel_shape": [2, 2], "p": 3},
        label="p=3",
    ),
    Case("GlobalMaxPool", along([2, 3], largest), [IMAGE]),
    Case("GlobalAveragePool", along([2, 3], mean), [IMAGE]),
    Case("GlobalLpPool", along([2, 3], euclidean), [IMAGE]),
]


@pytest.mark.parametrize("case", [*REDUCTIONS, *LOSSES, *POOLS], ids=str)
def test_the_rule_counts_what_a_loop_does(case: Case) -> None:
    check(case)


def test_axes_are_not_read() -> None:
    work = check(REDUCTIONS[0])
    assert (work.reads, work.writes) == (X.nbytes, X[:, :1].nbytes)


def test_the_loops_can_fail() -> None:
    """A loop that does one operation more than the operator is found out."""
    wasteful = Case(
        "ReduceSum", along([1], lambda v: summed([Counted(0.0), *v])), [X, AXIS_1], constants=(1,)
    )
    with pytest.raises(AssertionError):
        check(wasteful)
