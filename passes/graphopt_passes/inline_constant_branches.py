"""Put the branch that will run in the place of an If whose condition is known.

    y = If(true, then: a = f(x); a, else: ...)   ->   y = f(x)

The branch's nodes move as they are, names and metadata included, and so do its initializers.
A name that something else in the model has too is changed. What the branch returns gets the
name of the If's output; an Identity stands in where an output of the graph would otherwise be a
constant, a value from outside the branch, or a second name of one value, and where the graph
lists one value as two of its outputs.

Not inlined: an If whose condition depends on the inputs, or is a default that the caller may
override.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from graphopt.plugin import (
    Journal,
    NotApplicable,
    Pass,
    Promise,
    Rewriter,
    all_graphs,
    all_nodes,
    constant_array,
    ir,
    nested_graphs,
    site_of,
    symbolic_value,
)


@dataclass(frozen=True)
class InlineConstantBranches(Pass):
    """Put the branch that will run in the place of an If whose condition is known."""

    name = "inline-constant-branches"
    promise = Promise.EXACT

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Inline outer branches first; what they contain follows."""
        queue = deque(node for node in all_nodes(model) if _is_if(node))
        if not queue:
            return
        inlining = _Inlining(model, journal)
        while queue:
            node = queue.popleft()
            site = site_of(node)
            if node.graph is None or node.graph in inlining.dropped or not journal.permits(site):
                continue
            try:
                inlining.inline(node, condition=_condition(node))
            except NotApplicable as refusal:
                journal.decline(site, str(refusal))


def _is_if(node: ir.Node) -> bool:
    return node.op_type == "If" and node.domain in ("", "ai.onnx")


def _condition(node: ir.Node) -> bool:
    value = node.inputs[0]
    if value is None:
        raise NotApplicable("the condition is omitted")
    array = constant_array(value, max_elements=1)
    if array is None:
        array = symbolic_value(value)
    if array is not None and array.size == 1 and isinstance(array.item(), bool | int):
        return bool(array.item())
    if value.is_initializer() and value.is_graph_input():
        raise NotApplicable(f"the caller can override '{value.name}'")
    raise NotApplicable("the condition is not known")


class _Inlining:
    """The state of one run.

    Attributes:
        dropped: the graphs that no node of the model holds any more.
    """

    def __init__(self, model: ir.Model, journal: Journal) -> None:
        self.dropped: set[ir.Graph] = set()
        self._rewriter = Rewriter(model, journal)
        self._functions = {
            graph
            for function in model.functions.values()
            for graph in nested_graphs(function.graph)
        }
        self._listed_twice = {
            value
            for graph in all_graphs(model)
            for value, count in Counter(graph.outputs).items()
            if count > 1
        }
        self._names = Counter(
            value.name for graph in all_graphs(model) for value in _defined(graph) if value.name
        )

    def inline(self, node: ir.Node, *, condition: bool) -> None:
        """Replace `node` by the nodes of one of its branches."""
        taken, other = ("then_branch", "else_branch")[:: 1 if condition else -1]
        branch = node.attributes[taken].as_graph()
        graph = node.graph
        if graph is None or branch.inputs or len(branch.outputs) != len(node.outputs):
            raise NotApplicable("the branch does not return what the If does")
        if any(value.const_value is None for value in branch.initializers.values()):
            raise NotApplicable("an initializer of the branch has no data")
        results = tuple(branch.outputs)
        branch.outputs.clear()
        self._drop(node.attributes[other].as_graph())
        self.dropped.add(branch)

        self._rewriter.begin(node)
        constants = {
            value: self._move(value, node, graph) for value in tuple(branch.initializers.values())
        }
        inner = tuple(branch)
        for value in (value for moved in inner for value in moved.outputs):
            self._make_unique(value)
        branch.remove(inner)
        graph.insert_before(node, inner)

        names = [value.name for value in node.outputs]
        by = self._replacements(node, [constants.get(value, value) for value in results], inner)
        self._rewriter.replace(node, by, f"If -> its {taken}")
        named: set[ir.Value] = set()
        inside = set(inner)
        for name, value in zip(names, by, strict=True):
            made_inside = value.producer() in inside
            if made_inside and value not in named and not value.is_graph_output():
                value.name = name
                named.add(value)

    def _drop(self, graph: ir.Graph) -> None:
        """Forget the names of a branch that goes away."""
        for nested in nested_graphs(graph):
            self.dropped.add(nested)
            self._names.subtract(value.name for value in _defined(nested) if value.name)

    def _move(self, value: ir.Value, node: ir.Node, graph: ir.Graph) -> ir.Value:
        """Bring an initializer of the branch beside the If; the value that it is there."""
        if value.graph is not None:
            value.graph.initializers.pop(value.name or "")
        self._make_unique(value)
        if graph not in self._functions or value.const_value is None:
            graph.initializers.add(value)
            return value
        # The body of a function holds no initializers.
        constant = ir.Node(
            "",
            "Constant",
            [],
            [ir.AttrTensor("value", value.const_value)],
            num_outputs=1,
            name=node.name,
            metadata_props=node.metadata_props,
        )
        made = constant.outputs[0]
        made.name, made.type, made.shape = value.name, value.type, value.shape
        graph.insert_before(node, constant)
        for usage in tuple(value.uses()):
            usage.node.replace_input_with(usage.idx, made)
        return made

    def _make_unique(self, value: ir.Value) -> None:
        if value.name and self._names[value.name] > 1:
            self._names[value.name] -= 1
            value.name = self._rewriter.unique_name(value.name)
            self._names[value.name] += 1

    def _replacements(
        self, node: ir.Node, results: Iterable[ir.Value], inner: tuple[ir.Node, ...]
    ) -> list[ir.Value]:
        """For each output of the If the value that replaces it."""
        free = {value for made in inner for value in made.outputs}
        by: list[ir.Value] = []
        for output, result in zip(node.outputs, results, strict=True):
            value = result
            if output.is_graph_output():
                if value not in free or output in self._listed_twice:
                    value = self._rewriter.node("Identity", [value]).outputs[0]
                free.discard(value)
            by.append(value)
        return by


def _defined(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
