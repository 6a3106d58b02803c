"""Matches a pattern at a node. A match is a value of its own; patterns keep no state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.graph import ir
from graphopt.graph.constants import constant_tensor
from graphopt.rewrite.constant_time import use_count
from graphopt.rewrite.journal import NotApplicable
from graphopt.rewrite.pattern import Constant, Maybe, OneOf, Op, Pattern, Variable


@dataclass(frozen=True)
class Match:
    """Where a pattern was found.

    Attributes:
        root: the node that the pattern's root matched.
        nodes: every matched node by its label; unlabelled ones only in `matched`.
        values: every labelled value; an omitted optional input has no entry.
        matched: all matched nodes, the root first.
    """

    root: ir.Node
    nodes: dict[str, ir.Node]
    values: dict[str, ir.Value]
    matched: tuple[ir.Node, ...]

    def node(self, label: str) -> ir.Node:
        """The node with this label."""
        return self.nodes[label]

    def value(self, label: str) -> ir.Value:
        """The value with this label."""
        return self.values[label]

    def get(self, label: str) -> ir.Value | None:
        """The value with this label; None where the input is omitted."""
        return self.values.get(label)


@dataclass(frozen=True, slots=True)
class _Bindings:
    """What a partial match has bound so far; extending it makes a new one."""

    labels: tuple[tuple[str, ir.Node | ir.Value], ...] = ()
    matched: tuple[tuple[ir.Node, bool], ...] = ()

    def label(self, label: str | None, bound: ir.Node | ir.Value) -> _Bindings | None:
        if label is None:
            return self
        for known, earlier in self.labels:
            if known == label:
                return self if earlier is bound else None
        return _Bindings((*self.labels, (label, bound)), self.matched)

    def node(self, node: ir.Node, shared: bool) -> _Bindings:
        if any(node is earlier for earlier, _ in self.matched):
            return self
        return _Bindings(self.labels, (*self.matched, (node, shared)))


def match(pattern: Pattern, root: ir.Node) -> Match | None:
    """Match `pattern` with its root at `root`.

    Returns:
        The match, or None where the pattern does not fit.

    Raises:
        NotApplicable: the pattern fits, but something outside it uses an inner value, so
            the inner nodes cannot be removed; the message names it.
    """
    obstacle: str | None = None
    for bindings in _match_node(pattern, root, _Bindings()):
        found = _obstacle(root, bindings)
        if found is None:
            return _as_match(root, bindings)
        obstacle = obstacle or found
    if obstacle is not None:
        raise NotApplicable(obstacle)
    return None


def _as_match(root: ir.Node, bindings: _Bindings) -> Match:
    nodes: dict[str, ir.Node] = {}
    values: dict[str, ir.Value] = {}
    for label, bound in bindings.labels:
        if isinstance(bound, ir.Node):
            nodes[label] = bound
        else:
            values[label] = bound
    return Match(root, nodes, values, tuple(node for node, _ in bindings.matched))


def _obstacle(root: ir.Node, bindings: _Bindings) -> str | None:
    """Why the inner nodes of the match may not be removed; None if they may."""
    inside = {id(node) for node, _ in bindings.matched}
    most_uses = sum(len(node.inputs) for node, _ in bindings.matched)
    for node, shared in bindings.matched:
        if node is root or shared:
            continue
        if node.graph is not root.graph:
            return f"{node.op_type} stands in an enclosing graph"
        for value in node.outputs:
            if value.is_graph_output():
                return f"{node.op_type} output '{value.name}' is a graph output"
            if use_count(value) > most_uses or any(
                id(usage.node) not in inside for usage in value.uses()
            ):
                return f"{node.op_type} output '{value.name}' has another consumer"
    return None


def _match_node(pattern: Pattern, node: ir.Node, bindings: _Bindings) -> Iterator[_Bindings]:
    if isinstance(pattern, OneOf):
        for alternative in pattern.patterns:
            yield from _match_node(alternative, node, bindings)
        return
    if not isinstance(pattern, Op) or not _is_op(pattern, node):
        return
    bound = bindings.label(pattern.label, node)
    if bound is None:
        return
    bound = bound.node(node, pattern.shared)
    inputs: list[ir.Value | None] = list(node.inputs)
    inputs += [None] * (len(pattern.inputs) - len(inputs))
    yield from _match_inputs(pattern.inputs, inputs, bound)
    if pattern.commutative and len(pattern.inputs) >= 2:
        inputs[0], inputs[1] = inputs[1], inputs[0]
        yield from _match_inputs(pattern.inputs, inputs, bound)


def _match_inputs(
    patterns: tuple[Pattern, ...], inputs: list[ir.Value | None], bindings: _Bindings
) -> Iterator[_Bindings]:
    if not patterns:
        yield bindings
        return
    for bound in _match_value(patterns[0], inputs[0], bindings):
        yield from _match_inputs(patterns[1:], inputs[1:], bound)


def _match_value(
    pattern: Pattern, value: ir.Value | None, bindings: _Bindings
) -> Iterator[_Bindings]:
    if isinstance(pattern, Maybe):
        if value is None:
            yield bindings
        else:
            yield from _match_value(pattern.pattern, value, bindings)
        return
    if value is None:
        return
    if isinstance(pattern, OneOf):
        for alternative in pattern.patterns:
            yield from _match_value(alternative, value, bindings)
    elif isinstance(pattern, Op):
        producer = value.producer()
        if producer is not None and value.index() == pattern.output:
            yield from _match_node(pattern, producer, bindings)
    elif _accepts(pattern, value):
        bound = bindings.label(pattern.label, value)
        if bound is not None:
            yield bound


def _accepts(pattern: Variable | Constant, value: ir.Value) -> bool:
    if isinstance(pattern, Constant) and constant_tensor(value) is None:
        return False
    return pattern.where is None or pattern.where(value)


def _is_op(pattern: Op, node: ir.Node) -> bool:
    if node.op_type not in pattern.op_types:
        return False
    if (node.domain or "ai.onnx") != (pattern.domain or "ai.onnx"):
        return False
    for name, expected in pattern.attributes:
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.is_ref():
            return False
        actual = None if attribute is None else attribute.value
        if not (expected(actual) if callable(expected) else actual == expected):
            return False
    return True
