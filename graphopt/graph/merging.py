"""Joins models: the tensors of one become inputs of another, and outputs may be combined.

chain      y = B(A(x))                         an input is bound to an output
parallel   y, z = A(x), B(x)                   an input is bound to an input
ensemble   y = sum w_i A_i(x) / sum w_i        or the shares of the votes for each class
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph._onnx_ir import ir
from graphopt.graph.carried import forget_carried
from graphopt.graph.clone import clone
from graphopt.graph.walk import all_nodes, nested_graphs

_OPSET = 13
"""Of a model that has none of ONNX's own operators."""

Binding = Mapping[str, tuple[int, str]]
"""Input of a model -> which model's input or output it is: the model's position, the name."""


@dataclass(frozen=True)
class Combination:
    """How the outputs of an ensemble become one.

    Attributes:
        weights: one for each model; they add up to 1.
        vote_axis: None for the weighted mean. For a vote the axis of the classes: each model
            gives its weight to its top class, and the output holds what each class got.
    """

    weights: tuple[float, ...]
    vote_axis: int | None = None


@dataclass(frozen=True)
class Merged:
    """One model made of several.

    Attributes:
        model: the result.
        inputs: for each model that was joined, its inputs -> their names in `model`.
        outputs: the same for its outputs.
        combined: the outputs of an ensemble -> the names in `model` of what they combine.
    """

    model: ir.Model
    inputs: tuple[Mapping[str, str], ...]
    outputs: tuple[Mapping[str, str], ...]
    combined: Mapping[str, tuple[str, ...]]


def join(
    models: Sequence[ir.Model],
    bindings: Sequence[Binding],
    combination: Combination | None = None,
    *,
    to_outputs: bool = False,
) -> Merged:
    """Put models into one graph, in their order.

    Args:
        models: they are not changed; of the same operator sets.
        bindings: for each model what its inputs are; what is not there stays an input. Bound
            are only tensors of models before it.
        to_outputs: whether inputs are bound to outputs, which are inner then; else to inputs.
        combination: None where every output stays one; else how outputs at the same position are
            combined, which the models must then have the same number of.

    Returns:
        The model; names that two models share are told apart by a number, the first keeps its.

    Raises:
        UsageError: the operator sets or functions of the models differ.
    """
    _check_opsets(models)
    copies = [clone(model) for model in models]
    whole = copies[0]
    scales = [pair for copy in copies for pair in _scales(copy)]
    consumed = {source for binding in bindings for source in binding.values() if to_outputs}
    taken: list[dict[str, ir.Value]] = []
    made: list[dict[str, ir.Value]] = []
    inputs: list[ir.Value] = []
    results: list[list[tuple[str, ir.Value]]] = []
    for position, (copy, binding) in enumerate(zip(copies, bindings, strict=True)):
        own: dict[str, ir.Value] = {}
        outputs = {value.name or "": value for value in copy.graph.outputs}
        copy.graph.outputs[:] = []
        forget_carried(copy.graph)
        for value in copy.graph.inputs:
            name = value.name or ""
            if name in binding:
                index, source = binding[name]
                own[name] = (made if to_outputs else taken)[index][source]
                ir.convenience.replace_all_uses_with(value, own[name])
                copy.graph.initializers.pop(name, None)  # a default that nobody needs any more
            else:
                own[name] = value
                inputs.append(value)
        if position:
            _move(copy, whole)
        outputs = {
            name: _copied(own[name], whole.graph) if name in binding else value
            for name, value in outputs.items()
        }
        taken.append(own)
        made.append(outputs)
        results.append([pair for pair in outputs.items() if (position, pair[0]) not in consumed])
    combined: dict[ir.Value, list[ir.Value]] = {}
    whole.opset_imports.setdefault("", _OPSET)  # of the nodes that are added
    if combination is None:
        given = [pair for side in results for pair in side]
    else:
        given = []
        for same in zip(*results, strict=True):
            parts = [value for _, value in same]
            total = _combined(whole.graph, parts, combination)
            combined[total] = parts
            given.append((same[0][0], total))
    _give_names(whole, inputs, given)
    for value, parameters in scales:
        value.meta[_SCALES] = {key: held.name or "" for key, held in parameters.items()}
    whole.graph.inputs[:] = inputs
    whole.graph.outputs.extend(value for _, value in given)
    shares = {
        total.name or "": tuple(part.name or "" for part in parts)
        for total, parts in combined.items()
    }
    return Merged(whole, _names(taken), _names(made), shares)


_SCALES = "quant_parameter_tensor_names"
"""Where onnx_ir keeps an annotation: of a quantized tensor, what its scale and zero point are."""


def _scales(model: ir.Model) -> list[tuple[ir.Value, dict[str, ir.Value]]]:
    """Annotated values, with the tensors themselves in place of their names."""
    values = [value for graph in nested_graphs(model.graph) for value in _values(graph)]
    annotated = [value for value in values if _SCALES in value.meta]
    if not annotated:
        return []
    named = {value.name: value for value in values}
    return [
        (value, {key: named[name] for key, name in value.meta[_SCALES].items() if name in named})
        for value in annotated
    ]


def _names(sides: Sequence[Mapping[str, ir.Value]]) -> tuple[Mapping[str, str], ...]:
    return tuple({own: value.name or "" for own, value in side.items()} for side in sides)


def _check_opsets(models: Sequence[ir.Model]) -> None:
    versions: dict[str, int] = {}
    for model in models:
        for domain, version in model.opset_imports.items():
            known = versions.setdefault(domain, version)
            if known != version:
                name = domain or "ai.onnx"
                raise UsageError(f"the models import versions {known} and {version} of '{name}'")


def _copied(value: ir.Value, graph: ir.Graph) -> ir.Value:
    """What a model passes through is its output under a name of its own."""
    node = ir.node("Identity", [value])
    made = node.outputs[0]
    made.type, made.shape = value.type, value.shape
    graph.append(node)
    return made


def _move(model: ir.Model, whole: ir.Model) -> None:
    """Move all that a model holds, but for its interface, into another one."""
    graph = model.graph
    graph.inputs[:] = []
    nodes = list(graph)
    graph.remove(nodes)
    whole.graph.extend(nodes)
    taken = set(whole.graph.initializers)
    for name, value in list(graph.initializers.items()):
        del graph.initializers[name]
        value.name = free_name(name, taken)
        taken.add(value.name)
        whole.graph.initializers.add(value)
    for signature, function in model.functions.items():
        known = whole.functions.setdefault(signature, function)
        if known is not function and _text(known) != _text(function):
            raise UsageError(
                f"two models have functions '{function.name}' that differ; "
                "inline them with `graphopt optimize` first"
            )
    for domain, version in model.opset_imports.items():
        whole.opset_imports.setdefault(domain, version)
    for key, note in model.metadata_props.items():
        whole.metadata_props.setdefault(key, note)
    whole.ir_version = max(whole.ir_version, model.ir_version)


def _text(function: ir.Function) -> bytes:
    return bytes(ir.to_proto(function).SerializeToString(deterministic=True))


# Ensembles -----------------------------------------------------------------------------------


def _combined(graph: ir.Graph, parts: Sequence[ir.Value], combination: Combination) -> ir.Value:
    """The weighted mean of tensors, or of the one-hot vectors of their top classes."""
    first, weights, axis = parts[0], combination.weights, combination.vote_axis
    dtype = first.dtype or ir.DataType.FLOAT
    if axis is not None:
        classes = None if first.shape is None else first.shape[axis]
        if not isinstance(classes, int):
            raise UsageError(f"a vote needs a known number of classes; '{first.name}' has none")
        voices = [
            _voice(graph, part, axis, classes, weight)
            for part, weight in zip(parts, weights, strict=True)
        ]
        total = _node(graph, "Sum", voices)
        if dtype != ir.DataType.FLOAT:
            total = _node(graph, "Cast", [total], to=int(dtype))
    elif len(set(weights)) == 1 and dtype != ir.DataType.DOUBLE:  # ONNX Runtime's has no double
        total = _node(graph, "Mean", parts)
    else:
        scaled = [
            _node(graph, "Mul", [part, _constant(graph, np.array(weight, dtype.numpy()))])
            for part, weight in zip(parts, weights, strict=True)
        ]
        total = _node(graph, "Sum", scaled)
    total.type, total.shape = first.type, first.shape
    return total


def _voice(graph: ir.Graph, part: ir.Value, axis: int, classes: int, weight: float) -> ir.Value:
    top = _node(graph, "ArgMax", [part], axis=axis, keepdims=0)
    depth = _constant(graph, np.array(classes, np.int64))
    values = _constant(graph, np.array([0, weight], np.float32))
    return _node(graph, "OneHot", [top, depth, values], axis=axis)


def _node(graph: ir.Graph, op_type: str, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
    node = ir.node(op_type, list(inputs), attributes)
    graph.append(node)
    return node.outputs[0]


def _constant(graph: ir.Graph, array: np.ndarray) -> ir.Value:
    name = free_name("ensemble", set(graph.initializers))
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    value.shape = ir.Shape(array.shape)
    graph.initializers.add(value)
    return value


# Names ---------------------------------------------------------------------------------------


def _give_names(
    model: ir.Model,
    inputs: Sequence[ir.Value],
    outputs: Sequence[tuple[str, ir.Value]],
) -> None:
    """Tell apart what has one name; the interface comes first.

    Args:
        model: all that was joined.
        inputs: of the result.
        outputs: of the result, with the names they should have.
    """
    taken: set[str] = set()
    kept: set[ir.Value] = set()
    graphs = list(nested_graphs(model.graph))
    every = [value for graph in graphs for value in _values(graph)]
    # A weight cannot take a name that another weight of its graph has yet to lose.
    weights = [(graph, list(graph.initializers.values())) for graph in graphs]
    for graph, _ in weights:
        graph.initializers.clear()
    for name, value in [*((value.name or "", value) for value in inputs), *outputs]:
        if value in kept:
            continue  # an input that is an output as it is
        value.name = free_name(name, taken)
        taken.add(value.name)
        kept.add(value)
    for value in every:
        if value in kept or value.name == "":  # an output that is left out has no name
            continue
        value.name = free_name(value.name or "merged", taken)
        taken.add(value.name)
    for graph, held in weights:
        for value in held:
            graph.initializers.add(value)
    nodes: set[str] = set()
    for node in all_nodes(model):
        if node.name:
            node.name = free_name(node.name, nodes)
            nodes.add(node.name)


def _values(graph: ir.Graph) -> list[ir.Value]:
    found = [*graph.inputs, *graph.initializers.values()]
    found += [value for node in graph for value in node.outputs]
    return list(dict.fromkeys(found))


def free_name(name: str, taken: set[str]) -> str:
    """The name, or the name with the first number behind it that is free."""
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique
