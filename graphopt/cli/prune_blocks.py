"""`graphopt prune-blocks IN [OUT]`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.cli.optimize import refuse_report, write_report
from graphopt.cli.options import (
    existing_data,
    output_options,
    read_dims,
    read_shapes,
    shape_options,
)
from graphopt.cli.prune_summary import print_figures, print_verdict, pruned_path
from graphopt.errors import UsageError

if TYPE_CHECKING:
    from graphopt.pipeline.prune_blocks import PruneBlocksReport


@click.command("prune-blocks", short_help="Replace residual blocks that matter least.")
@click.argument("source", metavar="IN.onnx")
@click.argument("target", metavar="[OUT.onnx]", required=False)
@click.option(
    "-o", "--output", metavar="OUT.onnx", help="Where to write  [default: IN.pruned.onnx]."
)
@click.option("--count", type=click.IntRange(min=1), help="Replace this many blocks.")
@click.option("--target-macs", metavar="80%|30M", help="Replace to this share, or count, of MACs.")
@click.option(
    "--max-drop",
    metavar="1%|0.5",
    help="The most that the metric may fall; alone: replace as long as it allows.",
)
@click.option(
    "--metric",
    metavar="agreement|sqnr|module:function",
    help="What --max-drop is about  [default: agreement with the original].",
)
@click.option(
    "--calib",
    metavar="DATA",
    help="Unlabelled inputs: .npz, a folder of them, or module:function. Needed.",
)
@click.option(
    "--calib-n",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="How many feeds of it to read.",
)
@shape_options
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of random choices."
)
@click.option("--measure/--no-measure", default=True, show_default=True, help="Time both models.")
@output_options("Overwrite what exists.")
@speaking_options
@click.pass_context
def prune_blocks(context: click.Context, /, **flags: Any) -> int:
    """Replace whole residual blocks of IN.onnx, so that a shallower model is left.

    Of x + f(x), f(x) becomes a constant or a linear map of x, fitted to the original on the
    calibration data. The block goes first that harms the outputs least for what it saves.
    """
    return _run(context.ensure_object(Invocation), **flags)


def _run(
    invocation: Invocation,
    *,
    source: str,
    target: str | None,
    output: str | None,
    input_shape: tuple[str, ...],
    dim: tuple[str, ...],
    calib: str | None,
    calib_n: int,
    dry_run: bool,
    force: bool,
    report: str | None,
    **passed_on: Any,
) -> int:
    if target is not None and output is not None:
        raise UsageError("the output is given twice; leave out OUT.onnx or --output")
    given = target or output
    path = Path(given) if given is not None else pruned_path(Path(source))
    calibration = existing_data(calib, "--calib")
    if report is not None:
        refuse_report(Path(report), path, force)
    shapes, dims = read_shapes(input_shape, source), read_dims(dim)

    from graphopt.cli.progress import ProgressLine
    from graphopt.pipeline.prune_blocks import prune_blocks as run

    with ProgressLine(invocation) as progress:
        found = run(
            source,
            output=None if dry_run else path,
            calibration=calibration,
            samples=calib_n,
            input_shapes=shapes,
            dims=dims,
            overwrite=force,
            progress=progress,
            **passed_on,
        ).report
    data = {"input": source, **found.to_dict()}
    if report is not None:
        write_report(Path(report), json.dumps(data, indent=2, allow_nan=False))
    if invocation.json:
        print_json(data)
    elif not invocation.quiet:
        _print_report(source, found, verbose=invocation.verbose)
    return 0


def _print_report(source: str, report: PruneBlocksReport, *, verbose: int) -> None:
    from graphopt.cli.render import count_text, make_console, print_line, print_table

    console = make_console()
    print_figures(source, report)
    if report.replaced:
        metric = report.metric[0] if report.metric is not None else "metric"
        rows = [
            (
                step.name,
                step.kind,
                count_text(round(step.macs)),
                f"{step.output_error:.2%}",
                f"{step.metric:.4g}",
            )
            for step in report.replaced
        ]
        figures = ("MACs left", "output error", metric)
        print_table(console, ("block", "replaced by", *figures), rows, right=figures)
    else:
        print_line(console, "no block was replaced", "yellow")
    print_line(console, f"{len(report.replaced)} of {report.blocks} residual blocks are replaced")
    if report.declined and (verbose or not report.blocks):
        print_line(console)
        print_table(console, ("no block", "because"), list(report.declined.items()))
    elif report.declined:
        print_line(console, f"{len(report.declined)} other sums are no blocks; -v says why")
    print_line(console)
    print_verdict(report, slower="slower than before: what stands for a block costs more here")
