"""`graphopt layout IN [OUT] --to nhwc`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.cli.optimize import refuse_output, refuse_report, write_report
from graphopt.cli.options import (
    comparison_options,
    existing_data,
    output_options,
    read_dims,
    read_shapes,
)
from graphopt.errors import UsageError


@click.command(short_help="Change where a model has its channels.")
@click.argument("source", metavar="IN.onnx")
@click.argument("target", metavar="[OUT.onnx]", required=False)
@click.option("-o", "--output", metavar="OUT.onnx", help="Where to write  [default: IN.nhwc.onnx].")
@click.option(
    "--to",
    type=click.Choice(["nhwc", "nchw"]),
    required=True,
    help="Channels on the last axis, or on axis 1.",
)
@click.option(
    "--io",
    type=click.Choice(["keep", "convert"]),
    default="keep",
    show_default=True,
    help="Leave inputs and outputs as they are, or convert those that hold pictures.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Convert this input or output and no other that is not named. Repeatable.",
)
@comparison_options
@output_options("Overwrite what exists.")
@speaking_options
@click.pass_context
def layout(
    context: click.Context,
    /,
    *,
    source: str,
    target: str | None,
    output: str | None,
    to: str,
    io: str,
    only: tuple[str, ...],
    input_shape: tuple[str, ...],
    dim: tuple[str, ...],
    input_data: str | None,
    check_n: int | None,
    rtol: float,
    atol: float,
    seed: int,
    external_data: bool | None,
    report: str | None,
    dry_run: bool,
    force: bool,
) -> int:
    """Change the layout of IN.onnx to channels last (nhwc) or channels on axis 1 (nchw).

    With --io convert, inputs and outputs that a convolution, a pooling or the like says are
    pictures get the layout; the others are left, and the summary says why. The result is run
    beside the original, whose inputs and outputs are transposed outside, before it is written.
    --input-data is as the result takes it.
    """
    invocation = context.ensure_object(Invocation)
    if target is not None and output is not None:
        raise UsageError("the output is given twice; leave out OUT.onnx or --output")
    path = Path(source)
    written = Path(output or target or path.with_name(f"{path.stem}.{to}.onnx"))
    if not dry_run:
        refuse_output(path, written, force)
    if report is not None:
        refuse_report(Path(report), written, force)
    data, dims = existing_data(input_data), read_dims(dim)
    shapes = read_shapes(input_shape, source)

    from graphopt.cli.progress import ProgressLine
    from graphopt.pipeline.layout import layout as run

    with ProgressLine(invocation) as progress:
        result = run(
            source,
            to=to,
            io="convert" if io == "convert" else "keep",
            only=only,
            output=None if dry_run else written,
            input_shapes=shapes,
            dims=dims,
            input_data=data,
            check_count=check_n,
            seed=seed,
            rtol=rtol,
            atol=atol,
            overwrite=force,
            external_data=external_data,
            progress=progress,
        )
    if report is not None and not dry_run:
        write_report(Path(report), result.report.to_json(indent=2))
    if invocation.json:
        print_json({"input": source, **json.loads(result.report.to_json())})
    elif not invocation.quiet:
        from graphopt.cli.summary import print_summary

        print_summary(source, result.report, verbose=invocation.verbose)
    return 0
