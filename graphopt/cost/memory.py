"""Activation memory by liveness: what is held while each node runs, and the peak.

    held(t) = inputs + sum of the buffers with birth <= t <= death + what t holds inside itself

A buffer is born at the step that writes it and dies at the last step that reads it; a step's
inputs and outputs are in memory together. What counts, and for how long:

- Activations count, weights and constants do not.
- Inputs of the graph belong to the caller: they count from the first step to the last.
- Outputs of the graph go to the caller: each has a buffer of its own, held to the end.
- A view (Reshape, Squeeze, ...) is another name for its input's buffer and costs nothing.
- In place, an elementwise node writes over an input of the same size that dies there.
- While a Loop, Scan or If runs, the peak of its body (of the larger branch) is held as well.
- Sizes are those of the elements: no padding, and no scratch space of kernels.
  `graphopt.cost.arena_plan` has what ONNX Runtime makes of it.

Sizes may be numbers with free dims; then so is the peak: a maximum over the steps, without
those that another one is always at least as large as.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.cost.quantity import Number, Quantity, evaluated, largest, maximum, total
from graphopt.cost.schedule import Step, steps_of
from graphopt.cost.values import Values
from graphopt.graph import ir
from graphopt.graph.walk import subgraphs


@dataclass(frozen=True, slots=True)
class Moment:
    """What is held while one node runs.

    Attributes:
        node: the node's name; that of its first output where it has none.
        bytes: bytes held where nothing is computed in place.
        bytes_in_place: bytes held where what can be is.
    """

    node: str
    bytes: Number
    bytes_in_place: Number


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The activation memory of a schedule; the module says what counts.

    Attributes:
        peak_bytes: the most that is held at any step, nothing being computed in place.
        peak_node: the first node at which that is reached; None where it depends on the free
            dims (or there is no node).
        peak_bytes_in_place: the same where what can be is computed in place.
        peak_node_in_place: the first node at which that is reached, or None as above.
        input_bytes: the part of every figure here that is the caller's inputs.
        timeline: one entry per node of the main graph, in the order in which they run.
    """

    peak_bytes: Number
    peak_node: str | None
    peak_bytes_in_place: Number
    peak_node_in_place: str | None
    input_bytes: Number
    timeline: tuple[Moment, ...]

    def at(self, sizes: Mapping[str, int]) -> MemoryUse:
        """The same at these sizes of the free dims; dims that `sizes` does not name stay free.

        What is computed in place is what can be at all sizes: two sizes that happen to be equal
        at these are no reason.
        """
        return _of_timeline(
            evaluated(self.input_bytes, sizes),
            tuple(
                Moment(m.node, evaluated(m.bytes, sizes), evaluated(m.bytes_in_place, sizes))
                for m in self.timeline
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data; a number that depends on free dims is its text."""
        return {
            "peak_bytes": _plain(self.peak_bytes),
            "peak_node": self.peak_node,
            "peak_bytes_in_place": _plain(self.peak_bytes_in_place),
            "peak_node_in_place": self.peak_node_in_place,
            "input_bytes": _plain(self.input_bytes),
            "timeline": [
                {
                    "node": moment.node,
                    "bytes": _plain(moment.bytes),
                    "bytes_in_place": _plain(moment.bytes_in_place),
                }
                for moment in self.timeline
            ],
        }


def memory_of(graph: ir.Graph, values: Values) -> MemoryUse:
    """The activation memory of a graph that runs in the order of its nodes.

    A value of unknown shape counts as a free size of its own, `bytes(name)`.
    """

    def inner(node: ir.Node) -> tuple[Number, Number]:
        apart: Number = 0
        in_place: Number = 0
        for body in subgraphs(node):
            use = memory_of(body, values)
            apart = maximum(apart, use.peak_bytes)
            in_place = maximum(in_place, use.peak_bytes_in_place)
        return apart, in_place

    inputs = [value for value in graph.inputs if not value.is_initializer()]
    written = (value for node in graph for value in node.outputs if value.name)
    sizes: dict[Hashable, Number] = {value: values.bytes_of(value) for value in (*inputs, *written)}
    return memory_use(steps_of(graph, inner=inner), sizes, inputs, graph.outputs)


def memory_use(
    steps: Sequence[Step],
    sizes: Mapping[Hashable, Number],
    inputs: Iterable[Hashable] = (),
    outputs: Iterable[Hashable] = (),
) -> MemoryUse:
    """The memory that a schedule takes; linear in its reads and writes where sizes are known.

    Args:
        steps: the nodes, in the order in which they run.
        sizes: the bytes of every value that a step writes, and of the inputs.
        inputs: the values that the caller hands in.
        outputs: the values that the caller gets.
    """
    held = total(sizes[value] for value in dict.fromkeys(inputs))
    kept = frozenset(outputs)
    apart = _held(steps, buffers(steps, sizes, kept, in_place=False), held, 0)
    shared = _held(steps, buffers(steps, sizes, kept, in_place=True), held, 1)
    timeline = tuple(
        Moment(step.name, a, b) for step, a, b in zip(steps, apart, shared, strict=True)
    )
    return _of_timeline(held, timeline)


@dataclass(slots=True)
class Buffer:
    """A piece of memory: born at one step, dead after another (len(steps): the caller has it)."""

    size: Number
    birth: int
    death: int


def buffers(
    steps: Sequence[Step],
    sizes: Mapping[Hashable, Number],
    outputs: frozenset[Hashable],
    *,
    in_place: bool,
) -> list[Buffer]:
    """The buffers of a schedule, in the order of their birth."""
    last_use: dict[Hashable, int] = {}
    for index, step in enumerate(steps):
        last_use.update(dict.fromkeys(step.reads, index))
    last_use.update(dict.fromkeys(outputs, len(steps)))
    # A view keeps its source, and so does a view of the view: backwards, the last comes first.
    for step in reversed(steps):
        for value, source in step.views:
            if value not in outputs and value in last_use:
                last_use[source] = max(last_use[source], last_use[value])
    made: list[Buffer] = []
    place: dict[Hashable, Buffer] = {}
    for index, step in enumerate(steps):
        views = dict(step.views)
        taken: list[Buffer] = []
        for value in dict.fromkeys(step.writes):
            if value in views and value not in outputs:
                if views[value] in place:  # otherwise it is the caller's, or a weight
                    place[value] = place[views[value]]
                continue
            buffer = None
            if in_place and value not in outputs:
                for written, read in step.in_place:
                    found = place.get(read) if written == value else None
                    if found and found.death == index and found.size == sizes[value]:
                        buffer = None if any(found is other for other in taken) else found
                    if buffer:
                        break
            if buffer is None:
                buffer = Buffer(sizes[value], index, index)
                made.append(buffer)
            buffer.death = last_use.get(value, index)
            taken.append(buffer)
            place[value] = buffer
    return made


def _held(
    steps: Sequence[Step], made: Iterable[Buffer], held: Number, which_inner: int
) -> list[Number]:
    """The bytes held at each step."""
    born: list[list[Number]] = [[] for _ in steps]
    died: list[list[Number]] = [[] for _ in steps]
    for buffer in made:
        born[buffer.birth].append(buffer.size)
        if buffer.death < len(steps):
            died[buffer.death].append(buffer.size)
    result = []
    for step, arriving, leaving in zip(steps, born, died, strict=True):
        held = total((held, *arriving))
        result.append(total((held, step.inner[which_inner])))
        if leaving:
            held = held - total(leaving)
    return result


def _of_timeline(inputs: Number, timeline: tuple[Moment, ...]) -> MemoryUse:
    names = [moment.node for moment in timeline]
    peak, node = _peak([moment.bytes for moment in timeline], names, inputs)
    in_place, node_in_place = _peak([moment.bytes_in_place for moment in timeline], names, inputs)
    return MemoryUse(peak, node, in_place, node_in_place, inputs, timeline)


def _peak(held: Sequence[Number], names: Sequence[str], least: Number) -> tuple[Number, str | None]:
    """The largest number, and the name that goes with it if one step has it at all sizes."""
    peak = largest((least, *held))
    return (peak, names[held.index(peak)]) if peak in held else (peak, None)


def _plain(number: Number) -> int | str:
    return str(number) if isinstance(number, Quantity) else number
