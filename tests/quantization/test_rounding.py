"""Second-order rounding changes what a layer computes less than rounding to nearest."""

import itertools

import numpy as np
import pytest

from graphopt.graph import clone, ir
from graphopt.quantization.parameters import Parameters, parameters_of_weight
from graphopt.quantization.repair.linear_layer import linear_layers
from graphopt.quantization.repair.rescaling import set_constant
from graphopt.quantization.repair.rounding import (
    objective,
    round_second_order,
    round_to_nearest,
)
from graphopt.quantization.repair.weight_rounding import round_weights
from graphopt.quantization.saturation import excess, without_saturation
from graphopt.runtime import Session
from tests.quantization.small_models import model

LAYERS = {
    "Conv": ("y = Conv <pads: ints=[1,1,1,1], strides: ints=[2,2]> (t, w, b)", (6, 8, 3, 3), 4),
    "Conv, groups": ("y = Conv <group: int = 2, dilations: ints=[2,2]> (t, w)", (6, 4, 3, 3), 4),
    "Conv, depthwise": (
        'y = Conv <group: int = 8, auto_pad = "SAME_UPPER"> (t, w)',
        (8, 1, 3, 3),
        4,
    ),
    "ConvTranspose": ("y = ConvTranspose <strides: ints=[2,2]> (t, w)", (8, 5, 2, 2), 4),
    "MatMul": ("y = MatMul (t, w)", (8, 12), 3),
    "MatMul, weight left": ("y = MatMul (w, t)", (12, 6), 3),
    "Gemm": ("y = Gemm (t, w)", (8, 12), 2),
    "Gemm, transB": ("y = Gemm <transB: int = 1, alpha: float = 0.5> (t, w, b)", (12, 8), 2),
    "Gemm, transA": ("y = Gemm <transA: int = 1> (t, w)", (10, 12), 2),
}
SHAPES = {4: (1, 8, 7, 7), 3: (1, 6, 8), 2: (10, 8)}


def case(name: str) -> tuple[ir.Model, list[dict[str, np.ndarray]]]:
    """A layer alone, and data whose entries are correlated along every axis, as in a network.

    Of independent inputs rounding to nearest would be the best.
    """
    body, shape, rank = LAYERS[name]
    dims = ",".join(map(str, SHAPES[rank]))
    weights: dict[str, tuple[int, ...] | np.ndarray] = {"w": shape}
    if ", b)" in body:
        weights["b"] = (6,) if rank == 4 else (12,)
    ranks = {4: "float[a,c,d,e]", 3: "float[a,c,d]", 2: "float[a,c]"}
    built = model(f"(float[{dims}] t) => ({ranks[rank]} y) {{ {body} }}", weights)
    mixing = [_mixing(axis, size, rank) for axis, size in enumerate(SHAPES[rank])]
    feeds = []
    for seed in range(32):
        drawn = np.random.default_rng(seed).normal(size=SHAPES[rank])
        for axis, matrix in enumerate(mixing):
            drawn = np.moveaxis(np.tensordot(matrix, drawn, (1, axis)), 0, axis)
        feeds.append({"t": drawn.astype(np.float32)})
    return built, feeds


def _mixing(axis: int, size: int, rank: int) -> np.ndarray:
    """A random matrix; along the sides of an image one that makes neighbours alike."""
    if rank == 4 and axis >= 2:
        place = np.arange(size)
        return np.exp(-np.abs(place[:, None] - place[None, :]) / 2)
    return np.random.default_rng(axis).normal(size=(size, size))


def with_weight(original: ir.Model, name: str, weight: np.ndarray) -> ir.Model:
    changed = clone(original)
    layer = next(found for found in linear_layers(changed.graph) if found.name == name)
    set_constant(layer.node, layer.weight_index, weight)
    return changed


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("dtype", [ir.DataType.INT8, ir.DataType.INT4])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_come_out_closer_to_float(name: str, dtype: ir.DataType, safe: bool) -> None:
    if safe and dtype == ir.DataType.INT4:
        pytest.skip("four bits do not saturate")
    original, feeds = case(name)
    layer = next(found for found in linear_layers(original.graph) if found.name == "y")
    parameters = parameters_of_weight(layer.weight, dtype, axis=layer.output_axis)
    if safe:
        scale, _ = without_saturation(layer.weight, parameters.scale, layer.output_axis)
        parameters = Parameters(dtype, scale, parameters.zero_point, layer.output_axis)
    place = ("y", layer.weight_index)
    found = round_weights(
        original, {place: parameters}, feeds[:16], rows_per_feed=None, saturation_safe=safe
    )
    assert not found.declined
    assert found.integers[place].dtype == dtype.numpy()
    kept = parameters.quantize(layer.weight)
    if safe:
        assert not excess(found.integers[place], layer.output_axis).any()
        _, kept = without_saturation(layer.weight, parameters.scale, layer.output_axis, kept)
    nearest = with_weight(original, "y", parameters.dequantize(kept))
    better = with_weight(original, "y", parameters.dequantize(found.integers[place]))
    for seen, factor in ((feeds[:16], 0.8), (feeds[16:], 1.0)):
        expected = outputs(original, seen)
        errors = [
            np.square(outputs(changed, seen) - expected).sum() for changed in (nearest, better)
        ]
        assert errors[1] < factor * errors[0]


def outputs(changed: ir.Model, feeds: list[dict[str, np.ndarray]]) -> np.ndarray:
    session = Session(changed)
    return np.stack([session.run(feed)["y"].astype(np.float64) for feed in feeds])


def test_no_row_is_worse_and_few_are_far_from_the_best() -> None:
    random = np.random.default_rng(3)
    mixing = random.normal(size=(5, 5))
    inputs = random.normal(size=(200, 5)) @ mixing
    moment = (inputs.T @ inputs)[None]
    weight = random.normal(size=(1, 20, 5))
    scale, zero = np.full((1, 20, 5), 0.4), np.zeros((1, 20, 5))
    nearest = round_to_nearest(weight, scale, zero, -7, 7)
    found = round_second_order(weight, scale, zero, -7, 7, moment)
    error_nearest = objective(weight, scale, zero, nearest, moment)[0]
    error = objective(weight, scale, zero, found, moment)[0]
    assert (error <= error_nearest).all()
    steps = np.array(list(itertools.product((-1, 0, 1), repeat=5)))
    for row in range(20):
        every = nearest[:, row, :] + steps
        best = objective(
            np.broadcast_to(weight[:, row], (1, 243, 5)),
            0.4,
            0,
            np.clip(every, -7, 7)[None],
            moment,
        ).min()
        assert best <= error[row] + 1e-9
    assert error.sum() < 0.7 * error_nearest.sum()


def test_integers_stay_in_range_and_dead_inputs_are_rounded_to_nearest() -> None:
    random = np.random.default_rng(4)
    inputs = random.normal(size=(100, 6)) @ random.normal(size=(6, 6))
    inputs[:, 2] = 0
    weight = random.normal(size=(1, 9, 6)) * 3
    scale, zero = np.full((1, 9, 6), 0.3), np.full((1, 9, 6), 2)
    moment = (inputs.T @ inputs)[None]
    found = round_second_order(weight, scale, zero, 0, 7, moment)
    assert found.min() >= 0
    assert found.max() <= 7
    nearest = round_to_nearest(weight, scale, zero, 0, 7)
    np.testing.assert_array_equal(found[:, :, 2], nearest[:, :, 2])


def test_symmetric_weights_do_without_the_lowest_integer() -> None:
    original, feeds = case("MatMul")
    layer = next(found for found in linear_layers(original.graph) if found.name == "y")
    whole = parameters_of_weight(layer.weight, ir.DataType.INT4, axis=1)
    narrow = Parameters(whole.dtype, whole.scale * np.float32(0.5), whole.zero_point, 1)
    found = round_weights(original, {("y", 1): narrow}, feeds)
    assert found.integers["y", 1].astype(int).min() == -7


def test_moments_that_do_not_fit_together_take_several_runs_and_the_largest_is_declined() -> None:
    original = model(
        "(float[N,8] x) => (float[N,4] y, float[N,4] z)"
        "{ t = MatMul (x, a) y = MatMul (x, b) z = MatMul (t, c) }",
        {"a": (8, 16), "b": (8, 4), "c": (16, 4)},
    )
    feeds = [
        {"x": np.random.default_rng(seed).normal(size=(9, 8)).astype(np.float32)}
        for seed in range(3)
    ]
    weights = {
        (layer.name, 1): parameters_of_weight(layer.weight, ir.DataType.INT8, axis=1)
        for layer in linear_layers(original.graph)
    }
    together = round_weights(original, weights, feeds)
    apart = round_weights(original, weights, feeds, max_bytes=16 * 16 * 8)
    assert not together.declined
    assert not apart.declined
    for place, integers in together.integers.items():
        np.testing.assert_array_equal(integers, apart.integers[place])
    small = round_weights(original, weights, feeds, max_bytes=8 * 8 * 8)
    assert list(small.declined) == [("z", 1)]
