"""The pieces of what a person reads: tables, figures with units, lines about a check."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from graphopt.cli.invocation import visible
from graphopt.report import CheckReport, CheckStatus

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

_BAR = 12
_LONGEST_NAME = 34

PIPE_WIDTH = 120
"""Columns of what is not a terminal, where COLUMNS does not say."""

_GAP = 2
_RICH_VARIABLES = ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE")
"""What makes rich write otherwise to a pipe than to others."""


class Console:
    """stdout: a terminal, to which rich speaks, or a pipe, for which it is not even imported."""

    def __init__(self) -> None:
        # A daemon or a cron job may run without any stdout.
        terminal = sys.stdout is not None and sys.stdout.isatty()
        self._width = None if terminal or "COLUMNS" in os.environ else PIPE_WIDTH
        self._is_pipe = not terminal and not any(name in os.environ for name in _RICH_VARIABLES)

    def line(self, text: str, style: str) -> None:
        """Write a line, in a style where there are styles."""
        if self._is_pipe:
            print(text)  # noqa: T201 - what a person reads
        else:
            self._rich().print(text, style=style or None, soft_wrap=True)

    def table(
        self,
        headings: Sequence[str],
        rows: Sequence[Sequence[str]],
        right: Sequence[str],
        bold_last: int,
    ) -> None:
        """Write a table; what the arguments are stands at `print_table`."""
        lines = _plain_table(headings, rows, right, bold_last) if self._is_pipe else None
        if lines is None:
            self._rich_table(headings, rows, right, bold_last)
            return
        for line in lines:
            self.line(line, "")

    def _rich(self) -> RichConsole:
        """A console that takes no name from a model for markup, emoji or a number."""
        from rich.console import Console as RichConsole

        return RichConsole(markup=False, emoji=False, highlight=False, width=self._width)

    def _rich_table(
        self,
        headings: Sequence[str],
        rows: Sequence[Sequence[str]],
        right: Sequence[str],
        bold_last: int,
    ) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        for heading in headings:
            table.add_column(
                heading, justify="right" if heading in right else "left", overflow="fold"
            )
        for number, row in enumerate(rows):
            if bold_last and number == len(rows) - bold_last and number:
                table.add_section()
                table.add_row()
            table.add_row(*[Text(cell, overflow="fold") for cell in row])
        console = self._rich()
        if console.is_terminal:
            console.print(table)
            return
        # rich fills every line up to the table's width, which a pipe has no use for.
        with console.capture() as captured:
            console.print(table)
        for line in captured.get().splitlines():
            self.line(line.rstrip(), "")


def make_console() -> Console:
    """A console on stdout as it is now."""
    return Console()


def print_line(console: Console, text: str = "", style: str = "") -> None:
    """Print a line as it is: a pipe or a terminal may wrap it, we do not."""
    console.line(visible(text), style)


def print_table(
    console: Console,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    bold_last: int = 0,
) -> None:
    """Print a table without lines; a cell that is too long for the terminal is folded.

    Args:
        console: where to.
        headings: one per column.
        rows: cells as text.
        right: headings of columns that hold figures.
        bold_last: how many rows at the end are totals, set apart by an empty line.
    """
    console.table(headings, [[visible(cell) for cell in row] for row in rows], right, bold_last)


def _plain_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], bold_last: int
) -> list[str] | None:
    """The lines of a table; None where that takes more: to fold cells, or to know wide letters."""
    cells = [headings, *rows]
    if not all(len(row) == len(headings) and all(map(str.isascii, row)) for row in cells):
        return None
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if sum(widths) + _GAP * (len(widths) - 1) > PIPE_WIDTH:
        return None
    lines = []
    for number, row in enumerate(cells):
        if bold_last and number == len(cells) - bold_last and number > 1:
            lines.append("")
        padded = [
            cell.rjust(width) if heading in right else cell.ljust(width)
            for heading, cell, width in zip(headings, row, widths, strict=True)
        ]
        lines.append((" " * _GAP).join(padded).rstrip())
    return lines


def count_text(number: int) -> str:
    """A count for people: `300.8 M` in powers of 1000, exact below 10,000."""
    if number < 10_000:
        return f"{number:,}"
    figure = float(number)
    for unit in ("k", "M", "G", "T"):
        figure /= 1000
        if figure < 999.95 or unit == "T":
            return f"{figure:,.1f} {unit}"
    raise AssertionError


def share_text(share: float) -> str:
    """A share of a whole in per cent, with a bar: `25.0% ███`."""
    return f"{share:6.1%} {'█' * round(share * _BAR)}"


def short_name(name: str, *, whole: bool, longest: int = _LONGEST_NAME) -> str:
    """A node's name, cut at its front: the end of a path tells nodes apart."""
    return name if whole or len(name) <= longest else "…" + name[1 - longest :]


def size_text(count: int | None) -> str:
    """Bytes for people: `12.3 kB`, in powers of 1000."""
    if count is None:
        return "-"
    if count < 1000:
        return f"{count} B"
    figure = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        figure /= 1000
        if figure < 1000 or unit == "TB":
            return f"{figure:.1f} {unit}" if figure < 100 else f"{figure:.0f} {unit}"
    raise AssertionError


def change_text(before: float | None, after: float | None) -> str:
    """The change from one figure to another in per cent; empty where there is none to tell."""
    if not before or after is None or before == after:
        return ""
    percent = (after - before) / before * 100
    if abs(percent) < 10:
        return f"{percent:+.1f}%"
    return f"{percent:+.0f}%"


def seconds_text(seconds: float) -> str:
    """A duration with three figures or so: `12.3 s`, `1.23 ms`."""
    if seconds >= 0.9995:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1000
    if milliseconds >= 10:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds:.{2 if milliseconds >= 1 else 3}f} ms"


def check_text(check: CheckReport) -> str:
    """One line that says what is known of the equivalence, and no more than that."""
    if check.status is CheckStatus.OFF:
        return "not verified: --check off"
    if check.status is CheckStatus.NOT_VERIFIED:
        return f"not verified: {check.reason}"
    inputs = f"{check.inputs_tried} input{'' if check.inputs_tried == 1 else 's'}"
    if check.status is CheckStatus.FAILED:
        return f"DIFFERENT on {inputs}: {check.reason}"
    note = f"; {check.reason}" if check.reason else ""
    worst = check.worst
    if worst is None or worst.relative_error == 0:
        return f"verified on {inputs}: the outputs are equal{note}"
    return (
        f"verified on {inputs}: largest error {worst.relative_error:.1e} of the output's scale "
        f"at '{worst.name}' (tolerance {check.rtol:g}){note}"
    )


def check_style(check: CheckReport) -> str:
    """The colour of that line."""
    return {CheckStatus.VERIFIED: "green", CheckStatus.FAILED: "bold red"}.get(
        check.status, "yellow"
    )
