"""The memory that ONNX Runtime's CPU arena holds during the first run of a session.

Its planner is not the liveness of `graphopt.cost.memory`: fewer kernels run in place (Relu does,
Add does not), and a tensor gets the buffer of a dead one of the same shape, which is then not
released in between. The arena adds padding (`arena_chunks`), and some kernels ask it for scratch
space. What follows is that planner's procedure, run on the graph as it is executed, whose nodes
are in the order of execution:

    for each output of each node, in order:
        an output of the graph        -> a buffer of its own
        a view                        -> its input's buffer
        in place, and the input's
          buffer has no other use     -> its input's buffer
        a dead buffer of equal shape  -> that one, the one that died last
        else                          -> a new buffer
    a buffer is released after the last node that reads anything in it

Inputs are the caller's and weights are elsewhere: neither is counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphopt.cost.arena_chunks import Arena, Chunk
from graphopt.cost.arena_scratch import scratch, static_dims
from graphopt.cost.planner_shapes import Dims, planner_shapes
from graphopt.cost.schedule import CONTRIB, NCHWC, Shares, Step, shares, steps_of
from graphopt.graph import ir
from graphopt.graph.walk import subgraphs

Kind = tuple[int, Dims]
"""Bytes of an element, and dims: what the planner compares."""

# Found by running each kernel of ONNX Runtime 1.31 with an input that dies there, and reading
# in its profile whether the arena was asked for more.
_VIEWS: Shares = shares("", (0,), "Flatten Reshape Squeeze Unsqueeze")
_IN_PLACE: Shares = {
    **shares(
        "",
        (0,),
        "Cast Celu Clip Elu HardSigmoid Identity LeakyRelu LogSoftmax Relu ScatterElements Selu "
        "Shrink Sigmoid Softmax Softplus Softsign Tanh ThresholdedRelu Trilu",
    ),
    **shares(CONTRIB, (3,), "FusedConv"),
    **shares(NCHWC, (3,), "Conv"),
}
_STRING = ir.DataType.STRING


@dataclass(frozen=True, slots=True)
class Buffer:
    """A piece of memory: taken at one step, released after another (or after the last)."""

    size: int
    birth: int
    death: int


@dataclass(frozen=True, slots=True)
class ArenaUse:
    """What the arena holds, weights not counted.

    Attributes:
        peak_bytes: the most that it has handed out at once, padding included.
        requested_bytes: the most that was asked for at once by tensors, without padding and
            without the scratch space of kernels.
        peak_node: the name of the node at which `requested_bytes` is first reached.
        timeline: for each node the bytes asked for by tensors while it runs.
        unsized: the values of unknown size, which count nothing.
    """

    peak_bytes: int
    requested_bytes: int
    peak_node: str
    timeline: tuple[int, ...]
    unsized: tuple[str, ...] = ()


def arena_use(executed: ir.Model, source: ir.Model, *, threads: int = 1) -> ArenaUse:
    """Estimate what the arena holds in the first run of a session.

    Args:
        executed: `graphopt.runtime.executed_model` of `source`, its shapes those of the run.
        source: the model that the session is made of.
        threads: threads within one operator.
    """
    graph = executed.graph
    shapes = planner_shapes(executed, source)
    return _arena_use(graph, shapes, threads)


def _arena_use(graph: ir.Graph, shapes: Mapping[ir.Value, Dims], threads: int) -> ArenaUse:
    sizes: dict[Hashable, int] = {}
    kinds: dict[Hashable, Kind] = {}
    unsized = []
    for node in graph:
        for value in node.outputs:
            if not value.name:
                continue
            size = _bytes(value)
            if size is None:
                unsized.append(value.name)
            sizes[value] = size or 0
            dims = shapes.get(value)
            if dims is not None and None not in dims and value.dtype not in (None, _STRING):
                kinds[value] = (value.dtype.bitwidth, dims)
    steps = steps_of(graph, views=_VIEWS, in_place=_IN_PLACE)
    made = plan(steps, sizes, kinds, frozenset(graph.outputs))
    inner = [_inner(node, threads) for node in graph]
    pieces = [(*scratch(node, threads), held) for node, held in zip(graph, inner, strict=True)]
    timeline = [
        held + inside for held, inside in zip(_requested(len(steps), made), inner, strict=True)
    ]
    peak = max(timeline, default=0)
    return ArenaUse(
        peak_bytes=_handed_out(made, pieces),
        requested_bytes=peak,
        peak_node=steps[timeline.index(peak)].name if steps else "",
        timeline=tuple(timeline),
        unsized=tuple(unsized),
    )


def _inner(node: ir.Node, threads: int) -> int:
    """What the tensors of a node's body take; of the larger branch."""
    # Of what is inside bodies the planner is told little: nothing is taken to be reused there.
    bodies = (_arena_use(body, {}, threads) for body in subgraphs(node))
    return max((body.requested_bytes for body in bodies), default=0)


def plan(
    steps: Sequence[Step],
    sizes: Mapping[Hashable, int],
    kinds: Mapping[Hashable, Kind],
    outputs: frozenset[Hashable],
) -> list[Buffer]:
    """The buffers that the planner makes, in the order of their birth.

    Args:
        steps: the nodes in the order of execution.
        sizes: the bytes of every value that a step writes.
        kinds: element size and dims of the values whose shape is known before the run.
        outputs: the values that the caller gets.
    """
    return _Planner(steps, sizes, kinds, outputs).buffers()


class _Planner:
    """Follows the uses of each buffer. A buffer is named after the first value in it."""

    def __init__(
        self,
        steps: Sequence[Step],
        sizes: Mapping[Hashable, int],
        kinds: Mapping[Hashable, Kind],
        outputs: frozenset[Hashable],
    ) -> None:
        self._steps = steps
        self._sizes = sizes
        self._kinds = kinds
        self._outputs = outputs
        self._first: dict[Hashable, Hashable] = {}
        self._dead: dict[Kind, list[Hashable]] = {}
        # To be written is a use, and so is to be wanted by the caller or to belong to it.
        self._uses = Counter(outputs)
        for step in steps:
            self._uses.update(step.reads)
            self._uses.update(step.writes)
        written = {value for step in steps for value in step.writes}
        self._uses.update(value for value in list(self._uses) if value not in written)

    def buffers(self) -> list[Buffer]:
        born: dict[Hashable, int] = {}
        last_read: dict[Hashable, int] = {}
        for index, step in enumerate(self._steps):
            for value in step.writes:
                shared = self._shared(step, value)
                if shared is None:
                    born[value] = index
                else:
                    self._first[value] = shared
                    self._uses[shared] += self._uses[value]
            for value in (*step.reads, *step.writes):
                first = self._first.get(value, value)
                self._uses[first] -= 1
                if not self._uses[first] and first in self._kinds:
                    self._dead.setdefault(self._kinds[first], []).append(first)
            for value in step.reads:
                last_read[self._first.get(value, value)] = index
        end = len(self._steps)
        # What nobody reads is not released before the run ends.
        read = {value for step in self._steps for value in step.reads}
        for step in self._steps:
            for value in step.writes:
                if value not in read or value in self._outputs:
                    last_read[self._first.get(value, value)] = end
        return [Buffer(self._sizes[v], birth, last_read[v]) for v, birth in born.items()]

    def _shared(self, step: Step, value: Hashable) -> Hashable | None:
        """The buffer that a value shares; None if it gets a new one."""
        if value in self._outputs:
            return None
        for written, read in step.views:
            if written == value:
                return self._first.get(read, read)
        kind = self._kinds.get(value)
        if kind is None:
            return None
        for written, read in step.in_place:
            first = self._first.get(read, read)
            if written == value and self._uses[first] == 1 and self._kinds.get(read) == kind:
                return first
        dead = self._dead.get(kind)
        return dead.pop() if dead and kind[1] else None


def _requested(count: int, made: Iterable[Buffer]) -> list[int]:
    """The bytes in buffers at each of `count` steps."""
    change = [0] * (count + 2)
    for buffer in made:
        change[buffer.birth] += buffer.size
        change[buffer.death + 1] -= buffer.size
    held = 0
    result = []
    for index in range(count):
        held += change[index]
        result.append(held)
    return result


def _handed_out(made: Iterable[Buffer], pieces: Sequence[Sequence[int]]) -> int:
    """The peak of an arena that serves these buffers, and scratch space while a step runs."""
    count = len(pieces)
    born: list[list[Buffer]] = [[] for _ in range(count)]
    for buffer in made:
        born[buffer.birth].append(buffer)
    dying: list[list[Chunk | None]] = [[] for _ in range(count + 1)]
    arena = Arena()
    for index in range(count):
        for buffer in born[index]:
            dying[buffer.death].append(arena.allocate(buffer.size))
        briefly = [arena.allocate(size) for size in pieces[index]]
        for chunk in (*briefly, *dying[index]):
            arena.release(chunk)
    return arena.peak


def _bytes(value: ir.Value) -> int | None:
    """The size of a value; None where it is unknown."""
    dims = static_dims(value)
    if dims is None or value.dtype is None:
        return None
    return 0 if value.dtype == _STRING else math.prod(dims) * value.dtype.bitwidth // 8
