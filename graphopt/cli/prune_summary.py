"""What the commands that make a model smaller have in common: the run, and what is printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.cli.invocation import Invocation, print_json
from graphopt.cli.optimize import refuse_report, write_report
from graphopt.cli.options import existing_data, read_dims, read_shapes
from graphopt.errors import UsageError

if TYPE_CHECKING:
    from graphopt.pipeline.prune_report import SmallerModelReport


def run_and_print(
    invocation: Invocation,
    run: Callable[..., Any],
    show: Callable[..., None],
    /,
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
    """Run a command that makes a model smaller, with its flags, and tell of the result.

    `run` is the function of the Python API, and takes `passed_on` as they are; `show` prints its
    report, given the source, the report and how verbose to be. The rest are flags of both.
    """
    if target is not None and output is not None:
        raise UsageError("the output is given twice; leave out OUT.onnx or --output")
    given = target or output
    path = Path(given) if given is not None else _pruned_path(Path(source))
    calibration = existing_data(calib, "--calib")
    if report is not None:
        refuse_report(Path(report), path, force)
    shapes, dims = read_shapes(input_shape, source), read_dims(dim)

    from graphopt.cli.progress import ProgressLine

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
        show(source, found, verbose=invocation.verbose)
    return 0


def _pruned_path(source: Path) -> Path:
    """`model.onnx` -> `model.pruned.onnx`, beside it."""
    return source.parent / f"{source.name.removesuffix('.onnx')}.pruned.onnx"


def print_figures(source: str, report: SmallerModelReport) -> None:
    """Print from where to where, and a table of what was counted and measured."""
    from graphopt.cli.render import (
        change_text,
        count_text,
        make_console,
        print_line,
        print_table,
        seconds_text,
    )

    console = make_console()
    print_line(console, f"{source} -> {report.output or '(dry run, nothing written)'}", "bold")
    print_line(console)
    rows = [
        (name, count_text(round(before)), count_text(round(after)), change_text(before, after))
        for name, (before, after) in (("MACs", report.macs), ("parameters", report.parameters))
    ]
    if report.latency is not None:
        before, after = report.latency
        rows.append(
            (
                "latency",
                seconds_text(before),
                seconds_text(after),
                f"{before / after:.2f}x as fast",
            )
        )
    if report.metric is not None:
        name, first, second = report.metric
        rows.append((name, f"{first:.4g}", f"{second:.4g}", f"{second - first:+.4g}"))
    print_table(console, ("", "before", "after", "change"), rows, right=("before", "after"))
    print_line(console)


def print_verdict(report: SmallerModelReport, *, slower: str) -> None:
    """Print what was proved of the result, and where it is.

    Args:
        report: of the result.
        slower: what to say where it is slower than the original.
    """
    from graphopt.cli.render import make_console, print_line, seconds_text, size_text

    console = make_console()
    for line, style in _verdict(report, slower):
        print_line(console, line, style)
    size = f" ({size_text(report.file_bytes)})" if report.output else ""
    what = f"wrote {report.output}{size}" if report.output else "dry run: nothing written"
    print_line(console, f"{what} in {seconds_text(report.seconds)}")


def _verdict(report: SmallerModelReport, slower: str) -> list[tuple[str, str]]:
    lines = []
    if report.verified:
        lines.append((f"the result is valid and runs, on {report.verified} inputs", "green"))
    else:
        lines.append((f"not run here: {report.unverified_reason}", "yellow"))
    if report.latency is not None and report.latency[1] > 1.03 * report.latency[0]:
        lines.append((slower, "yellow"))
    if report.held_out == 0:
        lines.append(("measured on what it was fitted to: judge it on other data too", "yellow"))
    elif report.held_out is not None:
        lines.append((f"measured on {report.held_out:,} samples that were held out", ""))
    if report.metric is None:
        lines.append(("accuracy was not measured: give inputs with --calib", "yellow"))
    return lines
