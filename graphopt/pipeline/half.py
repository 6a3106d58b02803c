"""fp16: load, prepare, measure ranges, place, convert, prove, fall back, save."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphopt.errors import UsageError
from graphopt.graph import ModelSource, clone, ir, patient_collector
from graphopt.graph.walk import imported_version
from graphopt.pipeline.half_measure import half_on_this_cpu
from graphopt.pipeline.half_options import HalfOptions
from graphopt.pipeline.half_report import HalfReport, cpu_note, loads_in_runtime
from graphopt.pipeline.half_source import loaded, prepared_for_half
from graphopt.pipeline.half_trial import Trial
from graphopt.pipeline.model_files import (
    check_output,
    described_values,
    forget_inferred,
    give_back,
)
from graphopt.pipeline.statistics import size_on_disk, statistics_of
from graphopt.precision import HalfFormat, count_casts, format_named, kernels_of
from graphopt.rewrite import Journal
from graphopt.shapes import infer_shapes

__all__ = ["HalfOptions", "HalfResult", "convert_half"]

_FIRST_BFLOAT16 = 13
"""The operator set from which on Cast takes bfloat16."""


@dataclass(frozen=True)
class HalfResult:
    """What `convert_half` gives back; unpacks as `model, ok`.

    Attributes:
        model: the model in half precision, of the kind that was given (see `Result`).
        ok: whether no check failed.
        report: what was done, and why not more.
    """

    model: Any
    ok: bool
    report: HalfReport

    def __iter__(self) -> Iterator[Any]:
        yield self.model
        yield self.ok


def convert_half(
    source: ModelSource,
    options: HalfOptions | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
    overwrite: bool = False,
    external_data: bool | None = None,
    progress: Callable[[str], None] | None = None,
) -> HalfResult:
    """Convert a model to half precision, and prove that it computes what the original does.

    The argument is never changed, and nothing is written unless `output` is given.

    Args:
        source: a path, the bytes of a model, an `onnx.ModelProto` or an `ir.Model`.
        options: what is wanted.
        output: where to write the result.
        force: give the result back, and write it, although the comparison failed.
        overwrite: let `output` replace a file.
        external_data: keep weights in a file of their own; None decides by size and source.
        progress: called with a line about what is being done.

    Raises:
        UsageError: an option is wrong.
        UnreadableModelError: the source is no model.
        InvalidModelError: the source breaks the rules of ONNX.
        EquivalenceError: no placement was found that is right.
        OutputError: the result cannot be written.
    """
    started = time.perf_counter()
    options = options or HalfOptions()
    half = format_named(options.precision)
    kernels_of(options.provider)
    if options.storage_only and options.keep_io_types:
        options = replace(options, keep_io_types=False)  # nothing else is ever done
    tell = progress or (lambda _: None)
    if output is not None:
        check_output(source, output, overwrite)
        output = Path(output).absolute()
    with patient_collector():
        tell("loading")
        original, external = loaded(source)
        _check_opset(original, half)
        if external_data is None:
            external_data = external
        described = described_values(original)
        file_bytes = size_on_disk(source, original)
        infer_shapes(original)
        tell("preparing")
        trial = Trial(original, prepared_for_half(original, options), options, tell)
        report = HalfReport(
            half.name,
            statistics_of(original, file_bytes),
            statistics_of(original, file_bytes),
            storage_only=options.storage_only,
            casts_before=count_casts(original),
        )
        culprits = trial.settle(report, force=force)
        tell("converting")
        model = clone(trial.prepared)
        journal = Journal("convert-half")
        plan = trial.convert(model, journal, culprits, report)
        report.half = [rewrite.site for rewrite in journal.rewrites]
        report.float32 = dict(plan.reasons)
        report.clamped = {v.name or "": bound for v, bound in plan.masks.bounds.items()}
        if not report.half:
            model = clone(original)
            report.notes.append(f"nothing went to {half.name}: the result is the model as it was")
        _note_opset(original, model, report)
        report.casts_after = count_casts(model)
        feed = trial.first_feed()
        trial.close()
        if options.check:
            loads_in_runtime(model, feed, report, half)
        if not options.storage_only and not half_on_this_cpu():
            cpu_note(model, plan, options.provider, report)
        forget_inferred(model, described)
        given, after_bytes = give_back(model, source, output, overwrite, external_data, tell)
        report.after = statistics_of(model, after_bytes)
    report.output = None if output is None else os.fspath(output)
    report.seconds = time.perf_counter() - started
    return HalfResult(given, report.ok, report)


def _note_opset(original: ir.Model, model: ir.Model, report: HalfReport) -> None:
    before, after = (imported_version(m.opset_imports, "") for m in (original, model))
    if after > before:
        report.notes.append(
            f"opset raised from {before} to {after}, where QuantizeLinear and DequantizeLinear "
            f"take {report.precision}"
        )


def _check_opset(model: ir.Model, half: HalfFormat) -> None:
    version = imported_version(model.opset_imports, "")
    if half.name == "bf16" and version < _FIRST_BFLOAT16:
        raise UsageError(
            f"bf16 needs opset {_FIRST_BFLOAT16} or later, the model has {version}: "
            "export it anew, or use fp16"
        )
