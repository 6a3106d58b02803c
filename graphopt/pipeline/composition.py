"""extract and merge: cut a part out of a model, or make one model of several, and prove it.

A part is run on tensors of the whole model, a whole on the inputs of its parts; either way the
outputs must be those of the models that were given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.errors import EquivalenceError, RuntimeUnavailableError, UsageError
from graphopt.graph import ModelSource, chain, ensemble, ir, parallel, verify
from graphopt.graph import extract as cut
from graphopt.pipeline.model_files import (
    check_output,
    described_values,
    forget_inferred,
    give_back,
    load_valid,
)
from graphopt.shapes import infer_shapes

if TYPE_CHECKING:
    from graphopt.runtime import Feed

_RTOL, _ATOL = 1e-4, 1e-6
_INPUTS = 2
MODES = ("chain", "parallel", "mean", "vote")


@dataclass(frozen=True)
class CompositionResult:
    """A model made of others.

    Attributes:
        model: of the kind that was given first.
        inputs: its inputs by name, with type and shape.
        outputs: its outputs, the same way.
        verified: on how many made-up inputs it was run beside what it was made of.
        unverified_reason: why on none; "" otherwise.
        file_bytes: what was written.
    """

    model: Any
    inputs: dict[str, str]
    outputs: dict[str, str]
    verified: int
    unverified_reason: str
    file_bytes: int | None


def extract(
    source: ModelSource,
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    external_data: bool | None = None,
    seed: int = 0,
) -> CompositionResult:
    """The part of a model between named tensors.

    Args:
        source: a path, the bytes of a model, an `onnx.ModelProto` or an `ir.Model`.
        inputs: tensors that become inputs; None for the model's own, as far as needed.
        outputs: tensors that become outputs; None for the model's own.
        output: where to write the part.
        overwrite: let `output` replace a file.
        external_data: keep weights in a file of their own; None decides by size and source.
        seed: of the inputs that the part is checked on.

    Raises:
        UsageError: there is nothing between the tensors; see `graphopt.graph.extract`.
        EquivalenceError: the part computes something else.
        OutputError: the result cannot be written.
    """
    if output is not None:
        check_output(source, output, overwrite)
    whole = load_valid(source)
    described = described_values(whole)
    infer_shapes(whole)
    part = cut(whole, inputs, outputs)
    taken = [value.name or "" for value in part.graph.inputs]
    made = [value.name or "" for value in part.graph.outputs]

    def expected(feed: Feed) -> tuple[Feed, Feed]:
        from graphopt.runtime import Session

        own = {value.name for value in whole.graph.inputs}
        inner = [name for name in (*taken, *made) if name not in own]
        found = {**feed, **Session(whole, outputs=inner).run(feed, inner)}
        return {name: found[name] for name in taken}, {name: found[name] for name in made}

    return _finished(
        part, whole, expected, described, source, output, overwrite, external_data, seed
    )


def merge(
    sources: Sequence[ModelSource],
    *,
    mode: str,
    pairs: Mapping[str, str] | None = None,
    weights: Sequence[float] | None = None,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    external_data: bool | None = None,
    seed: int = 0,
) -> CompositionResult:
    """One model of several.

    Args:
        sources: two or more models, of any kind that `extract` takes.
        mode: "chain" (each behind the one before), "parallel" (inputs of one name are shared),
            or an ensemble: "mean" or "vote".
        pairs: for a chain of two: output of the first -> input of the second.
        weights: for an ensemble: one for each model.
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
    if output is not None:
        for source in sources:
            check_output(source, output, overwrite)
    models = [load_valid(source) for source in sources]
    described = frozenset[str]().union(*(described_values(model) for model in models))
    for model in models:
        infer_shapes(model)
    if mode == "chain":
        whole = models[0]
        for model in models[1:]:
            whole = chain(whole, model, pairs)
    elif mode == "parallel":
        whole = parallel(models)
    else:
        whole = ensemble(models, combine=mode, weights=weights)
    made = [value.name or "" for value in whole.graph.outputs]

    def expected(feed: Feed) -> tuple[Feed, Feed]:
        return feed, _by_parts(models, mode, pairs, weights, feed, made)

    return _finished(
        whole, whole, expected, described, sources[0], output, overwrite, external_data, seed
    )


def _by_parts(
    models: Sequence[ir.Model],
    mode: str,
    pairs: Mapping[str, str] | None,
    weights: Sequence[float] | None,
    feed: Feed,
    names: Sequence[str],
) -> Feed:
    """What the models give one by one, under the names of the merged model's outputs."""
    from graphopt.runtime import Session

    found: Feed = dict(feed)
    results: list[Feed] = []
    left: list[Any] = []
    for index, model in enumerate(models):
        session = Session(model)
        given = {name: found[name] for name in session.input_names if name in found}
        if mode == "chain" and index:
            last = results[-1]
            both = pairs or {n: n for n in last if n in session.input_names}
            both = both or {next(iter(last)): session.input_names[0]}
            given.update({target: last[source] for source, target in both.items()})
            left += [value for name, value in last.items() if name not in both]
        results.append(session.run(given))
    if mode == "chain":
        return dict(zip(names, [*left, *results[-1].values()], strict=True))
    if mode == "parallel":
        every = [value for result in results for value in result.values()]
        return dict(zip(names, every, strict=True))
    shares = np.asarray(weights if weights is not None else [1.0] * len(models), np.float64)
    shares = shares / shares.sum()
    voices = [{n: _voice(v, mode) for n, v in result.items()} for result in results]
    return {
        name: sum(share * voice[name] for share, voice in zip(shares, voices, strict=True))
        for name in names
    }


def _voice(value: np.ndarray, mode: str) -> np.ndarray:
    return np.eye(value.shape[-1])[value.argmax(-1)] if mode == "vote" else value


def _finished(
    made: ir.Model,
    fed: ir.Model,
    expected: Any,
    described: frozenset[str],
    source: ModelSource,
    output: str | os.PathLike[str] | None,
    overwrite: bool,
    external_data: bool | None,
    seed: int,
) -> CompositionResult:
    problems = verify(made)
    if problems:
        raise EquivalenceError(f"what was made is invalid: {problems[0]}")
    verified, reason = _checked(made, fed, expected, seed)
    forget_inferred(made, described)
    given, size = give_back(made, source, output, overwrite, external_data, lambda _: None)
    sides = [{v.name or "": f"{v.type}{v.shape or ''}" for v in made.graph.inputs}]
    sides.append({v.name or "": f"{v.type}{v.shape or ''}" for v in made.graph.outputs})
    return CompositionResult(given, sides[0], sides[1], verified, reason, size)


def _checked(made: ir.Model, fed: ir.Model, expected: Any, seed: int) -> tuple[int, str]:
    """On how many inputs the model gave what was expected; why it could not be run."""
    from graphopt.runtime import Session, runnable_feeds

    try:
        session = Session(made)
        feeds = list(runnable_feeds(fed, Session(fed), count=_INPUTS, seed=seed))
        for feed in feeds:
            given, wanted = expected(feed)
            found = session.run({n: v for n, v in given.items() if n in session.input_names})
            for name, value in wanted.items():
                if not _same(value, found[name]):
                    raise EquivalenceError(f"the output '{name}' is not what the models give")
    except RuntimeUnavailableError as error:
        return 0, str(error)
    return len(feeds), "" if feeds else "no input could be made up that the models run on"


def _same(first: Any, second: Any) -> bool:
    if not isinstance(first, np.ndarray):
        return type(first) is type(second)
    if first.shape != second.shape:
        return False
    if not np.issubdtype(first.dtype, np.floating):
        return bool((first == second).all())
    finite = np.isfinite(first)
    scale = float(np.abs(first[finite]).max(initial=0.0))
    close = np.isclose(first, second, rtol=0.0, atol=_ATOL + _RTOL * scale, equal_nan=True)
    return bool(close.all())
