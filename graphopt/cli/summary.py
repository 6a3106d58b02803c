"""What a person reads after `graphopt optimize`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from graphopt.cli.render import (
    change_text,
    check_style,
    check_text,
    count_text,
    make_console,
    print_line,
    print_table,
    seconds_text,
    size_text,
)
from graphopt.report import PassReport, PassStatus, Report

if TYPE_CHECKING:
    from graphopt.cost import Number

SITES_SHOWN = 3
"""Places named for each reason under -v; the report file has them all."""

_LONGEST_EXPRESSIONS = 40
"""Counts before and after that are longer than this together are left to the JSON report."""


def print_summary(source: str, report: Report, *, verbose: int) -> None:
    """Print what was done, by which pass, what it brought, and what is proved.

    Args:
        source: the model that was read.
        report: the run.
        verbose: 1 adds what was declined and why, 2 every rewrite.
    """
    console = make_console()
    print_line(console, f"{source} -> {report.output or '(dry run, nothing written)'}", "bold")
    print_line(console)
    if report.interface:
        _print_interface(report)
    if report.passes:
        _print_passes(report, everything=verbose > 0)
    _print_difference(report)
    print_line(console)
    for offer in report.offers:
        fate = "kept" if offer.kept else "not kept"
        print_line(console, f"{offer.name} was offered, and {fate}: {offer.result}")
    for line in _problems(report):
        print_line(console, line, "yellow")
    print_line(console, check_text(report.check), check_style(report.check))
    if verbose:
        _print_declined(report.passes)
    if verbose > 1:
        _print_rewrites(report.passes)
    size = f" ({size_text(report.after.file_bytes)})" if report.output else ""
    what = f"wrote {report.output}{size}" if report.output else "dry run: nothing written"
    print_line(console, f"{what} in {seconds_text(report.seconds)}")


def _print_interface(report: Report) -> None:
    """What became of each input and output, and why."""
    console = make_console()
    rows = [
        (change.side, change.name, change.before, change.after or "as it is", change.reason)
        for change in report.interface
    ]
    print_table(console, ("", "name", "before", "after", "because"), rows)
    print_line(console)


def _print_passes(report: Report, *, everything: bool) -> None:
    """List the passes that did something; all of them where `everything` is asked for."""
    console = make_console()
    idle = PassStatus.UNCHANGED
    listed = [entry for entry in report.passes if everything or entry.status is not idle]
    print_table(
        console,
        ("pass", "promise", "changes", "declined", "time", "result"),
        [
            (
                entry.name,
                str(entry.promise),
                str(len(entry.rewrites) or ""),
                str(len(entry.declined) or ""),
                seconds_text(entry.seconds),
                "" if entry.status is PassStatus.UNCHANGED else str(entry.status),
            )
            for entry in listed
        ],
        right=("changes", "declined", "time"),
    )
    rest = [entry for entry in report.passes if not everything and entry.status is idle]
    if rest:
        spent = seconds_text(sum(entry.seconds for entry in rest))
        print_line(console, f"{len(rest)} runs of passes changed nothing ({spent}): -v lists them")
    print_line(console)


def _print_difference(report: Report) -> None:
    before, after = report.before, report.after
    operators = sorted(
        {*before.operators, *after.operators},
        key=lambda name: (-before.operators.get(name, 0), name),
    )
    rows = []
    for name in operators:
        old, new = before.operators.get(name, 0), after.operators.get(name, 0)
        if old != new:
            rows.append((name, str(old), str(new), change_text(old, new)))
    totals = [
        ("nodes", f"{before.nodes:,}", f"{after.nodes:,}", change_text(before.nodes, after.nodes)),
        (
            "parameters",
            f"{before.parameters:,}",
            f"{after.parameters:,}",
            change_text(before.parameters, after.parameters),
        ),
        (
            "weights",
            size_text(before.parameter_bytes),
            size_text(after.parameter_bytes),
            change_text(before.parameter_bytes, after.parameter_bytes),
        ),
        (
            "file",
            size_text(before.file_bytes),
            size_text(after.file_bytes),
            change_text(before.file_bytes, after.file_bytes),
        ),
    ]
    totals += _counted("MACs", before.macs, after.macs, count_text)
    totals += _counted("activations", before.activation_bytes, after.activation_bytes, size_text)
    if report.latency_before and report.latency_after:
        totals.append(
            (
                "latency",
                seconds_text(report.latency_before),
                seconds_text(report.latency_after),
                _speedup(report.latency_before / report.latency_after, report.speedups),
            )
        )
    print_table(
        make_console(),
        ("op type", "before", "after", "change"),
        [*rows, *totals],
        right=("before", "after", "change"),
        bold_last=len(totals),
    )


def _speedup(typical: float, between: tuple[float, float] | None) -> str:
    text = f"{typical:.2f}x as fast"
    if between is None or f"{between[0]:.1f}" == f"{between[1]:.1f}":
        return text
    return f"{text} ({between[0]:.1f}x to {between[1]:.1f}x)"


def _counted(
    name: str, old: Number | None, new: Number | None, text: Callable[[int], str]
) -> list[tuple[str, str, str, str]]:
    """The row of a count; none where it is unknown, or too long an expression to be read."""
    if isinstance(old, int) and isinstance(new, int):
        return [(name, text(old), text(new), change_text(old, new))]
    if old is None or new is None or len(f"{old}{new}") > _LONGEST_EXPRESSIONS:
        return []
    return [(name, str(old), str(new), "")]


def _problems(report: Report) -> list[str]:
    lines = []
    for entry in report.passes:
        if entry.status is PassStatus.UNDONE:
            lines.append(f"{entry.name} was undone: it {entry.problem}")
        elif entry.status is PassStatus.REPAIRED:
            lines.append(f"{entry.name} {entry.problem}: {'; '.join(entry.left_out)}")
    return lines + [f"warning: {warning}" for warning in report.warnings]


def _print_declined(passes: list[PassReport]) -> None:
    rows = []
    for entry in passes:
        counts = Counter(decline.reason for decline in entry.declined)
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            sites = [decline.site for decline in entry.declined if decline.reason == reason]
            shown = "; ".join(sites[:SITES_SHOWN])
            more = f"; and {count - SITES_SHOWN} more" if count > SITES_SHOWN else ""
            rows.append((entry.name, str(count), reason, shown + more))
    console = make_console()
    print_line(console)
    if rows:
        headings = ("declined by", "places", "because", "at")
        print_table(console, headings, rows, right=("places",))
    else:
        print_line(console, "nothing was declined")
    print_line(console)


def _print_rewrites(passes: list[PassReport]) -> None:
    rows = [(entry.name, done.site, done.detail) for entry in passes for done in entry.rewrites]
    if rows:
        console = make_console()
        print_table(console, ("changed by", "at", "what became of it"), rows)
        print_line(console)
