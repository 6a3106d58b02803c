"""What passes share that put several operators with one input into one: find them, split again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from graphopt.plugin import (
    Journal,
    NotApplicable,
    Rewriter,
    all_graphs,
    constant_array,
    ir,
    opset_version,
    site_of,
)

_ACTIVATIONS = frozenset(
    {"Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Tanh"}
)
"""Operators of one tensor that a runtime computes together with the product before them."""


def merge_groups(
    model: ir.Model,
    journal: Journal,
    key_of: Callable[[ir.Node], Hashable | None],
    merge: Callable[[Sequence[ir.Node], Rewriter], None],
) -> None:
    """Merge, in every graph, the nodes of one key, in the graph's order.

    Args:
        model: changed in place.
        journal: gets a rewrite for each node that goes, and the reasons of groups that stay.
        key_of: what nodes that can be merged have in common; None for a node that never is.
        merge: replaces the nodes, or raises NotApplicable ahead of any change.
    """
    rewriter = Rewriter(model, journal)
    for graph in all_graphs(model):
        groups: dict[Hashable, list[ir.Node]] = {}
        for node in graph:
            if node.domain in ("", "ai.onnx") and node.op_identifier() not in model.functions:
                key = key_of(node)
                if key is not None:
                    groups.setdefault(key, []).append(node)
        for nodes in groups.values():
            site = site_of(nodes[0])
            if len(nodes) < 2 or not journal.permits(site):
                continue
            rewriter.begin(nodes[0])
            try:
                merge(nodes, rewriter)
            except NotApplicable as refusal:
                rewriter.discard()
                journal.decline(site, str(refusal))


def attribute_key(node: ir.Node, defaults: dict[str, object]) -> Hashable | None:
    """The attributes that equal nodes share; None if one is a parameter of the function around.

    Args:
        node: the node.
        defaults: the attributes that count, and what one means that is left out.
    """
    found = []
    for name, default in defaults.items():
        held = node.attributes.get(name)
        if held is not None and held.is_ref():
            return None
        value = default if held is None else held.value
        found.append((name, tuple(value) if isinstance(value, list | tuple) else value))
    return tuple(found)


def row(value: ir.Value | None, size: int, dtype: np.dtype) -> np.ndarray:
    """A bias as one number for each of `size` outputs; zeros where there is none.

    Raises:
        NotApplicable: it is no constant, or not one number for each output.
    """
    if value is None:
        return np.zeros(size, dtype)
    array = constant_array(value)
    if array is None:
        raise NotApplicable("a bias is not a constant")
    if array.size not in (1, size) or (array.ndim and array.shape[-1] != array.size):
        raise NotApplicable("a bias is not one number for each output")
    return np.broadcast_to(array.reshape(-1), (size,))


def used_here_only(values: Sequence[ir.Value], nodes: Sequence[ir.Node]) -> None:
    """Refuse weights that somebody else uses too: merged, they would be held twice.

    Raises:
        NotApplicable: one is.
    """
    allowed = set(nodes)
    for value in values:
        if value.is_graph_output() or any(usage.node not in allowed for usage in value.uses()):
            raise NotApplicable(f"'{value.name}' is used elsewhere too")


def only_reader(node: ir.Node) -> ir.Node | None:
    """The one node of the same graph that reads the first output, if nothing else does."""
    value = node.outputs[0]
    uses = value.uses()
    if value.is_graph_output() or len(uses) != 1:
        return None
    reader = next(iter(uses)).node
    return reader if reader.graph is node.graph else None


def split_again(
    rewriter: Rewriter,
    whole: ir.Node,
    branches: Sequence[Sequence[ir.Node]],
    sizes: Sequence[int],
    axis: int,
) -> None:
    """Let pieces of the merged node's output stand for what the branches computed.

    An activation that all branches end with is computed once, ahead of the split.

    Args:
        rewriter: began at the first node of the first branch.
        whole: the merged node, made but not inserted.
        branches: of each, the nodes that go, each the only reader of the one before.
        sizes: how long the pieces are.
        axis: the axis to split.

    Raises:
        NotApplicable: one of the results is an output of the graph twice.
    """
    chains = [list(nodes) for nodes in branches]
    activations = _common_activation([nodes[-1] for nodes in chains])
    if activations:
        first = activations[0]
        inputs = [whole.outputs[0], *first.inputs[1:]]
        whole = rewriter.node(first.op_type, inputs, first.attributes.values())
        for nodes, activation in zip(chains, activations, strict=True):
            nodes.append(activation)
    for nodes in chains:
        result = nodes[-1].outputs[0]
        outputs = [] if result.graph is None else list(result.graph.outputs)
        if result.is_graph_output() and sum(output is result for output in outputs) > 1:
            raise NotApplicable(f"'{result.name}' is a graph output twice")
    made = _split(rewriter, whole.outputs[0], sizes, axis, chains[0][0])
    rewriter.stand_for([node for nodes in chains for node in nodes])
    for nodes, piece in zip(chains, made.outputs, strict=True):
        piece.type = nodes[-1].outputs[0].type
    # The first node goes first, as what is new is inserted before it.
    for nodes, piece in zip(chains, made.outputs, strict=True):
        for node in nodes:
            detail = f"{node.op_type} is a piece of a wider {whole.op_type}"
            rewriter.replace(node, piece, detail)


def _split(
    rewriter: Rewriter, whole: ir.Value, sizes: Sequence[int], axis: int, place: ir.Node
) -> ir.Node:
    attributes: dict[str, object] = {"axis": axis}
    inputs = [whole]
    if opset_version(place, rewriter.model) < 13:
        attributes["split"] = list(sizes)
    else:
        inputs.append(rewriter.initializer(np.array(sizes, np.int64), "split_sizes"))
    return rewriter.node("Split", inputs, attributes, outputs=len(sizes))


def _common_activation(ends: Sequence[ir.Node]) -> list[ir.Node]:
    """The activations behind the branches if all are the same and nothing else reads these.

    None where they have limits that a node makes: it may stand behind where the first branch did.
    """
    found = []
    for end in ends:
        reader = only_reader(end)
        if reader is None or reader.op_type not in _ACTIVATIONS or reader.domain:
            return []
        if reader.inputs[0] is not end.outputs[0] or len(reader.outputs) != 1:
            return []
        if any(limit is not None and limit.producer() is not None for limit in reader.inputs[1:]):
            return []
        found.append(reader)
    if any(_settings(reader) != _settings(found[0]) for reader in found):
        return []
    return found


def _settings(node: ir.Node) -> Hashable:
    attributes = sorted(
        (name, held.ref_attr_name if held.is_ref() else held.value)
        for name, held in node.attributes.items()
    )
    return (node.op_type, tuple(node.inputs[1:]), tuple(attributes))
