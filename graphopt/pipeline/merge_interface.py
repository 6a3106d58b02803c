"""Which tensors of models that are merged are one, and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphopt.errors import UsageError
from graphopt.graph import ir
from graphopt.graph.merging import Binding


def chained(models: Sequence[ir.Model], pairs: Mapping[str, str] | None) -> list[Binding]:
    """Each model takes what the one before gives.

    Args:
        models: not changed.
        pairs: input of the second -> output of the first; None to go by names, or to take the
            only ones that there are.

    Raises:
        UsageError: a name is unknown, types or shapes do not fit, or there is a choice.
    """
    bindings: list[Binding] = [{}]
    for position in range(1, len(models)):
        outputs = {value.name or "": value for value in models[position - 1].graph.outputs}
        inputs = {value.name or "": value for value in models[position].graph.inputs}
        found = _guessed(outputs, inputs, position) if pairs is None else pairs
        for target, source in found.items():
            if source not in outputs:
                raise UsageError(f"model 1 has no output '{source}'; it has {_listed(outputs)}")
            if target not in inputs:
                raise UsageError(f"model 2 has no input '{target}'; it has {_listed(inputs)}")
            _check_fit(outputs[source], inputs[target])
        bindings.append({target: (position - 1, source) for target, source in found.items()})
    return bindings


def _guessed(
    outputs: Mapping[str, ir.Value], inputs: Mapping[str, ir.Value], position: int
) -> Mapping[str, str]:
    common = {name: name for name in outputs if name in inputs}
    if common:
        return common
    needed = [name for name, value in inputs.items() if not value.is_initializer()]
    if len(outputs) == 1 and len(needed) == 1:
        return {needed[0]: next(iter(outputs))}
    raise UsageError(
        f"say which output of model {position} goes to which input of model {position + 1}: "
        f"outputs {_listed(outputs)}; inputs {_listed(inputs)}"
    )


def shared(models: Sequence[ir.Model], *, by_position: bool) -> list[Binding]:
    """Inputs of one name are one.

    Args:
        models: not changed.
        by_position: all models have the same inputs, by name or else by position.

    Raises:
        UsageError: their types, shapes or numbers do not fit.
    """
    sides = [{v.name or "": v for v in m.graph.inputs if not v.is_initializer()} for m in models]
    if not by_position:
        first: dict[str, tuple[int, str]] = {}
        bindings: list[Binding] = []
        for position, side in enumerate(sides):
            bindings.append({name: first[name] for name in side if name in first})
            for name in side:
                first.setdefault(name, (position, name))
    else:
        bindings = [{}]
        names = list(sides[0])
        for position, side in enumerate(sides[1:], 2):
            if len(side) != len(names):
                raise UsageError(
                    f"models 1 and {position} of the ensemble have other inputs: "
                    f"{_listed(sides[0])}; {_listed(side)}"
                )
            order = names if set(side) == set(names) else list(side)
            bindings.append({own: (0, name) for own, name in zip(order, names, strict=True)})
    for side, binding in zip(sides, bindings, strict=True):
        for name, (index, source) in binding.items():
            _check_fit(sides[index][source], side[name])
    return bindings


def check_bindings(
    models: Sequence[ir.Model], bindings: Sequence[Binding], *, to_outputs: bool
) -> None:
    """See that what is bound still fits now that free dims have got the sizes of other models.

    Raises:
        UsageError: two models fix a free dim of a third to different sizes.
    """
    for model, binding in zip(models, bindings, strict=True):
        inputs = {value.name: value for value in model.graph.inputs}
        for name, (index, source) in binding.items():
            graph = models[index].graph
            side = graph.outputs if to_outputs else graph.inputs
            _check_fit(next(value for value in side if value.name == source), inputs[name])


def match_outputs(models: Sequence[ir.Model]) -> None:
    """Put the outputs of the models of an ensemble into the order of the first one's.

    Raises:
        UsageError: they cannot be combined.
    """
    first = list(models[0].graph.outputs)
    for position, model in enumerate(models[1:], 2):
        own = {value.name: value for value in model.graph.outputs}
        if len(own) != len(first):
            raise UsageError(
                f"models 1 and {position} of the ensemble have {len(first)} and {len(own)} outputs"
            )
        if set(own) == {value.name for value in first}:
            model.graph.outputs[:] = [own[value.name] for value in first]
        for one, other in zip(first, model.graph.outputs, strict=True):
            _check_fit(one, other)
    for value in first:
        if value.dtype is None or not value.dtype.is_floating_point():
            raise UsageError(f"the output '{value.name}' is not of floats: it cannot be combined")


def class_axis(model: ir.Model, axis: int | None) -> int:
    """The axis of the classes in each output; None stands for 1, of outputs with two axes.

    Raises:
        UsageError: there is no such axis, or there is a choice.
    """
    for value in model.graph.outputs:
        rank = None if value.shape is None else len(value.shape)
        if rank is None or (axis is None and rank != 2):
            raise UsageError(
                f"say which axis of '{value.name}' holds the classes: it has the shape "
                f"{value.shape or 'unknown'}"
            )
        if axis is not None and not -rank <= axis < rank:
            raise UsageError(f"'{value.name}' has no axis {axis}: its shape is {value.shape}")
    return 1 if axis is None else axis


def _listed(values: Mapping[str, ir.Value]) -> str:
    return ", ".join(f"'{name}'" for name in values) or "none"


def _check_fit(first: ir.Value, second: ir.Value) -> None:
    what = f"'{first.name}' and '{second.name}' do not fit"
    if first.type is not None and second.type is not None and first.type != second.type:
        raise UsageError(f"{what}: {first.type} and {second.type}")
    if first.shape is None or second.shape is None:
        return
    pairs = list(zip(first.shape, second.shape, strict=False))
    clash = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
    if clash or len(first.shape) != len(second.shape):
        raise UsageError(f"{what}: shapes {first.shape} and {second.shape}")
