"""Lets a pass use operators of ONNX Runtime's own."""

from __future__ import annotations

from graphopt.plugin import NotApplicable, Rewriter, ir, opset_version

DOMAIN = "com.microsoft"
_FIRST_OPSET = 15
"""Shape has a start and an end, Unsqueeze takes axes as an input, from here on at the latest."""


def use_contributed(rewriter: Rewriter, place: ir.Node) -> None:
    """Make sure that ONNX Runtime's operators can be used at this node.

    Raises:
        NotApplicable: it stands in a function, or in a model of an old opset.
    """
    if place.graph is not None and any(
        place.graph is graph
        for function in rewriter.model.functions.values()
        for graph in (function.graph, *function.subgraphs())
    ):
        raise NotApplicable("it stands in a function")
    if opset_version(place, rewriter.model) < _FIRST_OPSET:
        raise NotApplicable(f"it is written for opset {_FIRST_OPSET} and above")
    rewriter.model.graph.opset_imports.setdefault(DOMAIN, 1)
