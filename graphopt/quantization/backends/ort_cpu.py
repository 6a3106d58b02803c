"""What ONNX Runtime's CPU provider runs in integers.

Every rule is tried against the installed ONNX Runtime by tests/quantization/test_placement_rules.
Without QuantizeLinear behind it, every operator here but MatMul and Gemm runs in float, and its
inputs are dequantized for it. Activations are unsigned: signed ones are rewritten to unsigned
before anything else, but not where a value has several readers, which then compute in float.

No integer kernel, though one might expect it: ConvTranspose, Pad, Relu and Clip on their own,
Tanh, HardSigmoid, HardSwish, Gelu, LayerNormalization, ReduceMean, Sub, Div, Resize but nearest.
"""

from __future__ import annotations

from graphopt.graph import ir
from graphopt.quantization.backends.backend import Backend, Format, Output, Role, Rule

_MOVEMENT = (
    "DepthToSpace",
    "Expand",
    "Flatten",
    "GatherElements",
    "Identity",
    "ReduceMax",
    "ReduceMin",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)

ORT_CPU = Backend(
    name="ort-cpu",
    provider="cpu",
    activation=Format(ir.DataType.UINT8, symmetric=False),
    weight=Format(ir.DataType.INT8, symmetric=True, per_channel=True),
    # A signed left operand is not taken beside an unsigned right one.
    left_weight=Format(ir.DataType.UINT8, symmetric=True),
    bias=ir.DataType.INT32,
    saturates=True,
    takes_unasked=True,
    rules=(
        Rule(
            "Conv",
            Role.PRODUCT,
            operands=(0, 1),
            bias=2,
            absorbs=("Relu", "Clip"),
            conditions=("constant weight",),
            saturates=True,
        ),
        Rule(
            "Gemm",
            Role.PRODUCT,
            operands=(0, 1),
            bias=2,
            output=Output.EITHER,
            absorbs=("Relu", "Clip"),
            conditions=("unit alpha and beta", "vector bias"),
            saturates=True,
        ),
        Rule(
            "MatMul",
            Role.PRODUCT,
            operands=(0, 1),
            output=Output.EITHER,
            absorbs=("Add", "Relu", "Clip"),
            merged_with=("Add",),
            saturates=True,
        ),
        Rule("Add", Role.ARITHMETIC, operands=(0, 1), absorbs=("Relu", "Clip")),
        Rule("Mul", Role.ARITHMETIC, operands=(0, 1), absorbs=("Relu", "Clip")),
        Rule("Where", Role.ARITHMETIC, operands=(1, 2)),
        Rule("Sigmoid", Role.ARITHMETIC),
        Rule("LeakyRelu", Role.ARITHMETIC),
        Rule("GlobalAveragePool", Role.ARITHMETIC),
        Rule(
            "AveragePool",
            Role.ARITHMETIC,
            slow="ONNX Runtime averages integers several times slower than floats",
        ),
        Rule(
            "Softmax",
            Role.ARITHMETIC,
            slow="an integer Softmax computes in float inside, with two conversions more",
        ),
        Rule("Concat", Role.JOIN, operands=None),
        # Fast with channels last, as behind a Conv; tens of times slower than float otherwise.
        Rule("MaxPool", Role.MOVEMENT, conditions=("one output",), chained=True),
        Rule(
            "Resize",
            Role.MOVEMENT,
            conditions=("nearest",),
            slow="ONNX Runtime resizes integers several times slower than floats",
        ),
        Rule("Gather", Role.MOVEMENT, table=True, per_channel=False),
        *(Rule(op_type, Role.MOVEMENT) for op_type in _MOVEMENT),
    ),
    notes=(
        (
            "On x86 without VNNI the kernels add neighbouring products in int16; weights are "
            "scaled so that none can overflow there."
        ),
    ),
)
