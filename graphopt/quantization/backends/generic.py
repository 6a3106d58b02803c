"""What most runtimes of QDQ models agree on.

Unsigned activations, signed weights with a scale per channel, int32 biases; both sides of every
operator quantized, so that a runtime may match each on its own.
"""

from __future__ import annotations

from graphopt.graph import ir
from graphopt.quantization.backends.backend import Backend, Format, Role, Rule

_PRODUCT_ABSORBS = ("Relu", "Clip")
_MOVEMENT = ("Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose")

GENERIC = Backend(
    name="generic",
    provider=None,
    activation=Format(ir.DataType.UINT8, symmetric=False),
    weight=Format(ir.DataType.INT8, symmetric=True, per_channel=True),
    left_weight=Format(ir.DataType.UINT8, symmetric=True),
    bias=ir.DataType.INT32,
    saturates=True,
    rules=(
        Rule(
            "Conv",
            Role.PRODUCT,
            operands=(0, 1),
            bias=2,
            absorbs=_PRODUCT_ABSORBS,
            conditions=("constant weight",),
            saturates=True,
        ),
        Rule(
            "ConvTranspose",
            Role.PRODUCT,
            operands=(0, 1),
            bias=2,
            absorbs=_PRODUCT_ABSORBS,
            conditions=("constant weight",),
            saturates=True,
        ),
        Rule(
            "Gemm",
            Role.PRODUCT,
            operands=(0, 1),
            bias=2,
            absorbs=_PRODUCT_ABSORBS,
            conditions=("unit alpha and beta", "vector bias"),
            saturates=True,
        ),
        Rule(
            "MatMul",
            Role.PRODUCT,
            operands=(0, 1),
            absorbs=("Add", *_PRODUCT_ABSORBS),
            saturates=True,
        ),
        Rule("Add", Role.ARITHMETIC, operands=(0, 1), absorbs=_PRODUCT_ABSORBS),
        Rule("Mul", Role.ARITHMETIC, operands=(0, 1), absorbs=_PRODUCT_ABSORBS),
        Rule("AveragePool", Role.ARITHMETIC),
        Rule("GlobalAveragePool", Role.ARITHMETIC),
        Rule("Concat", Role.JOIN, operands=None),
        Rule("MaxPool", Role.MOVEMENT, conditions=("one output",)),
        Rule("Resize", Role.MOVEMENT, conditions=("nearest",)),
        *(Rule(op_type, Role.MOVEMENT) for op_type in _MOVEMENT),
    ),
)
