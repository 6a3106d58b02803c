"""layout: change where a model has its channels, at its interface and inside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from graphopt.errors import EquivalenceError, UsageError
from graphopt.graph import ModelSource, ir, patient_collector
from graphopt.graph.border import InputConversion, OutputConversion, convert_border
from graphopt.graph.image_axes import Layout, to_channels_first, to_channels_last
from graphopt.pipeline.check import Checker
from graphopt.pipeline.model_files import check_output, described_values, load_valid
from graphopt.pipeline.optimization import InputShapes, Result, deliver
from graphopt.pipeline.pictures import (
    check_names,
    inputs_to_look_at,
    layout_of,
    obstacle_of,
    read_layout,
    type_text,
)
from graphopt.pipeline.run import Run, make_plan
from graphopt.pipeline.statistics import size_on_disk, statistics_of
from graphopt.report import CheckStatus, InterfaceChange, Report
from graphopt.shapes import infer_shapes

if TYPE_CHECKING:
    from graphopt.runtime import Session

Border = Literal["keep", "convert"]
BORDERS = get_args(Border)

_PASSES = ("hoist-shapes", "hoist-reductions", "merge-movements", "eliminate-dead-nodes")


@patient_collector()
def layout(
    source: ModelSource,
    *,
    to: str,
    io: Border = "keep",
    only: str | Sequence[str] = (),
    output: str | os.PathLike[str] | None = None,
    input_shapes: InputShapes | None = None,
    dims: Mapping[str, int] | None = None,
    input_data: Any = None,
    check_count: int | None = None,
    seed: int = 0,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    overwrite: bool = False,
    external_data: bool | None = None,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Change the layout of a model, and prove that it computes the same.

    Args:
        source: a path, the bytes of a model, an `onnx.ModelProto` or an `ir.Model`.
        to: "nhwc" or "nchw"; signals and volumes (rank 3 and 5) go alike.
        io: "convert" changes the inputs and outputs that operators say are pictures; "keep"
            leaves the interface, and moves Transposes inside towards the layout.
        only: with "convert", a name or the names of what to change; it is believed to have the
            other layout where no operator says.
        output: where to write the result.
        input_shapes: shapes by input name, as the model given declares them.
        dims: sizes for symbolic dims by name.
        input_data: inputs to compare on, as the result takes them, instead of seeded ones.
        check_count: how many inputs to compare on.
        seed: of the seeded inputs.
        rtol: tolerance of each output, relative to its largest magnitude.
        atol: absolute tolerance.
        overwrite: let `output` replace a file.
        external_data: keep weights in a file of their own; None decides by size and source.
        progress: called with a line about what is being done.

    Raises:
        UsageError: an option is wrong, a name is unknown or of nothing that has the layout, or
            there is nothing to convert.
        EquivalenceError: the result differs from the original.
        OutputError: the result cannot be written.
    """
    started = time.perf_counter()
    tell = progress or (lambda _: None)
    wanted = read_layout(to)
    if io not in BORDERS:
        raise UsageError(f"io cannot be '{io}'; it is one of {', '.join(BORDERS)}")
    names = [only] if isinstance(only, str) else list(only)
    if names and io == "keep":
        raise UsageError("names were given, but the interface is to be kept: ask to convert it")
    if output is not None:
        check_output(source, output, overwrite)
        output = Path(output).absolute()
    tell("loading")
    original = load_valid(source)
    described = described_values(original)
    file_bytes = size_on_disk(source, original)
    infer_shapes(original, input_shapes=input_shapes, dims=dims)
    inputs: list[InputConversion] = []
    outputs: list[OutputConversion] = []
    changes: list[InterfaceChange] = []
    start = original
    if io == "convert":
        inputs, outputs, changes = _conversions(original, wanted, names)
        start = convert_border(original, inputs, outputs)
        infer_shapes(start)
    tell("preparing inputs")
    checker = Checker(
        start,
        input_data=input_data,
        count=check_count,
        seed=seed,
        rtol=rtol,
        atol=atol,
        reference=lambda: _outside(original, inputs, outputs),
    )
    # Conv and Relu are one kernel in many runtimes: what is converted keeps its inside.
    sink = "sink-transposes" if io == "convert" else f"sink-transposes{{towards={to}}}"
    run = Run(start, make_plan(0, (sink, *_PASSES)), checker, tell=tell)
    model = run.until_equivalent()
    report = Report(
        before=statistics_of(original, file_bytes),
        after=statistics_of(model, None),
        passes=run.pass_reports(),
        check=run.check_report,
        interface=changes,
    )
    if report.check.status is CheckStatus.FAILED:
        raise EquivalenceError(
            f"the result differs from the original ({report.check.reason}); nothing was written"
        )
    return deliver(
        model,
        report,
        source,
        described,
        output=output,
        overwrite=overwrite,
        external_data=external_data,
        started=started,
        tell=tell,
    )


def _outside(
    original: ir.Model, inputs: Sequence[InputConversion], outputs: Sequence[OutputConversion]
) -> Session:
    """A session of the original whose inputs and outputs are transposed outside, in numpy."""
    from graphopt.pipeline.converted import ConvertedSession

    return ConvertedSession(original, inputs, outputs)


def _conversions(
    model: ir.Model, to: Layout, only: Sequence[str]
) -> tuple[list[InputConversion], list[OutputConversion], list[InterfaceChange]]:
    """What to do at the border so that pictures have the layout, and what becomes of the rest.

    Raises:
        UsageError: a name is unknown, or of something that cannot be changed; or nothing is known
            to be a picture.
    """
    sides = {
        "input": inputs_to_look_at(model, only),
        "output": list(dict.fromkeys(model.graph.outputs)),
    }
    check_names(only, [*sides["input"], *sides["output"]], "input or output")
    inputs: list[InputConversion] = []
    outputs: list[OutputConversion] = []
    changes: list[InterfaceChange] = []
    pictures = 0
    for side, values in sides.items():
        for value in values:
            name, shape = value.name or "", value.shape
            before, after = type_text(value.type, shape), None
            picture, wanted, reason = _wanted(value, to, only)
            pictures += picture
            if wanted and shape is not None:
                rank = len(shape)
                taken, given = to_channels_first(rank), to_channels_last(rank)
                if to is Layout.NCHW:
                    taken, given = given, taken
                if side == "input":
                    inputs.append(InputConversion(name, taken))
                else:
                    outputs.append(OutputConversion(name, given))
                after = type_text(value.type, ir.Shape([shape[axis] for axis in given]))
            changes.append(InterfaceChange(side, name, before, after, reason))
    if not pictures:
        raise UsageError(
            "no input or output is known to hold pictures, so there is nothing to convert; "
            "name those that do with --only"
        )
    return inputs, outputs, changes


def _wanted(value: ir.Value, to: Layout, only: Sequence[str]) -> tuple[bool, bool, str]:
    """Whether an input or output is a picture, whether to change its layout, and why."""
    named = value.name in only
    if only and not named:
        return False, False, "not named"
    obstacle = obstacle_of(value)
    if obstacle is not None:
        if named:
            raise UsageError(f"'{value.name}' cannot be made {to}: {obstacle}")
        return False, False, obstacle
    found, reason = layout_of(value)
    if found is to:
        return True, False, f"already {reason}"
    if found is None:
        # Who names it knows that it is a picture, and would not name what has the layout.
        return named, named, "named" if named else reason
    return True, True, reason
