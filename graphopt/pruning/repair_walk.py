"""Walks a model forward over data a stretch of nodes at a time, holding what is still needed.

A weight that is changed when the walk has reached its layer changes everything after it, and no
node runs twice: a repair in the order of the graph costs one run of the model, not one a layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from graphopt.graph import clone, ir, outer_values, subgraphs
from graphopt.pruning.propagation.place import node_name
from graphopt.rewrite import NotApplicable
from graphopt.runtime import Feed, Session

MAX_HELD_BYTES = 2 << 30
"""Memory for values on the way."""


class Walk:
    """A model under way.

    Args:
        model: the model; weights of nodes that have not run may be changed meanwhile.
        feeds: the data; the arrays are not changed.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        max_bytes: memory for values on the way; the last feeds are left out where it is too little.
    """

    def __init__(
        self,
        model: ir.Model,
        feeds: Sequence[Feed],
        threads: int = 0,
        *,
        max_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self._model = model
        self._threads = threads
        self._max_bytes = max_bytes
        self._held: list[Feed] = [dict(feed) for feed in feeds]
        self._nodes = {node_name(node): node for node in model.graph}
        self._reads = {name: _reads(node) for name, node in self._nodes.items()}
        self._waiting = dict.fromkeys(self._nodes)
        self._kept: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def held_bytes(self) -> int:
        """The memory that is held."""
        return sum(map(_bytes, self._held))

    def drop(self, count: int) -> None:
        """Go on with the first `count` feeds."""
        del self._held[count:]

    def keep(self, name: str) -> None:
        """Hold a value, from when it is computed until it is released as often."""
        self._kept[name] += 1

    def release(self, name: str) -> None:
        """Take one `keep` back."""
        self._kept[name] -= 1

    def again(self, nodes: Sequence[str], output: str) -> None:
        """Compute a value that is held anew, through nodes whose weights have changed.

        Args:
            nodes: names of nodes that have run, in order; what they read is held.
            output: what the last of them gives.

        Raises:
            RuntimeUnavailableError: ONNX Runtime cannot run the stretch.
        """
        session = Session(self._part(nodes, [output]), threads=self._threads)
        for feed in self._held:
            feed.update(session.run({key: feed[key] for key in session.input_names}))

    def advance(self, names: Sequence[str]) -> None:
        """Compute these values of the main graph; `values` gives them until the next call.

        Fewer feeds may be left afterwards: what they take is known only now.

        Raises:
            RuntimeUnavailableError: ONNX Runtime cannot run the stretch.
        """
        stretch = self._stretch(names)
        for name in stretch:
            del self._waiting[name]
        wanted = {*names, *+self._kept}
        for name in self._waiting:
            wanted |= self._reads[name]
        made = [
            output.name
            for name in stretch
            for output in self._nodes[name].outputs
            if output.name in wanted
        ]
        session = Session(self._part(stretch, made), threads=self._threads) if made else None
        taken = 0
        for number, feed in enumerate(self._held):
            found = feed
            if session is not None:
                found = {**feed, **session.run({key: feed[key] for key in session.input_names})}
            held = {key: value for key, value in found.items() if key in wanted}
            taken += _bytes(held)
            if number and taken > self._max_bytes:
                self.drop(number)
                break
            self._held[number] = held

    def values(self, name: str) -> Iterator[np.ndarray]:
        """A value that was asked for, of one feed after another.

        Raises:
            NotApplicable: it is no tensor.
        """
        for feed in self._held:
            if not isinstance(feed.get(name), np.ndarray):
                raise NotApplicable(f"'{name}' is no tensor that is known at this point")
            yield feed[name]

    def _stretch(self, names: Sequence[str]) -> list[str]:
        """The nodes still to run for these values, in the model's order."""
        wanted = set(names)
        stretch = []
        for name in reversed(self._waiting):
            if any(output.name in wanted for output in self._nodes[name].outputs):
                stretch.append(name)
                wanted |= self._reads[name]
        return stretch[::-1]

    def _part(self, stretch: Sequence[str], outputs: Sequence[str | None]) -> ir.Model:
        """A model of these nodes alone, that takes what they read as inputs."""
        copied = clone(self._model)
        graph = copied.graph
        kept = set(stretch)
        values = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
        values |= {output.name: output for node in graph for output in node.outputs}
        made = {output.name for node in graph if node_name(node) in kept for output in node.outputs}
        reads = set().union(*(self._reads[name] for name in stretch)) - made
        inputs = [values[name] for name in sorted(reads) if name in self._held[0]]
        graph.outputs[:] = [values[name] for name in outputs]
        for node in reversed(list(graph)):
            if node_name(node) not in kept:
                for output in node.outputs:
                    if output in inputs:
                        _hand_over(output, self._held[0], inputs)
                graph.remove(node, safe=False)
                _detach(node)
        for value in inputs:
            example = self._held[0][value.name or ""]
            if isinstance(example, np.ndarray):
                value.type = ir.TensorType(ir.DataType.from_numpy(example.dtype))
                value.shape = None
        graph.inputs[:] = inputs
        for name in [name for name, value in graph.initializers.items() if not value.uses()]:
            if not graph.initializers[name].is_graph_output():
                del graph.initializers[name]
        return copied


def _bytes(feed: Feed) -> int:
    return sum(value.nbytes for value in feed.values() if isinstance(value, np.ndarray))


def _hand_over(output: ir.Value, example: Feed, inputs: list[ir.Value]) -> None:
    """Make a graph input out of what a node that is taken away gave."""
    fresh = ir.Value(name=output.name, type=output.type)
    for use in tuple(output.uses()):
        use.node.replace_input_with(use.idx, fresh)
    output.name = f"{output.name}/before"
    inputs[inputs.index(output)] = fresh


def _detach(node: ir.Node) -> None:
    """Take a node, and what stands in its bodies, from the uses of what they read."""
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)
    for body in subgraphs(node):
        for inner in body:
            _detach(inner)


def values_read(node: ir.Node) -> set[ir.Value]:
    """The inputs of a node, and what its bodies take from around them."""
    values = {value for value in node.inputs if value is not None}
    for body in subgraphs(node):
        values.update(outer_values(body))
    return values


def _reads(node: ir.Node) -> set[str]:
    return {value.name for value in values_read(node) if value.name}
