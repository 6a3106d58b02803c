"""What `graphopt cost --device` and `--measure` print of a model's time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphopt.cli.render import (
    count_text,
    make_console,
    print_line,
    print_table,
    seconds_text,
    share_text,
    short_name,
    size_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphopt.cost.arena_plan import ArenaUse
    from graphopt.cost.latency import Latency, Measured, MeasuredNode, NodeLatency


def print_latency(latency: Latency, top: int, *, verbose: bool) -> None:
    """Print the prediction for the whole model, and its slowest nodes.

    Args:
        latency: the prediction.
        top: how many nodes to print; 0 for all.
        verbose: whether long names are printed whole.
    """
    console = make_console()
    print_line(console)
    print_line(
        console,
        f"predicted on '{latency.machine}', {_threads(latency.threads)}: "
        f"{seconds_text(latency.seconds)} "
        f"({seconds_text(latency.low)} to {seconds_text(latency.high)})",
        "bold",
    )
    rows = sorted(latency.by_node, key=lambda row: -row.seconds)
    kept = rows[:top] if top else rows
    print_table(
        console,
        (
            "as ONNX Runtime runs it",
            "op type",
            "time",
            "interval",
            "FLOPs",
            "moved",
            "bound",
            "share",
        ),
        [
            (
                short_name(row.name, whole=verbose),
                _type(row.op_type),
                _time(row.seconds),
                f"{_time(row.low)} to {_time(row.high)}",
                count_text(round(row.flops)),
                size_text(round(row.bytes)),
                row.bound,
                share_text(row.share),
            )
            for row in kept
        ],
        right=("time", "interval", "FLOPs", "moved"),
    )
    _print_rest(rows, kept, latency.notes)


def print_measured(measured: Measured, threads: int, top: int, *, verbose: bool) -> None:
    """Print what a model took, node by node, beside what was predicted where that is known."""
    console = make_console()
    print_line(console)
    low, high = measured.quartiles
    spread = f"quartiles {seconds_text(low)} and {seconds_text(high)}, {measured.runs} runs"
    lines = [f"measured, {_threads(threads)}: {seconds_text(measured.seconds)} ({spread})"]
    if measured.of_peak is not None:
        lines.append(f"{measured.of_peak:.0%} of the machine's peak")
    if measured.predicted is not None:
        guess = measured.predicted
        lines.append(
            f"predicted {seconds_text(guess.seconds)} "
            f"({seconds_text(guess.low)} to {seconds_text(guess.high)})"
        )
    print_line(console, "; ".join(lines), "bold")
    rows = sorted(measured.by_node, key=lambda row: -row.seconds)
    kept = rows[:top] if top else rows
    known = measured.predicted is not None
    extra = ("predicted", "of peak") if known else ()
    print_table(
        console,
        ("executed node", "op type", "measured", *extra, "FLOPs", "moved", "share"),
        [_measured_row(row, known, verbose) for row in kept],
        right=("measured", "predicted", "of peak", "FLOPs", "moved"),
    )
    _print_rest(rows, kept, () if measured.predicted is None else measured.predicted.notes)


def print_arena(arena: ArenaUse) -> None:
    """Print what ONNX Runtime will hold for activations, and where that is most."""
    where = f", at {arena.peak_node}" if arena.peak_node else ""
    line = f"ONNX Runtime's arena holds {size_text(arena.peak_bytes)} at most in a first run{where}"
    print_line(make_console(), line)


def _measured_row(row: MeasuredNode, known: bool, verbose: bool) -> tuple[str, ...]:
    predicted = "" if row.predicted is None else _time(row.predicted)
    peak = "" if row.of_peak is None else f"{row.of_peak:.0%}"
    return (
        short_name(row.name, whole=verbose),
        _type(row.op_type),
        _time(row.seconds),
        *((predicted, peak) if known else ()),
        count_text(round(row.flops)),
        size_text(round(row.bytes)),
        share_text(row.share),
    )


def _print_rest(
    rows: Sequence[NodeLatency | MeasuredNode],
    kept: Sequence[NodeLatency | MeasuredNode],
    notes: Sequence[str],
) -> None:
    console = make_console()
    if len(kept) < len(rows):
        print_line(console, f"... and {len(rows) - len(kept):,} more (--top 0 shows all)")
    for note in notes:
        print_line(console, note, "yellow")


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads" if count else "all threads"


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us" if seconds < 1e-3 else seconds_text(seconds)


def _type(op_type: str) -> str:
    return op_type.removeprefix("com.microsoft.").removeprefix("com.ms.internal.")
