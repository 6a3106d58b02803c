"""The situations of quantization that are known to go wrong, each with a bound on the error.

Bounds are on the signal to quantization noise ratio at every output, 30 dB where 8 bits allow it,
and hold for the model as written and for what ONNX Runtime makes of it.
"""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.graph import ir
from graphopt.quantization.backends import BACKENDS, Format
from graphopt.quantization.borders import Borders, readers_of
from graphopt.quantization.placement import place
from graphopt.quantization.ranges import Range
from graphopt.quantization.saturation import excess

from .quantizing import ORT_CPU, Quantized, model_of, normal, quantize

ENOUGH = 30.0
FLOATS = {"Conv", "FusedConv", "Gemm", "MatMul", "ConvTranspose"}


def _good(found: Quantized, bound: float = ENOUGH) -> None:
    """Both ways of running are close enough, and to one another."""
    assert found.sqnr() > bound
    assert found.sqnr(optimized=True) > bound


def _conv_weights(*names: str, channels: int = 8, size: int = 1) -> dict[str, np.ndarray]:
    return {
        name: normal(channels, channels, size, size, seed=i, scale=0.4)
        for i, name in enumerate(names)
    }


X = {"x": normal(1, 8, 8, 8, seed=99)}


# 1: data movement, Concat


def test_no_requantization_across_data_movement() -> None:
    model = model_of(
        """g (float[1,8,8,8] x) => (y) {
            t = Conv (x, w)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (t)
            r = Transpose <perm = [0, 1, 3, 2]> (p)
            y = Conv (r, v)
        }""",
        _conv_weights("w", "v"),
    )
    found = quantize(model, X)
    parameters = [found.plan.activations[name] for name in ("t", "p", "r")]
    assert parameters[0] == parameters[1] == parameters[2]
    kernels = found.kernels()
    assert kernels.count("QuantizeLinear") == kernels.count("DequantizeLinear") == 1
    _good(found)


def _branches(ratio: float, text: str) -> tuple[ir.Model, dict[str, np.ndarray]]:
    weights = _conv_weights("w", "v", "w2")
    weights["v"] = weights["v"] * np.float32(ratio)
    joined = normal(4, 16, 1, 1, seed=7, scale=0.4)
    # What follows lifts the narrow branch out again.
    joined[:, 8:] /= np.float32(ratio)
    weights["j"] = joined
    return model_of(text, {name: a for name, a in weights.items() if name in text}), weights


def test_a_concat_of_a_hundredfold_ranges_keeps_both_branches() -> None:
    model, _ = _branches(
        100.0,
        """g (float[1,8,8,8] x) => (y, n) {
            a = Conv (x, w) b = Conv (x, v)
            c = Concat <axis = 1> (a, b)
            y = Conv (c, j)
            s, big = Split <axis = 1, num_outputs = 2> (c)
            n = Relu (s)
        }""".replace(", num_outputs = 2", ""),
    )
    found = quantize(model, X)
    _good(found, 25.0)
    assert "100-fold" in found.plan.left_float["y"] or "-fold" in found.plan.left_float["y"]
    # The branches themselves are integers, each with its own scale.
    assert found.kernels().count("QLinearConv") == 2
    scales = found.plan.activations["b"].scale / found.plan.activations["a"].scale
    assert scales > 50


def test_a_wide_concat_is_quantized_where_the_next_weights_do_not_care() -> None:
    model, weights = _branches(
        20.0,
        """g (float[1,8,8,8] x) => (y) {
            a = Conv (x, w) b = Conv (x, v)
            c = Concat <axis = 1> (a, b)
            y = Conv (c, j)
        }""",
    )
    even = weights["j"].copy()
    even[:, 8:] *= np.float32(20.0)
    model.graph.initializers["j"].const_value = ir.tensor(even)
    found = quantize(model, X)
    assert "y" not in found.plan.left_float
    _good(found)


@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_a_concat_of_like_ranges_has_one_scale(ratio: float) -> None:
    model, _ = _branches(
        ratio,
        """g (float[1,8,8,8] x) => (y) {
            a = Conv (x, w) b = Conv (x, v)
            c = Concat <axis = 1> (a, b)
            y = Conv (c, j)
        }""",
    )
    found = quantize(model, X)
    assert found.plan.activations["a"] == found.plan.activations["c"]
    assert found.plan.activations["b"] == found.plan.activations["c"]
    assert "QLinearConcat" in found.kernels()
    _good(found)


def test_a_relu_branch_beside_a_signed_one_keeps_its_own_zero_point() -> None:
    model = model_of(
        """g (float[1,8,8,8] x) => (y) {
            t = Conv (x, w) a = Relu (t) b = Conv (x, v)
            c = Concat <axis = 1> (a, b)
            y = Conv (c, j)
        }""",
        {**_conv_weights("w", "v"), "j": normal(4, 16, 1, 1, seed=7, scale=0.4)},
    )
    found = quantize(model, X)
    # With the Concat's zero point the Relu could not vanish, and its Conv would run in float.
    assert found.plan.activations["a"].zero_point == 0
    assert not FLOATS & set(found.kernels())
    _good(found)


# 2: biases


def test_a_bias_that_overflows_int32_widens_the_weight_scale() -> None:
    weight = normal(8, 8, 1, 1, scale=1e-9)
    weight[4:] *= np.float32(1e9)
    bias = np.full(8, 3.0, np.float32)
    model = model_of("g (float[1,8,8,8] x) => (y) { y = Conv (x, w, b) }", {"w": weight, "b": bias})
    found = quantize(model, X)
    held = found.plan.constants["y", 2]
    integers = held.quantize(bias).astype(np.int64)
    assert np.abs(integers).max() <= 2**30 + 64
    assert "4 channels" in found.plan.notes["y"]
    restored = held.parameters.dequantize(integers)
    assert np.allclose(restored[:4], bias[:4], rtol=1e-6)
    _good(found)


def test_channels_of_zeros_keep_their_bias() -> None:
    weight = normal(8, 8, 1, 1, scale=0.4)
    weight[2] = weight[5] = 0.0
    bias = normal(8, seed=4)
    bias[5] = 0.0
    model = model_of("g (float[1,8,8,8] x) => (y) { y = Conv (x, w, b) }", {"w": weight, "b": bias})
    found = quantize(model, X)
    scale = found.plan.constants["y", 1].parameters.scale
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
    restored = found.plan.constants["y", 2].parameters.fake_quantize(bias)
    assert abs(restored[2] - bias[2]) < 1e-6
    _good(found)


def test_a_constant_activation_and_a_zero_input_do_not_divide_by_zero() -> None:
    model = model_of("g (float[1,8,8,8] x) => (y) { y = Conv (x, w) }", _conv_weights("w"))
    found = quantize(model, {"x": np.zeros((1, 8, 8, 8), np.float32)})
    assert not found.outputs(optimized=True)["y"].any()


# 3: shared weights


def test_a_weight_shared_by_layers_of_different_input_scale() -> None:
    model = model_of(
        """g (float[1,8,8,8] x) => (y) {
            t = Conv (x, w, b)
            u = Conv (t, w, b)
            y = Conv (u, w, b)
        }""",
        {"w": _conv_weights("w")["w"] * np.float32(2), "b": normal(8, seed=4)},
    )
    found = quantize(model, X)
    int8 = [v for v in found.result.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    assert sum(v.shape is not None and len(v.shape) == 4 for v in int8) == 1
    assert not FLOATS & set(found.kernels())
    _good(found)


def test_a_weight_that_is_also_read_as_floats() -> None:
    model = model_of(
        "g (float[8,8] x) => (y, z) { y = MatMul (x, w) z = Sub (x, w) }", {"w": normal(8, 8)}
    )
    found = quantize(model, {"x": normal(8, 8, seed=3)})
    assert "w" in found.result.graph.initializers
    _good(found)


# 4: formats and axes


@pytest.mark.parametrize(
    ("node", "axis", "shape", "dims"),
    [
        ("Conv (x, w)", 0, (6, 8, 3, 3), (1, 8, 8, 8)),
        ("Conv <group = 4> (x, w)", 0, (12, 2, 3, 3), (1, 8, 8, 8)),
        ("ConvTranspose (x, w)", 1, (8, 6, 3, 3), (1, 8, 8, 8)),
        ("ConvTranspose <group = 2> (x, w)", 1, (8, 3, 3, 3), (1, 8, 8, 8)),
        ("Gemm (x, w)", 1, (8, 6), (4, 8)),
        ("Gemm <transB = 1> (x, w)", 0, (6, 8), (4, 8)),
        ("Gemm <transA = 1> (x, w)", 1, (8, 6), (8, 4)),
        ("MatMul (x, w)", 1, (8, 6), (2, 4, 8)),
    ],
)
def test_weights_have_a_scale_per_output_channel(
    node: str, axis: int, shape: tuple[int, ...], dims: tuple[int, ...]
) -> None:
    weight = normal(*shape, scale=0.4)
    # With one scale for all, the small channels would be gone.
    factors = np.float32(10.0) ** np.linspace(-3, 0, shape[axis], dtype=np.float32)
    weight *= factors.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    text = f"g (float[{','.join(map(str, dims))}] x) => (y) {{ y = {node} }}"
    model = model_of(text, {"w": weight})
    feed = {"x": normal(*dims, seed=3)}
    found = quantize(model, feed, backend=BACKENDS["openvino"], saturation_safe=False)
    parameters = found.plan.constants["y", 1].parameters
    assert parameters.axis == axis
    expected = np.abs(weight).max(axis=tuple(i for i in range(len(shape)) if i != axis)) / 127
    assert np.allclose(parameters.scale, expected)
    assert found.sqnr() > ENOUGH


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_a_weight_on_the_left(op: str) -> None:
    model = model_of(f"g (float[8,6] x) => (y) {{ y = {op} (w, x) }}", {"w": normal(4, 8)})
    found = quantize(model, {"x": normal(8, 6, seed=3)})
    assert found.plan.constants["y", 0].parameters.axis is None
    assert not FLOATS & set(found.kernels())
    _good(found)


def test_tensorrt_is_symmetric_and_leaves_biases_float() -> None:
    model = model_of(
        "g (float[1,8,8,8] x) => (y) { t = Conv (x, w, b) u = Relu (t) y = Conv (u, v, b) }",
        {**_conv_weights("w", "v"), "b": normal(8)},
    )
    found = quantize(model, X, backend=BACKENDS["tensorrt"])
    for parameters in found.plan.activations.values():
        assert parameters.dtype == ir.DataType.INT8
        assert parameters.is_symmetric
    assert set(found.plan.constants) == {("t", 1), ("y", 1)}
    _good(found)


# 5: saturation


def test_no_products_saturate_on_a_processor_without_vnni() -> None:
    weight = normal(16, 16, 3, 3, scale=0.2)
    weight[:, :, 1, 1] = np.abs(weight[:, :, 1, 1]) + 0.6  # neighbours of one sign, all large
    model = model_of("g (float[1,16,8,8] x) => (y) { y = Conv (x, w) }", {"w": weight})
    feed = {"x": np.abs(normal(1, 16, 8, 8, seed=3)) + 2}
    found = quantize(model, feed, saturation_safe=True)
    item = found.plan.constants["y", 1]
    assert excess(item.quantize(weight), 0).max() == 0
    unsafe = quantize(model, feed, saturation_safe=False)
    assert excess(unsafe.plan.constants["y", 1].quantize(weight), 0).max() > 0
    # As optimized the kernels of this processor run; as written the products are exact floats.
    assert found.sqnr(optimized=True) > 35
    assert abs(found.sqnr(optimized=True) - found.sqnr()) < 1.0


def test_saturation_costs_nothing_where_none_can_occur() -> None:
    weight = normal(16, 16, 1, 1)
    weight[:, 1::2] *= np.float32(0.005)
    model = model_of("g (float[1,16,8,8] x) => (y) { y = Conv (x, w) }", {"w": weight})
    feed = {"x": normal(1, 16, 8, 8, seed=3)}
    plans = [quantize(model, feed, saturation_safe=safe).plan for safe in (True, False)]
    assert plans[0].constants["y", 1].parameters == plans[1].constants["y", 1].parameters
    assert plans[0].constants["y", 1].integers is None


def test_unsigned_weights_are_the_other_remedy() -> None:
    backend = ORT_CPU.with_formats(weight=Format(ir.DataType.UINT8, symmetric=True))
    model = model_of("g (float[1,8,8,8] x) => (y) { y = Conv (x, w) }", _conv_weights("w"))
    found = quantize(model, X, backend=backend)
    assert found.plan.constants["y", 1].parameters.dtype == ir.DataType.UINT8
    assert "QLinearConv" in found.kernels()
    _good(found)


# 6: absorbed activations


@pytest.mark.parametrize(
    ("activation", "clip"),
    [
        ("y = Relu (t)", (0.0, np.inf)),
        ("y = Clip (t, zero, six)", (0.0, 6.0)),
        ("y = Clip (t, minus, one)", (-1.0, 1.0)),
        ("r = Relu (t) y = Clip (r, , six)", (0.0, 6.0)),
    ],
)
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_activations_vanish_into_the_range(
    activation: str, clip: tuple[float, float], scale: float
) -> None:
    constants = {"zero": 0.0, "six": 6.0, "minus": -1.0, "one": 1.0}
    weights = {"w": normal(8, 8, 1, 1, scale=scale)}
    weights.update({k: np.array(v, np.float32) for k, v in constants.items() if k in activation})
    model = model_of(f"g (float[1,8,8,8] x) => (y) {{ t = Conv (x, w) {activation} }}", weights)
    found = quantize(model, X)
    ends = found.plan.activations["y"].dequantize(np.array([0, 255], np.uint8))
    assert ends[0] >= clip[0]
    assert ends[1] <= clip[1]
    assert not {"Relu", "Clip", *FLOATS} & set(found.kernels())
    _good(found)


# 7: residual


def test_a_residual_add_is_integer_on_both_sides() -> None:
    model = model_of(
        """g (float[1,8,8,8] x) => (y) {
            t = Conv (x, w) r = Relu (t) u = Conv (r, v) s = Add (u, r) y = Relu (s)
        }""",
        _conv_weights("w", "v"),
    )
    found = quantize(model, X)
    assert "QLinearAdd" in found.kernels()
    assert found.kernels().count("QuantizeLinear") == 1
    _good(found)
    tensorrt = quantize(model, X, backend=BACKENDS["tensorrt"])
    # The sum of the second Conv reaches the Add as floats: the two are one kernel.
    assert "u" not in tensorrt.plan.activations
    assert "r" in tensorrt.plan.activations
    _good(tensorrt)


# 8, 9: attention


def test_attention_products_are_integer_on_both_sides_and_softmax_is_fixed() -> None:
    model = model_of(
        """g (float[2,6,16] x) => (y) {
            q = MatMul (x, wq) k = MatMul (x, wk) v = MatMul (x, wv)
            kt = Transpose <perm = [0, 2, 1]> (k)
            s = MatMul (q, kt)
            p = Softmax (s)
            y = MatMul (p, v)
        }""",
        {name: normal(16, 16, seed=i, scale=0.2) for i, name in enumerate(("wq", "wk", "wv"))},
    )
    found = quantize(model, {"x": normal(2, 6, 16, seed=3)})
    assert "p" not in found.placement.activations
    probabilities = found.plan.activations["p"]
    assert probabilities.zero_point == 0
    assert np.isclose(probabilities.scale, 1 / 255)
    assert {"q", "kt", "p", "v"} <= set(found.plan.activations)
    assert "Softmax" in found.kernels()  # float, since nothing was measured
    assert "MatMul" not in found.kernels()
    _good(found)


def test_a_product_before_an_add_is_never_merged_into_a_float_gemm() -> None:
    model = model_of(
        "g (float[4,16] x, float[4,16] z) => (y) { t = MatMul (x, w) y = Add (t, z) }",
        {"w": normal(16, 16, scale=0.3)},
    )
    found = quantize(model, {"x": normal(4, 16, seed=3), "z": normal(4, 16, seed=4)})
    assert not FLOATS & set(found.kernels())
    _good(found)


@pytest.mark.parametrize("shape", ["4,16", "2,4,16", "N,16", "N,4,16"])
@pytest.mark.parametrize("more", ["", "u = Sigmoid (y) z = MatMul (u, w2)"])
def test_the_bias_of_a_product(shape: str, more: str) -> None:
    output = "z" if more else "y"
    declared = f"float[{shape.replace('16', '8')}]"
    body = f"t = MatMul (x, w) y = Add (t, b) {more}"
    model = model_of(
        f"g (float[{shape}] x) => ({declared} {output}) {{ {body} }}",
        {"w": normal(16, 8, scale=0.3), "b": normal(8), **({"w2": normal(8, 8)} if more else {})},
    )
    dims = [int(dim) if dim.isdigit() else 3 for dim in shape.split(",")]
    found = quantize(model, {"x": normal(*dims, seed=3)})
    assert not FLOATS & set(found.kernels())
    _good(found)


# 12: dynamic shapes


def test_a_batch_other_than_that_of_calibration() -> None:
    model = model_of(
        "g (float[N,8,H,W] x) => (float[N,8,H,W] y) { t = Conv (x, w) y = Relu (t) }",
        _conv_weights("w"),
    )
    found = quantize(model, X)
    for batch in (1, 5):
        found.feed = {"x": np.tile(X["x"], (batch, 1, 2, 1))}
        _good(found)


# 13: bodies, functions, initializers that are outputs


def test_a_tensor_that_a_body_reads_too() -> None:
    model = model_of(
        """g (bool cond, float[1,8,8,8] x) => (float[1,8,8,8] y) {
            t = Conv (x, w)
            y = If (cond) <
                then_branch = yes () => (float[1,8,8,8] a) { a = Neg (t) },
                else_branch = no () => (float[1,8,8,8] b) { b = Conv (t, w) }
            >
        }""",
        _conv_weights("w"),
    )
    for cond in (True, False):
        found = quantize(model, {**X, "cond": np.array(cond)})
        assert "body" in found.plan.left_float["b"]
        _good(found)


def test_an_initializer_that_is_an_output() -> None:
    model = model_of(
        "g (float[4,8] x) => (y, float[8,8] w) { y = MatMul (x, w) }", {"w": normal(8, 8)}
    )
    found = quantize(model, {"x": normal(4, 8, seed=3)})
    assert [value.name for value in found.result.graph.outputs] == ["y", "w"]
    _good(found)


def test_outputs_that_are_inner_tensors_too() -> None:
    model = model_of(
        "g (float[1,8,8,8] x) => (t, y, u) { t = Conv (x, w) u = Identity (t) y = Conv (u, v) }",
        _conv_weights("w", "v"),
    )
    found = quantize(model, X)
    assert [value.name for value in found.result.graph.outputs] == ["t", "y", "u"]
    _good(found)


# 14: first and last layer, depthwise, embedding


def test_a_table_is_stored_as_integers_where_integers_are_read() -> None:
    model = model_of(
        "g (int64[5] i) => (y) { e = Gather (table, i) y = MatMul (e, w) }",
        {"table": normal(50, 16), "w": normal(16, 8, seed=1)},
    )
    found = quantize(model, {"i": np.array([0, 3, 49, 7, 7])})
    assert found.plan.constants["e", 0].parameters == found.plan.activations["e"]
    assert "QuantizeLinear" not in found.kernels()
    _good(found)


def test_a_table_stays_float_where_floats_are_read() -> None:
    model = model_of(
        "g (int64[5] i) => (y) { e = Gather (table, i) y = Tanh (e) }", {"table": normal(50, 16)}
    )
    found = quantize(model, {"i": np.array([0, 3, 49, 7, 7])})
    assert found.plan.groups == ()
    assert "conversions" in found.plan.left_float["e"]


def test_depthwise_keeps_eight_bits() -> None:
    model = model_of(
        "g (float[1,8,8,8] x) => (y) { y = Conv <group = 8> (x, w) }",
        {"w": np.abs(normal(8, 1, 3, 3)) + 1},
    )
    plans = [quantize(model, X, saturation_safe=safe).plan for safe in (True, False)]
    assert plans[0].constants["y", 1].parameters == plans[1].constants["y", 1].parameters


# 15: quantized already; left float


def test_quantizing_twice_changes_nothing() -> None:
    model = model_of(
        "g (float[1,8,8,8] x) => (y) { t = Conv (x, w) u = Relu (t) y = Conv (u, v) }",
        _conv_weights("w", "v"),
    )
    once = quantize(model, X).result
    placement = place(once, ORT_CPU)
    assert [group for group in placement.groups if group.op_type == "Conv"] == []
    twice = quantize(once, X)
    assert twice.ops() == [node.op_type for node in once.graph]


def test_what_was_left_float_runs_in_float() -> None:
    model = model_of(
        "g (float[1,8,8,8] x) => (y) { t = Conv (x, w) u = Conv (t, v) y = Conv (u, w) }",
        _conv_weights("w", "v"),
    )
    found = quantize(model, X, exclude=["u"])
    kernels = found.kernels()
    # Without the Sum ONNX Runtime rounds v itself and runs all three in integers.
    assert "Sum" in kernels
    assert kernels.count("QLinearConv") == 2
    assert kernels.count("Conv") == 1
    _good(found)


@pytest.mark.parametrize(
    "pool",
    [
        "u = AveragePool <kernel_shape = [2, 2]> (t)",
        "p = Pad (t, border) u = AveragePool <kernel_shape = [2, 2], count_include_pad = 1> (p)",
        "p = AveragePool <kernel_shape = [2, 2]> (t) u = Transpose <perm = [0, 1, 3, 2]> (p)",
    ],
)
def test_a_slow_kernel_is_not_taken_unasked(pool: str) -> None:
    weights = _conv_weights("w", "v")
    if "border" in pool:
        weights["border"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    model = model_of(
        f"g (float[1,8,8,8] x) => (y) {{ t = Conv (x, w) {pool} y = Conv (u, v) }}", weights
    )
    assert "AveragePool" in quantize(model, X).kernels()
    if "Pad" not in pool:
        assert "QLinearAveragePool" in quantize(model, X, float_groups={}).kernels()


def test_a_mask_is_not_quantized() -> None:
    model = model_of(
        "g (float[1,8,8,8] x) => (y) { t = Conv (x, w) s = Add (t, m) y = Softmax (s) }",
        {**_conv_weights("w"), "m": np.where(normal(8, 8) > 0, 0, -1e9).astype(np.float32)},
    )
    found = quantize(model, X)
    assert "as masks do" in found.plan.left_float["s"]
    _good(found)


def test_sixteen_bits_need_opset_21_and_get_it() -> None:
    backend = ORT_CPU.with_formats(activation=Format(ir.DataType.UINT16, symmetric=False))
    model = model_of(
        '<ir_version: 10, opset_import: ["" : 21]>'
        "g (float[1,8,8,8] x) => (y) { t = Conv (x, w) y = Conv (t, v) }",
        _conv_weights("w", "v"),
    )
    assert quantize(model, X, backend=backend).sqnr() > 38


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_quantizes_a_block_within_the_bound(name: str) -> None:
    model = model_of(
        """g (float[1,8,8,8] x) => (y) {
            t = Conv (x, w, b) r = Relu (t)
            u = Conv <group = 8, pads = [1, 1, 1, 1]> (r, d)
            c = Clip (u, zero, six)
            s = Conv (c, v, b)
            a = Add (s, x)
            p = MaxPool <kernel_shape = [2, 2]> (a)
            g = GlobalAveragePool (p)
            f = Flatten (g)
            y = Gemm <transB = 1> (f, m, b)
        }""",
        {
            **_conv_weights("w", "v"),
            "d": normal(8, 1, 3, 3, seed=8, scale=0.5),
            "b": normal(8, seed=4),
            "m": normal(8, 8, seed=5),
            "zero": np.array(0, np.float32),
            "six": np.array(6, np.float32),
        },
    )
    found = quantize(model, X, backend=BACKENDS[name])
    assert found.sqnr() > ENOUGH
    groups = found.plan.groups
    borders = Borders(groups, readers_of(model, groups))
    assert all(borders.is_integer(tensor) for tensor in found.plan.activations)


def test_a_range_given_is_the_range_used() -> None:
    model = model_of("g (float[1,8,8,8] x) => (y) { y = Conv (x, w) }", _conv_weights("w"))
    found = quantize(model, X, ranges={"x": Range(-2.0, 2.0)})
    assert np.isclose(found.plan.activations["x"].scale, 4 / 255)
