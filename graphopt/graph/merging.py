"""Makes one model of several: one behind the other, side by side, or as one voice.

chain      y = B(A(x))
parallel   y_a, y_b = A(x), B(x)             inputs of one name and type are shared
ensemble   y = sum w_i A_i(x) / sum w_i      or, for class scores, the shares of votes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph._onnx_ir import ir
from graphopt.graph.clone import clone
from graphopt.graph.walk import all_graphs, all_nodes, nested_graphs

COMBINATIONS = ("mean", "vote")


def chain(first: ir.Model, second: ir.Model, pairs: Mapping[str, str] | None = None) -> ir.Model:
    """The second model behind the first.

    Args:
        first: gives the tensors.
        second: takes them.
        pairs: output of the first -> input of the second; None where each has one, or where
            their names are the same. An output that is not named stays an output, an input stays
            an input.

    Raises:
        UsageError: a name is unknown, types do not fit, or the operator sets differ.
    """
    models = [clone(first), clone(second)]
    head, tail = (model.graph for model in models)
    outputs = {value.name or "": value for value in head.outputs}
    inputs = {value.name or "": value for value in tail.inputs if not value.is_initializer()}
    found = pairs if pairs is not None else _guessed(outputs, inputs)
    for source, target in found.items():
        if source not in outputs:
            raise UsageError(f"the first model has no output '{source}': {_listed(outputs)}")
        if target not in inputs:
            raise UsageError(f"the second model has no input '{target}': {_listed(inputs)}")
        _check_fit(outputs[source], inputs[target])
    if len(set(found.values())) < len(found):
        raise UsageError("two outputs go to one input; give each input one")
    bound = {inputs[target]: outputs[source] for source, target in found.items()}
    kept = [value for name, value in outputs.items() if name not in found]
    results = [*kept, *tail.outputs]
    return _joined(models, bound, results)


def parallel(models: Sequence[ir.Model]) -> ir.Model:
    """Models side by side; inputs of one name are one input.

    Raises:
        UsageError: inputs of one name differ in type, or the operator sets differ.
    """
    copies = [clone(model) for model in models]
    bound = _shared_inputs(copies)
    return _joined(copies, bound, [value for copy in copies for value in copy.graph.outputs])


def ensemble(
    models: Sequence[ir.Model], *, combine: str = "mean", weights: Sequence[float] | None = None
) -> ir.Model:
    """Models of one interface, their outputs combined.

    Args:
        models: two or more with the same inputs and outputs by name.
        combine: "mean", or "vote": each model gives its weight to its top class (along the last
            axis), and the output holds the shares of the votes.
        weights: one for each model, above 0; None for equal ones.

    Raises:
        UsageError: the interfaces or operator sets differ, an output cannot be combined, or the
            weights are wrong.
    """
    if combine not in COMBINATIONS:
        raise UsageError(
            f"'{combine}' is no way to combine; it is one of {', '.join(COMBINATIONS)}"
        )
    shares = list(weights) if weights is not None else [1.0] * len(models)
    if len(shares) != len(models) or not all(share > 0 for share in shares):
        raise UsageError(f"give {len(models)} weights above 0, one for each model")
    names = [[value.name for value in model.graph.outputs] for model in models]
    if len(models) < 2 or any(sorted(map(str, n)) != sorted(map(str, names[0])) for n in names):
        raise UsageError("an ensemble takes two or more models with the same outputs by name")
    copies = [clone(model) for model in models]
    bound = _shared_inputs(copies)
    sides = [{value.name or "": value for value in copy.graph.outputs} for copy in copies]
    for name, value in sides[0].items():
        for other in sides[1:]:
            _check_fit(value, other[name])
        if value.dtype is None or not value.dtype.is_floating_point():
            raise UsageError(f"the output '{name}' is not of floats, so it has no mean")
    joined = _joined(copies, bound, [value for side in sides for value in side.values()])
    graph = joined.graph
    total = sum(shares)
    results = []
    for name in list(sides[0]):
        parts = [side[name] for side in sides]
        made = _combined(graph, parts, [share / total for share in shares], combine)
        made.type, made.shape = parts[0].type, parts[0].shape
        results.append((name, made))
    graph.outputs[:] = []
    for name, made in results:
        taken = {value.name for each in all_graphs(joined) for value in _values(each)}
        holder = next((v for v in _values(graph) if v.name == name), None)
        if holder is not None:
            holder.name = _free(f"{name}_1", taken)
        made.name = name
        graph.outputs.append(made)
    return joined


def _combined(
    graph: ir.Graph, parts: Sequence[ir.Value], shares: Sequence[float], combine: str
) -> ir.Value:
    """The weighted sum of tensors, or of the one-hot vectors of their top classes."""
    dtype = (parts[0].dtype or ir.DataType.FLOAT).numpy()
    taken = {value.name for value in _values(graph)}

    def constant(array: np.ndarray, name: str) -> ir.Value:
        unique = _free(name, taken)
        taken.add(unique)
        value = ir.Value(name=unique, const_value=ir.tensor(array, name=unique))
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        value.shape = ir.Shape(array.shape)
        graph.initializers.add(value)
        return value

    def node(op_type: str, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
        made = ir.node(op_type, list(inputs), attributes)
        value = made.outputs[0]
        value.name = _free(f"ensemble_{op_type.lower()}", taken)
        taken.add(value.name)
        graph.append(made)
        return value

    scaled = []
    for part, share in zip(parts, shares, strict=True):
        voice = part
        if combine == "vote":
            classes = None if part.shape is None else part.shape[-1]
            if not isinstance(classes, int):
                raise UsageError(f"a vote needs a known number of classes, '{part.name}' has none")
            top = node("ArgMax", [part], axis=-1, keepdims=0)
            limits = constant(np.array([0, 1], dtype), "ensemble_off_on")
            depth = constant(np.array(classes, np.int64), "ensemble_classes")
            voice = node("OneHot", [top, depth, limits], axis=-1)
        scaled.append(node("Mul", [voice, constant(np.array(share, dtype), "ensemble_share")]))
    total = scaled[0]
    for value in scaled[1:]:
        total = node("Add", [total, value])
    return total


def _guessed(outputs: Mapping[str, ir.Value], inputs: Mapping[str, ir.Value]) -> dict[str, str]:
    common = {name: name for name in outputs if name in inputs}
    if common:
        return common
    if len(outputs) == 1 and len(inputs) == 1:
        return {next(iter(outputs)): next(iter(inputs))}
    raise UsageError(
        "say which output goes to which input: "
        f"outputs {_listed(outputs)}; inputs {_listed(inputs)}"
    )


def _listed(values: Mapping[str, ir.Value]) -> str:
    return ", ".join(f"'{name}'" for name in values) or "none"


def _check_fit(first: ir.Value, second: ir.Value) -> None:
    what = f"'{first.name}' and '{second.name}'"
    if str(first.type) != str(second.type):
        raise UsageError(f"{what} do not fit: {first.type} and {second.type}")
    if first.shape is None or second.shape is None:
        return
    sizes = [list(value.shape) for value in (first, second) if value.shape is not None]
    fits = len(sizes[0]) == len(sizes[1]) and all(
        a == b or not isinstance(a, int) or not isinstance(b, int)
        for a, b in zip(*sizes, strict=False)
    )
    if not fits:
        raise UsageError(f"{what} do not fit: shapes {first.shape} and {second.shape}")


def _shared_inputs(models: Sequence[ir.Model]) -> dict[ir.Value, ir.Value]:
    """Inputs of later models -> the input of the same name of an earlier one."""
    first: dict[str, ir.Value] = {}
    bound: dict[ir.Value, ir.Value] = {}
    for model in models:
        for value in model.graph.inputs:
            if value.is_initializer():
                continue
            known = first.setdefault(value.name or "", value)
            if known is not value:
                _check_fit(known, value)
                bound[value] = known
    return bound


def _joined(
    models: Sequence[ir.Model],
    bound: Mapping[ir.Value, ir.Value],
    outputs: Sequence[ir.Value],
) -> ir.Model:
    """All nodes in one graph, in the models' order; the first model's copy becomes the result."""
    _check_opsets(models)
    whole = models[0]
    graph = whole.graph
    inputs = [v for model in models for v in model.graph.inputs if v not in bound]
    for value, source in bound.items():
        ir.convenience.replace_all_uses_with(value, source)
    for model in models:
        model.graph.outputs[:] = []
    _give_unique_names(models, [*inputs, *outputs])
    for model in models[1:]:
        other = model.graph
        other.inputs[:] = []
        nodes = list(other)
        for node in nodes:
            other.remove(node)
        graph.extend(nodes)
        for name, value in list(other.initializers.items()):
            del other.initializers[name]
            graph.initializers.add(value)
        for key, function in model.functions.items():
            if key in whole.functions and str(whole.functions[key]) != str(function):
                raise UsageError(f"the models have different functions '{function.name}'")
            whole.functions.setdefault(key, function)
        for domain, version in model.opset_imports.items():
            whole.opset_imports.setdefault(domain, version)
        whole.ir_version = max(whole.ir_version, model.ir_version)
    graph.inputs[:] = inputs
    graph.outputs.extend(outputs)
    return whole


def _check_opsets(models: Sequence[ir.Model]) -> None:
    versions: dict[str, int] = {}
    for model in models:
        for domain, version in model.opset_imports.items():
            known = versions.setdefault(domain, version)
            if known != version:
                name = domain or "ai.onnx"
                raise UsageError(
                    f"the models import versions {known} and {version} of '{name}'; convert one "
                    "with onnx.version_converter.convert_version"
                )


def _give_unique_names(models: Sequence[ir.Model], interface: Sequence[ir.Value]) -> None:
    """Rename what two models call alike; the interface keeps its names, the first come first."""
    taken: set[str] = set()
    named: set[ir.Value] = set()
    for value in dict.fromkeys(interface):
        value.name = _free(value.name or "tensor", taken)
        taken.add(value.name)
        named.add(value)
    nodes: set[str] = set()
    for model in models:
        # Names of subgraphs may repeat beside each other, and hide nothing outside.
        inside: set[str] = set()
        for graph in nested_graphs(model.graph):
            for value in _values(graph):
                if value in named or not value.name:
                    continue
                if value.name in taken:
                    value.name = _free(value.name, taken | inside)
                inside.add(value.name)
        taken |= inside
        for node in all_nodes(model):
            if node.name:
                node.name = _free(node.name, nodes)
                nodes.add(node.name)


def _values(graph: ir.Graph) -> list[ir.Value]:
    found = [*graph.inputs, *graph.initializers.values()]
    found += [value for node in graph for value in node.outputs]
    return list(dict.fromkeys(found))


def _free(name: str, taken: set[str] | set[str | None]) -> str:
    """The name, or the name with the first number behind it that is free."""
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique
