"""The table that `graphopt cost` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from graphopt.cli.render import count_text, make_console, print_line, print_table, size_text
from graphopt.cost.quantity import Number, Quantity, evaluated
from graphopt.cost.result import Cost, Group, NodeCost, intensity, shape_text

if TYPE_CHECKING:
    from rich.console import Console

_TYPICAL_SIZE = 16
"""What free dims are taken for where rows are sorted; it is said so beneath the table."""

_BAR = 12


def print_cost(cost: Cost, by: str, top: int) -> None:
    """Print the rows that matter most, then the totals and what limits them.

    Args:
        cost: the counts.
        by: "node", "type" or "module".
        top: how many rows to print; 0 for all. Modules are a tree, which is cut at its leaves.
    """
    console = make_console()
    weight, unit = _weight(cost)
    rows = rows_by(cost, by)
    ranked = sorted(rows, key=lambda row: -weight(row))
    kept = ranked[:top] if top else ranked
    if by == "module":
        chosen = {row.name for row in kept}
        kept = [
            row for row in sorted(rows, key=lambda row: row.name.split("/")) if row.name in chosen
        ]
    whole = max(weight(cost.total), 1)
    headings = ("node", "op type", "shape") if by == "node" else (by, "nodes")
    print_table(
        console,
        (*headings, "MACs", "FLOPs", "params", "moved", "FLOP/B", f"share of {unit}"),
        [(*_names(row, by), *_figures(row), _bar(weight(row) / whole)) for row in kept],
        right=("nodes", "MACs", "FLOPs", "params", "moved", "FLOP/B"),
    )
    if len(kept) < len(rows):
        print_line(console, f"... and {len(rows) - len(kept):,} more (--top 0 shows all)")
    print_line(console)
    _print_totals(console, cost)


def rows_by(cost: Cost, by: str) -> Sequence[NodeCost | Group]:
    """The rows for "node", "type" or "module"."""
    if by == "node":
        return cost.by_node
    return cost.by_type if by == "type" else cost.by_module


def _weight(cost: Cost) -> tuple[Callable[[NodeCost | Group], int], str]:
    """What rows are ranked by, and what it is called: FLOPs, or bytes where nothing computes."""
    sizes = dict.fromkeys(cost.symbols, _TYPICAL_SIZE)

    def value(number: Number) -> int:
        known = evaluated(number, sizes)
        return known if isinstance(known, int) else 0

    if value(cost.total.flops):
        return lambda row: value(row.flops), "FLOPs"
    return lambda row: value(row.bytes_read + row.bytes_written), "bytes"


def _names(row: NodeCost | Group, by: str) -> tuple[str, ...]:
    if isinstance(row, NodeCost):
        times = "" if row.executions == 1 else f" x{row.executions}"
        return row.name + times, row.op_type, shape_text(row.shape)
    if by == "module":
        depth = row.name.count("/") + 1 if row.name else 0
        return "  " * depth + (row.name.rsplit("/", 1)[-1] or "(model)"), f"{row.nodes:,}"
    return row.name, f"{row.nodes:,}"


def _figures(row: NodeCost | Group) -> tuple[str, ...]:
    if isinstance(row, NodeCost) and not row.counted:
        return ("?",) * 5
    moved = row.bytes_read + row.bytes_written
    density = intensity(row)
    return (
        _short(row.macs, count_text),
        _short(row.flops, count_text),
        count_text(row.parameters),
        _short(moved, size_text),
        "" if density is None else f"{density:.2f}" if density < 100 else f"{density:,.0f}",
    )


def _short(number: Number, text: Callable[[int], str]) -> str:
    return str(number) if isinstance(number, Quantity) else text(number)


def _bar(share: float) -> str:
    return f"{share:6.1%} {'█' * round(share * _BAR)}"


def _print_totals(console: Console, cost: Cost) -> None:
    whole = cost.total
    by_dtype = ", ".join(f"{name} {size_text(size)}" for name, size in cost.parameter_bytes.items())
    memory = cost.memory
    rows = [
        ("MACs", _exact(whole.macs)),
        ("FLOPs", f"{_exact(whole.flops)}  (2 per MAC, 1 per other operation)"),
        (
            "transcendentals",
            f"{_exact(whole.transcendentals)}  (exp, tanh, sqrt, ...; not in FLOPs)",
        ),
        ("parameters", f"{whole.parameters:,}  ({by_dtype or 'none'})"),
        ("bytes read", _bytes(whole.bytes_read)),
        ("bytes written", _bytes(whole.bytes_written)),
        ("activations", f"{_bytes(memory.peak_bytes)} at the peak{_at(memory.peak_node)}"),
        ("  in place", f"{_bytes(memory.peak_bytes_in_place)}{_at(memory.peak_node_in_place)}"),
    ]
    print_table(console, ("in total", ""), rows)
    if cost.symbols:
        names = ", ".join(cost.symbols)
        print_line(
            console,
            f"free dims: {names}; --dim NAME=SIZE fixes one; "
            f"rows are ranked as for {_TYPICAL_SIZE} of each",
        )
    for note in cost.notes:
        print_line(console, note, "yellow")


def _exact(number: Number) -> str:
    return str(number) if isinstance(number, Quantity) else f"{number:,}"


def _bytes(number: Number) -> str:
    return str(number) if isinstance(number, Quantity) else f"{number:,} ({size_text(number)})"


def _at(node: str | None) -> str:
    return f", at {node}" if node else ""
