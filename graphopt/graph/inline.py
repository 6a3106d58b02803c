"""Replaces calls of a model's own functions by their bodies."""

from __future__ import annotations

import importlib

from graphopt.errors import InvalidModelError
from graphopt.graph._onnx_ir import ir
from graphopt.graph.problem import root_cause
from graphopt.graph.walk import nested_graphs

_MOST_NODES = 1_000_000


def inline_functions(model: ir.Model) -> None:
    """Inline every call, those inside subgraphs and functions included; changes the model.

    Raises:
        InvalidModelError: a function calls itself, the calls expand to too much, or a function
            is written for another opset than the model.
    """
    if not model.functions:
        return
    sizes: dict[ir.OperatorIdentifier, int | None] = {}
    count = sum(
        _expanded(node, model, sizes) for graph in nested_graphs(model.graph) for node in graph
    )
    if count > _MOST_NODES:
        raise InvalidModelError(f"its functions expand to {count:,} nodes: too many to follow")
    # By name, and after onnx_ir itself was imported the way that keeps sympy out.
    common = importlib.import_module("onnx_ir.passes.common")
    try:
        common.InlinePass()(model)
    except (ir.passes.PassError, ValueError) as error:
        raise InvalidModelError(
            f"its functions cannot be inlined ({root_cause(error)}); inline them with onnx.inliner"
        ) from error


def _expanded(
    node: ir.Node, model: ir.Model, sizes: dict[ir.OperatorIdentifier, int | None]
) -> int:
    """How many nodes a node becomes; a model's subgraphs are walked by the caller."""
    key = node.op_identifier()
    function = model.functions.get(key)
    if function is None:
        return 1
    if key in sizes:
        known = sizes[key]
        if known is None:
            raise InvalidModelError(f"the function '{function.name}' calls itself")
        return known
    sizes[key] = None
    size = sum(
        _expanded(inner, model, sizes) for graph in nested_graphs(function.graph) for inner in graph
    )
    sizes[key] = size
    return size
