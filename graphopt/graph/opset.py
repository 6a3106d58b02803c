"""Raises the operator set of a model."""

from __future__ import annotations

from graphopt.errors import GraphoptError, UsageError, reason_of
from graphopt.graph._onnx_ir import ir
from graphopt.graph.load import load
from graphopt.graph.save import to_proto
from graphopt.graph.walk import opset_version


def raise_opset(model: ir.Model, version: int) -> ir.Model:
    """A copy of `model` in at least this version of ONNX's operator set; `model` if it is.

    The conversion is ONNX's own, and makes new nodes.

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
