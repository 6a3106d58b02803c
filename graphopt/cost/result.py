"""The counts of a model: by node, by op type, by module and in total."""

from __future__ import annotations

import dataclasses
import difflib
import json
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from graphopt.cost.memory import MemoryUse
from graphopt.cost.quantity import Number, Quantity, total
from graphopt.errors import UsageError

if TYPE_CHECKING:
    import networkx

Row = TypeVar("Row", "NodeCost", "Edge")


@dataclass(frozen=True, slots=True)
class NodeCost:
    """What one node costs in one run of the model, all its executions together.

    Attributes:
        name: the node's name; that of its first output where it has none.
        op_type: its op type, with the domain in front where it is not ONNX's own.
        module: the path of the module that it belongs to, `encoder/layer.3`; "" at the root.
        shape: the shape of its first output; None where unknown.
        executions: how often it runs: more than once in a loop, 0 in a branch not taken, and 0
            where all is constant, which a runtime settles when it loads the model.
        macs: multiply-accumulates.
        flops: 2 for each MAC, and 1 for each other addition, multiplication, division or
            comparison.
        transcendentals: evaluations of exp, log, tanh, erf, sqrt and the like; not in `flops`.
        parameters: elements of the constants that it reads.
        parameter_bytes: bytes of these.
        bytes_read: bytes that it reads, weights included.
        bytes_written: bytes that it writes.
        note: what a person has to know about these figures.
        counted: whether there is a rule and the shapes for it; if not, the work above is 0.
    """

    name: str
    op_type: str
    module: str
    shape: tuple[Number, ...] | None
    executions: Number
    macs: Number
    flops: Number
    transcendentals: Number
    parameters: int
    parameter_bytes: int
    bytes_read: Number
    bytes_written: Number
    note: str = ""
    counted: bool = True

    @property
    def intensity(self) -> float | None:
        """FLOPs per byte moved; None where dims are free or nothing is moved."""
        return intensity(self)


@dataclass(frozen=True, slots=True)
class Group:
    """The sum over several nodes: an op type, a module, or the whole model.

    Attributes:
        name: the op type, or the module's path; "" for the whole model.
        nodes: how many nodes.
        macs: multiply-accumulates.
        flops: as for `NodeCost`.
        transcendentals: as for `NodeCost`.
        parameters: elements of the constants they read, shared ones once.
        parameter_bytes: bytes of these.
        bytes_read: bytes read.
        bytes_written: bytes written.
    """

    name: str
    nodes: int
    macs: Number
    flops: Number
    transcendentals: Number
    parameters: int
    parameter_bytes: int
    bytes_read: Number
    bytes_written: Number

    @property
    def intensity(self) -> float | None:
        """FLOPs per byte moved; None where dims are free or nothing is moved."""
        return intensity(self)


def shape_text(shape: tuple[Number, ...] | None) -> str:
    """`1x64x56x56`; "?" where it is unknown."""
    return "?" if shape is None else "x".join(str(dim) for dim in shape) or "scalar"


def intensity(row: NodeCost | Group) -> float | None:
    """The arithmetic intensity, FLOPs per byte moved; None where that is not one number."""
    moved = row.bytes_read + row.bytes_written
    if isinstance(moved, Quantity) or isinstance(row.flops, Quantity) or moved == 0:
        return None
    return row.flops / moved


@dataclass(frozen=True, slots=True)
class Edge:
    """A value that one counted node hands to another.

    Attributes:
        source: the index of the node that makes it, in `Cost.by_node`.
        target: the index of the node that reads it.
        value: its name.
        bytes: its size.
    """

    source: int
    target: int
    value: str
    bytes: Number


@dataclass(frozen=True, slots=True)
class Parameter:
    """A constant of the model, and who reads it.

    Attributes:
        dtype: the element type, `FLOAT`.
        elements: how many elements it has.
        bytes: its size.
        readers: the indices in `Cost.by_node` of the nodes that read it.
    """

    dtype: str
    elements: int
    bytes: int
    readers: tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """What a model costs: exact counts, in its free dims where it has any.

    Attributes:
        by_node: one row for each node, in the order in which they run; pandas takes them as
            they are (`pandas.DataFrame(cost.by_node)`).
        memory: what the activations take, and where that is most.
        edges: which node hands how many bytes to which.
        parameters: the constants, each once.
        notes: what limits the figures: operators without a rule, unknown trip counts, ...
        inputs: name and shape of each input of the model; None where not even its rank is known.
    """

    by_node: tuple[NodeCost, ...] = field(repr=False)
    memory: MemoryUse = field(repr=False)
    edges: tuple[Edge, ...] = field(default=(), repr=False)
    parameters: tuple[Parameter, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    inputs: tuple[tuple[str, tuple[Number, ...] | None], ...] = ()

    @cached_property
    def total(self) -> Group:
        """The whole model; shared parameters count once."""
        return self._group("", range(len(self.by_node)))

    @cached_property
    def by_type(self) -> tuple[Group, ...]:
        """One group for each op type, in order of first appearance."""
        return self._groups(lambda row: [row.op_type])

    @cached_property
    def by_module(self) -> tuple[Group, ...]:
        """One group for each module, those that hold others included; "" is the whole model.

        A module comes before those inside it, in the order in which they first run.
        """
        return self._groups(lambda row: _with_parents(row.module))

    @property
    def parameter_bytes(self) -> dict[str, int]:
        """Bytes of the parameters by element type, largest first."""
        found: dict[str, int] = {}
        for parameter in self.parameters:
            found[parameter.dtype] = found.get(parameter.dtype, 0) + parameter.bytes
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The free dims that any figure depends on, sorted."""
        found: set[str] = set()
        peaks = (self.memory.peak_bytes, self.memory.peak_bytes_in_place)
        for number in (*_fields(self.total).values(), *peaks):
            found |= _symbols_in(number)
        return tuple(sorted(found))

    @property
    def uncounted(self) -> tuple[NodeCost, ...]:
        """The nodes that no figure includes, because a rule or a shape is missing."""
        return tuple(row for row in self.by_node if not row.counted)

    def at(self, sizes: Mapping[str, int]) -> Cost:
        """The cost at these sizes of free dims; dims that `sizes` does not name stay free.

        At sizes that the model cannot run at the figures mean nothing.

        Raises:
            UsageError: there are free dims, and none of that name, or a size is no integer of at
                least 0.
        """
        sizes = self._checked(sizes)
        return dataclasses.replace(
            self,
            by_node=tuple(_at(row, sizes) for row in self.by_node),
            memory=self.memory.at(sizes),
            edges=tuple(_at(edge, sizes) for edge in self.edges),
            inputs=_value_at(self.inputs, sizes),
        )

    def _checked(self, sizes: Mapping[str, int]) -> dict[str, int]:
        known = {*self.symbols, *_symbols_in(self.inputs)}
        if not known:
            return {}  # whatever was free is fixed by now
        for name, size in sizes.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                has = ", ".join(f"'{symbol}'" for symbol in sorted(known)[:5]) or "none"
                hint = f"did you mean '{near[0]}'?" if near else f"there is {has}"
                raise UsageError(f"no count depends on a dim '{name}'; {hint}")
            if isinstance(size, bool) or not hasattr(size, "__index__") or size < 0:
                raise UsageError(f"dim '{name}' must be an integer of at least 0, not {size!r}")
        return {name: operator.index(size) for name, size in sizes.items()}

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data; a number that depends on free dims is its text."""
        return {
            "format": "graphopt-cost",
            "version": 1,
            "total": _with_intensity(self.total),
            "parameter_bytes_by_dtype": self.parameter_bytes,
            "memory": self.memory.to_dict(),
            "symbols": list(self.symbols),
            "notes": list(self.notes),
            "inputs": {name: _plain_value(shape) for name, shape in self.inputs},
            "by_node": [_with_intensity(row) for row in self.by_node],
            "by_type": [_with_intensity(group) for group in self.by_type],
            "by_module": [_with_intensity(group) for group in self.by_module],
            "edges": [_plain(edge) for edge in self.edges],
            "parameters": [_plain(parameter) for parameter in self.parameters],
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def to_networkx(self) -> networkx.MultiDiGraph[int]:
        """The graph, with each node's row as its attributes and bytes on the edges.

        Nodes are indices into `by_node`; an edge has `value` and `bytes`. Attributes are texts and
        numbers (quantities where dims are free). There are no nodes for inputs and outputs of
        the model; what the body of a Loop or an If makes has no edge to the node that holds it.
        """
        import networkx

        graph: networkx.MultiDiGraph[int] = networkx.MultiDiGraph()
        for index, row in enumerate(self.by_node):
            graph.add_node(index, **{**_fields(row), "shape": shape_text(row.shape)})
        for edge in self.edges:
            graph.add_edge(edge.source, edge.target, value=edge.value, bytes=edge.bytes)
        return graph

    def _groups(self, names_of: Callable[[NodeCost], Iterable[str]]) -> tuple[Group, ...]:
        members: dict[str, list[int]] = {}
        for index, row in enumerate(self.by_node):
            for name in names_of(row):
                members.setdefault(name, []).append(index)
        readers = self._constants_of()
        return tuple(self._group(name, rows, readers) for name, rows in members.items())

    def _group(
        self, name: str, rows: Iterable[int], constants: Mapping[int, list[int]] | None = None
    ) -> Group:
        members = [self.by_node[index] for index in rows]
        if constants is None:
            read = self.parameters
        else:
            places = dict.fromkeys(p for index in rows for p in constants.get(index, ()))
            read = tuple(self.parameters[place] for place in places)
        return Group(
            name,
            len(members),
            total(row.macs for row in members),
            total(row.flops for row in members),
            total(row.transcendentals for row in members),
            sum(parameter.elements for parameter in read),
            sum(parameter.bytes for parameter in read),
            total(row.bytes_read for row in members),
            total(row.bytes_written for row in members),
        )

    def _constants_of(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for place, parameter in enumerate(self.parameters):
            for index in parameter.readers:
                found.setdefault(index, []).append(place)
        return found


def _with_intensity(row: NodeCost | Group) -> dict[str, Any]:
    return {**_plain(row), "intensity": intensity(row)}


def _symbols_in(value: Any) -> set[str]:
    if isinstance(value, tuple):
        return {name for item in value for name in _symbols_in(item)}
    return set(value.symbols) if isinstance(value, Quantity) else set()


def _with_parents(path: str) -> list[str]:
    """`a/b` -> ["", "a", "a/b"]."""
    levels = path.split("/") if path else []
    return ["", *("/".join(levels[: depth + 1]) for depth in range(len(levels)))]


def _fields(row: Any) -> dict[str, Any]:
    return {name.name: getattr(row, name.name) for name in dataclasses.fields(row)}


def _plain(row: Any) -> dict[str, Any]:
    return {name: _plain_value(value) for name, value in _fields(row).items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain_value(item) for item in value]
    return str(value) if isinstance(value, Quantity) else value


def _at(row: Row, sizes: Mapping[str, int]) -> Row:
    changed: dict[str, Any] = {
        name: _value_at(value, sizes) for name, value in _fields(row).items()
    }
    return dataclasses.replace(row, **changed)


def _value_at(value: Any, sizes: Mapping[str, int]) -> Any:
    if isinstance(value, tuple):
        return tuple(_value_at(item, sizes) for item in value)
    return value.at(sizes) if isinstance(value, Quantity) else value
