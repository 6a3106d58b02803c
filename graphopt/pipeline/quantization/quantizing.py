"""quantize: from any source to a quantized model, and its file."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphopt.errors import UsageError
from graphopt.graph import ModelSource
from graphopt.pipeline.model_files import (
    check_output,
    described_values,
    forget_inferred,
    give_back,
    load_valid,
)
from graphopt.pipeline.quantization.data import (
    CHECKED_FOR_DROP,
    CalibrationData,
    seeded_data,
)
from graphopt.pipeline.quantization.job import Job
from graphopt.pipeline.quantization.options import Options
from graphopt.pipeline.quantization.report import QuantizeReport
from graphopt.pipeline.statistics import size_on_disk, statistics_of
from graphopt.shapes import infer_shapes

Tell = Callable[[str], None]

SEEDED = "seeded"
"""In place of calibration data: made-up inputs, for speed and structure alone."""


@dataclass(frozen=True)
class QuantizeResult:
    """What `quantize` gives back; unpacks as `model, ok`.

    Attributes:
        model: the quantized model, of the kind that was given: `bytes` for bytes, a `ModelProto`
            for one, the path of the written file for a path with an output. An `ir.Model`
            otherwise.
        ok: whether the result is within the budget, where there is one.
        report: what was quantized, what was not and why, and what was measured.
    """

    model: Any
    ok: bool
    report: QuantizeReport

    def __iter__(self) -> Iterator[Any]:
        yield self.model
        yield self.ok


def quantize(
    source: ModelSource,
    *,
    calibration: Any = None,
    output: str | os.PathLike[str] | None = None,
    calibration_count: int | None = None,
    test_data: Any = None,
    check_count: int | None = None,
    input_shapes: Mapping[str, Sequence[int | str | None]] | None = None,
    dims: Mapping[str, int] | None = None,
    force: bool = False,
    overwrite: bool = False,
    external_data: bool | None = None,
    progress: Tell | None = None,
    **options: Any,
) -> QuantizeResult:
    """Quantize a model to 8-bit integers, where that is faster and accurate enough.

    The argument is never changed, and nothing is written unless `output` is given.

    Args:
        source: a path, the bytes of a model, an `onnx.ModelProto` or an `ir.Model`.
        calibration: the data that ranges are made from: a path, `module:function`, arrays, or
            an iterable of feeds; "seeded" for made-up inputs. Every eighth sample is held out to
            check the result on. Not needed with `ranges`, "dynamic" or "weight-only".
        output: where to write the result.
        calibration_count: use at most so many samples of the calibration data.
        test_data: check the result on these inputs instead.
        check_count: on at most so many of them; None for 32, for 512 where `max_drop` is given, and
            for all of `test_data`.
        input_shapes: shapes by input name; a dim is an int, a symbol, or None to keep it.
        dims: sizes for symbolic dims by name.
        force: give the result back, and write it, although it is not within the budget.
        overwrite: let `output` replace a file.
        external_data: keep weights in a file of their own; None decides by size and source.
        progress: called with a line about what is being done.
        options: the fields of `Options`.

    Raises:
        UsageError: an option is wrong, or there is no data.
        UnreadableModelError: the source is no model.
        InvalidModelError: the source breaks the rules of ONNX.
        EquivalenceError: no mixture is within the budget.
        OutputError: the result, or the ranges, cannot be written.
    """
    started = time.perf_counter()
    chosen = _read_options(options)
    tell = progress or (lambda _: None)
    if output is not None:
        check_output(source, output, overwrite)
        output = Path(output).absolute()
    if chosen.kind == "static" and calibration is None and chosen.ranges is None:
        raise UsageError(
            "quantization needs data to find the range of every activation: give --calib with a "
            ".npz, a folder of them or module:function (--dynamic and --weight-only need none)"
        )
    tell("loading")
    original = load_valid(source)
    described = described_values(original)
    file_bytes = size_on_disk(source, original)
    infer_shapes(original, input_shapes=input_shapes, dims=dims)
    made_up = calibration is None or (isinstance(calibration, str) and calibration == SEEDED)
    if check_count is None and test_data is None and chosen.max_drop is not None:
        check_count = CHECKED_FOR_DROP
    data = CalibrationData(
        original,
        seeded_data(original, chosen.seed) if made_up else calibration,
        test=test_data,
        count=calibration_count,
        check_count=check_count,
    )
    before = statistics_of(original, file_bytes, count=True)
    report = QuantizeReport(before, before, chosen.kind, chosen.backend)
    if made_up and test_data is None:
        report.warnings.append(
            "made-up inputs were used: they tell nothing about accuracy on real ones"
        )
    elif not data.disjoint:
        report.warnings.append(
            "there is one sample alone, so the result was checked on what calibrated it"
        )
    real = test_data is not None or not made_up
    job = Job(original, described, data, chosen, report, tell, force, real)
    model = job.run()
    report.after = statistics_of(model, None, count=False)
    forget_inferred(model, described)
    given_back, after_bytes = give_back(model, source, output, overwrite, external_data, tell)
    report.after = dataclasses.replace(report.after, file_bytes=after_bytes)
    report.output = None if output is None else os.fspath(output)
    report.seconds = time.perf_counter() - started
    return QuantizeResult(given_back, report.ok, report)


def _read_options(given: Mapping[str, Any]) -> Options:
    known = {field.name for field in dataclasses.fields(Options)}
    for name in given:
        if name not in known:
            raise UsageError(f"quantize has no option '{name}'; it has {', '.join(sorted(known))}")
    return Options(**given)
