"""What is known of a model that is smaller than it was, whatever was taken out of it."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from graphopt.graph import ModelSource, ir
from graphopt.pipeline.model_files import (
    check_output,
    described_values,
    forget_inferred,
    give_back,
    load_valid,
)
from graphopt.pipeline.prune_check import Judge


@dataclass(slots=True, kw_only=True)
class SmallerModelReport:
    """What is known of the result.

    Attributes:
        macs: multiply-accumulates before and after, at the sizes of the input that is measured on.
        parameters: elements of all constants before and after.
        verified: the inputs that the result was run on beside the original: "given" or
            "made up"; "" where it could not be run.
        unverified_reason: why it could not.
        latency: seconds of one run before and after; None where not measured.
        metric: its name, and its figure before and after; None where there was no data.
        held_out: how many samples it was measured on that were not fitted to; None for a metric
            that brings its own.
    """

    macs: tuple[float, float]
    parameters: tuple[float, float]
    verified: str = ""
    unverified_reason: str = ""
    latency: tuple[float, float] | None = None
    metric: tuple[str, float, float] | None = None
    held_out: int | None = None
    seconds: float = 0.0
    output: str | None = None
    file_bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, in which a figure that is not finite is None."""
        plain: dict[str, Any] = _finite(dataclasses.asdict(self))
        return plain


Report = TypeVar("Report", bound=SmallerModelReport)


@dataclass(frozen=True)
class SmallerModel(Generic[Report]):
    """What a command that makes a model smaller gives back.

    Attributes:
        model: the smaller model, of the kind that was given (see `graphopt.Result`).
        report: what was done and is known.
    """

    model: Any
    report: Report


class Delivery:
    """The way of one model through a command: loaded, and given back when it is smaller.

    Args:
        source: a path, the bytes of a model, an `onnx.ModelProto` or an `ir.Model`.
        output: where to write the result; None for nowhere.
        overwrite: let `output` replace a file.
        external_data: keep weights in a file of their own; None decides by size and source.
        tell: called with a line about what is being done.

    Attributes:
        original: the model as loaded.

    Raises:
        UnreadableModelError: the source is no model.
        InvalidModelError: the source breaks the rules of ONNX.
        OutputError: the result could not be written.
    """

    def __init__(
        self,
        source: ModelSource,
        output: str | os.PathLike[str] | None,
        *,
        overwrite: bool,
        external_data: bool | None,
        tell: Callable[[str], None],
    ) -> None:
        self._started = time.perf_counter()
        self._source = source
        self._overwrite = overwrite
        self._external_data = external_data
        self._tell = tell
        self._output: Path | None = None
        if output is not None:
            check_output(source, output, overwrite)
            self._output = Path(output).absolute()
        tell("loading")
        self.original = load_valid(source)
        self.described = described_values(self.original)

    def give(
        self, pruned: ir.Model, judge: Judge, report: SmallerModelReport, *, measure: bool
    ) -> Any:
        """Check, measure and write the result; the model, of the kind that was given.

        Args:
            pruned: the result.
            judge: of the original.
            report: what was found is written into it.
            measure: time both models.

        Raises:
            EquivalenceError: the result is invalid, or does not run.
            OutputError: it cannot be written.
        """
        self._tell("verifying")
        report.verified = judge.check(pruned)
        report.unverified_reason = judge.unavailable
        if report.verified and measure:
            self._tell("measuring")
            report.latency = judge.latency(pruned)
        report.metric = judge.measured(pruned)
        report.held_out = judge.unseen
        forget_inferred(pruned, self.described)
        given, report.file_bytes = give_back(
            pruned, self._source, self._output, self._overwrite, self._external_data, self._tell
        )
        report.output = None if self._output is None else os.fspath(self._output)
        report.seconds = time.perf_counter() - self._started
        return given


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data
