"""extract: cut a part out of a model, and prove it on tensors of the whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.errors import EquivalenceError, RuntimeUnavailableError
from graphopt.graph import ModelSource, ir, verify
from graphopt.graph import extract as cut
from graphopt.pipeline.model_files import (
    check_output,
    described_values,
    forget_inferred,
    give_back,
    load_valid,
)
from graphopt.shapes import infer_shapes

_INPUTS = 2


@dataclass(frozen=True)
class ExtractResult:
    """A part of a model.

    Attributes:
        model: of the kind that was given.
        inputs: its inputs by name, with type and shape.
        outputs: its outputs, the same way.
        verified: on how many made-up inputs it was run beside the whole model.
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
) -> ExtractResult:
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
    problems = verify(part)
    if problems:
        raise EquivalenceError(f"the part is invalid: {problems[0]}")
    verified, reason = _checked(part, whole, seed)
    forget_inferred(part, described)
    given, size = give_back(part, source, output, overwrite, external_data, lambda _: None)
    sides = [
        {value.name or "": f"{value.type}{value.shape or ''}" for value in side}
        for side in (part.graph.inputs, part.graph.outputs)
    ]
    return ExtractResult(given, sides[0], sides[1], verified, reason, size)


def _checked(part: ir.Model, whole: ir.Model, seed: int) -> tuple[int, str]:
    """On how many inputs the part gave what the whole model gives; why it could not be run."""
    from graphopt.runtime import Session, compare_outputs, runnable_feeds

    taken = [value.name or "" for value in part.graph.inputs]
    made = [value.name or "" for value in part.graph.outputs]
    own = {value.name for value in (*whole.graph.inputs, *whole.graph.outputs)}
    inner = [name for name in dict.fromkeys((*taken, *made)) if name not in own]
    try:
        session, reference = Session(part), Session(whole, outputs=inner)
        feeds = list(runnable_feeds(whole, Session(whole), count=_INPUTS, seed=seed))
        for feed in feeds:
            # ONNX Runtime does not give its inputs back.
            asked = [*inner, *(name for name in made if name in own and name not in feed)]
            found = {**feed, **reference.run(feed, asked)}
            again = {**feed, **reference.run(feed, asked)}
            expected = {name: found[name] for name in made}
            twice = {name: again[name] for name in made}
            if any(not one.ok for one in compare_outputs(expected, twice)):
                return 0, "its outputs are random"
            # What the model has a default for, and was not fed, has the same default in the part.
            given = {name: found[name] for name in taken if name in found}
            for one in compare_outputs(expected, session.run(given)):
                if not one.ok:
                    raise EquivalenceError(f"the part gives another '{one.name}' than the model")
    except RuntimeUnavailableError as error:
        return 0, str(error)
    return len(feeds), "" if feeds else "no input could be made up that the model runs on"
