"""What the commands that make a model smaller print of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphopt.pipeline.prune_report import SmallerModelReport


def pruned_path(source: Path) -> Path:
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
