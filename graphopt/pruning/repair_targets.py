"""What a layer of a pruned model is to compute, and which of its errors matter.

    y = layer(x);  z = y + s;  a = clip(z, low, high)        target of y:  z_original - s

A layer that is added to a branch already computed can make good what is wrong in the branch. What
an activation cuts off does not matter: where the original is below `low`, anything below is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from graphopt.graph import constant_array, ir
from graphopt.pruning.linear_layers import Layer
from graphopt.pruning.repair_walk import values_read


@dataclass(frozen=True)
class Aim:
    """Where to compare a layer with the original.

    Attributes:
        total: the value to compare: the layer's output, or its sum with a branch.
        branch: the other summand; None where the layer's own output is compared.
        low: what the only use of `total` raises it to; -inf where it does not.
        high: what it cuts it off at.
    """

    total: str
    branch: str | None
    low: float
    high: float


def aims_of(graph: ir.Graph, layers: dict[str, Layer]) -> dict[str, Aim]:
    """The aim of each layer; a branch is used where it waits for no layer that comes later."""
    order = {name: number for number, name in enumerate(layers)}
    last = _last_layers(graph, layers, order)
    aims: dict[str, Aim] = {}
    for name, layer in layers.items():
        total, branch = layer.output, None
        use = _only_use(total)
        if use is not None and use[0].op_type == "Add" and use[0].domain in ("", "ai.onnx"):
            other = use[0].inputs[1 - use[1]]
            if (
                other is not None
                and other is not total
                and constant_array(other) is None
                and last.get(other, -1) < order[name]
            ):
                total, branch = use[0].outputs[0], other.name
        low, high = _bounds(total)
        aims[name] = Aim(total.name or "", branch, low, high)
    return aims


def _last_layers(
    graph: ir.Graph, layers: dict[str, Layer], order: dict[str, int]
) -> dict[ir.Value, int]:
    """For each value the number of the last layer that it is computed through; -1 for none."""
    by_node = {layer.node: order[name] for name, layer in layers.items()}
    last: dict[ir.Value, int] = {}
    for node in graph:
        number = max((last.get(value, -1) for value in values_read(node)), default=-1)
        number = max(number, by_node.get(node, -1))
        last.update(dict.fromkeys(node.outputs, number))
    return last


def _only_use(value: ir.Value) -> tuple[ir.Node, int] | None:
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    return uses[0].node, uses[0].idx


def _bounds(value: ir.Value) -> tuple[float, float]:
    """What the only use of a value clips it to."""
    use = _only_use(value)
    none = (-math.inf, math.inf)
    if use is None or use[0].domain not in ("", "ai.onnx"):
        return none
    node = use[0]
    if node.op_type == "Relu":
        return 0.0, math.inf
    if node.op_type != "Clip" or use[1] != 0:
        return none
    bounds = []
    for index, name in ((1, "min"), (2, "max")):
        attribute = node.attributes.get(name)
        given = node.inputs[index] if index < len(node.inputs) else None
        if attribute is not None:
            bounds.append(attribute.as_float())
        elif given is None:
            bounds.append(-math.inf if index == 1 else math.inf)
        else:
            array = constant_array(given)
            if array is None or array.size != 1:
                return none
            bounds.append(float(np.asarray(array, np.float64).reshape(-1)[0]))
    return bounds[0], bounds[1]
