"""Put what will run in the place of an If whose condition, or a Loop whose one trip, is known.

    y = If(true, then: a = f(x); a, else: ...)       ->   y = f(x)
    y, s = Loop(1, true, x, body: f(0, true, v))     ->   y = f(0, true, x); s = Unsqueeze(...)
    y = Loop(0, c, x), Loop(n, false, x)             ->   y = x

The nodes of a branch or body move as they are, names and metadata included, and so do its
initializers. A name that something else in the model has too is changed. What is returned gets the
name of the output; an Identity stands in where an output of the graph would otherwise be a
constant, a value from outside the branch, or a second name of one value, and where the graph
lists one value as two of its outputs. A loop makes one trip too where its body always ends it.

Not inlined: an If whose condition, or a Loop whose number of trips depends on the inputs, or is a
default that the caller may override, and a Loop without trips that collects a value of each.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

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
    known_shape,
    nested_graphs,
    opset_version,
    site_of,
    symbolic_value,
)
from graphopt_passes.operands import given

_AXES_ARE_INPUT = 13


@dataclass(frozen=True)
class InlineConstantBranches(Pass):
    """Put what will run in the place of an If or Loop that is known to run it once or never."""

    name = "inline-constant-branches"
    promise = Promise.EXACT
    acts_on = ("If", "Loop")

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Inline outer branches first; what they contain follows."""
        queue = deque(node for node in all_nodes(model) if _is_branching(node))
        if not queue:
            return
        inlining = _Inlining(model, journal)
        while queue:
            node = queue.popleft()
            site = site_of(node)
            if node.graph is None or node.graph in inlining.dropped or not journal.permits(site):
                continue
            try:
                if node.op_type == "If":
                    inlining.inline(node, condition=_condition(node))
                else:
                    inlining.unroll(node, once=_makes_one_trip(node))
            except NotApplicable as refusal:
                journal.decline(site, str(refusal))


def _is_branching(node: ir.Node) -> bool:
    return node.op_type in ("If", "Loop") and node.domain in ("", "ai.onnx")


def _condition(node: ir.Node) -> bool:
    value = node.inputs[0]
    if value is None:
        raise NotApplicable("the condition is omitted")
    known = _known(value)
    if known is not None:
        return bool(known)
    if value.is_initializer() and value.is_graph_input():
        raise NotApplicable(f"the caller can override '{value.name}'")
    raise NotApplicable("the condition is not known")


def _known(value: ir.Value) -> int | None:
    """The truth value or integer that a value is known to be."""
    array = constant_array(value, max_elements=1)
    if array is None:
        array = symbolic_value(value)
    if array is not None and array.size == 1 and isinstance(array.item(), bool | int):
        return int(array.item())
    return None


def _makes_one_trip(loop: ir.Node) -> bool:
    """Whether a Loop makes one trip, rather than none."""
    limit, condition = (given(loop, index) for index in (0, 1))
    trips = None if limit is None else _known(limit)
    goes = 1 if condition is None else _known(condition)
    if goes == 0 or (trips is not None and trips <= 0):
        return False
    if goes is None:
        raise NotApplicable("whether the loop begins is not known")
    outputs = loop.attributes["body"].as_graph().outputs
    ends = bool(outputs) and _known(outputs[0]) == 0
    if trips == 1 or (ends and (limit is None or trips is not None)):
        return True
    raise NotApplicable("the loop is not known to make one trip")


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
        if node.graph is None or branch.inputs or len(branch.outputs) != len(node.outputs):
            raise NotApplicable("the branch does not return what the If does")
        _check_data(branch)
        results = tuple(branch.outputs)
        self._drop(node.attributes[other].as_graph())
        self._rewriter.begin(node)
        constants, inner = self._bring(branch, node, node.graph)
        self._put(node, [constants.get(x, x) for x in results], inner, f"If -> its {taken}")

    def unroll(self, loop: ir.Node, *, once: bool) -> None:
        """Replace a Loop by its body, or by what it starts with."""
        body = loop.attributes["body"].as_graph()
        carried = [value for value in loop.inputs[2:] if value is not None]
        scanned = len(loop.outputs) - len(carried)
        fits = (
            len(body.inputs) == 2 + len(carried) == max(2, len(loop.inputs))
            and len(body.outputs) == 1 + len(loop.outputs)
            and scanned >= 0
        )
        if loop.graph is None or not fits:
            raise NotApplicable("the body does not take and return what the Loop does")
        _check_data(body)
        if not once:
            if scanned:
                raise NotApplicable("the loop makes no trip, and collects values")
            self._drop(body)
            self._rewriter.begin(loop)
            self._put(loop, carried, (), "Loop -> what it starts with")
            return
        results = tuple(body.outputs)[1:]
        self._rewriter.begin(loop)
        known = dict(zip(body.inputs[2:], carried, strict=True))
        firsts = ((np.int64(0), "trip"), (np.True_, "condition"))
        for own, (first, name) in zip(body.inputs, firsts, strict=False):
            if own.uses() or own in results:
                known[own] = self._first(_like(own, first), name, loop, loop.graph)
        self._names.subtract(value.name for value in body.inputs if value.name)
        for own, value in known.items():
            for usage in tuple(own.uses()):
                usage.node.replace_input_with(usage.idx, value)
        constants, inner = self._bring(body, loop, loop.graph)
        known.update(constants)
        by = [known.get(value, value) for value in results]
        stacked = [self._stacked(value, loop) for value in by[len(carried) :]]
        made = (*inner, *stacked)
        by[len(carried) :] = [node.outputs[0] for node in stacked]
        self._put(loop, by, made, "Loop -> its body")

    def _first(self, array: np.ndarray, name: str, loop: ir.Node, graph: ir.Graph) -> ir.Value:
        """What a body's own input holds in the first trip, made ahead of the body's nodes."""
        if graph not in self._functions:
            return self._rewriter.initializer(array, name)
        unique = self._rewriter.unique_name(name)
        made = _constant(ir.tensor(array, name=unique), loop, graph)
        made.name = unique
        return made

    def _stacked(self, value: ir.Value, loop: ir.Node) -> ir.Node:
        """The values of all trips in one tensor, of which there is one."""
        if opset_version(loop, self._rewriter.model) < _AXES_ARE_INPUT:
            return self._rewriter.node("Unsqueeze", [value], {"axes": [0]})
        axes = self._rewriter.initializer(np.array([0], np.int64), "axes")
        return self._rewriter.node("Unsqueeze", [value, axes])

    def _bring(
        self, branch: ir.Graph, node: ir.Node, graph: ir.Graph
    ) -> tuple[dict[ir.Value, ir.Value], tuple[ir.Node, ...]]:
        """Move what a branch holds beside its node; its constants there, and its nodes."""
        branch.outputs.clear()
        self.dropped.add(branch)
        constants = {
            value: self._move(value, node, graph) for value in tuple(branch.initializers.values())
        }
        inner = tuple(branch)
        for value in (value for moved in inner for value in moved.outputs):
            self._make_unique(value)
        branch.remove(inner)
        graph.insert_before(node, inner)
        return constants, inner

    def _put(
        self, node: ir.Node, results: Iterable[ir.Value], inner: tuple[ir.Node, ...], detail: str
    ) -> None:
        """Replace the node by what was made inside, which gets the names of its outputs."""
        names = [value.name for value in node.outputs]
        by = self._replacements(node, results, inner)
        self._rewriter.replace(node, by, detail)
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
        made = _constant(value.const_value, node, graph)
        made.name, made.type, made.shape = value.name, value.type, value.shape
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


def _constant(held: ir.TensorProtocol, node: ir.Node, graph: ir.Graph) -> ir.Value:
    """A Constant ahead of `node`: the body of a function holds no initializers."""
    constant = ir.Node(
        "",
        "Constant",
        [],
        [ir.AttrTensor("value", held)],
        num_outputs=1,
        name=node.name,
        metadata_props=node.metadata_props,
    )
    graph.insert_before(node, constant)
    made = constant.outputs[0]
    made.type, made.shape = ir.TensorType(held.dtype), ir.Shape(held.shape.numpy())
    return made


def _like(own: ir.Value, number: np.generic) -> np.ndarray:
    """What a body's input holds first: a scalar, or one number if that is how it is declared."""
    shape = known_shape(own)
    return np.full((1,) * (0 if shape is None else len(shape)), number)


def _check_data(graph: ir.Graph) -> None:
    """Refuse a graph that cannot be moved whole."""
    if any(value.const_value is None for value in graph.initializers.values()):
        raise NotApplicable("an initializer of the branch has no data")


def _defined(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
