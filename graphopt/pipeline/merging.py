"""merge: make one model of several, and prove it against running them one by one.

Models are raised to one operator set first, by ONNX's own converter. Free dims of one name are
told apart, for nothing says that they are the same; where a tensor goes from one model to
another, its dims are one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.errors import EquivalenceError, RuntimeUnavailableError, UsageError
from graphopt.graph import ModelSource, clone, ir, raise_opset, verify
from graphopt.graph.merging import Combination, Merged, join
from graphopt.graph.walk import opset_version
from graphopt.pipeline.merge_dims import unite_dims
from graphopt.pipeline.merge_interface import (
    chained,
    check_bindings,
    class_axis,
    match_outputs,
    shared,
)
from graphopt.pipeline.model_files import (
    check_output,
    described_values,
    forget_inferred,
    give_back,
    load_valid,
)
from graphopt.shapes import infer_shapes

if TYPE_CHECKING:
    from graphopt.runtime import Feed, Session

_INPUTS = 3
_FIRST_WITH_ONE_HOT = 9
MODES = ("chain", "parallel", "mean", "vote")


@dataclass(frozen=True)
class MergeResult:
    """A model made of others.

    Attributes:
        model: of the kind that was given first.
        inputs: its inputs by name, with type and shape.
        outputs: its outputs, the same way.
        notes: what was changed in a model before it was joined.
        verified: on how many made-up inputs it was run beside the models it was made of.
        unverified_reason: why on none; "" otherwise.
        file_bytes: what was written.
    """

    model: Any
    inputs: dict[str, str]
    outputs: dict[str, str]
    notes: list[str]
    verified: int
    unverified_reason: str
    file_bytes: int | None


def merge(
    sources: Sequence[ModelSource],
    *,
    mode: str = "chain",
    pairs: Mapping[str, str] | None = None,
    weights: Sequence[float] | None = None,
    vote_axis: int | None = None,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    external_data: bool | None = None,
    seed: int = 0,
) -> MergeResult:
    """One model of several.

    Args:
        sources: two or more models: paths, bytes, `onnx.ModelProto` or `ir.Model`.
        mode: "chain": each takes what the one before gives, and what it does not take stays an
            output. "parallel": side by side, inputs of one name are one. "mean", "vote": an
            ensemble of models with the same inputs and outputs by name, or else by position.
        pairs: for a chain of two, input of the second -> output of the first. By default
            tensors of one name, or the only ones.
        weights: for an ensemble, one for each model, above 0; equal by default.
        vote_axis: the axis of the classes; by default 1, for outputs of two axes.
        output: where to write the result.
        overwrite: let `output` replace a file.
        external_data: keep weights in a file of their own; None decides by size and source.
        seed: of the inputs that the result is checked on.

    Raises:
        UsageError: the models do not fit together.
        EquivalenceError: the result computes something else.
        OutputError: it cannot be written.
    """
    if mode not in MODES:
        raise UsageError(f"there is no way '{mode}' to merge; it is one of {', '.join(MODES)}")
    if len(sources) < 2:
        raise UsageError("merging takes two or more models")
    if pairs is not None and (mode != "chain" or len(sources) > 2):
        raise UsageError("outputs are mapped to inputs in a chain of two models only")
    shares = _shares(mode, weights, len(sources))
    if vote_axis is not None and mode != "vote":
        raise UsageError("an axis of classes is for a vote")
    if output is not None:
        for source in sources:
            check_output(source, output, overwrite)
    originals = [load_valid(source) for source in sources]
    described = frozenset[str]().union(*map(described_values, originals))
    models, notes = _of_one_opset(originals, _FIRST_WITH_ONE_HOT if mode == "vote" else 0)
    for model in models:
        infer_shapes(model)
    if mode == "chain":
        bindings = chained(models, pairs)
    else:
        bindings = shared(models, by_position=mode != "parallel")
    unite_dims(models, bindings)
    to_outputs = mode == "chain"
    check_bindings(models, bindings, to_outputs=to_outputs)
    combination = None
    if mode in ("mean", "vote"):
        match_outputs(models)
        axis = class_axis(models[0], vote_axis) if mode == "vote" else None
        combination = Combination(shares, axis)
    merged = join(models, bindings, combination, to_outputs=to_outputs)
    infer_shapes(merged.model)
    problems = verify(merged.model)
    if problems:
        raise EquivalenceError(f"the merged model is invalid: {problems[0]}")
    verified, reason = _checked(merged, originals, combination, seed)
    forget_inferred(merged.model, described)
    given, size = give_back(
        merged.model, sources[0], output, overwrite, external_data, lambda _: None
    )
    graph = merged.model.graph
    return MergeResult(
        given, _interface(graph.inputs), _interface(graph.outputs), notes, verified, reason, size
    )


def _interface(values: Sequence[ir.Value]) -> dict[str, str]:
    return {value.name or "": f"{value.type}{value.shape or ''}" for value in values}


def _shares(mode: str, weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """The weights of an ensemble's models; they add up to 1."""
    if weights is None:
        return (1 / count,) * count
    if mode not in ("mean", "vote"):
        raise UsageError("weights are of an ensemble: mean or vote")
    if len(weights) != count or not all(math.isfinite(w) and w > 0 for w in weights):
        raise UsageError(f"give {count} weights above 0, one for each model")
    most = max(weights)  # a sum of weights as they are may leave the range
    return tuple(weight / most / sum(other / most for other in weights) for weight in weights)


def _of_one_opset(models: Sequence[ir.Model], lowest: int) -> tuple[list[ir.Model], list[str]]:
    """The models, raised to the highest operator set of theirs, which is at least `lowest`."""
    versions = [opset_version(model.graph, model) for model in models]
    highest = max(*versions, lowest)
    notes = [
        f"model {position} was raised from operator set {version} to {highest}"
        for position, version in enumerate(versions, 1)
        if version < highest and "" in models[position - 1].opset_imports
    ]
    raised = [
        clone(raise_opset(model, highest) if "" in model.opset_imports else model)
        for model in models
    ]
    return raised, notes


def _checked(
    merged: Merged,
    models: Sequence[ir.Model],
    combination: Combination | None,
    seed: int,
) -> tuple[int, str]:
    """On how many inputs the result gave what the models give; why it could not be run."""
    from graphopt.runtime import Session, compare_outputs, runnable_feeds

    try:
        session = Session(merged.model)
        parts = [Session(model) for model in models]
        feeds = list(runnable_feeds(merged.model, session, count=_INPUTS, seed=seed))
        for feed in feeds:
            expected = _by_parts(parts, merged, combination, feed)
            again = _by_parts(parts, merged, combination, feed)
            if any(not one.ok for one in compare_outputs(expected, again)):
                return 0, "its outputs are random"
            for one in compare_outputs(expected, session.run(feed)):
                if not one.ok:
                    raise EquivalenceError(f"the result gives another '{one.name}' than its models")
    except RuntimeUnavailableError as error:
        return 0, str(error)
    return len(feeds), "" if feeds else "no input could be made up that the models run on"


def _by_parts(
    parts: Sequence[Session], merged: Merged, combination: Combination | None, feed: Feed
) -> Feed:
    """What the models give one by one, under the names of the merged model's outputs."""
    found: Feed = dict(feed)
    for session, inputs, outputs in zip(parts, merged.inputs, merged.outputs, strict=True):
        made = session.run({own: found[name] for own, name in inputs.items() if name in found})
        found.update({outputs[own]: value for own, value in made.items()})
    wanted = [value.name or "" for value in merged.model.graph.outputs]
    if combination is None:
        return {name: found[name] for name in wanted}
    return {
        name: _combined([found[part] for part in merged.combined[name]], combination)
        for name in wanted
    }


def _combined(values: Sequence[np.ndarray], combination: Combination) -> np.ndarray:
    axis = combination.vote_axis
    if len({value.shape for value in values}) > 1:
        shapes = ", ".join(str(list(value.shape)) for value in values)
        raise UsageError(
            f"the models give outputs of other shapes, {shapes}: nothing combines them"
        )
    if axis is None:
        voices = values
    else:
        voices = [
            np.moveaxis(np.eye(value.shape[axis])[value.argmax(axis)], -1, axis) for value in values
        ]
    shares = zip(combination.weights, voices, strict=True)
    total = sum(weight * voice.astype(np.float64) for weight, voice in shares)
    return np.asarray(total).astype(values[0].dtype)
