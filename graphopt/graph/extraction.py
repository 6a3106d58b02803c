"""Cuts a part out of a model, between named tensors."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.errors import UsageError
from graphopt.graph._onnx_ir import ir
from graphopt.graph.carried import forget_carried
from graphopt.graph.clone import clone
from graphopt.graph.walk import all_graphs, nested_graphs, outer_values, subgraphs


def extract(
    model: ir.Model, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
) -> ir.Model:
    """The part of a model that computes `outputs` from `inputs`, as a model of its own.

    Args:
        model: it is not changed. Tensors that are to become inputs should have a known type:
            infer shapes first.
        inputs: tensors of the main graph that are given from outside; None for the model's own
            inputs, as far as they are needed.
        outputs: tensors of the main graph to compute; None for the model's own outputs.

    Raises:
        UsageError: there is no such tensor, its type is not known, an input is a constant, or the
            outputs need something that is not among the inputs.
    """
    part = clone(model)
    graph = part.graph
    values = {value.name: value for node in graph for value in node.outputs if value.name}
    values.update((value.name or "", value) for value in graph.inputs)
    constants = set(graph.initializers) - {value.name for value in graph.inputs}
    own = list(dict.fromkeys(graph.outputs))
    results = own if outputs is None else _found(outputs, values, constants)
    given: list[ir.Value] = []
    # Outputs are looked up before inputs take their uses: what is computed, not what is given.
    graph.outputs[:] = []
    for value in _found(inputs or (), values, constants):
        if value in results:
            raise UsageError(f"'{value.name}' is an input and an output: there is nothing between")
        given.append(value if value.is_graph_input() else _given(value, part))
    graph.outputs.extend(results)
    forget_carried(graph)
    nodes, read = _needed(graph)
    missing = [v.name or "" for v in graph.inputs if v in read and v not in given and inputs]
    missing = [name for name in missing if name not in graph.initializers]
    if missing:
        names = ", ".join(f"'{name}'" for name in missing)
        raise UsageError(f"the outputs need {names} too: add it to the inputs")
    for value in given:
        if value not in read:
            raise UsageError(f"the outputs do not depend on '{value.name}': leave it out")
    kept = [value for value in graph.inputs if value in read and value not in given]
    graph.inputs[:] = [*given, *kept]
    for node in [node for node in reversed(graph) if node not in nodes]:
        _release(node)
        graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if value not in read:
            del graph.initializers[name]
    _drop_functions(part)
    return part


def _found(
    names: Sequence[str], values: dict[str, ir.Value], constants: set[str]
) -> list[ir.Value]:
    found = []
    for name in names:
        value = values.get(name)
        if value is None and name in constants:
            raise UsageError(f"'{name}' is a constant: nothing computes it, and nobody gives it")
        if value is None:
            raise UsageError(f"there is no tensor '{name}' that the main graph computes or takes")
        if value.type is None:
            raise UsageError(f"the type of '{name}' is not known, so it can be no interface")
        found.append(value)
    return list(dict.fromkeys(found))


def _given(value: ir.Value, model: ir.Model) -> ir.Value:
    """A new input that all readers of a tensor read instead; it takes over the name."""
    name = value.name
    taken = ir.Value(name=None, type=value.type, shape=value.shape)
    ir.convenience.replace_all_uses_with(value, taken)
    names = {v.name for graph in all_graphs(model) for node in graph for v in node.outputs}
    names |= {v for graph in all_graphs(model) for v in graph.initializers}
    unique = f"{name}_computed"
    while unique in names:
        unique += "_"
    value.name = unique
    taken.name = name
    return taken


def _needed(graph: ir.Graph) -> tuple[set[ir.Node], set[ir.Value]]:
    """The nodes that the outputs depend on, and all values that these and the outputs read."""
    nodes: set[ir.Node] = set()
    read: set[ir.Value] = set()
    waiting = list(graph.outputs)
    while waiting:
        value = waiting.pop()
        if value in read:
            continue
        read.add(value)
        node = value.producer()
        if node is None or node in nodes or node.graph is not graph:
            continue
        nodes.add(node)
        waiting += [item for item in node.inputs if item is not None]
        for inner in subgraphs(node):
            waiting += outer_values(inner)
    return nodes, read


def _release(node: ir.Node) -> None:
    """Let go of what the bodies of a node read from outside."""
    for body in subgraphs(node):
        for inner in nested_graphs(body):
            inner.outputs[:] = []
            for each in inner:
                for place in range(len(each.inputs)):
                    each.replace_input_with(place, None)


def _drop_functions(model: ir.Model) -> None:
    """Leave out the functions that nothing calls any more."""
    called: set[ir.OperatorIdentifier] = set()
    waiting = [node.op_identifier() for graph in nested_graphs(model.graph) for node in graph]
    while waiting:
        name = waiting.pop()
        function = model.functions.get(name)
        if function is None or name in called:
            continue
        called.add(name)
        inside = (*function, *(n for g in nested_graphs(function.graph) for n in g))
        waiting += [node.op_identifier() for node in inside]
    for name in [name for name in model.functions if name not in called]:
        del model.functions[name]
