"""find_groups: which channels of a model go together, and which cannot go at all.

Every axis of every tensor of the main graph is a variable. The rule of each operator relates
the axes of its inputs and outputs (graphopt.pruning.propagation); the solver makes groups of
what comes together. What no rule speaks of stays whole: an operator without a rule freezes
every axis of its inputs and outputs, and a rule freezes what it does not mention.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

from graphopt.errors import ShapeError
from graphopt.graph import (
    clone,
    constant_tensor,
    ir,
    opset_version,
    outer_values,
    subgraphs,
)
from graphopt.pruning.coupling_relations import Owner, Relations
from graphopt.pruning.coupling_solver import solve
from graphopt.pruning.groups import Groups
from graphopt.pruning.propagation import rule_of
from graphopt.pruning.propagation.place import NotUnderstood, Place, Tensor, node_name
from graphopt.pruning.propagation.rule import Rule
from graphopt.shapes import evaluate_dim, infer_shapes, known_shape

if TYPE_CHECKING:
    import networkx


def find_groups(model: ir.Model) -> Groups:
    """The coupling groups of a model; it is not changed.

    Channels inside If, Loop and Scan bodies and inside functions are left alone, and so is what
    they take from outside.

    Returns:
        The groups that have a weight among their members, in the order of their producers.
    """
    copied = clone(model)
    try:
        infer_shapes(copied)
    except ShapeError:
        # What is known without inference may still be enough, and unknown shapes freeze.
        copied = clone(model)
    walk = _Walk(copied)
    return Groups(solve(walk.relations), walk.shapes(), walk.relations.constants)


def group_graph(groups: Groups) -> networkx.Graph:
    """The groups as a graph: a group's node is joined to each tensor that it reaches.

    Group nodes have `kind="group"`, `channels` and `frozen` (the reason, or ""); tensor nodes
    `kind="tensor"`; edges have `axis` and `role`.
    """
    import networkx

    graph = networkx.Graph()
    for group in groups:
        key = f"group {group.name}"
        graph.add_node(key, kind="group", channels=group.channels, frozen=group.frozen_reason or "")
        for member in group.members:
            graph.add_node(member.value, kind="tensor")
            graph.add_edge(key, member.value, axis=member.axis, role=member.role.value)
    return graph


class _Walk:
    """Relates the axes of the main graph, node by node."""

    def __init__(self, model: ir.Model) -> None:
        self.relations = Relations()
        self._model = model
        self._tensors: dict[ir.Value, Tensor | None] = {}
        self._parameters: set[ir.Value] = set()
        self._stand_in = _StandIns(model)
        self._versions: dict[str, int] = {}
        for value in model.graph.inputs:
            self._freeze(value, f"graph input '{value.name}'")
        for order, node in enumerate(model.graph):
            self._visit(node, order)
        for value in model.graph.outputs:
            self._freeze(value, f"graph output '{value.name}'")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The sizes of every tensor by name, varying ones negative."""
        return {
            value.name: tuple(
                size if fixed else -size
                for size, fixed in zip(tensor.sizes, tensor.fixed, strict=True)
            )
            for value, tensor in self._tensors.items()
            if tensor is not None and value.name
        }

    def _visit(self, node: ir.Node, order: int) -> None:
        if node.inputs and all(v is None or self._is_parameter(v) for v in node.inputs):
            self._parameters.update(node.outputs)
        elif constant_tensor(node.outputs[0] if node.outputs else None) is not None:
            self._parameters.update(node.outputs)
            for value in node.outputs:
                self._tensor(value)
            return
        bodies = subgraphs(node)
        for body in bodies:
            for value in outer_values(body):
                self._freeze(value, f"the body of {node.op_type} '{node_name(node)}' uses it")
        own = node.op_identifier() in self._model.functions
        rule = None if bodies or own else rule_of(node)
        inputs = [self._input(node, index) for index in range(len(node.inputs))]
        outputs = [self._tensor(value) if value.name else None for value in node.outputs]
        if bodies:
            reason = "runs a body that is left alone"
        elif rule is None:
            domain = f" of domain '{node.domain}'" if node.domain else ""
            reason = f"is an operator{domain} without a rule for pruning"
        else:
            place = Place(node, self._version(node), order, inputs, outputs, self.relations)
            refusal = self._related(place, rule)
            if refusal is None:
                return
            reason = refusal
        label = f"{node.op_type} '{node_name(node)}' {reason}"
        for tensor in (*inputs, *outputs):
            if tensor is not None:
                for axis in tensor.axes:
                    self.relations.freeze(axis, label)

    def _related(self, place: Place, rule: Rule) -> str | None:
        """Apply a rule; why it could not be, or None."""
        if self._is_unknown(place.node):
            return "has inputs or outputs of unknown rank"
        try:
            rule.relate(place)
        except NotUnderstood as refusal:
            return str(refusal)
        place.finish()
        return None

    def _is_unknown(self, node: ir.Node) -> bool:
        """Whether a tensor that is there has an unknown rank."""
        return any(
            value is not None and value.name and self._tensors.get(value, self) is None
            for value in (*node.inputs, *node.outputs)
        )

    def _version(self, node: ir.Node) -> int:
        version = self._versions.get(node.domain)
        if version is None:
            version = self._versions[node.domain] = opset_version(node, self._model)
        return version

    def _is_parameter(self, value: ir.Value) -> bool:
        return value in self._parameters or (value.is_initializer() and not value.is_graph_input())

    def _input(self, node: ir.Node, index: int) -> Tensor | None:
        value = node.inputs[index]
        if value is None:
            return None
        whole = self._tensor(value)
        if whole is None or not _is_shared_vector(value, whole):
            return whole
        # Equal vectors are often stored once; their users need not be pruned alike.
        return self._make(value, node_name(node), index)

    def _tensor(self, value: ir.Value) -> Tensor | None:
        """The tensor of a value; None where its rank is unknown."""
        if value not in self._tensors:
            self._tensors[value] = self._make(value)
        return self._tensors[value]

    def _make(self, value: ir.Value, node: str = "", index: int | None = None) -> Tensor | None:
        shape = known_shape(value)
        if shape is None and value.const_value is not None:
            shape = ir.Shape(value.const_value.shape.numpy())
        if shape is None:
            return None
        parameter = self._is_parameter(value)
        axes, sizes, fixed = [], [], []
        for number, dim in enumerate(shape):
            size = dim if isinstance(dim, int) else self._stand_in(dim)
            owner = Owner(value.name or "", number, parameter, node, index)
            axis = self.relations.axis(size, owner)
            if not isinstance(dim, int):
                self.relations.freeze(axis, f"the size of axis {number} of '{value.name}' varies")
            axes.append(axis)
            sizes.append(size)
            fixed.append(isinstance(dim, int))
        return Tensor(value, tuple(axes), tuple(sizes), tuple(fixed), parameter)

    def _freeze(self, value: ir.Value, reason: str) -> None:
        tensor = self._tensor(value)
        if tensor is not None:
            for axis in tensor.axes:
                self.relations.freeze(axis, reason)


def _is_shared_vector(value: ir.Value, tensor: Tensor) -> bool:
    if sum(size > 1 for size in tensor.sizes) > 1 or constant_tensor(value) is None:
        return False
    return not value.is_graph_output() and len(value.uses()) > 1


class _StandIns:
    """For each symbolic dim a size that nothing else is likely to have."""

    def __init__(self, model: ir.Model) -> None:
        self._primes = _primes()
        self._sizes: dict[str, int] = {}
        for value in model.graph.inputs:
            for dim in value.shape or ():
                if isinstance(dim, ir.SymbolicDim) and dim.value and dim.value not in self._sizes:
                    self._sizes[dim.value] = next(self._primes)
        self._known: dict[str, int] = {}

    def __call__(self, dim: ir.SymbolicDim) -> int:
        """The size; of an expression what it is for the stand-ins of its symbols."""
        text = dim.value
        if text is None:
            return next(self._primes)
        if text not in self._known:
            size = evaluate_dim(dim, self._sizes)
            self._known[text] = next(self._primes) if size is None or size < 1 else size
        return self._known[text]


def _primes() -> Iterator[int]:
    """Primes, from one on that is larger than most kernel sizes and group counts."""
    for number in count(211, 2):
        if all(number % divisor for divisor in range(3, int(number**0.5) + 1, 2)):
            yield number
