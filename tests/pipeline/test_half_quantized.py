"""Models that are quantized already: half around the integers, what counts as an error there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx.checker
import pytest

from graphopt.graph import all_nodes, from_text, ir, opset_version, to_proto
from graphopt.pipeline.half import HalfOptions, HalfResult, convert_half
from graphopt.pipeline.half_check import HalfChecker
from graphopt.pipeline.half_noise import half_checker, without_rounding
from graphopt.report import CheckStatus
from graphopt.runtime import Session
from graphopt.shapes import infer_shapes

RANDOM = np.random.default_rng(0)
FEEDS = [{"x": RANDOM.standard_normal((2, 32), np.float32)} for _ in range(8)]


def quantized(opset: int = 17, *, smallest: float = 2e-3) -> ir.Model:
    """Two products of integers with a Gelu's worth of floats between them."""
    weights = ", ".join(map(str, RANDOM.integers(-127, 128, 32 * 32)))
    scales = ", ".join(f"{scale:g}" for scale in [smallest, *[2e-3] * 31])
    return from_text(f"""<ir_version: 9, opset_import: ["" : {opset}]>
g (float[2,32] x) => (float[2,32] y)
<float s = {{0.03}}, int8 z = {{0}}, float t = {{0.02}}, float[32] u = {{{scales}}},
 int8[32,32] v = {{{weights}}}, int8[32] zeros = {{{", ".join(["0"] * 32)}}}> {{
  a = QuantizeLinear(x, s, z)
  b = DequantizeLinear(a, s, z)
  w = DequantizeLinear<axis = 1>(v, u, zeros)
  c = MatMul(b, w)
  d = Tanh(c)
  e = QuantizeLinear(d, t, z)
  f = DequantizeLinear(e, t, z)
  y = MatMul(f, w)
}}""")


def converted(model: ir.Model, provider: str, **options: Any) -> HalfResult:
    usual = HalfOptions(level=0, calibration=FEEDS, provider=provider)
    return convert_half(model, replace(usual, **options))


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
@pytest.mark.parametrize("opset", [17, 21])
def test_scales_are_half_where_kernels_take_them(provider: str, opset: int) -> None:
    result = converted(quantized(opset), provider)
    report = result.report
    assert report.check.status is CheckStatus.VERIFIED
    assert (report.casts_after, report.float32, report.fallen_back) == (0, {}, [])
    assert report.runtime == "loads and runs"
    assert opset_version(result.model.graph, result.model) == max(opset, 19)
    assert any("opset raised from 17 to 19" in note for note in report.notes) == (opset == 17)
    onnx.checker.check_model(to_proto(result.model), full_check=True)


def test_integers_are_left_in_peace_where_they_would_not_become_kernels() -> None:
    result = converted(quantized(21), "any")
    infer_shapes(result.model)
    for node in all_nodes(result.model):
        if node.op_type == "QuantizeLinear":
            assert node.inputs[0] is not None
            assert node.inputs[0].dtype == ir.DataType.FLOAT
    older = converted(quantized(), "any").model
    assert opset_version(older.graph, older) == 17


def test_stored_weights_need_no_other_opset() -> None:
    model = converted(quantized(), "tensorrt", storage_only=True).model
    assert opset_version(model.graph, model) == 17


def test_a_scale_of_next_to_nothing_is_not_zero_in_half() -> None:
    result = converted(quantized(smallest=1e-19), "tensorrt")
    assert result.report.casts_after == 0
    scale = result.model.graph.initializers["u"].const_value
    assert scale is not None
    assert scale.dtype == ir.DataType.FLOAT16
    assert float(scale.numpy()[0]) == 2.0**-24
    assert np.array_equal(scale.numpy()[1:], np.full(31, 2e-3, np.float16))


def test_an_activation_s_scale_that_half_cannot_hold_stays() -> None:
    model = quantized(21)
    model.graph.initializers["t"].const_value = ir.tensor(np.float32(1e-7), name="t")
    report = converted(model, "tensorrt", check=False).report
    assert "constant 't' is too small for fp16" in report.float32.values()


def test_without_rounding_the_range_is_left() -> None:
    model = quantized()
    exact = without_rounding(model)
    assert exact is not None
    used = [node for node in exact.graph if node.op_type == "QuantizeLinear"]
    assert not any(value.uses() for node in used for value in node.outputs)
    feed = {"x": np.full((2, 32), 100.0, np.float32)}  # saturates at 127 * 0.03
    (one,) = Session(model).run(feed).values()
    (two,) = Session(exact).run(feed).values()
    assert np.abs(one - two).max() < 0.1 * np.abs(one).max()
    assert (
        without_rounding(
            from_text("""<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x) => (float[2] y) { y = Relu(x) }""")
        )
        is None
    )


def shifted(model: ir.Model, by: float) -> ir.Model:
    """The model with an offset ahead of its first QuantizeLinear."""
    offset = ir.Value(name="offset", const_value=ir.tensor(np.float32(by), name="offset"))
    model.graph.initializers.add(offset)
    first = next(iter(model.graph))
    add = ir.node("Add", [model.graph.inputs[0], offset])
    model.graph.insert_before(first, add)
    first.replace_input_with(0, add.outputs[0])
    return model


def test_noise_is_allowed_and_a_shift_is_not() -> None:
    model = quantized()
    checker = half_checker(model, input_data=FEEDS)
    # A tenth of a step ahead of the rounding: other integers, no larger noise.
    report = checker.compare(shifted(_copy(model), 0.003))
    assert HalfChecker(model, input_data=FEEDS).compare(shifted(_copy(model), 0.003)).status is (
        CheckStatus.FAILED
    )
    assert report.status is CheckStatus.VERIFIED
    assert "no more noise in y" in report.reason
    assert checker.compare(shifted(_copy(model), 0.1)).status is CheckStatus.FAILED


def test_a_result_that_fails_on_an_input_is_no_noise() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n,32] x) => (float[n,32] y)
<float s = {0.03}, int8 z = {0}, float offset = {0.004}, int64[2] two = {2, 32}> {
  a = QuantizeLinear(x, s, z)
  b = DequantizeLinear(a, s, z)
  %s
}"""
    longer = {"x": RANDOM.standard_normal((3, 32), np.float32)}
    checker = half_checker(from_text(text % "y = Neg(b)"), input_data=[*FEEDS, longer], rtol=1e-3)
    right = from_text(text % "o = Neg(offset) c = Add(b, o) y = Neg(c)")
    assert checker.compare(right).status is CheckStatus.VERIFIED
    fails = from_text(text % "o = Neg(offset) c = Add(b, o) d = Neg(c) y = Reshape(d, two)")
    assert checker.compare(fails).status is CheckStatus.FAILED


def test_one_broken_element_of_many_is_no_noise() -> None:
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]>
g (float[2,32] x) => (float[2,32] y) <float s = {0.03}, int8 z = {0}> {
  a = QuantizeLinear(x, s, z)
  b = DequantizeLinear(a, s, z)
  y = Neg(b)
}""")
    zeros = ", ".join(["0"] * 31)
    broken = from_text(f"""<ir_version: 8, opset_import: ["" : 17]>
g (float[2,32] x) => (float[2,32] y)
<float s = {{0.03}}, int8 z = {{0}}, float[32] one = {{0.03, {zeros}}}> {{
  a = QuantizeLinear(x, s, z)
  b = DequantizeLinear(a, s, z)
  c = Neg(b)
  y = Add(c, one)
}}""")
    checker = half_checker(model, input_data=FEEDS, rtol=1e-3)
    assert checker.compare(broken).status is CheckStatus.FAILED


def test_where_integers_leave_nothing_but_noise_zeros_are_wrong() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,32] x) => (float[2,32] y) <float s = {0.03}, int8 z = {0}, float most = {1000}> {
  a = QuantizeLinear(x, s, z)
  b = DequantizeLinear(a, s, z)
  c = Mul(b, most)
  d = Sin(c)
  y = %s
}"""
    checker = half_checker(from_text(text % "Neg(d)"), input_data=FEEDS)
    assert checker.compare(from_text(text % "Sub(d, d)")).status is CheckStatus.FAILED


def _copy(model: ir.Model) -> ir.Model:
    return ir.from_proto(to_proto(model))


def test_what_cannot_be_half_at_all_comes_back_as_it_was() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
g (float[4] x) => (float[4] y) <float zero = {0.0}> {
  a = Add(x, zero)
  y = Add(a, zero)
}"""
    model = from_text(text)
    report = convert_half(model, HalfOptions(op_block_list=["Add", "Identity"])).report
    result = convert_half(model, HalfOptions(op_block_list=["Add", "Identity"]))
    assert "the result is the model as it was" in str(report.notes)
    assert [node.op_type for node in result.model.graph] == ["Add", "Add"]
    assert report.before.file_bytes == report.after.file_bytes
