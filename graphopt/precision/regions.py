"""Marks what stays float32 by request, for want of a kernel, or because integers compute there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphopt.graph import constant_tensor, ir, nested_graphs
from graphopt.graph.walk import imported_version
from graphopt.precision.flow import Flow
from graphopt.precision.formats import HalfFormat
from graphopt.precision.kernels import Kernels


@dataclass(frozen=True)
class Blocked:
    """What the user wants left in float32.

    Attributes:
        op_types: operators.
        nodes: regular expressions, one of which matches the whole of a node's name or the
            name of an output of it.
        sites: sites of clusters, with the reason.
    """

    op_types: Sequence[str] = ()
    nodes: Sequence[str] = ()
    sites: Mapping[str, str] | None = None


def mark_blocked(flow: Flow, blocked: Blocked, kernels: Kernels, half: HalfFormat) -> None:
    """Mark what the user named, and what the provider cannot compute in half."""
    patterns = [re.compile(pattern) for pattern in blocked.nodes]
    sites = blocked.sites or {}
    for node, cluster in flow.by_node.items():
        if node.op_type in blocked.op_types:
            cluster.keep_float(f"{node.op_type} is on the block list")
        elif kernels.lacks(node.op_type, half):
            who = (
                "not every provider has a"
                if kernels.provider == "any"
                else f"{kernels.provider} has no"
            )
            cluster.keep_float(f"{who} {half.name} kernel for {node.op_type}")
        names = [node.name or "", *(value.name or "" for value in node.outputs)]
        if any(pattern.fullmatch(name) for pattern in patterns for name in names if name):
            cluster.keep_float("the node is on the block list")
    for cluster in flow.clusters:
        if cluster.site in sites:
            cluster.keep_float(sites[cluster.site])


FIRST_HALF_SCALES = 19
"""The operator set from which on QuantizeLinear and DequantizeLinear take half."""


def mark_integer_regions(model: ir.Model, flow: Flow, kernels: Kernels) -> None:
    """Leave what stands between DequantizeLinear and QuantizeLinear as it is.

    Not where the provider makes integer kernels of half pairs too, and the operator set has them.
    """
    version = imported_version(model.opset_imports, "")
    if kernels.half_scales and version >= FIRST_HALF_SCALES:
        return
    for graph in nested_graphs(model.graph):
        for node in graph:
            activation = node.inputs[0] if node.inputs else None
            is_pair = node.op_type in ("QuantizeLinear", "DequantizeLinear")
            if is_pair and constant_tensor(activation) is not None:
                is_pair = False
            inside = not is_pair and _is_quantized(node)
            if is_pair or inside:
                if node in flow.by_node:
                    flow.by_node[node].keep_float("it computes in int8")
                for value in node.inputs if inside else ():
                    made = None if value is None else value.producer()
                    if made is not None and made in flow.by_node:
                        flow.by_node[made].keep_float("it computes in int8")


def _is_quantized(node: ir.Node) -> bool:
    """Whether integers come in, and go out at once or behind an activation."""
    producers = [None if value is None else value.producer() for value in node.inputs]
    moving = [p for v, p in zip(node.inputs, producers, strict=True) if constant_tensor(v) is None]
    if not any(p is not None and p.op_type == "DequantizeLinear" for p in moving):
        return False
    first = producers[0]
    if first is None or first.op_type not in ("DequantizeLinear", *_ACTIVATIONS):
        return False
    return bool(node.outputs) and _ends_quantized(node.outputs[0], 2)


_ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "HardSwish", "Sigmoid", "Add")


def _ends_quantized(value: ir.Value, depth: int) -> bool:
    uses = list(value.uses())
    if not uses or value.is_graph_output():
        return False
    return all(
        use.node.op_type == "QuantizeLinear"
        or (
            depth > 0
            and use.node.op_type in _ACTIVATIONS
            and _ends_quantized(use.node.outputs[0], depth - 1)
        )
        for use in uses
    )
