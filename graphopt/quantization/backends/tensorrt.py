"""What TensorRT runs in integers, given QuantizeLinear and DequantizeLinear.

Everything is int8 with zero point 0, weights per channel of the output (axis 1 for
ConvTranspose). TensorRT moves the conversions itself: across pooling, reshaping and Concat, into
the kernel that stands before a QuantizeLinear. So only inputs of operators with weights, of
pooling and of one side of a residual Add are quantized: the Conv whose sum is added writes float
into the Add, which makes Conv, Add and Relu one kernel. Biases stay float.
"""

from __future__ import annotations

from graphopt.graph import ir
from graphopt.quantization.backends.backend import Backend, Format, Output, Role, Rule

_ACTIVATIONS = ("Relu", "Clip")

TENSORRT = Backend(
    name="tensorrt",
    provider="tensorrt",
    activation=Format(ir.DataType.INT8, symmetric=True),
    weight=Format(ir.DataType.INT8, symmetric=True, per_channel=True),
    left_weight=Format(ir.DataType.INT8, symmetric=True),
    bias=None,
    ranges_absorb=False,
    rules=(
        Rule(
            "Conv",
            Role.PRODUCT,
            operands=(0, 1),
            bias=2,
            output=Output.EITHER,
            absorbs=_ACTIVATIONS,
            absorbs_residual=True,
            conditions=("constant weight",),
        ),
        Rule(
            "ConvTranspose",
            Role.PRODUCT,
            operands=(0, 1),
            bias=2,
            output=Output.EITHER,
            absorbs=_ACTIVATIONS,
            conditions=("constant weight",),
        ),
        Rule(
            "Gemm",
            Role.PRODUCT,
            operands=(0, 1),
            bias=2,
            output=Output.EITHER,
            absorbs=_ACTIVATIONS,
        ),
        Rule(
            "MatMul",
            Role.PRODUCT,
            operands=(0, 1),
            output=Output.EITHER,
            absorbs=("Add", *_ACTIVATIONS),
        ),
        Rule("AveragePool", Role.ARITHMETIC, output=Output.EITHER),
        Rule("GlobalAveragePool", Role.ARITHMETIC, output=Output.EITHER),
    ),
    notes=("TensorRT was not at hand when these rules were written: time the result.",),
)
