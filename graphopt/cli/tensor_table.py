"""What a person reads of two models compared tensor by tensor."""

from __future__ import annotations

import math

from graphopt.cli.render import make_console, print_line, print_table
from graphopt.pipeline.tensor_comparison import TensorComparison, TensorReport


def print_tensors(report: TensorReport) -> None:
    """Print the first bad layer, then every tensor in the order of execution."""
    console = make_console()
    bad = report.first_bad
    if bad is not None:
        print_line(console, f"first bad layer: {_told(bad)}", "bold red")
        worst = max(report.tensors, key=lambda item: item.loss)
        if worst is not bad and worst.loss > 0:
            print_line(console, f"largest loss:    {_told(worst)}", "yellow")
    elif report.tensors:
        print_line(console, f"no tensor is below {report.least:g} dB", "green")
    if report.unmatched:
        count, first = len(report.unmatched), report.unmatched[0]
        print_line(console, f"{count} tensors are in A only, '{first}' the first of them")
    print_line(console)
    rows = [
        (
            "BAD" if item.sqnr < report.least else "",
            item.name if item.name == item.other else f"{item.name} = {item.other}",
            item.op_type,
            item.reason or decibels_text(item.sqnr),
            f"-{item.loss:.1f}" if item.loss >= 0.05 else "",
            f"{item.max_abs_error:.2e}",
        )
        for item in report.tensors
    ]
    if rows:
        print_table(
            console,
            ("", "tensor", "op type", "SQNR", "lost here", "max abs error"),
            rows,
            right=("SQNR", "lost here", "max abs error"),
        )
        print_line(console)


def decibels_text(figure: float) -> str:
    """A ratio in dB; `equal` where there is no noise at all."""
    if math.isnan(figure):
        return "-"
    if math.isinf(figure):
        return "equal" if figure > 0 else "-inf dB"
    return f"{figure:.1f} dB"


def _told(item: TensorComparison) -> str:
    lost = f", {item.loss:.1f} dB lost in this layer" if item.loss >= 0.05 else ""
    return f"{item.op_type} -> '{item.name}': SQNR {decibels_text(item.sqnr)}{lost}"
