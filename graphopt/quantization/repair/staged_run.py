"""Runs a model a stretch at a time over the same feeds, keeping only what later nodes still need.

What is asked for at the end of a stretch can be changed before the next one reads it: that is
what repair in the order of the graph needs, and every node runs once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from graphopt.graph import clone, ir, nested_graphs, outer_values, subgraphs
from graphopt.rewrite import NotApplicable
from graphopt.runtime import Feed, Session


class StagedRun:
    """A model on its way through some feeds.

    Args:
        model: the model; it is not changed.
        feeds: the data, held in memory.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
    """

    def __init__(self, model: ir.Model, feeds: Sequence[Feed], threads: int = 0) -> None:
        self._model = model
        self._threads = threads
        self._held: list[Feed] = [dict(feed) for feed in feeds]
        self._done: set[str] = set()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def held_bytes(self) -> int:
        """The memory that is held."""
        return sum(value.nbytes for feed in self._held for value in feed.values())

    def drop(self, count: int) -> None:
        """Go on with the first `count` feeds only."""
        del self._held[count:]

    def advance(self, names: Sequence[str]) -> None:
        """Compute these values of the main graph, which `values` gives until the next call.

        Raises:
            NotApplicable: a value on the way is no tensor.
        """
        stretch, computed = self._stretch(names)
        self._done |= computed
        kept = [*names, *(name for name in self._needed() if name not in names)]
        if not stretch:
            self._held = [{name: feed[name] for name in kept} for feed in self._held]
            return
        fresh = [name for name in kept if name in computed]
        part = self._part(stretch, fresh)
        session = Session(part, threads=self._threads)
        for number, feed in enumerate(self._held):
            inputs = {name: feed[name] for name in session.input_names}
            found = {**feed, **session.run(inputs)}
            self._held[number] = {name: found[name] for name in kept}
            if not all(isinstance(value, np.ndarray) for value in self._held[number].values()):
                raise NotApplicable("a value on the way is no tensor")

    def values(self, name: str) -> Iterator[np.ndarray]:
        """The value that was asked for, of one feed after another."""
        for feed in self._held:
            yield feed[name]

    def shift(self, name: str, amount: np.ndarray) -> None:
        """Add to the value that was asked for."""
        for feed in self._held:
            feed[name] = feed[name] + amount.astype(feed[name].dtype)

    def _stretch(self, names: Sequence[str]) -> tuple[list[ir.Node], set[str]]:
        """The nodes still to run for these values, and all values that they make."""
        wanted = set(names)
        stretch = []
        for node in reversed(list(self._model.graph)):
            made = {output.name for output in node.outputs if output.name}
            if made & wanted and not made & self._done:
                stretch.append(node)
                wanted |= _reads(node)
        computed = {output.name for node in stretch for output in node.outputs if output.name}
        return stretch, computed

    def _needed(self) -> list[str]:
        """What nodes that have not run read of what is known: inputs, and what others made."""
        given = {value.name for value in self._model.graph.inputs if not value.is_initializer()}
        found: dict[str, None] = {}
        for node in self._model.graph:
            if not any(output.name in self._done for output in node.outputs):
                names = _reads(node)
                found.update(
                    (name, None) for name in sorted(names) if name in self._done or name in given
                )
        return list(found)

    def _part(self, stretch: Sequence[ir.Node], outputs: Sequence[str]) -> ir.Model:
        """A model of these nodes alone, that takes what they read as inputs."""
        copied = clone(self._model)
        graph = copied.graph
        names = {node.outputs[0].name for node in stretch}
        values = {output.name: output for node in graph for output in node.outputs}
        graph.outputs[:] = [values[name] for name in outputs]
        kept = [node for node in graph if node.outputs[0].name in names]
        made = {output.name for node in kept for output in node.outputs}
        example = self._held[0]
        inputs = []
        for name in sorted(set().union(*map(_reads, kept)) - made):
            if name not in example:
                continue
            old = values.get(name)
            kind = ir.TensorType(ir.DataType.from_numpy(example[name].dtype))
            new = ir.Value(name=name, type=kind)
            if old is None:
                old = next(value for value in graph.inputs if value.name == name)
            old.name = f"{name}/before"
            for use in tuple(old.uses()):
                use.node.replace_input_with(use.idx, new)
            inputs.append(new)
        for node in reversed(list(graph)):
            if node.outputs[0].name not in names:
                _detach(node)
                graph.remove(node)
        graph.inputs[:] = [
            *inputs,
            *(value for value in graph.inputs if value.is_initializer() and value.uses()),
        ]
        for name in [name for name, value in graph.initializers.items() if not value.uses()]:
            if not graph.initializers[name].is_graph_output():
                graph.initializers.pop(name)
        return copied


def _detach(node: ir.Node) -> None:
    """Take the node, and what stands in its bodies, from the uses of what they read."""
    inner = [deep for body in subgraphs(node) for graph in nested_graphs(body) for deep in graph]
    for one in (node, *inner):
        for index in range(len(one.inputs)):
            one.replace_input_with(index, None)


def _reads(node: ir.Node) -> set[str]:
    """The names that a node reads, the bodies it holds included."""
    names = {value.name for value in node.inputs if value is not None and value.name}
    for inner in subgraphs(node):
        names.update(value.name for value in outer_values(inner) if value.name)
    return names
