"""What must hold after every pass: the interface is kept and the model is valid."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphopt.graph import all_graphs, ir, verify


@dataclass(frozen=True, slots=True)
class Interface:
    """What a caller of the model relies on, as text that can be compared and shown.

    Attributes:
        inputs: name, type and shape of each input that has no default, in order.
        defaults: the same for inputs that an initializer gives a default to.
        outputs: the same for each output.
    """

    inputs: tuple[tuple[str, str], ...]
    defaults: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]


def interface_of(model: ir.Model) -> Interface:
    """Read the interface of a model."""
    graph = model.graph
    required: list[tuple[str, str]] = []
    defaults: list[tuple[str, str]] = []
    for value in graph.inputs:
        (defaults if value.is_initializer() else required).append(_signature(value))
    outputs = [_signature(value) for value in graph.outputs]
    return Interface(tuple(required), tuple(defaults), tuple(outputs))


def interface_change(before: Interface, after: Interface, *, drops_defaults: bool) -> str | None:
    """What differs between two interfaces, in a phrase; None if nothing does."""
    for kind, old, new in (
        ("input", before.inputs, after.inputs),
        ("output", before.outputs, after.outputs),
    ):
        change = _first_difference(kind, old, new)
        if change is not None:
            return change
    if drops_defaults:
        kept = set(before.defaults)
        extra = next((entry for entry in after.defaults if entry not in kept), None)
        return f"input '{extra[0]}' was added" if extra else None
    return _first_difference("input", before.defaults, after.defaults)


def first_problem(model: ir.Model) -> str | None:
    """The first thing that makes the model invalid, naming the node; None if it is valid."""
    problems = verify(model)
    if not problems:
        return None
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{problems[0]}{more}"


@dataclass(frozen=True)
class Fingerprint:
    """What changes when a pass changes the model; good within one process only.

    Attributes:
        number: a hash, by which fingerprints are compared.
        held: what counts by identity: while it is alive nothing else gets its address.
    """

    number: int
    held: tuple[object, ...] = field(compare=False, repr=False)


def fingerprint(model: ir.Model) -> Fingerprint:
    """The fingerprint of a model as it is now.

    Tensors and attributes count by identity, as no pass writes into them.
    """
    held: list[object] = []
    parts: list[object] = [model.ir_version, tuple(model.metadata_props.items())]
    for domain, version in model.graph.opset_imports.items():
        parts.append((domain, version))
    parts.extend(model.functions)
    for graph in all_graphs(model):
        parts.append(tuple(_signature(value) for value in graph.inputs))
        parts.append(tuple(_signature(value) for value in graph.outputs))
        held += [value.const_value for value in graph.initializers.values()]
        parts.append(
            tuple((name, id(value.const_value)) for name, value in graph.initializers.items())
        )
        for node in graph:
            parts += (node.domain, node.op_type, node.overload)
            parts += (len(node.inputs), len(node.outputs))
            parts += [None if value is None else value.name for value in node.inputs]
            parts += [value.name for value in node.outputs]
            for name, attribute in node.attributes.items():
                parts += (name, id(attribute))
                held.append(attribute)
    return Fingerprint(hash(tuple(parts)), tuple(held))


def _signature(value: ir.Value) -> tuple[str, str]:
    return (value.name or "", f"{value.type} {value.shape}")


def _first_difference(
    kind: str, before: tuple[tuple[str, str], ...], after: tuple[tuple[str, str], ...]
) -> str | None:
    if before == after:
        return None
    for old, new in zip(before, after, strict=False):
        if old[0] != new[0]:
            return f"{kind} '{old[0]}' became '{new[0]}'"
        if old[1] != new[1]:
            return f"{kind} '{old[0]}' was {old[1]} and became {new[1]}"
    if len(before) > len(after):
        return f"{kind} '{before[len(after)][0]}' is gone"
    return f"{kind} '{after[len(before)][0]}' was added"
