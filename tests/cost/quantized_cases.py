"""The table of single nodes on which the rules for quantized operators are tested."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.cost import brute_force_quantized
from tests.cost.contraction_cases import explicit, floats, integers
from tests.cost.one_node import MICROSOFT, Case


def scale(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def zero(value: int, dtype: type = np.uint8) -> np.ndarray:
    return np.array(value, dtype)


def _nodes() -> Iterator[Case]:
    quantized = brute_force_quantized

    def case(name: str, loops: Any, *inputs: Any, domain: str = "", **attributes: Any) -> Case:
        tolerance = 1.0 if name.startswith("QLinear") or name == "QGemm to int8" else 1e-3
        return explicit(name, inputs, loops, attributes, domain, tolerance=tolerance)

    def contrib(name: str, loops: Any, *inputs: Any, **attributes: Any) -> Case:
        return case(name, loops, *inputs, domain=MICROSOFT, **attributes)

    x = floats(2, 3, 4)
    per_channel = abs(floats(3)) + np.float32(0.1)
    yield case("QuantizeLinear whole", quantized.quantize, x, scale(0.03), zero(120))
    yield case("QuantizeLinear symmetric", quantized.quantize, x, scale(0.03))
    yield case(
        "QuantizeLinear channels", quantized.quantize, x, per_channel, integers(np.int8, 3), axis=1
    )
    codes = integers(np.uint8, 2, 3, 4)
    yield case("DequantizeLinear whole", quantized.dequantize, codes, scale(0.03), zero(120))
    yield case("DequantizeLinear channels", quantized.dequantize, codes, per_channel, axis=1)
    yield dataclasses.replace(
        case("DynamicQuantizeLinear", quantized.dynamic_quantize, floats(3, 4)), outputs=3
    )
    image, kernel = integers(np.uint8, 1, 2, 4, 4), integers(np.int8, 3, 2, 3, 3)
    yield case("ConvInteger plain", quantized.convolution_integer, image, kernel.view(np.uint8))
    both = image, kernel.view(np.uint8), zero(7), zero(9)
    yield case("ConvInteger shifted", quantized.convolution_integer, *both, pads=[0, 1, 1, 0])
    head, tail = (scale(0.02), zero(100)), (scale(0.9), zero(110))
    weights = kernel, np.array([0.02, 0.01, 0.03], np.float32), np.zeros(3, np.int8)
    bias = integers(np.int16, 3).astype(np.int32)
    yield case("QLinearConv plain", quantized.convolution, image, *head, *weights, *tail)
    yield case(
        "QLinearConv biased",
        quantized.convolution,
        image,
        *head,
        *weights,
        *tail,
        bias,
        strides=[2, 2],
        pads=[0, 0, 1, 1],
    )
    a, b = integers(np.uint8, 2, 3, 4), integers(np.int8, 4, 5)
    yield case("MatMulInteger plain", quantized.matrix_product_integer, a, b)
    yield case(
        "MatMulInteger shifted", quantized.matrix_product_integer, a, b, zero(5), zero(3, np.int8)
    )
    yield case(
        "QLinearMatMul",
        quantized.matrix_product,
        a,
        *head,
        b,
        scale(0.01),
        zero(0, np.int8),
        *tail,
    )
    yield contrib(
        "MatMulIntegerToFloat biased",
        quantized.matrix_product_to_float,
        a,
        b,
        scale(0.02),
        scale(0.01),
        zero(5),
        zero(3, np.int8),
        floats(5),
    )
    yield dataclasses.replace(
        contrib(
            "DynamicQuantizeMatMul",
            quantized.dynamic_matrix_product,
            floats(3, 4),
            b,
            scale(0.01),
            zero(0, np.int8),
            floats(5),
        ),
        tolerance=1e-2,
    )
    flat = integers(np.uint8, 3, 4)
    right = b, scale(0.01), zero(0, np.int8)
    offset = integers(np.int16, 5).astype(np.int32)
    gemm = quantized.general_matrix_product
    yield contrib("QGemm to float", gemm, flat, *head, *right, offset, transA=0)
    yield contrib("QGemm to int8", gemm, flat, *head, *right, None, *tail)
    shifted = zero(100), zero(0, np.int8)
    yield contrib(
        "QAttention",
        quantized.quantized_attention,
        integers(np.uint8, 2, 3, 4),
        integers(np.int8, 4, 12),
        floats(12),
        scale(0.01),
        scale(0.01),
        None,
        *shifted,
        num_heads=2,
        unidirectional=1,
    )
    blocks = integers(np.uint8, 3, 2, 8)
    yield explicit(
        "MatMulNBits",
        (floats(2, 32), blocks, abs(floats(3, 2)), None, None, floats(3)),
        quantized.packed_matrix_product,
        {"K": 32, "N": 3, "bits": 4, "block_size": 16},
        MICROSOFT,
        constants=(1, 2, 5),
        tolerance=1e-3,
    )
    first, second = integers(np.uint8, 2, 3, 4), integers(np.uint8, 3, 4)
    pair = first, *head, second, scale(0.05), zero(90)
    yield contrib("QLinearAdd", quantized.binary(np.add), *pair, *tail)
    yield contrib("QLinearMul", quantized.binary(np.multiply), *pair, scale(0.1), zero(9))
    unit = scale(1 / 256), zero(0)
    yield contrib("QLinearSigmoid", quantized.activation("Sigmoid"), first, *head, *unit)
    leaky = quantized.activation("LeakyRelu")
    yield contrib("QLinearLeakyRelu", leaky, first, *head, scale(0.02), zero(50), alpha=0.1)
    rows = {"axis": -1, "opset": 13}
    yield contrib("QLinearSoftmax", quantized.softmax, first, *head, *unit, **rows)
    yield contrib(
        "QLinearConcat", quantized.concatenation, *tail, first, *head, first, *head, axis=1
    )
    image = integers(np.uint8, 2, 3, 4, 4)
    near = scale(0.021), zero(99)
    pool = quantized.average_pool
    yield contrib("QLinearAveragePool", pool, image, *head, *near, kernel_shape=[2, 3])
    whole = quantized.global_average_pool
    yield contrib("QLinearGlobalAveragePool", whole, image, *head, *near, channels_last=0)
    keep = np.array([[True], [False], [True]])
    yield contrib("QLinearWhere", quantized.choice, keep, *pair, *near)


def _of_runtime() -> Iterator[Case]:
    """Those that stand in models which tools for large models and for phones make."""
    quantized = brute_force_quantized

    def case(name: str, loops: Any, *inputs: Any, **attributes: Any) -> Case:
        return explicit(name, inputs, loops, attributes, MICROSOFT, tolerance=1e-3)

    x, codes = floats(2, 3, 4), integers(np.uint8, 2, 3, 4)
    near = scale(0.03), zero(120)
    yield case("QuantizeLinear of the runtime", quantized.quantize, x, *near)
    yield case("DequantizeLinear of the runtime", quantized.dequantize, codes, *near)
    yield dataclasses.replace(
        case(
            "QLinearConv channels last",
            quantized.convolution_channels_last,
            integers(np.uint8, 1, 4, 4, 2),
            *near,
            integers(np.int8, 3, 2, 3, 3),
            np.array([0.02, 0.01, 0.03], np.float32),
            np.zeros(3, np.int8),
            scale(0.9),
            zero(110),
            channels_last=1,
            pads=[1, 1, 1, 1],
        ),
        tolerance=1.0,
        constants=(3,),
    )
    table = integers(np.uint8, 6, 32), np.array([[5, 0], [3, 3]]), abs(floats(6, 2))
    axes = {"bits": 8, "block_size": 16, "gather_axis": 0, "quantize_axis": 1}
    rows = case("GatherBlockQuantized", quantized.gather, *table, **axes)
    yield dataclasses.replace(rows, constants=(0, 2))
    levels = floats(2, 32), integers(np.uint8, 48), abs(floats(6))
    shape = {"K": 32, "N": 3, "block_size": 16, "quant_type": 1}
    product = case("MatMulBnb4", quantized.normal_float_matrix_product, *levels, **shape)
    yield dataclasses.replace(product, constants=(1, 2))
    layers = (
        (integers(np.uint8, 3, 32, 16), abs(floats(3, 32)) / 100, floats(3, 32)),
        (integers(np.uint8, 3, 16, 32), abs(floats(3, 16)) / 100, floats(3, 16)),
    )
    experts = case(
        "QMoE",
        quantized.mixture_of_experts,
        floats(4, 16),
        floats(4, 3),
        *(array for layer in layers for array in layer),
        k=2,
        activation_type="swiglu",
        swiglu_fusion=1,
        activation_alpha=1.7,
        activation_beta=1.0,
        expert_weight_bits=8,
        normalize_routing_weights=1,
    )
    layers = layers[0], (integers(np.uint8, 3, 16, 16), *layers[1][1:])
    inputs = (*experts.inputs[:2], *(array for layer in layers for array in layer))
    yield dataclasses.replace(experts, inputs=inputs, constants=(2, 3, 4, 5, 6, 7), tolerance=1e-2)
    weights = integers(np.int8, 1, 3, 16), integers(np.int8, 1, 4, 16)
    layer = case(
        "DynamicQuantizeLSTM",
        quantized.lstm,
        floats(3, 2, 3),
        *weights,
        floats(1, 32),
        None,
        floats(1, 2, 4),
        floats(1, 2, 4),
        None,
        *(np.array([0.01], np.float32), np.zeros(1, np.int8)) * 2,
        hidden_size=4,
    )
    yield dataclasses.replace(layer, constants=(1, 2, 8, 9, 10, 11), outputs=3, tolerance=2e-2)
    words = np.array([[3, 1, 5, 5], [0, 2, 4, 1]], np.int32)
    embedded = case(
        "QEmbedLayerNormalization",
        quantized.embedding,
        words,
        words % 2,
        *(integers(np.uint8, rows, 8) for rows in (6, 5, 2)),
        *(integers(np.uint8, 8) for _ in range(2)),
        np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32),
        *(scale(size) for size in (0.01, 0.02, 0.03, 0.02, 0.01)),
        *(zero(size) for size in (120, 130, 110, 5, 128)),
        epsilon=1e-5,
    )
    yield dataclasses.replace(embedded, outputs=2)


QUANTIZED = (*_nodes(), *_of_runtime())
