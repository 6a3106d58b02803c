"""Remove what no output depends on.

    y = Op(x), y unused                     -> nothing; then whatever only it used
    an initializer without a use            -> nothing, unless it is an input or an output too
    values, indices = MaxPool(x), indices unused       -> values = MaxPool(x)
    a function that no node calls           -> nothing

A use inside the body of an If, a Loop or a Scan is a use. Inputs stay: they are the interface.
So does a node of a domain that is not known here, whose effect the graph may not show, and an If
or a Loop with such a node in its body; a call of one of the model's own functions goes if that
has none. Of a node with several
outputs the unused ones stay, but for trailing optional ones whose absence changes nothing but
the work: BatchNormalization, for one, is in training mode by having them.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphopt.plugin import (
    Journal,
    Pass,
    Promise,
    Rewriter,
    all_graphs,
    ir,
    site_of,
    subgraphs,
)

_KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})

_REQUIRED_OUTPUTS = {
    "Dropout": 1,
    "GRU": 1,
    "LSTM": 1,
    "LayerNormalization": 1,
    "MaxPool": 1,
    "RNN": 1,
    "Unique": 1,
}
"""How many outputs to keep at least, for ops that compute these alike without the others."""

_FunctionName = tuple[str, str, str]


class EliminateDeadNodes(Pass):
    """Remove nodes, initializers and functions that contribute to no output."""

    name = "eliminate-dead-nodes"
    promise = Promise.EXACT

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Sweep each graph once from its end; again while a body freed something outside it."""
        rewriter = Rewriter(model, journal)
        effects = _effects(model)
        swept = True
        while swept:
            swept = False
            for graph in all_graphs(model):
                for node in reversed(graph):
                    if _is_dead(node, effects) and journal.permits(site_of(node)):
                        site = site_of(node)
                        rewriter.remove(node)
                        journal.record(site, f"unused {node.op_type} removed")
                        swept = True
        for graph in all_graphs(model):
            _remove_initializers(graph, journal)
            for node in graph:
                _trim_outputs(node, journal)
        _remove_functions(model, journal)


def _is_dead(node: ir.Node, effects: dict[_FunctionName, bool]) -> bool:
    if any(_is_used(value) for value in node.outputs):
        return False
    inner = (held for graph in subgraphs(node) for held in _nodes_within(graph))
    return not any(_has_effect(held, effects) for held in (node, *inner))


def _has_effect(node: ir.Node, effects: dict[_FunctionName, bool]) -> bool:
    known = effects.get(node.op_identifier())
    return node.domain not in _KNOWN_DOMAINS if known is None else known


def _is_used(value: ir.Value) -> bool:
    return value.is_graph_output() or bool(value.uses())


def _effects(model: ir.Model) -> dict[_FunctionName, bool]:
    """For each function of the model, whether an op in it may do more than its outputs show."""
    callers: dict[_FunctionName, list[_FunctionName]] = {}
    effects = dict.fromkeys(model.functions, False)
    suspects: list[_FunctionName] = []
    for name, function in model.functions.items():
        for node in _nodes_within(function.graph):
            if node.op_identifier() in effects:
                callers.setdefault(node.op_identifier(), []).append(name)
            elif node.domain not in _KNOWN_DOMAINS:
                suspects.append(name)
    while suspects:
        name = suspects.pop()
        if not effects[name]:
            effects[name] = True
            suspects.extend(callers.get(name, ()))
    return effects


def _nodes_within(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes of `graph` and of all graphs nested in it."""
    stack = [graph]
    while stack:
        for node in stack.pop():
            yield node
            stack.extend(subgraphs(node))


def _remove_initializers(graph: ir.Graph, journal: Journal) -> None:
    for name, value in list(graph.initializers.items()):
        site = f"initializer {name}"
        if not (value.is_graph_input() or _is_used(value)) and journal.permits(site):
            graph.initializers.pop(name)
            journal.record(site, "unused initializer removed")


def _trim_outputs(node: ir.Node, journal: Journal) -> None:
    required = _REQUIRED_OUTPUTS.get(node.op_type)
    if required is None or node.domain != "":
        return
    count = len(node.outputs)
    while count > required and not _is_used(node.outputs[count - 1]):
        count -= 1
    site = site_of(node)
    if count < len(node.outputs) and journal.permits(site):
        journal.record(site, f"{len(node.outputs) - count} unused outputs removed")
        node.resize_outputs(count)


def _remove_functions(model: ir.Model, journal: Journal) -> None:
    called: set[_FunctionName] = set()
    graphs = [model.graph]
    while graphs:
        for node in _nodes_within(graphs.pop()):
            name = node.op_identifier()
            if name in model.functions and name not in called:
                called.add(name)
                graphs.append(model.functions[name].graph)
    for name in list(model.functions):
        site = f"function {'::'.join(part for part in name if part)}"
        if name not in called and journal.permits(site):
            del model.functions[name]
            journal.record(site, "uncalled function removed")
