"""Situations of section D that are about the data: activations, outliers, batches, old models.

See `test_section_d`; bounds are on the signal to quantization noise ratio at the output.
"""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.graph import raise_opset
from graphopt.quantization.calibration import calibrate
from graphopt.quantization.opset import PER_CHANNEL
from graphopt.quantization.placement import place
from graphopt.shapes import infer_shapes

from .quantizing import ORT_CPU, Quantized, model_of, normal, quantize

ENOUGH = 30.0
WEIGHTS = {
    name: normal(8, 8, 1, 1, seed=number, scale=0.4) for number, name in enumerate(("w", "v"))
}
X = {"x": normal(1, 8, 8, 8, seed=99)}


def _good(found: Quantized) -> None:
    assert found.sqnr() > ENOUGH
    assert found.sqnr(optimized=True) > ENOUGH


# 8: activation functions between convolutions

ACTIVATIONS = {
    "silu": "s = Sigmoid (t) r = Mul (t, s)",
    "sigmoid": "r = Sigmoid (t)",
    "hard swish": "r = HardSwish (t)",
    "hard sigmoid": "r = HardSigmoid (t)",
    "tanh": "r = Tanh (t)",
    "gelu": "a = Div (t, root) e = Erf (a) f = Add (e, one) g = Mul (t, f) r = Mul (g, half)",
    "leaky relu": "r = LeakyRelu (t)",
    "softmax": "r = Softmax <axis = 1> (t)",
    "layer normalization": "r = LayerNormalization <axis = 1> (t, gain)",
}
# No integer kernel of ONNX Runtime computes these, so integers would only add conversions.
WITHOUT_KERNEL = {"hard swish", "hard sigmoid", "tanh", "softmax", "layer normalization"}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_function_between_convolutions(name: str) -> None:
    constants = {"root": np.sqrt(2.0), "one": 1.0, "half": 0.5}
    model = model_of(
        f"g (float[1,8,8,8] x) => (y) {{ t = Conv (x, w) {ACTIVATIONS[name]} y = Conv (r, v) }}",
        {
            **WEIGHTS,
            **{key: np.array(value, np.float32) for key, value in constants.items()},
            "gain": np.ones((8, 8, 8), np.float32),
        },
    )
    found = quantize(model, X)
    kernels = found.kernels()
    assert kernels.count("QLinearConv") == 2
    if name in WITHOUT_KERNEL:
        assert not any(kernel.startswith("QLinear") and "Conv" not in kernel for kernel in kernels)
    _good(found)


# 10: models that know no scale per channel


@pytest.mark.parametrize("version", [9, 11, 12])
def test_an_old_model_gets_a_scale_per_channel(version: int) -> None:
    weight = WEIGHTS["w"] * (10.0 ** -np.arange(8, dtype=np.float32))[:, None, None, None]
    model = model_of(
        f'<ir_version: 6, opset_import: ["" : {version}]>'
        "g (float[1,8,8,8] x) => (float[1,8,8,8] y) { y = Conv (x, w) }",
        {"w": weight},
    )
    raised = raise_opset(model, PER_CHANNEL)
    infer_shapes(raised)
    found = quantize(raised, X)
    assert found.plan.constants["y", 1].parameters.axis == 0
    _good(found)


# 11, 12: what the ranges are made from


def _calibrated(feeds: list[dict[str, np.ndarray]], method: str) -> Quantized:
    model = model_of(
        """g (float[N,8,8,8] x) => (float[N,8,8,8] y) {
            t = Conv (x, w) r = Relu (t) y = Conv (r, v)
        }""",
        WEIGHTS,
    )
    names = place(model, ORT_CPU).activations
    return quantize(model, X, ranges=calibrate(model, feeds, names, method=method).tensors)


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_one_broken_sample_does_not_decide(method: str) -> None:
    feeds = [{"x": normal(1, 8, 8, 8, seed=number)} for number in range(24)]
    feeds[7] = {"x": feeds[7]["x"] * 1000}
    # Percentile and entropy clip a little of what is usual, too.
    assert _calibrated(feeds, method).sqnr() > (ENOUGH if method == "mse" else 24)
    assert _calibrated(feeds, "minmax").sqnr() < 10


def test_a_last_batch_that_is_not_full() -> None:
    feeds = [{"x": normal(count, 8, 8, 8, seed=count)} for count in (8, 8, 3)]
    _good(_calibrated(feeds, "mse"))
