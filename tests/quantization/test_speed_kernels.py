"""What ONNX Runtime ran is put down to the groups it belongs to."""

import numpy as np
import onnx
import pytest

from graphopt.graph import ir, load
from graphopt.quantization.backends import BACKENDS
from graphopt.quantization.group_times import Kernel, attribute, run_kernels
from graphopt.quantization.groups import Placement
from graphopt.quantization.insertion import quantized
from graphopt.quantization.placement import place
from graphopt.quantization.plan import make_plan
from graphopt.quantization.ranges import Range
from graphopt.quantization.speed import choose_groups
from graphopt.quantization.stopwatch import RunningStopwatch
from graphopt.shapes import infer_shapes

SHAPES = {"w0": (32, 3, 3, 3), "w1": (32, 32, 3, 3), "w2": (32, 32, 1, 1), "w3": (32, 10)}
TEXT = """
<ir_version: 10, opset_import: ["" : 17]>
small (float[1,3,32,32] image) => (float[1,10] scores) {
    stem = Conv<pads=[1,1,1,1]>(image, w0)
    first = Relu(stem)
    inner = Conv<pads=[1,1,1,1]>(first, w1)
    second = Relu(inner)
    sum = Add(first, second)
    bent = Tanh(sum)
    last = Conv(bent, w2)
    pooled = GlobalAveragePool(last)
    flat = Flatten(pooled)
    scores = MatMul(flat, w3)
}
"""


@pytest.fixture(scope="module")
def model() -> ir.Model:
    random = np.random.default_rng(0)
    proto = onnx.parser.parse_model(TEXT)
    for name, shape in SHAPES.items():
        array = random.standard_normal(shape).astype(np.float32) * 0.1
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    made = load(proto)
    infer_shapes(made)
    return made


@pytest.fixture(scope="module")
def placement(model: ir.Model) -> Placement:
    return place(model, BACKENDS["ort-cpu"])


def build(model: ir.Model, placement: Placement, float_groups: dict[str, str]) -> ir.Model:
    ranges = {name: Range(-4.0, 4.0) for name in placement.activations}
    plan = make_plan(model, placement, ranges, BACKENDS["ort-cpu"], float_groups=float_groups)
    return quantized(model, plan)


FEED = {"image": np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype(np.float32)}


def kernels(model: ir.Model, placement: Placement, float_groups: dict[str, str]) -> list[Kernel]:
    variant = build(model, placement, float_groups)
    return list(run_kernels(variant, model, FEED, seconds=0.05))


def test_every_kernel_of_float_belongs_to_a_node(model: ir.Model, placement: Placement) -> None:
    found = list(run_kernels(model, model, FEED, seconds=0.05))
    assert all(kernel.mark or kernel.converts for kernel in found), found
    times = attribute(found, placement.groups)
    assert {"first", "second"} & {n for g in placement.groups for n in g.nodes}
    for group in placement.groups:
        if group.op_type == "Conv":
            assert times.seconds[group.name] > 0
    # Nothing but the change of layout to and from blocks of channels.
    assert set(times.rates) <= {"ReorderInput", "ReorderOutput"}


def test_integer_kernels_belong_to_their_groups_and_conversions_to_their_tensors(
    model: ir.Model, placement: Placement
) -> None:
    found = kernels(model, placement, {})
    by_mark = {kernel.mark: kernel.op_type for kernel in found if kernel.mark}
    assert by_mark["stem"] == by_mark["inner"] == by_mark["last"] == "QLinearConv"
    assert by_mark["sum"] == "QLinearAdd"
    assert by_mark["bent"] == "Tanh"
    times = attribute(found, placement.groups)
    assert {"stem", "inner", "sum", "last", "scores"} <= set(times.seconds)
    # The image becomes integers; Tanh reads floats and what it gives becomes integers again.
    assert {"image", "sum", "bent"} <= set(times.conversions)
    assert not {"first", "second"} & set(times.conversions)
    assert times.total == pytest.approx(sum(kernel.seconds for kernel in found))


def test_a_group_left_float_has_conversions_around_it(
    model: ir.Model, placement: Placement
) -> None:
    found = kernels(model, placement, {"inner": "to see what it costs"})
    by_mark = {kernel.mark: kernel.op_type for kernel in found if kernel.mark}
    float_marks = {"inner", "second"} & set(by_mark)
    assert [by_mark[mark] for mark in float_marks] == ["Conv"]
    times = attribute(found, placement.groups)
    assert times.seconds["inner"] > 0
    assert {"first", "second"} <= set(times.conversions)


def test_a_choice_of_real_measurements_is_faster_than_float_or_float(
    model: ir.Model, placement: Placement
) -> None:
    choice = choose_groups(
        model,
        placement,
        lambda left: build(model, placement, dict(left)),
        FEED,
        threads=(1,),
        stopwatch=RunningStopwatch(model, FEED, seconds=0.02),
        refinements=1,
    )
    groups = {group.name for group in placement.groups}
    assert set(choice.float_groups) <= groups
    assert all(choice.float_groups.values())
    if choice.winner == "float":
        assert choice.reason
        assert set(choice.float_groups) == groups
    else:
        assert min(ratio[1] for ratio in choice.ratios.values()) < 1
        assert set(choice.float_groups) < groups


def test_kernels_of_no_group_count_in_the_total_alone() -> None:
    found = [Kernel("Tanh", "t", "", 3e-6), Kernel("Transpose", "", "x", 2e-6, 100)]
    times = attribute(found, ())
    assert (times.seconds, times.conversions) == ({}, {"x": 2e-6})
    assert times.total == pytest.approx(5e-6)
    assert times.rates == {"Transpose": pytest.approx(2e-8)}
