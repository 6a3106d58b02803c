"""Copies a model: everything that can change is copied, the weights are shared."""

import copy

from graphopt.graph._onnx_ir import ir
from graphopt.graph.walk import all_graphs


def clone(model: ir.Model) -> ir.Model:
    """A copy that shares the tensors of `model` and nothing else that a pass may write into.

    `ir.Model.clone` shares the types of values, and onnx_ir's `value.dtype = ...` writes into
    the type: a change to a copy would reach the original.
    """
    copied = model.clone()
    for graph in all_graphs(copied):
        for value in (*graph.inputs, *graph.initializers.values()):
            value.type = _copy(value.type)
        for node in graph:
            for value in node.outputs:
                value.type = _copy(value.type)
    return copied


def _copy(kind: ir.TypeProtocol | None) -> ir.TypeProtocol | None:
    if isinstance(kind, ir.SequenceType | ir.OptionalType):
        return copy.deepcopy(kind)
    return copy.copy(kind)
