"""Raises the operator set of a model as far as its quantized form needs.

DequantizeLinear came with opset 10, an axis with 13, int16 and int4 with 21.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphopt.errors import GraphoptError, UsageError, reason_of
from graphopt.graph import ir, load, opset_version, to_proto
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


def raise_opset(model: ir.Model, version: int = PER_CHANNEL) -> ir.Model:
    """A copy of `model` in at least this version of ONNX's operator set; `model` if it is.

    The conversion is ONNX's own. To be called before `place`, since it makes new nodes.

    Raises:
        UsageError: there is no conversion for one of the operators; one line says why.
    """
    present = opset_version(model.graph, model)
    if present >= version:
        return model
    import onnx.version_converter

    try:
        converted = onnx.version_converter.convert_version(to_proto(model), version)
        raised = load(converted)
    except (RuntimeError, ValueError, GraphoptError) as error:
        raise UsageError(
            f"cannot raise the operator set from {present} to {version}: {reason_of(error)}"
        ) from error
    names = [[value.name for value in side] for side in (model.graph.inputs, model.graph.outputs)]
    now = [[value.name for value in side] for side in (raised.graph.inputs, raised.graph.outputs)]
    if names != now:
        raise UsageError(
            f"cannot raise the operator set from {present} to {version}: "
            "ONNX's converter changes the model's inputs or outputs"
        )
    return raised
