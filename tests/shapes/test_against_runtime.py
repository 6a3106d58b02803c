"""Everything that infer_shapes claims is held against what ONNX Runtime computes."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.parser
import pytest

from graphopt.shapes import known_shape
from tests.backend_suite import Case, cases
from tests.generate import InvalidGraph, random_model
from tests.shapes.oracle import (
    Variant,
    as_array,
    check,
    with_constant_numbers,
    with_numbers_from_dims,
    with_symbolic_inputs,
    with_unknown_inputs,
)
from tests.shapes.symbolic_models import MODELS


@pytest.fixture(scope="module")
def suite() -> list[Case]:
    kinds = ("node", "simple", "pytorch-converted", "pytorch-operator")
    return [case for kind in kinds for case in cases(kind) if case.data_sets]


def as_declared(model: onnx.ModelProto, inputs: list[Any]) -> Variant:
    return model, inputs


def stretched(inputs: list[Any]) -> Iterator[list[Any]]:
    """The inputs, and the same with the first axis, then with every axis, twice as long."""
    yield inputs
    arrays = [as_array(value) for value in inputs]
    if not all(isinstance(a, np.ndarray) and a.ndim and a.dtype.kind in "fiub" for a in arrays):
        return
    yield [np.repeat(array, 2, axis=0) for array in arrays]
    yield [np.tile(array, [2] * array.ndim) for array in arrays if array.size < 10_000]


# How many runs and claimed dims there must be at least: a change that makes models drop out of
# the test, or that claims much less, is seen.
@pytest.mark.parametrize(
    ("variant", "stride", "least_models", "least_dims"),
    [
        pytest.param(as_declared, 1, 1400, 20_000, id="as declared"),
        pytest.param(with_symbolic_inputs, 1, 1400, 15_000, id="every dim a symbol"),
        pytest.param(with_unknown_inputs, 3, 450, 500, id="ranks unknown"),
        pytest.param(with_constant_numbers, 3, 450, 5_000, id="numbers constant"),
        pytest.param(
            with_numbers_from_dims(lambda n: False), 1, 280, 4_500, id="numbers from dims"
        ),
        pytest.param(with_numbers_from_dims(lambda n: True), 1, 280, 4_500, id="negated dims"),
    ],
)
def test_backend_suite(
    suite: list[Case], variant: Any, stride: int, least_models: int, least_dims: int
) -> None:
    failures: list[str] = []
    models = dims = 0
    for case in suite[::stride]:
        inputs = list(case.data_sets[0][0])
        try:
            model, feed = variant(case.model, inputs)
        except ValueError:
            continue
        feeds = list(stretched(feed)) if variant is with_symbolic_inputs else [feed]
        found, claims = check(model, feeds)
        failures += [f"{case.name}: {violation}" for violation in found]
        if claims is not None:
            models += 1
            dims += claims.checked_dims
    assert not failures, "\n".join(failures[:20])
    assert models >= least_models
    assert dims >= least_dims


def _feeds(model: onnx.ModelProto, sizes: dict[str, tuple[int, ...]]) -> list[list[np.ndarray]]:
    random = np.random.default_rng(0)
    feeds = []
    for combination in itertools.product(*sizes.values()):
        chosen = dict(zip(sizes, combination, strict=True))
        feed = []
        for value in model.graph.input:
            tensor = value.type.tensor_type
            shape = [chosen.get(d.dim_param, d.dim_value) for d in tensor.shape.dim]
            array = random.integers(0, 4, shape)
            feed.append(array.astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
        feeds.append(feed)
    return feeds


@pytest.mark.parametrize("name", MODELS)
def test_symbolic_models(name: str) -> None:
    case = MODELS[name]
    header = f'<ir_version: 8, opset_import: ["": {case.opset}]>\n'
    model = onnx.parser.parse_model(header + case.text)
    found, claims = check(model, _feeds(model, case.sizes))
    assert not found, "\n".join(found[:20])
    assert claims is not None
    actual = {value: str(known_shape(claims.values[value])) for value in case.shapes}
    assert actual == case.shapes


@pytest.mark.parametrize("block", range(4))
def test_random_models(block: int) -> None:
    failures = []
    checked = 0
    for seed in range(block * 50, block * 50 + 50):
        try:
            model, feeds = random_model(seed)
        except InvalidGraph:
            continue
        names = [value.name for value in model.graph.input]
        found, claims = check(model, [[feed[n] for n in names if n in feed] for feed in feeds])
        failures += [f"seed {seed}: {violation}" for violation in found]
        checked += claims is not None
    assert not failures, "\n".join(failures[:20])
    assert checked >= 40


# Three sizes for each free dim of the zoo's models; spatial ones as their strides allow.
_SIZES = {
    "N": (1, 2, 3),
    "batch": (1, 2, 3),
    "T": (1, 5, 7),
    "H": (8, 17, 24),
    "W": (8, 20, 31),
    "shape_h": (32, 96, 64),
    "shape_w": (64, 32, 96),
    "sequence": (576, 576, 576),
}


def _zoo_feed(model: onnx.ModelProto, run: int) -> list[np.ndarray]:
    random = np.random.default_rng(run)
    initialized = {tensor.name for tensor in model.graph.initializer}
    feed = []
    for value in model.graph.input:
        if value.name in initialized:
            continue
        tensor = value.type.tensor_type
        shape = [
            _SIZES.get(d.dim_param, (1, 2, 3))[run] if d.dim_param else d.dim_value
            for d in tensor.shape.dim
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        numbers = (
            random.integers(0, 200, shape) if dtype.kind in "iu" else random.normal(size=shape)
        )
        feed.append(np.full(shape, 16000, dtype) if value.name == "sr" else numbers.astype(dtype))
    return feed


def test_zoo(zoo: Path) -> None:
    failures = []
    paths = sorted((zoo / "models").glob("*.onnx"))
    for path in paths:
        model = onnx.load(path)
        found, claims = check(model, [_zoo_feed(model, run) for run in range(3)])
        failures += [f"{path.stem}: {violation}" for violation in found]
        if claims is None:
            failures.append(f"{path.stem} did not run")
        else:
            assert claims.checked_dims > 50, path.stem
    assert not failures, "\n".join(failures[:20])
    assert paths
