"""A float32 model that computes what the half model computes on hardware with half arithmetic.

    y = Op(x)            ->      y = float32(half(Op(x)))        for every Op in half

ONNX Runtime's CPU kernels for half are few. Where there is none it casts to float32, and drops
the pairs of Casts between two such nodes, so that nothing in between is ever rounded, and
nothing overflows: 300 * 300 / 300 is 300. A half model that is right there may be full of
infinities on a GPU. So the rounding is spelled out, in Casts that stand by themselves. What is
not simulated is how a kernel sums: it is taken to sum in float32.

Names, types and interface are those of the float32 model.
"""

from __future__ import annotations

from graphopt.graph import clone, ir, nested_graphs
from graphopt.precision.flow import Cluster, Tensor, Use
from graphopt.precision.formats import HalfFormat
from graphopt.precision.request import Plan
from graphopt.precision.slots import is_container


def simulated(model: ir.Model, plan: Plan, half: HalfFormat) -> ir.Model:
    """A copy of the float32 `model`, rounded as `plan` says; `plan` was made from it."""
    copied = clone(model)
    pairs = _paired(model, copied)
    graphs = dict(zip(nested_graphs(model.graph), nested_graphs(copied.graph), strict=True))
    nodes = {
        old: new for first, second in graphs.items() for old, new in zip(first, second, strict=True)
    }
    chosen = {cluster for cluster, is_half in plan.placement.items() if is_half}
    for tensor in plan.flow.tensors:
        uses = _rounded_uses(tensor, chosen)
        if not uses or is_container(tensor.value):
            continue
        value, graph = pairs[tensor.value], graphs[tensor.graph]
        chosen_numbers = plan.rounded.get(tensor.value)
        if chosen_numbers is not None:
            # Rounding them once more, below, changes nothing.
            exact, value = value, ir.Value(name=f"{value.name}/chosen")
            value.const_value = ir.tensor(chosen_numbers, name=value.name)
            value.type, value.shape = exact.type, exact.shape
            graph.initializers.add(value)
        bound = plan.masks.bounds.get(tensor.value)
        is_output = any(use.holder is model.graph for use in uses)
        rounded = _round(value, graph, half, bound, takes_name=is_output)
        for use in uses:
            if isinstance(use.holder, ir.Node):
                nodes[use.holder].replace_input_with(use.index, rounded)
            else:
                graphs[use.holder].outputs[use.index] = rounded
    return copied


def _rounded_uses(tensor: Tensor, chosen: set[Cluster]) -> list[Use]:
    """Who reads the tensor rounded: all if it is made in half, else those who read it so."""
    if tensor.producer is not None and tensor.producer.root() in chosen:
        return list(tensor.uses)
    return [use for use in tensor.uses if use.cluster is not None and use.cluster.root() in chosen]


def _paired(model: ir.Model, copied: ir.Model) -> dict[ir.Value, ir.Value]:
    pairs: dict[ir.Value, ir.Value] = {}
    for first, second in zip(nested_graphs(model.graph), nested_graphs(copied.graph), strict=True):
        pairs.update(zip(first.inputs, second.inputs, strict=True))
        for name, value in first.initializers.items():
            pairs[value] = second.initializers[name]
        for old, new in zip(first, second, strict=True):
            pairs.update(zip(old.outputs, new.outputs, strict=True))
    return pairs


def _round(
    value: ir.Value, graph: ir.Graph, half: HalfFormat, bound: float | None, *, takes_name: bool
) -> ir.Value:
    """Add the rounding beside the value's producer.

    Where the rounded value is an output of the model (`takes_name`), it has the output's name.
    """
    name = value.name or "value"
    made: list[ir.Node] = []
    source = value
    if bound is not None:
        limits = []
        for number in (-bound, bound):
            tensor = ir.tensor([number], dtype=ir.DataType.FLOAT)
            node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], num_outputs=1)
            made.append(node)
            limits.append(node.outputs[0])
        # Broadcasting Max and Min exist since opset 8; Clip takes inputs since 11 only.
        for op_type, limit in (("Max", limits[0]), ("Min", limits[1])):
            node = ir.Node("", op_type, [source, limit], num_outputs=1)
            made.append(node)
            source = node.outputs[0]
    for dtype in (half.dtype, ir.DataType.FLOAT):
        node = ir.Node("", "Cast", [source], [ir.AttrInt64("to", int(dtype))], num_outputs=1)
        made.append(node)
        source = node.outputs[0]
    for index, node in enumerate(made):
        node.outputs[0].name = f"{name}/rounding_{index}"
    source.type, source.shape = value.type, value.shape
    if takes_name:
        value.name, source.name = f"{name}/exact", name
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, made)
        return source
    first = next(iter(graph), None)
    if first is None:
        graph.extend(made)
    else:
        graph.insert_before(first, made)
    return source
