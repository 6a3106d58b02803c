"""What a person reads after `graphopt quantize`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from graphopt.cli.render import (
    Console,
    change_text,
    make_console,
    print_line,
    print_table,
    seconds_text,
    short_name,
    size_text,
)
from graphopt.cli.tensor_table import decibels_text
from graphopt.pipeline.quantization.report import GroupReport, QuantizeReport

_GROUPS_SHOWN, _REASONS_SHOWN = 30, 8
_LONGEST_NAME = 24
"""So that the table fits into 80 columns."""


def print_quantization(source: str, report: QuantizeReport, *, verbose: int) -> None:
    """Print the groups, before and after, and what is known of the accuracy.

    Args:
        source: the model that was read.
        report: the run.
        verbose: 1 shows all groups, and the other nodes that stay float.
    """
    console = make_console()
    print_line(console, f"{source} -> {report.output or '(dry run, nothing written)'}", "bold")
    print_line(console)
    _print_groups(report, whole=verbose > 0)
    _print_difference(report)
    if report.curve:
        _print_curve(report)
    for line in report.repairs:
        print_line(console, f"repair: {line}")
    for line in report.warnings:
        print_line(console, f"warning: {line}", "yellow")
    if verbose and report.declined:
        rows = [(short_name(name, whole=verbose > 1), why) for name, why in report.declined.items()]
        print_table(console, ("other nodes in float", "because"), rows)
        print_line(console)
    _print_accuracy(report)
    size = f" ({size_text(report.after.file_bytes)})" if report.output else ""
    what = f"wrote {report.output}{size}" if report.output else "dry run: nothing written"
    print_line(console, f"{what} in {seconds_text(report.seconds)}")


def _print_groups(report: QuantizeReport, *, whole: bool) -> None:
    console = make_console()
    count = len(report.groups)
    integers = sum(group.precision != "float" for group in report.groups)
    calibrated = f", {report.method} over {report.samples} samples" if report.method else ""
    print_line(
        console,
        f"{report.kind}: {integers} of {count} groups in integers for {report.backend}{calibrated}",
    )
    print_line(console)
    if report.kind == "float" and not whole:
        return  # there is one reason for all, which the last lines tell
    # The ones in float and the least accurate ones are what a person looks for.
    shown = report.groups
    if not whole and count > _GROUPS_SHOWN:
        ranked = sorted(
            report.groups,
            key=lambda group: (group.precision != "float", _sqnr(group)),
        )
        keep = {group.name for group in ranked[:_GROUPS_SHOWN]}
        shown = [group for group in report.groups if group.name in keep]
    if shown:
        print_table(
            console,
            ("group", "op type", "integers for", "SQNR", "gain"),
            [_row(group, whole=whole) for group in shown],
            right=("SQNR", "gain"),
        )
        if len(shown) < count:
            print_line(console, f"and {count - len(shown)} more: -v shows them")
        print_line(console)
        _print_reasons(console, report.groups, whole=whole)


def _print_reasons(console: Console, groups: Sequence[GroupReport], *, whole: bool) -> None:
    """Why groups are float; those with one reason in one line."""
    names: dict[str, list[str]] = {}
    for group in groups:
        if group.precision == "float":
            names.setdefault(group.reason, []).append(short_name(group.name, whole=whole))
    listed = sorted(names.items(), key=lambda item: -len(item[1]))
    for reason, some in listed if whole else listed[:_REASONS_SHOWN]:
        who = some[0] if len(some) == 1 else f"{len(some)} groups"
        print_line(console, f"float: {who}: {reason}")
    if not whole and len(listed) > _REASONS_SHOWN:
        print_line(console, f"and {len(listed) - _REASONS_SHOWN} more reasons: -v shows them")
    if listed:
        print_line(console)


def _row(group: GroupReport, *, whole: bool) -> tuple[str, ...]:
    low_high = group.range
    return (
        short_name(group.name, whole=whole, longest=_LONGEST_NAME),
        group.op_type,
        group.precision if low_high is None else f"{low_high[0]:.3g} to {low_high[1]:.3g}",
        "" if group.sqnr is None else decibels_text(group.sqnr),
        "" if group.gain is None else f"{group.gain * 1e6:.0f} us",
    )


def _sqnr(group: GroupReport) -> float:
    return float("inf") if group.sqnr is None else group.sqnr


def _print_difference(report: QuantizeReport) -> None:
    before, after = report.before, report.after
    rows = [
        ("nodes", f"{before.nodes:,}", f"{after.nodes:,}", change_text(before.nodes, after.nodes)),
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
    if report.latency_before and report.latency_after:
        rows.append(
            (
                "latency",
                seconds_text(report.latency_before),
                seconds_text(report.latency_after),
                f"{report.latency_before / report.latency_after:.2f}x as fast",
            )
        )
    if report.metric is not None and report.metric_after is not None:
        old = report.metric_before
        known = old is not None and old != float("inf")
        change = f"{report.metric_after - old:+.4g}" if known and old is not None else ""
        rows.append(
            (report.metric, f"{old:.4g}" if known else "", f"{report.metric_after:.4g}", change)
        )
    console = make_console()
    print_table(console, ("", "before", "after", "change"), rows, right=("before", "after"))
    print_line(console)


def _print_curve(report: QuantizeReport) -> None:
    console = make_console()
    print_table(
        console,
        ("groups in float", report.metric or "metric", "gain kept", ""),
        [
            (
                str(item.float_groups),
                f"{item.value:.5g}",
                f"{item.gain:.0%}",
                "" if item.allowed else "not allowed",
            )
            for item in report.curve
        ],
        right=("groups in float", report.metric or "metric", "gain kept"),
    )
    print_line(console)


def _print_accuracy(report: QuantizeReport) -> None:
    console = make_console()
    reasons = Counter(group.reason for group in report.groups if group.precision == "float")
    if report.kind == "float" and reasons:
        print_line(console, f"left float: {reasons.most_common(1)[0][0]}", "yellow")
        return
    if report.sqnr is None:
        return
    what = "" if report.disjoint else " (which calibrated it too)"
    print_line(
        console,
        f"outputs: SQNR {decibels_text(report.sqnr)} on {report.checked_on} samples{what}",
        "green" if report.sqnr >= 20 else "yellow",
    )
