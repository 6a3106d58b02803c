"""What a rule asks of a node beyond its operator: named predicates, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from graphopt.graph import constant_tensor, ir

Condition = Callable[[ir.Node], str | None]
"""Why the node does not meet the condition, or None."""


def _constant_weight(node: ir.Node) -> str | None:
    if constant_tensor(node.inputs[1]) is None:
        return "its weight is not a constant"
    return None


def _unit_alpha_and_beta(node: ir.Node) -> str | None:
    for name in ("alpha", "beta"):
        if node.attributes.get_float(name, 1.0) != 1.0 and (name == "alpha" or _bias(node)):
            return f"its {name} is not 1"
    return None


def _vector_bias(node: ir.Node) -> str | None:
    value = _bias(node)
    if value is None:
        return None
    tensor = constant_tensor(value)
    if tensor is None:
        return "its C is not a constant"
    dims = tensor.shape.numpy()
    if not dims or any(dim != 1 for dim in dims[:-1]):
        return "its C is not one number per column"
    return None


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def _one_output(node: ir.Node) -> str | None:
    if any(value.name for value in node.outputs[1:]):
        return "its indices are asked for"
    return None


def _nearest(node: ir.Node) -> str | None:
    mode = node.attributes.get_string("mode", "nearest")
    return None if mode == "nearest" else f"it interpolates ({mode})"


CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        "constant weight": _constant_weight,
        "unit alpha and beta": _unit_alpha_and_beta,
        "vector bias": _vector_bias,
        "one output": _one_output,
        "nearest": _nearest,
    }
)
"""By the names that rules use."""
