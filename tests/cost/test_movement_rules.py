"""Data movement: the bytes that a rule says against those that are touched."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.cost.one_node import MICROSOFT, ML, Case, run, work_of


def numbered(*shape: int) -> np.ndarray:
    """Every element tells its place; 0 is left to padding."""
    return np.arange(1, math.prod(shape) + 1, dtype=np.float32).reshape(shape)


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


X = numbered(2, 8, 6)
IMAGE = numbered(1, 4, 6, 4)
PLACES = ints([5, 0, 3], [2, 6, 1])
# Operators whose outputs hold elements of their inputs, and which inputs are indices.
MOVES: list[tuple[Case, tuple[int, ...]]] = [
    (Case("Transpose", None, [X], {"perm": [2, 0, 1]}), ()),
    (Case("Concat", None, [X, X[:1] + 1000], {"axis": 0}), ()),
    (Case("Split", None, [X], {"axis": 1, "num_outputs": 4}, outputs=4), ()),
    (Case("Slice", None, [X, ints(1), ints(7), ints(1), ints(2)], constants=(1, 2, 3, 4)), ()),
    (Case("Slice", None, [X], {"starts": [2], "ends": [4]}, opset=9, label="opset9"), ()),
    (Case("Gather", None, [X, PLACES], {"axis": 1}), (1,)),
    (Case("Gather", None, [X, np.array(3)], {"axis": 1}, label="one"), (1,)),
    (Case("GatherND", None, [X, ints([0, 3], [1, 5], [1, 0])]), (1,)),
    (Case("GatherElements", None, [X, PLACES[:, :, None] % 8], {"axis": 1}), (1,)),
    (Case("Compress", None, [X, np.array([0, 1, 1, 0, 1, 0, 0, 1], bool)], {"axis": 1}), (1,)),
    (Case("Expand", None, [X, ints(3, 2, 8, 6)], constants=(1,)), ()),
    (Case("Tile", None, [X, ints(1, 2, 3)], constants=(1,)), ()),
    (Case("Pad", None, [X, ints(0, 1, 2, 0, 0, 1)], constants=(1,)), ()),
    (Case("Pad", None, [X, ints(0, -1, 2, 0, -2, 1)], constants=(1,), label="crops"), ()),
    (
        Case(
            "Pad", None, [X, ints(0, 1, 2, 0, 0, 1)], {"mode": "reflect"}, constants=(1,), label="r"
        ),
        (),
    ),
    (Case("CenterCropPad", None, [X, ints(10, 3)], {"axes": [1, 2]}, constants=(1,)), ()),
    (Case("DepthToSpace", None, [IMAGE], {"blocksize": 2}), ()),
    (Case("SpaceToDepth", None, [IMAGE], {"blocksize": 2}), ()),
    (Case("ReverseSequence", None, [X, ints(*[2] * 8)], {"batch_axis": 1, "time_axis": 0}), (1,)),
    (
        Case(
            "Resize",
            None,
            [IMAGE, None, np.array([1, 1, 2, 3], np.float32)],
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"},
            constants=(2,),
        ),
        (),
    ),
    (
        Case(
            "Resize",
            None,
            [IMAGE, None, None, ints(1, 4, 3, 8)],
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"},
            constants=(3,),
            label="both ways",
        ),
        (),
    ),
    (
        Case(
            "Upsample",
            None,
            [IMAGE, np.array([1, 1, 2, 2], np.float32)],
            {"mode": "nearest"},
            opset=9,
            constants=(1,),
        ),
        (),
    ),
    (
        Case("OneHot", None, [ints(1, 0, 2), np.array(4), X[0, 0, :2]], constants=(1,)),
        (0,),
    ),
    (Case("Crop", None, [IMAGE], {"border": [1, 2, 1, 1]}, opset=9), ()),
    (
        Case(
            "Pad", None, [X, ints(0, 1, 2, 0, 0, 1)], domain=MICROSOFT, constants=(1,), label="ms"
        ),
        (),
    ),
    (Case("GatherND", None, [X, ints([0, 3], [1, 5], [1, 0])], domain=MICROSOFT, label="ms"), (1,)),
    (Case("ArrayFeatureExtractor", None, [X[0], ints(3, 1)], domain=ML), (1,)),
]


@pytest.mark.parametrize(("case", "indices"), MOVES, ids=[str(case) for case, _ in MOVES])
def test_the_bytes_are_those_that_are_touched(case: Case, indices: tuple[int, ...]) -> None:
    model, outputs = run(case)
    places = {float(x) for output in outputs for x in output.flat} - {0.0}
    read = 4 * len(places) + sum(case.inputs[index].nbytes for index in indices)
    work = work_of(case, model, outputs)
    assert (work.reads, work.writes) == (read, sum(output.nbytes for output in outputs))
    assert (work.macs, work.elementwise, work.transcendentals) == (0, 0, 0)


@pytest.mark.parametrize(
    "case",
    [
        Case("Reshape", None, [X, ints(-1, 4)], constants=(1,)),
        Case("Squeeze", None, [IMAGE]),
        Case("Unsqueeze", None, [X, ints(0)], constants=(1,)),
        Case("Flatten", None, [X]),
        Case("Identity", None, [X]),
        Case("Shape", None, [X]),
        Case("Size", None, [X]),
    ],
    ids=str,
)
def test_a_view_touches_nothing(case: Case) -> None:
    work = work_of(case, *run(case))
    assert (work.reads, work.writes, work.elementwise) == (0, 0, 0)
