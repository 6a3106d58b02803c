"""Finds which nodes a backend can run in integers, and which tensors have to be integers then.

    Group = a main node + the activations its kernel absorbs; reads and writes integers

Between groups a tensor is either float or integers; `plan` decides which, once the ranges are
known. An operator that only moves elements gives its output the scale of its input: they are
tied, and only the tensor at the root of a tie is calibrated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphopt.errors import UsageError
from graphopt.graph import all_graphs, ir
from graphopt.quantization.backends.backend import Backend, Role
from graphopt.quantization.grouping import Declined, NotFloat, form_group
from graphopt.quantization.groups import Group, Placement, Use, name_of

__all__ = ["Group", "Placement", "Use", "name_of", "place"]

# Declining these is worth telling even where the backend has no rule for them.
_USUALLY_QUANTIZED = frozenset(
    {"Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN"}
)
# All of it is used as soon as one class, one pixel, one gate is certain.
_BOUNDED = {"HardSigmoid": (0.0, 1.0), "Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0)}


def place(
    model: ir.Model,
    backend: Backend,
    *,
    nodes_to_exclude: Iterable[str] = (),
    op_types_to_quantize: Sequence[str] | None = None,
) -> Placement:
    """What of `model` the backend can run in integers.

    Args:
        model: float, or partly quantized already: such regions are left alone. Its types are
            inferred. Not changed.
        backend: whose rules.
        nodes_to_exclude: nodes to leave float, by node name or by the name of an output.
        op_types_to_quantize: the only operators to quantize; None for all that have a rule.

    Raises:
        UsageError: `nodes_to_exclude` names no node, or `op_types_to_quantize` no rule.
    """
    excluded = _excluded(model, nodes_to_exclude)
    operators = _operators(backend, op_types_to_quantize)
    groups: list[Group] = []
    declined: dict[str, str] = {}
    taken: set[ir.Node] = set()
    unavailable = set(excluded)
    for node in model.graph:
        name = name_of(node)
        if node in taken or not name:
            continue
        rule = backend.rule(node)
        if rule is None:
            if node.op_type in _USUALLY_QUANTIZED and node.domain == "":
                declined[name] = f"{backend.name} has no integer kernel for {node.op_type}"
            continue
        if node in excluded:
            declined[name] = "it is excluded by request"
            continue
        if operators is not None and node.op_type not in operators:
            declined[name] = f"{node.op_type} is not among the operators to quantize"
            continue
        try:
            formed = form_group(node, rule, backend, model, unavailable)
        except Declined as reason:
            # Shape arithmetic is full of Gather, Concat and Mul: nothing is told of these.
            if rule.role is Role.PRODUCT or (
                rule.role is Role.ARITHMETIC and not isinstance(reason, NotFloat)
            ):
                declined[name] = str(reason)
            continue
        taken.update(formed.nodes)
        unavailable.update(formed.nodes)
        groups.append(formed.group)
    declined.update(_inside_bodies(model, backend))
    return _placement(model, backend, groups, declined)


def _placement(
    model: ir.Model, backend: Backend, groups: list[Group], declined: dict[str, str]
) -> Placement:
    """The placement of groups: ties followed to their roots, tensors to calibrate listed."""
    ties: dict[str, str] = {}
    tables: set[str] = set()
    activations: dict[str, None] = {}
    for group in groups:
        if group.role is Role.MOVEMENT:
            source = group.reads[0].tensor
            ties.update(dict.fromkeys(group.writes, ties.get(source, source)))
        if group.role is Role.LOOKUP:
            tables.update(group.writes)
        activations.update(dict.fromkeys(group.tensors))
    fixed = _fixed(model, activations)
    known = ties.keys() | tables | fixed.keys()
    wanted = tuple(name for name in activations if name not in known)
    return Placement(backend.name, tuple(groups), ties, fixed, wanted, declined)


def _fixed(model: ir.Model, names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """The ranges of those tensors that an operator of bounded output makes."""
    wanted = set(names)
    return {
        value.name: _BOUNDED[node.op_type]
        for node in model.graph
        if node.op_type in _BOUNDED and node.domain == ""
        for value in node.outputs
        if value.name in wanted
    }


def _inside_bodies(model: ir.Model, backend: Backend) -> dict[str, str]:
    """The nodes in bodies that would be quantized in the main graph."""
    functions = {
        graph
        for function in model.functions.values()
        for graph in (function.graph, *function.subgraphs())
    }
    found: dict[str, str] = {}
    for graph in all_graphs(model):
        if graph is model.graph:
            continue
        place_of = "a function" if graph in functions else "an If, a Loop or a Scan"
        for node in graph:
            rule = backend.rule(node)
            if rule is not None and rule.role is Role.PRODUCT and name_of(node):
                found[name_of(node)] = f"it is in the body of {place_of}, which is not calibrated"
    return found


def _excluded(model: ir.Model, names: Iterable[str]) -> set[ir.Node]:
    wanted = dict.fromkeys(names)
    if not wanted:
        return set()
    known: dict[str, list[ir.Node]] = {}
    for node in model.graph:
        for name in {node.name or "", *(value.name or "" for value in node.outputs)}:
            known.setdefault(name, []).append(node)
    for name in wanted:
        if not name or name not in known:
            raise UsageError(f"no node to exclude is named {name!r}: use the name of an output")
    return {node for name in wanted for node in known[name]}


def _operators(backend: Backend, op_types: Sequence[str] | None) -> set[str] | None:
    if op_types is None:
        return None
    known = {rule.op_type for rule in backend.rules}
    for op_type in op_types:
        if op_type not in known:
            listed = ", ".join(sorted(known))
            raise UsageError(f"{backend.name} does not quantize {op_type!r}: use one of {listed}")
    return set(op_types)
