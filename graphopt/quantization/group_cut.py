"""Chooses which groups to run in integers, given what each takes and what changing type costs.

    minimize  sum_g t_g(label_g)  +  sum_t Q(t) [float t has an integer reader]
                                  +  sum_(t, reader) D(t) [integer t has a float reader]

Labels are int8 and float. Every conversion costs only where labels differ, so this is a minimum
cut: the source's side runs in integers, an edge that is cut is a cost that is paid
(Greig, Porteous and Seheult, 1989).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Node = tuple[str, str]
INTEGERS: Node = ("label", "int8")
FLOAT: Node = ("label", "float")


@dataclass(frozen=True)
class Border:
    """A tensor that may change type between those who write and those who read it.

    Attributes:
        tensor: its name.
        writer: the group that writes it; "" if none does, so that it begins as float.
        readers: the groups that read it.
        read_as_float: how many others read it, which need floats.
        to_integers: seconds to make it integers, once for all readers.
        to_float: seconds to make it float, for each reader.
    """

    tensor: str
    writer: str
    readers: tuple[str, ...]
    read_as_float: int
    to_integers: float
    to_float: float


@dataclass(frozen=True)
class Costs:
    """What the choice depends on, in seconds.

    Attributes:
        as_float: group -> its time in float.
        as_integers: group -> its time in integers.
        borders: the tensors that groups read or write.
    """

    as_float: Mapping[str, float]
    as_integers: Mapping[str, float]
    borders: Sequence[Border]


def total_seconds(costs: Costs, float_groups: frozenset[str]) -> float:
    """What a choice takes by these costs."""
    total = sum(
        costs.as_float[group] if group in float_groups else seconds
        for group, seconds in costs.as_integers.items()
    )
    for border in costs.borders:
        integers = [group for group in border.readers if group not in float_groups]
        if border.writer and border.writer not in float_groups:
            total += border.to_float * (len(border.readers) - len(integers) + border.read_as_float)
        elif integers:
            total += border.to_integers
    return total


def cheapest_float_groups(
    costs: Costs, *, always_float: frozenset[str] = frozenset(), border_weight: float = 1.0
) -> frozenset[str]:
    """The groups that are float in the cheapest choice; of equal ones, the one with most int8.

    Args:
        costs: seconds by group and by border.
        always_float: groups that have to stay float.
        border_weight: what conversions count, relative to the costs of groups.
    """
    import networkx

    graph = networkx.DiGraph()
    graph.add_nodes_from((INTEGERS, FLOAT))
    for group, seconds in costs.as_integers.items():
        # Cut from the source when float; cut from the sink when in integers.
        node = ("group", group)
        _add(graph, INTEGERS, node, costs.as_float[group])
        if group in always_float:
            graph.add_edge(node, FLOAT)  # an edge without capacity is never cut
        else:
            _add(graph, node, FLOAT, seconds)
    for border in costs.borders:
        readers = [("group", reader) for reader in border.readers]
        once = ("integers", border.tensor)
        writer = ("group", border.writer) if border.writer else FLOAT
        # `once` is on the source's side if any reader is, and cut from a writer that is not.
        for reader in readers:
            graph.add_edge(reader, once)
        if readers:
            _add(graph, once, writer, border.to_integers * border_weight)
        if border.writer:
            for reader in readers:
                _add(graph, writer, reader, border.to_float * border_weight)
            _add(graph, writer, FLOAT, border.to_float * border.read_as_float * border_weight)
    _, (_, sinks) = networkx.minimum_cut(graph, INTEGERS, FLOAT)
    return frozenset(name for kind, name in sinks if kind == "group")


def _add(graph: Any, start: Node, end: Node, capacity: float) -> None:
    """Add to the capacity of an edge; in whole picoseconds, so that sums are exact."""
    units = round(capacity * 1e12)
    if not graph.has_edge(start, end):
        graph.add_edge(start, end, capacity=units)
    elif "capacity" in graph[start][end]:
        graph[start][end]["capacity"] += units
