"""Which operator set a quantized form needs.

DequantizeLinear came with opset 10, an axis with 13, int16 and int4 with 21.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphopt.graph import ir
from graphopt.quantization.parameters import Parameters

FIRST = 10
PER_CHANNEL = 13
WITHOUT_EIGHT_BITS = 21

_EIGHT_BITS = frozenset({ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.INT32})


def least_opset(parameters: Iterable[Parameters]) -> int:
    """The oldest operator set in which DequantizeLinear takes all of these."""
    needed = FIRST
    for item in parameters:
        if item.dtype not in _EIGHT_BITS:
            return WITHOUT_EIGHT_BITS
        if item.axis is not None:
            needed = PER_CHANNEL
    return needed
