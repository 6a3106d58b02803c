"""Angles that half holds too few digits of: what stays float32, and how one Cast does for two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphopt.graph import from_text, ir
from graphopt.pipeline.half import HalfOptions, HalfResult, convert_half
from graphopt.precision import FLOAT16, Request, make_plan
from graphopt.precision.simulation import simulated
from graphopt.report import CheckStatus
from graphopt.runtime import Session
from graphopt.shapes import infer_shapes

ROTARY = """<ir_version: 8, opset_import: ["" : 17]>
g (int64[1,n] token) => (float[m,6] y)
<float[1,3] rate = {1.0, 0.1, 0.01}, int64 zero = {0}, int64 one = {1}, int64[1] column = {1},
 float[3,3] w = {1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0}> {
  s = Shape(token)
  n = Gather(s, one)
  r = Range(zero, n, one)
  f = Cast<to = 1>(r)
  g = Unsqueeze(f, column)
  a = ANGLE
  c = Cos(a)
  d = Sin(a)
  p = MatMul(c, w)
  q = MatMul(d, w)
  y = Concat<axis = -1>(p, q)
}"""
ANGLES = {"product": "Mul(g, rate)", "matrix": "MatMul(g, rate)", "gemm": "Gemm(g, rate)"}


def rotary(angle: str, **options: Any) -> HalfResult:
    usual = HalfOptions(level=0, keep_io_types=True)
    return convert_half(
        from_text(ROTARY.replace("ANGLE", ANGLES[angle])), replace(usual, **options)
    )


def rounded_error(original: ir.Model, feed: dict[str, np.ndarray], converted: ir.Model) -> float:
    """The largest error at `feed`, over the scale, of a model that `original` became."""
    (wanted,) = Session(original, threads=1).run(feed).values()
    (given,) = Session(converted, threads=1).run(feed).values()
    return float(np.abs(wanted - given).max() / np.abs(wanted).max())


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("angle", ANGLES)
def test_positions_are_right_far_beyond_the_sequences_that_were_seen(
    angle: str, calibrated: bool
) -> None:
    short = [{"token": np.zeros((1, 5), np.int64)}] if calibrated else None
    result = rotary(angle, calibration=short)
    report = result.report
    assert report.check.status is CheckStatus.VERIFIED
    assert report.angles_reduced == ["a"]
    assert report.casts_after == 3  # the model's own, one for both readers, the output
    same = rotary(angle, calibration=short, node_block_list=["c", "d"]).report
    assert same.angles_reduced == []
    assert same.casts_after == 4
    # What ONNX Runtime computes in float32 here would hide a rounded angle.
    original = from_text(ROTARY.replace("ANGLE", ANGLES[angle]))
    prepared = from_text(
        ROTARY.replace("ANGLE", "Mod<fmod = 1>(b, turn)")
        .replace("  a = ", f"  b = {ANGLES[angle]}\n  a = ")
        .replace("int64 zero", "float turn = {6.2831855}, int64 zero")
    )
    infer_shapes(prepared)
    plan = make_plan(prepared, Request(keep_io_types=True))
    feed = {"token": np.zeros((1, 3000), np.int64)}
    assert rounded_error(original, feed, simulated(prepared, plan, FLOAT16)) < 4e-3
    assert rounded_error(original, feed, result.model) < 4e-3


def test_a_single_reader_gains_nothing_by_it() -> None:
    text = ROTARY.replace("ANGLE", ANGLES["product"]).replace("Cos(a)", "Abs(a)")
    report = convert_half(from_text(text), HalfOptions(level=0)).report
    assert report.angles_reduced == []
    assert any("angle" in why for why in report.float32.values())


def test_before_opset_10_no_float_has_a_modulo() -> None:
    text = ROTARY.replace("ANGLE", ANGLES["product"]).replace('"" : 17', '"" : 9')
    text = text.replace("Unsqueeze(f, column)", "Unsqueeze<axes = [1]>(f)")
    text = text.replace(", int64[1] column = {1}", "").replace("Range(zero, n, one)", "Identity(s)")
    report = convert_half(from_text(text), HalfOptions(level=0, check=False)).report
    assert report.angles_reduced == []


STEP = """<ir_version: 8, opset_import: ["" : 17]>
g (KIND[1] step) => (float[1,3] y) <float[1,3] rate = {1.0, 0.1, 0.01}> {
  f = CONVERT(step)
  a = Mul(f, rate)
  y = Sin(a)
}"""


@pytest.mark.parametrize(("kind", "convert"), [("int64", "Cast<to = 1>"), ("float", "Identity")])
def test_made_up_inputs_do_not_tell_how_large_a_time_step_is(kind: str, convert: str) -> None:
    model = from_text(STEP.replace("KIND", kind).replace("CONVERT", convert))
    report = convert_half(model, HalfOptions(level=0)).report
    assert "Sin of an angle" in str(report.float32)
    # A float step that is rounded on its way in is as wrong as a rounded angle.
    result = convert_half(model, HalfOptions(level=0))
    assert result.model.graph.inputs[0].dtype == (
        ir.DataType.INT64 if kind == "int64" else ir.DataType.FLOAT
    )


def test_real_data_tell_how_large_a_time_step_is() -> None:
    model = from_text(STEP.replace("KIND", "float").replace("CONVERT", "Identity"))
    feeds = [{"step": np.full(1, number, np.float32)} for number in (0.5, 3.0)]
    report = convert_half(model, HalfOptions(level=0, calibration=feeds)).report
    assert report.float32 == {}


def test_what_is_small_by_its_bounds_is_half() -> None:
    text = STEP.replace("KIND", "float").replace("CONVERT", "Tanh")
    assert convert_half(from_text(text), HalfOptions(level=0)).report.float32 == {}


def test_positions_are_not_compared_in_half_whatever_was_seen() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n] x) => (bool[n] y) <float third = {0.3}, int64 axis = {0}> {
  one = Sign(x)
  square = Mul(one, one)
  count = CumSum(square, axis)
  y = Greater(count, third)
}"""
    report = convert_half(from_text(text), HalfOptions(level=0)).report
    assert "it compares positions, which have to be exact" in report.float32.values()
