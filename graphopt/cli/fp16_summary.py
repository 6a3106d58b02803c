"""What a person reads after `graphopt fp16`."""

from __future__ import annotations

from collections import Counter

from graphopt.cli.render import (
    change_text,
    check_style,
    check_text,
    make_console,
    print_line,
    print_table,
    seconds_text,
    size_text,
)
from graphopt.pipeline.half_report import HalfReport

_SITES_SHOWN = 2
_REASONS_SHOWN = 8


def print_half_summary(source: str, report: HalfReport, *, verbose: int) -> None:
    """Print what is in half, what is not and why, and what is proved.

    Args:
        source: the model that was read.
        report: the run.
        verbose: 1 prints every reason.
    """
    console = make_console()
    print_line(console, f"{source} -> {report.output or '(dry run, nothing written)'}", "bold")
    print_line(console)
    before, after = report.before, report.after
    rows = [
        ("nodes", f"{before.nodes:,}", f"{after.nodes:,}", change_text(before.nodes, after.nodes)),
        _half_row(report),
        ("Casts", str(report.casts_before), str(report.casts_after), ""),
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
    print_table(console, ("", "before", "after", "change"), rows, right=("before", "after"))
    print_line(console)
    _print_reasons(report, verbose)
    for note in report.notes:
        print_line(console, f"note: {note}", "yellow")
    print_line(console, check_text(report.check), check_style(report.check))
    if report.task is not None:
        print_line(console, str(report.task), "green" if report.task.ok else "red")
    print_line(console, f"the result itself {report.runtime}")
    size = f" ({size_text(after.file_bytes)})" if report.output else ""
    what = f"wrote {report.output}{size}" if report.output else "dry run: nothing written"
    print_line(console, f"{what} in {seconds_text(report.seconds)}")


def _half_row(report: HalfReport) -> tuple[str, str, str, str]:
    """What is in half: nodes, or weights where only they are."""
    if report.storage_only:
        return (f"weights in {report.precision}", "", f"{len(report.half):,}", "")
    return (f"nodes in {report.precision}", "", f"{report.half_nodes:,}", "")


def _short(site: str) -> str:
    """The end of a site's name: `Erf /blocks.0/mlp/Erf -> y` is `mlp/Erf`."""
    label = site.partition(" -> ")[0] if site.count(" ") > 2 else site.rpartition(" ")[2]
    return "/".join(label.rpartition(" ")[2].split("/")[-2:])


def _print_reasons(report: HalfReport, verbose: int) -> None:
    console = make_console()
    counts = Counter(report.float32.values())
    rows = []
    for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        sites = [site for site, why in report.float32.items() if why == reason]
        more = f", and {count - _SITES_SHOWN} more" if count > _SITES_SHOWN else ""
        names = ", ".join(_short(site) for site in sites[:_SITES_SHOWN])
        rows.append((str(count), reason, names + more))
    hidden = 0 if verbose else max(0, len(rows) - _REASONS_SHOWN)
    if rows:
        shown = rows[: len(rows) - hidden]
        print_table(console, ("float32", "because", "at"), shown, right=("float32",))
        if hidden:
            print_line(console, f"and {hidden} more reasons: -v shows them")
        print_line(console)
    if report.lost:
        names = ", ".join(report.lost[:_SITES_SHOWN])
        unnamed = len(report.lost) - _SITES_SHOWN
        names += f", and {unnamed} more" if unnamed > 0 else ""
        print_line(
            console,
            f"weights too small for {report.precision}, which the outputs do not miss: {names}",
        )
    for name in report.scales_moved:
        print_line(console, f"scale moved ahead of '{name}', which overflows without it")
    for name in report.angles_reduced:
        print_line(console, f"angle '{name}' brought down to one turn: one Cast for Sin and Cos")
    for name, bound in sorted(report.clamped.items()):
        print_line(console, f"constant '{name}' clamped to {bound:g}")
