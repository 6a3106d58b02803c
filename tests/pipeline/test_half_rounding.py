"""convert_half on data: weights become the half numbers that keep the outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from graphopt.graph import clone, constant_array, ir, load, to_proto
from graphopt.pipeline import half_rounding, half_trial
from graphopt.pipeline.half import HalfOptions, convert_half
from graphopt.pipeline.half_rounding import rounded_weights
from graphopt.precision import FLOAT16, Blocked, Request, make_plan
from graphopt.precision.simulation import simulated
from graphopt.report import CheckStatus
from graphopt.runtime import Session
from graphopt.shapes import infer_shapes

GROUPED = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1,4,8,8] x) => (float[1,6,8,8] y) {
  a = Conv<pads = [1,1,1,1], group = 2>(x, w1, b1)
  r = Relu(a)
  y = Conv(r, w2, b2)
}"""

SHARED = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,8] x) => (float[2,8] y) {
  a = MatMul(x, w)
  r = Relu(a)
  y = MatMul(r, w)
}"""


def with_weights(text: str, **shapes: tuple[int, ...]) -> ir.Model:
    random = np.random.default_rng(3)
    proto = onnx.parser.parse_model(text)
    for name, shape in shapes.items():
        array = random.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = load(proto)
    infer_shapes(model)
    return model


def grouped() -> ir.Model:
    return with_weights(GROUPED, w1=(8, 2, 3, 3), b1=(8,), w2=(6, 8, 1, 1), b2=(6,))


def images(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [
        {"x": (1 + random.standard_normal((1, 4, 8, 8))).astype(np.float32)} for _ in range(count)
    ]


def half_weights_error(
    model: ir.Model, half: ir.Model, feeds: list[dict[str, np.ndarray]]
) -> float:
    """The error of the float32 model with the half model's weights: nothing else is rounded."""
    known = {name: constant_array(value) for name, value in half.graph.initializers.items()}
    exact = Session(model)
    expected = [exact.run(feed)["y"] for feed in feeds]
    copied = clone(model)
    for name, value in copied.graph.initializers.items():
        value.const_value = ir.tensor(np.asarray(known[name], np.float32), name=name)
    made = Session(copied)
    return float(
        np.mean(
            [np.square(made.run(f)["y"] - y).mean() for f, y in zip(feeds, expected, strict=True)]
        )
    )


def test_weights_that_were_rounded_on_data_err_less_on_other_data() -> None:
    model = grouped()
    result = convert_half(model, HalfOptions(calibration=images(4, 0), level=0))
    assert result.report.check.status is CheckStatus.VERIFIED
    assert result.report.rounded == ["b1", "b2", "w1", "w2"]
    nearest = convert_half(model, HalfOptions(level=0))
    assert nearest.report.rounded == []
    unseen = images(8, 1)
    less, more = (half_weights_error(model, made.model, unseen) for made in (result, nearest))
    assert less < 0.5 * more
    for name, value in result.model.graph.initializers.items():
        assert value.dtype == ir.DataType.FLOAT16, name
    onnx.checker.check_model(to_proto(result.model), full_check=True)


def test_the_same_data_give_the_same_weights() -> None:
    first, second = (
        convert_half(grouped(), HalfOptions(calibration=images(2, 0), level=0)).model
        for _ in range(2)
    )
    assert to_proto(first) == to_proto(second)


def test_weights_of_what_stays_float32_are_left_alone() -> None:
    model = grouped()
    options = HalfOptions(calibration=images(2, 0), level=0, op_block_list=("Conv",))
    result = convert_half(model, options)
    assert result.report.rounded == []
    for name, value in model.graph.initializers.items():
        kept = constant_array(result.model.graph.initializers[name])
        np.testing.assert_array_equal(kept, constant_array(value))


@pytest.mark.parametrize("reason", ["shared", "scaled", "wide", "large"])
def test_layers_that_keep_nearest_rounding(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    width = {"wide": 1200, "large": 64}.get(reason, 8)
    if reason == "large":
        monkeypatch.setattr(half_rounding, "_MOST_ELEMENTS", 64 * 64 - 1)
    if reason == "shared":  # two layers see different inputs
        model = with_weights(SHARED, w=(8, 8))
    elif reason == "scaled":
        text = SHARED.replace("MatMul(x, w)", "Gemm<alpha = 2.0>(x, w)").replace("(r, w)", "(r, r)")
        text = text.replace("y = MatMul(r, r)", "y = Relu(r)")
        model = with_weights(text, w=(8, 8))
    else:
        text = SHARED.replace("[2,8]", f"[2,{width}]").replace("MatMul(r, w)", "Relu(r)")
        model = with_weights(text, w=(width, width))
    feed = {"x": np.ones((2, width), np.float32)}
    assert rounded_weights(model, list(model.graph), [feed], FLOAT16) == {}
    report = convert_half(model, HalfOptions(calibration=[feed], level=0)).report
    assert report.rounded == []
    assert report.ok


def test_where_the_chosen_weights_are_wrong_the_nearest_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        half_trial, "rounded_weights", lambda *_: {"w1": np.zeros((8, 2, 3, 3), np.float32)}
    )
    model = grouped()
    report = convert_half(model, HalfOptions(calibration=images(2, 0), level=0)).report
    assert report.check.status is CheckStatus.VERIFIED
    assert report.first_check is not None
    assert report.rounded == report.fallen_back == []


def test_made_up_inputs_choose_no_weights_nor_does_storage() -> None:
    assert convert_half(grouped(), HalfOptions(level=0)).report.rounded == []
    options = HalfOptions(calibration=images(2, 0), level=0, storage_only=True)
    assert convert_half(grouped(), options).report.rounded == []


def test_chosen_numbers_are_of_the_half_model_alone() -> None:
    model, feed = grouped(), images(1, 0)[0]
    (exact,) = Session(model).run(feed).values()
    rounded = {"w1": np.zeros((8, 2, 3, 3), np.float32)}
    moved = []
    for blocked in ((), ("Conv",)):
        plan = make_plan(model, Request(rounded=rounded, blocked=Blocked(op_types=blocked)))
        (made,) = Session(simulated(model, plan, FLOAT16)).run(feed).values()
        moved.append(float(np.abs(made - exact).max() / np.abs(exact).max()))
    assert moved[0] > 0.1
    assert moved[1] < 1e-2


def test_a_quarter_of_the_data_is_kept_back(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []

    def counted(
        model: ir.Model, nodes: object, feeds: list[object], half: object
    ) -> dict[str, Any]:
        fitted.append(len(feeds))
        return {}

    monkeypatch.setattr(half_trial, "rounded_weights", counted)
    for count in (1, 3, 4, 9, 60):
        convert_half(grouped(), HalfOptions(calibration=images(count, 0), level=0))
    assert fitted == [1, 3, 3, 7, 24]
