"""Raises the operator set of a model."""

from __future__ import annotations

import numpy as np

from graphopt.errors import GraphoptError, UsageError, reason_of
from graphopt.graph._onnx_ir import ir
from graphopt.graph.clone import clone
from graphopt.graph.inline import inline_functions
from graphopt.graph.load import load
from graphopt.graph.save import to_proto
from graphopt.graph.verify import verify
from graphopt.graph.walk import opset_version


def raise_opset(model: ir.Model, version: int) -> ir.Model:
    """A copy of `model` in at least this version of ONNX's operator set; `model` if it is.

    The conversion is ONNX's own, and makes new nodes.

    Raises:
        UsageError: there is no such version, or no conversion for one of the operators; one line
            says why.
    """
    present = opset_version(model.graph, model)
    if present >= version:
        return model
    refused = f"cannot raise the operator set from {present} to {version}"
    if "" not in model.opset_imports:
        raise UsageError(f"{refused}: the model has no operators of ONNX")
    import onnx.version_converter

    newest = onnx.defs.onnx_opset_version()
    if version > newest:
        raise UsageError(f"{refused}: {newest} is the newest that the installed ONNX knows")
    source = clone(model)
    try:
        inline_functions(source)  # the converter forgets them
        converted = onnx.version_converter.convert_version(to_proto(source), version)
        raised = load(converted)
    except (RuntimeError, ValueError, GraphoptError, onnx.version_converter.ConvertError) as error:
        raise UsageError(f"{refused}: {reason_of(error)}") from error
    sides = ((model.graph.inputs, raised.graph.inputs), (model.graph.outputs, raised.graph.outputs))
    for before, after in sides:
        if [value.name for value in before] != [value.name for value in after]:
            raise UsageError(f"{refused}: ONNX's converter changes the model's inputs or outputs")
        for old, new in zip(before, after, strict=True):
            new.type, new.shape = old.type, old.shape
            new.metadata_props.update(old.metadata_props)
    _give_back(model, raised)
    problems = verify(raised)
    if problems:
        raise UsageError(f"{refused}: ONNX's converter gives an invalid model, {problems[0]}")
    return raised


def _give_back(model: ir.Model, raised: ir.Model) -> None:
    """What the conversion loses: notes on the graph and nodes, and where the weights are kept."""
    raised.metadata_props.update(model.metadata_props)
    raised.graph.metadata_props.update(model.graph.metadata_props)
    notes = {node.outputs[0].name: node.metadata_props for node in model.graph if node.outputs}
    for node in raised.graph:
        if node.outputs:
            node.metadata_props.update(notes.get(node.outputs[0].name, {}))
    for name, value in raised.graph.initializers.items():
        held = model.graph.initializers.get(name)
        if held is None or held.const_value is None or value.const_value is None:
            continue
        if np.array_equal(held.const_value.numpy(), value.const_value.numpy()):
            value.const_value = held.const_value
