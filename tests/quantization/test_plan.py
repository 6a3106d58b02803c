"""Plans: what decides them, that they are data, and which requests are refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.graph import ir, to_bytes
from graphopt.quantization.absorbed import parameters_within
from graphopt.quantization.backends import BACKENDS
from graphopt.quantization.insertion import quantized
from graphopt.quantization.placement import place
from graphopt.quantization.plan import Plan, make_plan
from graphopt.quantization.plan_sources import backend_named, parse_ranges
from graphopt.quantization.ranges import Range
from graphopt.quantization.saturation import excess, without_saturation

from .quantizing import ORT_CPU, model_of, normal, quantize

TEXT = "g (float[1,8,8,8] x) => (y) { t = Conv (x, w, b) u = Relu (t) y = Conv (u, v) }"
WEIGHTS = {"w": normal(8, 8, 1, 1), "v": normal(8, 8, 3, 3, seed=1), "b": normal(8)}
FEED = {"x": normal(1, 8, 8, 8, seed=9)}


def test_a_plan_is_data() -> None:
    integers = np.ones((8, 8, 3, 3), np.int64)
    found = quantize(model_of(TEXT, WEIGHTS), FEED, rounded={("y", 1): integers})
    assert any(item.integers is not None for item in found.plan.constants.values())
    again = Plan.from_json(json.loads(json.dumps(found.plan.to_json())))
    assert again.to_json() == found.plan.to_json()
    assert again.groups == found.plan.groups
    assert to_bytes(quantized(found.model, again)) == to_bytes(found.result)
    for content in ({}, {"format": "another"}, {**found.plan.to_json(), "groups": [{}]}):
        with pytest.raises(UsageError):
            Plan.from_json(content)


def test_the_same_model_gives_the_same_bytes() -> None:
    results = [to_bytes(quantize(model_of(TEXT, WEIGHTS), FEED).result) for _ in range(2)]
    assert results[0] == results[1]


def test_a_group_that_is_left_float_says_why() -> None:
    found = quantize(model_of(TEXT, WEIGHTS), FEED, float_groups={"t": "it was slower"})
    assert found.plan.left_float["t"] == "it was slower"
    assert [group.name for group in found.plan.groups] == ["y"]


def test_a_missing_range_leaves_its_readers_float() -> None:
    model = model_of(TEXT, WEIGHTS)
    placement = place(model, ORT_CPU)
    ranges = {"x": Range(-3, 3), "u": Range(0, 9)}
    plan = make_plan(model, placement, ranges, ORT_CPU)
    assert "'y' has no range" in plan.left_float["y"]
    assert [group.name for group in plan.groups] == ["t"]


def test_a_placement_belongs_to_a_backend_and_a_model() -> None:
    model = model_of(TEXT, WEIGHTS)
    placement = place(model, ORT_CPU)
    with pytest.raises(UsageError, match="not for generic"):
        make_plan(model, placement, {}, BACKENDS["generic"])
    other = model_of("g (float[1,8,8,8] x) => (z) { z = Conv (x, w) }", {"w": WEIGHTS["w"]})
    with pytest.raises(UsageError, match="a node 't'"):
        make_plan(other, placement, {}, ORT_CPU)


def test_integers_that_were_rounded_elsewhere() -> None:
    model = model_of(TEXT, WEIGHTS)
    first = quantize(model, FEED, saturation_safe=False)
    nearest = first.plan.constants["y", 1].quantize(WEIGHTS["v"])
    other = np.clip(nearest + np.int8(1), -127, 127)
    found = quantize(model, FEED, saturation_safe=False, rounded={("y", 1): other})
    assert np.array_equal(found.plan.constants["y", 1].quantize(WEIGHTS["v"]), other)
    assert found.plan.constants["y", 1].parameters == first.plan.constants["y", 1].parameters
    safe = quantize(model, FEED, saturation_safe=True)
    given = safe.plan.constants["y", 1].quantize(WEIGHTS["v"]).astype(np.int64) + 1
    found = quantize(model, FEED, saturation_safe=True, rounded={("y", 1): given.clip(-127, 127)})
    assert excess(found.plan.constants["y", 1].quantize(WEIGHTS["v"]), 0).max() == 0
    assert found.plan.constants["y", 1].parameters == safe.plan.constants["y", 1].parameters
    with pytest.raises(UsageError, match="do not fit"):
        quantize(model, FEED, rounded={("y", 1): nearest[:1]})
    with pytest.raises(UsageError, match="no weight"):
        quantize(model, FEED, rounded={("y", 0): nearest})


@pytest.mark.parametrize("clip", [(0.0, 6.0), (-1.0, 1.0), (-0.02, 6.0), (0.0, 1e30), (-6.0, 0.01)])
@pytest.mark.parametrize("bounds", [(-9.0, 9.0), (-0.5, 0.25), (0.0, 5.9), (-1e-3, 7.0)])
def test_integers_stay_within_the_bounds_of_a_clip(
    clip: tuple[float, float], bounds: tuple[float, float]
) -> None:
    found = parameters_within(bounds, clip, ir.DataType.UINT8)
    low, high = found.dequantize(np.array([0, 255], np.uint8))
    assert clip[0] <= low
    assert high <= clip[1]
    wanted = max(bounds[0], clip[0]), min(bounds[1], clip[1])
    # At most two steps of the range are given up for it.
    assert max(low - wanted[0], wanted[1] - high) <= 2 * (wanted[1] - wanted[0]) / 255


@pytest.mark.parametrize(("shape", "axis"), [((8, 6, 3, 3), 0), ((8, 3, 3, 3), 0), ((9, 8), 1)])
@pytest.mark.parametrize("per_channel", [True, False])
def test_saturation_is_excluded_at_little_cost(
    shape: tuple[int, ...], axis: int, per_channel: bool
) -> None:
    weight = normal(*shape)
    over = tuple(i for i in range(len(shape)) if i != axis)
    scale = np.abs(weight).max(axis=over if per_channel else None) / np.float32(127)
    enlarged, integers = without_saturation(weight, scale, axis)
    assert excess(integers, axis).max() == 0
    spread = enlarged.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    seven = (scale * np.float32(127 / 64)).reshape(
        [-1 if i == axis else 1 for i in range(len(shape))] if per_channel else []
    )
    if not per_channel:
        spread = enlarged
    error = np.square(weight - spread * integers).sum()
    reduced = np.square(weight - seven * np.rint(weight / seven)).sum()
    assert error < reduced / 1.5


def _worst_sum(first: int, second: int) -> int:
    return max(abs(a * first + b * second) for a in (0, 255) for b in (0, 255))


def test_the_bound_on_a_pair_is_that_of_int16() -> None:
    for pair in ([64, 64], [127, 1], [127, 2], [-64, -64], [-128, 0], [-127, -2], [127, -127]):
        weight = np.array([pair], np.int8)
        assert (excess(weight, 0)[0] == 0) == (_worst_sum(*pair) <= 32767 + (min(pair) < 0))


def test_ranges_as_text() -> None:
    found = parse_ranges("a:0:-1:2; b:0:6")
    assert found == {"a:0": Range(-1, 2), "b": Range(0, 6)}
    with pytest.raises(UsageError, match="tensor:minimum:maximum"):
        parse_ranges("a:1")
    with pytest.raises(UsageError, match="use one of"):
        backend_named("abacus")


def test_a_backend_with_other_formats_is_another() -> None:
    changed = ORT_CPU.with_formats(weight=dataclasses.replace(ORT_CPU.weight, per_channel=False))
    found = quantize(model_of(TEXT, WEIGHTS), FEED, backend=changed)
    assert found.plan.constants["t", 1].parameters.axis is None
    assert ORT_CPU.weight.per_channel
