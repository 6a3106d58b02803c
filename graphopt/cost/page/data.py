"""The page's data: costs as plain values, a column for each figure of the nodes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from graphopt.cost.quantity import Number, Quantity
from graphopt.cost.result import Cost, Group, shape_text
from graphopt.errors import UsageError

if TYPE_CHECKING:
    from graphopt.cost.latency.machine import MachineProfile
    from graphopt.cost.latency.prediction import Latency

_MOST_NAMED = 5


def need_numbers(cost: Cost) -> None:
    """Refuse a cost that is not all numbers.

    Raises:
        UsageError: it depends on free dims; the message names them.
    """
    symbols = sorted({symbol for number in _numbers(cost) for symbol in _symbols(number)})
    if not symbols:
        return
    # What has brackets was named by us, after a value; most such sizes follow from dims of inputs.
    named = [symbol for symbol in symbols if not set("[(") & set(symbol)] or symbols
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    flags = " ".join(f"--dim {symbol}=1" for symbol in named[:_MOST_NAMED])
    raise UsageError(
        f"the page needs numbers, but the cost depends on {', '.join(named[:_MOST_NAMED])}{more}: "
        f"fix sizes with {flags}, or with Cost.at"
    )


def _numbers(cost: Cost) -> Iterable[Number]:
    for row in cost.by_node:
        yield from (row.executions, row.macs, row.flops, row.transcendentals)
        yield from (row.bytes_read, row.bytes_written)
    yield from (cost.memory.peak_bytes, cost.memory.peak_bytes_in_place, cost.memory.input_bytes)
    for moment in cost.memory.timeline:
        yield from (moment.bytes, moment.bytes_in_place)


def _symbols(number: Number) -> tuple[str, ...]:
    return number.symbols if isinstance(number, Quantity) else ()


def model_data(cost: Cost, label: str, latency: Latency | None) -> dict[str, Any]:
    """All that the page shows of one model; `cost` holds numbers only."""
    memory = cost.memory
    whole = cost.total
    return {
        "label": label,
        "total": {
            **_group(whole),
            "transcendentals": whole.transcendentals,
            "parameter_bytes": whole.parameter_bytes,
            "dtypes": cost.parameter_bytes,
            "peak": memory.peak_bytes,
            "peak_node": memory.peak_node,
            "peak_in_place": memory.peak_bytes_in_place,
            "peak_node_in_place": memory.peak_node_in_place,
            "input_bytes": memory.input_bytes,
        },
        "nodes": _nodes(cost),
        "types": [_group(group) for group in cost.by_type],
        "modules": [_group(group) for group in cost.by_module],
        "latency": None if latency is None else _latency(latency),
        "executed": None if latency is None else _executed(cost, latency),
        "timeline": {
            "node": [moment.node for moment in memory.timeline],
            "bytes": [moment.bytes for moment in memory.timeline],
            "in_place": [moment.bytes_in_place for moment in memory.timeline],
        },
        "notes": [*cost.notes, *(() if latency is None else latency.notes)],
    }


def machine_data(machine: MachineProfile, threads: int) -> dict[str, Any]:
    """The ceilings that the roofline chart shows, at this number of threads."""
    ceilings = machine.at(threads).ceilings
    return {
        "name": machine.name,
        "peaks": [
            {"name": "floating point", "flops": ceilings.flops},
            {"name": "8-bit integers", "flops": ceilings.integer_flops},
        ],
        "bandwidths": [
            {"name": "caches", "bytes": ceilings.near_bandwidth},
            {"name": "memory", "bytes": ceilings.far_bandwidth},
        ],
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "nodes": group.nodes,
        "macs": group.macs,
        "flops": group.flops,
        "parameters": group.parameters,
        "bytes": group.bytes_read + group.bytes_written,
    }


def _nodes(cost: Cost) -> dict[str, list[Any]]:
    rows = cost.by_node
    owned = [0] * len(rows)
    for parameter in cost.parameters:
        if parameter.readers:
            owned[parameter.readers[0]] += parameter.elements
    return {
        "name": [row.name for row in rows],
        "op": [row.op_type for row in rows],
        "module": [row.module for row in rows],
        "shape": [shape_text(row.shape) for row in rows],
        "executions": [row.executions for row in rows],
        "macs": [row.macs for row in rows],
        "flops": [row.flops for row in rows],
        "transcendentals": [row.transcendentals for row in rows],
        "parameters": [row.parameters for row in rows],
        "owned": owned,
        "bytes": [row.bytes_read + row.bytes_written for row in rows],
        "counted": [row.counted for row in rows],
        "note": [row.note for row in rows],
    }


def _latency(latency: Latency) -> dict[str, Any]:
    return {
        "seconds": latency.seconds,
        "low": latency.low,
        "high": latency.high,
        "machine": latency.machine,
        "threads": latency.threads,
    }


def _executed(cost: Cost, latency: Latency) -> dict[str, list[Any]]:
    rows = latency.by_node
    return {
        "name": [row.name or row.op_type for row in rows],
        "op": [row.op_type for row in rows],
        "kind": [row.kind for row in rows],
        "module": _modules(cost, [row.name for row in rows]),
        "seconds": [row.seconds for row in rows],
        "low": [row.low for row in rows],
        "high": [row.high for row in rows],
        "flops": [row.flops for row in rows],
        "bytes": [row.bytes for row in rows],
        "bound": [row.bound for row in rows],
    }


def _modules(cost: Cost, executed: Iterable[str]) -> list[str]:
    """The module of each executed node, which ONNX Runtime may have fused and renamed.

    It keeps a node's name, or appends to it what it did, or calls the node after what it writes.
    A node that it made itself (a change of layout) stands with the one that runs before it.
    """
    known = {f"{edge.value}_nchwc": cost.by_node[edge.source].module for edge in cost.edges}
    known |= {row.name: row.module for row in cost.by_node}
    found: list[str] = []
    module = ""
    for name in executed:
        base = name.rstrip("/")
        while base and base not in known:
            base = base.rpartition("/")[0]
        module = known.get(base, module)
        found.append(module)
    return found
