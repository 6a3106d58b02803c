"""The table that `graphopt cost` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from graphopt.cli.render import (
    Console,
    count_text,
    make_console,
    print_line,
    print_table,
    share_text,
    short_name,
    size_text,
)
from graphopt.cost import Quantity
from graphopt.cost.result import NodeCost, intensity, shape_text

if TYPE_CHECKING:
    from graphopt.cli.cost_example import Example
    from graphopt.cost import Cost, Group, Number

_LONGEST_EXPRESSION = 72
_MOST_NOTES = 6


def print_cost(
    cost: Cost, example: Example, by: str, top: int, *, sort: str | None, verbose: bool
) -> None:
    """Print the rows that matter most, then the totals and what limits them.

    Args:
        cost: the counts, whose totals are expressions where dims are free.
        example: the counts at chosen sizes, which the rows show.
        by: "node", "type" or "module".
        top: how many rows to print; 0 for all. Modules are a tree, which is cut at its leaves.
        sort: what rows are ranked by: "flops", "macs", "bytes", "params", or None.
        verbose: whether long names and expressions are printed whole.
    """
    console = make_console()
    rows = rows_by(example.cost, by)
    weigh, unit = _weight(example.cost, sort)
    ranked = sorted(rows, key=lambda row: -weigh(row))
    kept = ranked[:top] if top else ranked
    if by == "module" and len(kept) < len(ranked) and weigh(kept[-1]):
        # Brothers that are alike are shown together.
        kept += [row for row in ranked[top:] if weigh(row) == weigh(kept[-1])]
    if by == "module":
        kept = _as_tree(rows, {row.name for row in kept})
    whole = max(weigh(example.cost.total), 1)
    headings = ("node", "op type", "shape") if by == "node" else (by, "nodes")
    if example.text:
        print_line(console, f"at {example.text}:", "bold")
    columns = ("MACs", "FLOPs", "exp etc.", "params", "moved", "FLOP/B")
    print_table(
        console,
        (*headings, *columns, f"share of {unit}"),
        [
            (*_names(row, by, verbose), *_figures(row), share_text(weigh(row) / whole))
            for row in kept
        ],
        right=("nodes", *columns),
    )
    if len(kept) < len(rows):
        print_line(console, f"... and {len(rows) - len(kept):,} more (--top 0 shows all)")
    print_line(console)
    _print_totals(console, cost, example, verbose)
    _print_notes(console, cost, example, verbose)


def rows_by(cost: Cost, by: str) -> Sequence[NodeCost | Group]:
    """The rows for "node", "type" or "module"."""
    if by == "node":
        return cost.by_node
    return cost.by_type if by == "type" else cost.by_module


_UNITS = {"flops": "FLOPs", "macs": "MACs", "bytes": "bytes", "params": "params"}


def _weight(cost: Cost, sort: str | None) -> tuple[Callable[[NodeCost | Group], int], str]:
    """What rows are ranked by, and what it is called."""
    weights: dict[str, Callable[[NodeCost | Group], int]] = {
        "flops": lambda row: _integer(row.flops),
        "macs": lambda row: _integer(row.macs),
        "bytes": lambda row: _integer(row.bytes_read + row.bytes_written),
        "params": lambda row: row.parameters,
    }
    chosen = sort or ("flops" if cost.total.flops else "bytes")
    return weights[chosen], _UNITS[chosen]


def _integer(number: Number) -> int:
    if isinstance(number, Quantity):
        raise TypeError(f"an example has no free dims, but {number}")
    return number


def _as_tree(rows: Sequence[NodeCost | Group], chosen: set[str]) -> list[NodeCost | Group]:
    """The chosen modules, each before those inside it, otherwise in the order in which they run."""
    place = {row.name: index for index, row in enumerate(rows)}

    def path(row: NodeCost | Group) -> list[int]:
        levels = row.name.split("/")
        return [place["/".join(levels[: depth + 1])] for depth in range(len(levels))]

    return sorted((row for row in rows if row.name in chosen), key=path)


def _names(row: NodeCost | Group, by: str, verbose: bool) -> tuple[str, ...]:
    if isinstance(row, NodeCost):
        times = "" if row.executions == 1 else f" x{row.executions}"
        name = short_name(row.name, whole=verbose)
        return name + times, row.op_type, shape_text(row.shape)
    if by == "module":
        depth = row.name.count("/") + 1 if row.name else 0
        return "  " * depth + (row.name.rsplit("/", 1)[-1] or "(model)"), f"{row.nodes:,}"
    return row.name, f"{row.nodes:,}"


def _figures(row: NodeCost | Group) -> tuple[str, ...]:
    if isinstance(row, NodeCost) and not row.counted:
        return ("?",) * 6
    density = intensity(row)
    return (
        count_text(_integer(row.macs)),
        count_text(_integer(row.flops)),
        count_text(_integer(row.transcendentals)),
        count_text(row.parameters),
        size_text(_integer(row.bytes_read + row.bytes_written)),
        "" if density is None else f"{density:.2f}" if density < 100 else f"{density:,.0f}",
    )


def _print_totals(console: Console, cost: Cost, example: Example, verbose: bool) -> None:
    shown, free = example.cost, cost
    by_dtype = ", ".join(f"{name} {size_text(size)}" for name, size in cost.parameter_bytes.items())
    figures: list[tuple[str, Number, Number, str]] = [
        ("MACs", shown.total.macs, free.total.macs, ""),
        ("FLOPs", shown.total.flops, free.total.flops, "2 per MAC, 1 per other operation"),
        (
            "transcendentals",
            shown.total.transcendentals,
            free.total.transcendentals,
            "exp, tanh, sqrt, ...; not in FLOPs",
        ),
        ("parameters", shown.total.parameters, free.total.parameters, by_dtype),
    ]
    sizes = [
        ("bytes read", shown.total.bytes_read, free.total.bytes_read, ""),
        ("bytes written", shown.total.bytes_written, free.total.bytes_written, ""),
        (
            "activations",
            shown.memory.peak_bytes,
            free.memory.peak_bytes,
            f"the peak, at {shown.memory.peak_node}" if shown.memory.peak_node else "",
        ),
        ("  in place", shown.memory.peak_bytes_in_place, free.memory.peak_bytes_in_place, ""),
    ]
    rows = [
        (name, f"{value:,}", _expression(number, verbose) or note)
        for name, value, number, note in figures
    ]
    rows += [
        (name, size_text(_integer(value)), _expression(number, verbose) or note)
        for name, value, number, note in sizes
    ]
    print_table(
        console, ("in total", "", "in free dims" if cost.symbols else ""), rows, right=("",)
    )


def _expression(number: Number, verbose: bool) -> str:
    """The text of a count with free dims, cut where it is too long to be read; else nothing."""
    if not isinstance(number, Quantity):
        return ""
    text = str(number)
    if verbose or len(text) <= _LONGEST_EXPRESSION:
        return text
    return text[:_LONGEST_EXPRESSION].rsplit(" ", 1)[0] + " ... (-v shows all)"


def _symbols(number: Number) -> tuple[str, ...]:
    return number.symbols if isinstance(number, Quantity) else ()


def _print_notes(console: Console, cost: Cost, example: Example, verbose: bool) -> None:
    if cost.symbols:
        given = dict.fromkeys(
            name for _, shape in cost.inputs for dim in shape or () for name in _symbols(dim)
        )
        names = ", ".join(given or cost.symbols)
        if not verbose and len(names) > _LONGEST_EXPRESSION:
            names = names[:_LONGEST_EXPRESSION].rsplit(", ", 1)[0] + ", ... (-v shows all)"
        fixed = "; --dim NAME=SIZE fixes one" if given else ", which depend on data"
        print_line(console, f"free dims: {names}{fixed}")
    unknown = len(cost.uncounted) - len(example.cost.uncounted)
    if unknown > 0:
        line = f"{unknown} nodes are not in the expressions: their shapes are unknown in free dims"
        print_line(console, line, "yellow")
    notes = example.cost.notes
    for note in notes if verbose else notes[:_MOST_NOTES]:
        print_line(console, note, "yellow")
    if not verbose and len(notes) > _MOST_NOTES:
        print_line(console, f"... and {len(notes) - _MOST_NOTES} more notes (-v shows all)")
