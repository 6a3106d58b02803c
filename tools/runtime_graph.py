"""Whether ONNX Runtime runs the same graph for two models: then they take the same time."""

from __future__ import annotations

import hashlib
from collections import Counter

from graphopt.graph import constant_array, ir
from graphopt.runtime.executed import executed_model

_SMALL = 64
"""Constants up to this many elements say what a node does (bounds, shapes); others weigh only."""

_PRODUCTS = ("Conv", "FusedConv", "Gemm", "FusedGemm")
_BIAS = 2


def run_the_same(first: ir.Model, second: ir.Model) -> bool:
    """Whether the optimized graphs have the same kernels, attributes, wiring and sizes of weights.

    Large weights count by type and shape: folding rounds their numbers, which costs no time. Nor
    does a bias, which is added while the result of a product is in registers: it may be missing.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot load one of them.
    """
    graphs = (executed_model(model).graph for model in (first, second))
    one, two = (_digests(graph, {}) for graph in graphs)
    return one == two


def _digests(graph: ir.Graph, outer: dict[ir.Value, str]) -> Counter[str]:
    """Each node as a digest of what it computes from the graph's inputs, with how often it stands.

    Args:
        graph: nodes in an order in which they can run.
        outer: the digests of values of the graphs around it.
    """
    known = dict(outer)
    for number, value in enumerate(graph.inputs):
        known[value] = _digest("input", str(number))
    for value in graph.initializers.values():
        known.setdefault(value, _constant(value))
    found: Counter[str] = Counter()
    for node in graph:
        parts = [node.domain, node.op_type]
        inputs = list(node.inputs)
        if node.op_type in _PRODUCTS and len(inputs) > _BIAS:
            inputs[_BIAS] = None
        while inputs and inputs[-1] is None:
            inputs.pop()
        parts += ["" if value is None else known[value] for value in inputs]
        for name, attribute in sorted(node.attributes.items()):
            parts.append(f"{name} {_attribute(attribute, known)}")
        made = _digest(*parts)
        found[made] += 1
        for number, value in enumerate(node.outputs):
            known[value] = _digest(made, str(number))
    found.update(_digest("output", known[value]) for value in graph.outputs)
    return found


def _attribute(attribute: ir.Attr, known: dict[ir.Value, str]) -> str:
    if attribute.type == ir.AttributeType.GRAPH:
        return str(sorted(_digests(attribute.as_graph(), known).items()))
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return f"{tensor.dtype} {tuple(tensor.shape)} {tensor.tobytes()!r}"
    return repr(attribute.value)


def _constant(value: ir.Value) -> str:
    small = constant_array(value, _SMALL)
    exact = small is not None and small.dtype.kind in "iub"
    return _digest(str(value.dtype), str(value.shape), str(small.tolist()) if exact else "")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
