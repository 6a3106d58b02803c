"""What OpenVINO's CPU plugin runs in integers, given QuantizeLinear and DequantizeLinear.

Its low-precision transformations read a pair of the two as FakeQuantize, move the dequantization
behind the operator that reads it, and fuse what follows. Activations are unsigned with any zero
point, weights signed, symmetric, a scale per channel; biases stay float. An output is quantized
where the next operator reads integers.
"""

from __future__ import annotations

from graphopt.graph import ir
from graphopt.quantization.backends.backend import Backend, Format, Output, Role, Rule

_ACTIVATIONS = ("Relu", "Clip")
_MOVEMENT = (
    "DepthToSpace",
    "Flatten",
    "Identity",
    "ReduceMax",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)

OPENVINO = Backend(
    name="openvino",
    provider="openvino",
    activation=Format(ir.DataType.UINT8, symmetric=False),
    weight=Format(ir.DataType.INT8, symmetric=True, per_channel=True),
    left_weight=Format(ir.DataType.INT8, symmetric=True),
    bias=None,
    ranges_absorb=False,
    saturates=True,
    rules=(
        Rule(
            "Conv",
            Role.PRODUCT,
            operands=(0, 1),
            bias=2,
            output=Output.EITHER,
            absorbs=_ACTIVATIONS,
            conditions=("constant weight",),
            saturates=True,
        ),
        Rule(
            "ConvTranspose",
            Role.PRODUCT,
            operands=(0, 1),
            bias=2,
            output=Output.EITHER,
            absorbs=_ACTIVATIONS,
            conditions=("constant weight",),
            saturates=True,
        ),
        Rule(
            "Gemm",
            Role.PRODUCT,
            operands=(0, 1),
            bias=2,
            output=Output.EITHER,
            absorbs=_ACTIVATIONS,
            saturates=True,
        ),
        Rule(
            "MatMul",
            Role.PRODUCT,
            operands=(0, 1),
            output=Output.EITHER,
            absorbs=("Add", *_ACTIVATIONS),
            saturates=True,
        ),
        Rule(
            "Add",
            Role.ARITHMETIC,
            operands=(0, 1),
            output=Output.EITHER,
            absorbs=_ACTIVATIONS,
        ),
        Rule(
            "Mul",
            Role.ARITHMETIC,
            operands=(0, 1),
            output=Output.EITHER,
            absorbs=_ACTIVATIONS,
        ),
        Rule("AveragePool", Role.ARITHMETIC, output=Output.EITHER),
        Rule("GlobalAveragePool", Role.ARITHMETIC, output=Output.EITHER),
        Rule("Concat", Role.JOIN, operands=None),
        Rule("MaxPool", Role.MOVEMENT, conditions=("one output",)),
        Rule("Resize", Role.MOVEMENT, conditions=("nearest",)),
        *(Rule(op_type, Role.MOVEMENT) for op_type in _MOVEMENT),
    ),
    notes=("OpenVINO was not at hand when these rules were written: time the result.",),
)
