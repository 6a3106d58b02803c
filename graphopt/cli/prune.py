"""`graphopt prune IN [OUT]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from graphopt.cli.invocation import Invocation, print_json
from graphopt.cli.options import read_dims, read_shapes
from graphopt.cli.prune_options import file_arguments, judging_options
from graphopt.cli.prune_summary import print_figures, print_verdict, run_and_print

if TYPE_CHECKING:
    from graphopt.pipeline.prune import Explanation, PruneReport


@click.command(short_help="Remove channels that matter least.")
@file_arguments
@click.option("--ratio", type=float, help="Remove this share of every group's channels, 0.3.")
@click.option("--target-macs", metavar="50%|30M", help="Prune to this share, or count, of MACs.")
@click.option("--target-params", metavar="50%|1M", help="Prune to this share of parameters.")
@click.option(
    "--target-latency", metavar="50%|3ms", help="Prune to this latency, measured, within 3%."
)
@click.option(
    "--max-drop",
    metavar="1%|0.5",
    help="The most that the metric may fall; alone: prune as far as it allows.",
)
@click.option(
    "--importance",
    metavar="auto|second-order|l1|l2|geometric-median|bn-scale|random",
    default="auto",
    show_default=True,
    help="Which channels go first; auto: second-order with --calib, l1 without.",
)
@click.option(
    "--repair/--no-repair",
    default=True,
    show_default=True,
    help="Refit what stays to the original on --calib, or from the weights alone without it.",
)
@click.option(
    "--round-to",
    type=click.IntRange(min=1),
    help="Keep a multiple of this many channels  [default: 1; with --target-latency 8].",
)
@click.option(
    "--min-channels",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Keep at least this many channels in a group.",
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="RE",
    help="Leave groups whole whose name, nodes or weights match. Repeatable.",
)
@click.option(
    "--calib",
    metavar="DATA",
    help="Unlabelled inputs: .npz, a folder of them, or module:function.",
)
@click.option(
    "--augment",
    metavar="mirror|shift=N",
    multiple=True,
    help="Calibrate on images mirrored, or shifted by up to N pixels, too. Repeatable.",
)
@click.option("--explain", is_flag=True, help="Print the groups, and why some are frozen; stop.")
@judging_options
@click.pass_context
def prune(context: click.Context, /, explain: bool, **flags: Any) -> int:
    """Remove whole channels from IN.onnx, so that a smaller, dense model is left.

    Channels that are tied together (a residual sum, a depthwise filter, the rows behind a
    Flatten) go together; where they cannot go, --explain says why. The result is run beside the
    original before it is written.
    """
    invocation = context.ensure_object(Invocation)
    if explain:
        return _explain(invocation, flags)
    from graphopt.pipeline.prune import prune as run

    return run_and_print(invocation, run, _print_report, **flags)


def _explain(invocation: Invocation, flags: dict[str, Any]) -> int:
    shapes, dims = read_shapes(flags["input_shape"], flags["source"]), read_dims(flags["dim"])

    from graphopt.cli.progress import ProgressLine
    from graphopt.pipeline.prune import explain as run

    with ProgressLine(invocation) as progress:
        found = run(
            flags["source"],
            input_shapes=shapes,
            dims=dims,
            ignore=flags["ignore"],
            progress=progress,
        )
    if invocation.json:
        print_json(_explanation_data(found))
    else:
        _print_explanation(found)
    return 0


def _explanation_data(found: Explanation) -> dict[str, Any]:
    import dataclasses

    from graphopt.pruning.explain import explain_groups

    rows = explain_groups(found.groups, found.costs)
    return {"macs": found.costs.macs_before, "groups": [dataclasses.asdict(row) for row in rows]}


def _print_explanation(found: Explanation) -> None:
    from graphopt.cli.render import count_text, make_console, print_line, print_table
    from graphopt.pruning.explain import explain_groups

    console = make_console()
    rows = explain_groups(found.groups, found.costs)
    print_table(
        console,
        ("group", "channels", "producers", "consumers", "MACs", "frozen because"),
        [
            (
                row.name,
                f"{row.channels}" + (f" x {row.width}" if row.width > 1 else ""),
                str(len(row.producers)),
                str(len(row.consumers)),
                "" if row.frozen else count_text(round(row.macs)),
                row.frozen,
            )
            for row in rows
        ],
        right=("channels", "producers", "consumers", "MACs"),
    )
    free = sum(not row.frozen for row in rows)
    print_line(console)
    print_line(console, f"{free} of {len(rows)} groups can be pruned")


def _print_report(source: str, report: PruneReport, *, verbose: int) -> None:
    from graphopt.cli.render import make_console, print_line

    print_figures(source, report)
    _print_groups(report, verbose)
    if not report.groups:
        print_line(make_console(), "no channel was removed", "yellow")
    advice = "slower than before: kernels like multiples of 8 channels, try --round-to 8"
    print_verdict(report, slower=advice)


def _print_groups(report: PruneReport, verbose: int) -> None:
    from graphopt.cli.render import make_console, print_line, print_table

    console = make_console()
    if verbose and report.groups:
        print_table(
            console,
            ("group", "channels", "left"),
            [(name, str(old), str(new)) for name, (old, new) in report.groups.items()],
            right=("channels", "left"),
        )
        print_line(console)
    if report.frozen and (verbose or not report.groups):
        print_table(console, ("frozen", "because"), list(report.frozen.items()))
        print_line(console)
    elif report.frozen:
        print_line(console, f"{len(report.frozen)} groups are frozen; -v or --explain says why")
