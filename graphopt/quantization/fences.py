"""Keeps float what was left float.

    DQ -> Conv(x, W float) -> Q     ONNX Runtime makes a QLinearConv of this, and rounds W itself
    DQ -> Conv(x, W float) -> Sum -> Q     runs the Conv in float

A backend that looks for integer kernels between DequantizeLinear and QuantizeLinear finds them
also where a node was left float for its accuracy, or because its integer kernel is the slower
one. A Sum of one tensor, which changes nothing and which no optimization removes, stands in the
way; it costs one pass over the tensor.
"""

from __future__ import annotations

from collections.abc import Container

from graphopt.graph import constant_tensor, ir
from graphopt.quantization.backends.backend import Backend, Role

FENCE = "Sum"

# ONNX Runtime moves QuantizeLinear up and DequantizeLinear down across these, or fuses them into
# what they stand beside, and fuses with what it finds there.
_MOVED_ACROSS = frozenset(
    {"Cast", "Clip", "Dropout", "Flatten", "Identity", "MaxPool", "Pad", "Relu", "Reshape"}
    | {"Squeeze", "Transpose", "Unsqueeze"}
)
# The constants of these are quantized unasked.
_WEIGHTS_TOO = frozenset({"Conv", "ConvTranspose", "Gemm"})


def is_taken_unasked(value: ir.Value, integers: Container[str], backend: Backend | None) -> bool:
    """Whether the backend would run what makes a float value in integers, a Q put behind it.

    Args:
        value: the value, written by a node that was left float.
        integers: the tensors that are dequantized for float readers.
        backend: the backend; None for one that is not known.
    """
    if backend is None or not backend.takes_unasked:
        return False
    node = value.producer()
    while node is not None:
        rule = backend.rule(node)
        if rule is not None:
            operands = range(len(node.inputs)) if rule.operands is None else rule.operands
            inputs = [node.inputs[i] for i in operands if i < len(node.inputs)]
            constant = [constant_tensor(value) is not None for value in inputs]
            ready = [
                value is not None and (is_constant or _is_dequantized(value, integers))
                for value, is_constant in zip(inputs, constant, strict=True)
            ]
            # A constant that is no integer yet stops all but those whose weights are rounded.
            takes_constants = rule.role is Role.PRODUCT and node.op_type in _WEIGHTS_TOO
            if all(ready) and not all(constant) and (takes_constants or not any(constant)):
                return True
        if node.op_type not in _MOVED_ACROSS or not node.inputs or node.inputs[0] is None:
            return False
        node = node.inputs[0].producer()
    return False


def _is_dequantized(value: ir.Value, integers: Container[str]) -> bool:
    """Whether a value comes from a DequantizeLinear, or will have once that is moved down."""
    while value.name not in integers:
        node = value.producer()
        if node is None or node.op_type not in _MOVED_ACROSS or node.inputs[0] is None:
            return False
        value = node.inputs[0]
    return True
