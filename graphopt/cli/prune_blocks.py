"""`graphopt prune-blocks IN [OUT]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from graphopt.cli.invocation import Invocation
from graphopt.cli.prune_options import file_arguments, judging_options
from graphopt.cli.prune_summary import print_figures, print_verdict, run_and_print

if TYPE_CHECKING:
    from graphopt.pipeline.prune_blocks import PruneBlocksReport


@click.command("prune-blocks", short_help="Replace residual blocks that matter least.")
@file_arguments
@click.option("--count", type=click.IntRange(min=1), help="Replace this many blocks.")
@click.option("--target-macs", metavar="80%|30M", help="Replace to this share, or count, of MACs.")
@click.option(
    "--max-drop",
    metavar="1%|0.5",
    help="The most that the metric may fall; alone: replace as long as it allows.",
)
@click.option(
    "--calib",
    metavar="DATA",
    help="Unlabelled inputs: .npz, a folder of them, or module:function. Needed.",
)
@judging_options
@click.pass_context
def prune_blocks(context: click.Context, /, **flags: Any) -> int:
    """Replace whole residual blocks of IN.onnx, so that a shallower model is left.

    Of x + f(x), f(x) becomes a constant or a linear map of x, fitted to the original on the
    calibration data. The block goes first that harms the outputs least for what it saves.
    """
    from graphopt.pipeline.prune_blocks import prune_blocks as run

    return run_and_print(context.ensure_object(Invocation), run, _print_report, **flags)


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
