"""Carries out one rewrite: new nodes and constants in, the old ones out, names and origin kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphopt.graph import ir
from graphopt.graph.scratch import outside
from graphopt.graph.walk import all_graphs, all_nodes, subgraphs
from graphopt.rewrite.constant_time import remove_node, use_count
from graphopt.rewrite.journal import Journal, NotApplicable, site_of

ORIGIN_KEY = "graphopt.from"
"""Metadata key on a new node: the names of the input model's nodes that it stands for."""
PASS_KEY = "graphopt.pass"  # noqa: S105 - a metadata key, not a secret
"""Metadata key on a new node: the pass that made it."""

_STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


class Rewriter:
    """The changes that a pass makes to one model.

    Nodes made with `node` and values made with `initializer` belong to the rewrite under
    way: `replace` puts them in place, `discard` takes them back.
    """

    def __init__(self, model: ir.Model, journal: Journal) -> None:
        self.model = model
        self.journal = journal
        self.touched: list[ir.Node] = []
        self._pending: list[ir.Node] = []
        self._new_initializers: list[ir.Value] = []
        self._names: set[str] | None = None
        self._node_names: set[str] | None = None
        self._next_number: dict[str, int] = {}
        self._new_names: list[tuple[str, int, str]] = []
        self._output_positions: dict[ir.Graph, dict[ir.Value, list[int]]] = {}
        self._function_graphs = {
            id(graph)
            for function in model.functions.values()
            for graph in (function.graph, *function.subgraphs())
        }
        self._place: ir.Graph | None = None
        self._sources: tuple[ir.Node, ...] = ()
        self._edited = False

    def begin(self, root: ir.Node) -> None:
        """Start a rewrite at `root`."""
        self._place = root.graph
        self._sources = (root,)
        self._pending.clear()
        self._new_initializers.clear()
        self._new_names.clear()
        self.touched.clear()
        self._edited = False

    def stand_for(self, sources: Sequence[ir.Node]) -> None:
        """Say which nodes the new ones stand for: they inherit origin and metadata."""
        self._sources = tuple(sources)

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | Iterable[ir.Attr] = (),
        *,
        domain: str = "",
        outputs: int = 1,
    ) -> ir.Node:
        """Make a node of this rewrite; `replace` inserts it, in the order of making."""
        if isinstance(attributes, Mapping):
            converted: list[ir.Attr] = [
                value
                if isinstance(value, ir.Attr)
                else ir.convenience.convert_attribute(key, value)
                for key, value in attributes.items()
            ]
        else:
            converted = list(attributes)
        node = ir.Node(domain, op_type, list(inputs), converted, num_outputs=outputs)
        self._pending.append(node)
        return node

    def initializer(self, tensor: np.ndarray | ir.TensorProtocol, name: str) -> ir.Value:
        """Add a constant beside the rewrite's root, under a unique name made from `name`.

        A function body can hold no initializers; there the constant is a Constant node.
        """
        if self._place is None:
            raise NotApplicable("the root has been removed from its graph")
        unique = self.unique_name(name)
        constant = ir.tensor(tensor, name=unique) if isinstance(tensor, np.ndarray) else tensor
        if isinstance(constant, ir.Tensor):
            constant = outside(constant)
        if id(self._place) in self._function_graphs:
            node = self.node("Constant", [], {"value": constant})
            value = node.outputs[0]
            value.name = unique
        else:
            renamed = _named(constant, unique)
            value = ir.Value(name=unique, const_value=renamed)
            self._place.initializers.add(value)
            self._new_initializers.append(value)
        value.shape = ir.Shape(constant.shape.numpy())
        value.type = ir.TensorType(constant.dtype)
        return value

    def unique_name(self, name: str) -> str:
        """`name`, or `name` with the first number behind it that no value has yet."""
        if self._names is None:
            self._names = {
                value.name
                for graph in all_graphs(self.model)
                for value in _values_of(graph)
                if value.name
            }
        start = self._next_number.get(name, 0)
        unique, number = _first_free(name, start, self._names)
        self._names.add(unique)
        self._new_names.append((name, start, unique))
        self._next_number[name] = number + 1
        return unique

    def replace(
        self,
        node: ir.Node,
        by: ir.Node | ir.Value | Sequence[ir.Value | None],
        detail: str | None = None,
    ) -> None:
        """Let `by` take the place of `node`, and remove what nobody uses any more.

        Every output of `node` is replaced, in order, by an output of the new node or by the
        given value; None stands for an output that nobody uses. New values take the old
        names, so that a tensor keeps its name through the rewrite. Graph outputs keep their
        names in every case.

        Raises:
            NotApplicable: an output of `node` is a graph output that the value given cannot
                stand for (it is an input, an initializer or another output itself).
        """
        if isinstance(by, ir.Node):
            values: Sequence[ir.Value | None] = by.outputs
        elif isinstance(by, ir.Value):
            values = (by,)
        else:
            values = by
        graph = node.graph
        if graph is None:
            raise NotApplicable("the node has been removed already")
        if isinstance(by, ir.Node) and by.graph is None and by not in self._pending:
            self._pending.append(by)
        pairs = list(zip(node.outputs, values, strict=False))
        for old, new in pairs:
            self._check_output(graph, old, new)
        for old in node.outputs[len(pairs) :]:
            self._check_output(graph, old, None)

        # Both read names that are about to pass to the new values.
        site, metadata = site_of(node), self._provenance()
        self._edited = True
        fresh = {id(value) for made in self._pending for value in made.outputs}
        for old, new in pairs:
            if new is not None and (id(new) in fresh or old.is_graph_output()):
                name, old.name = old.name, None
                new.name = name
        self._insert_pending(node, metadata)
        for old, new in pairs:
            if new is not None:
                self._redirect(graph, old, new)
        self.remove(node)
        self.journal.record(site, detail or self._describe(node, by))

    def remove(self, node: ir.Node) -> None:
        """Take a node that nobody uses out of its graph, and what only it used with it."""
        doomed = [node]
        while doomed:
            dead = doomed.pop()
            graph = dead.graph
            if graph is None:
                continue
            used = [value for value in _inputs_of(dead) if value is not None]
            _detach(dead)
            remove_node(graph, dead)
            for value in used:
                self._release(value, doomed)

    def discard(self) -> None:
        """Take back the nodes and constants of a rewrite that was given up.

        Raises:
            RuntimeError: the model was changed already; the pass must be undone as a whole.
        """
        if self._edited:
            raise RuntimeError("a rewrite was given up after it had changed the model")
        for node in reversed(self._pending):
            _detach(node)
        for value in self._new_initializers:
            if value.graph is not None and value.name is not None:
                value.graph.initializers.pop(value.name)
        for name, start, unique in reversed(self._new_names):
            self._next_number[name] = start
            if self._names is not None:
                self._names.discard(unique)
        self._pending.clear()
        self._new_initializers.clear()
        self._new_names.clear()

    def _check_output(self, graph: ir.Graph, old: ir.Value, new: ir.Value | None) -> None:
        if new is None:
            if use_count(old) or old.is_graph_output():
                raise NotApplicable(f"output '{old.name}' is in use")
            return
        if not old.is_graph_output():
            return
        producer = new.producer()
        if producer is None:
            kind = "an input" if new.is_graph_input() else "a constant"
            raise NotApplicable(f"graph output '{old.name}' would be {kind}")
        if any(producer is pending for pending in self._pending):
            return
        if new.is_graph_output():
            raise NotApplicable(f"'{old.name}' and '{new.name}' are both graph outputs")
        if producer.graph is not graph:
            raise NotApplicable(f"graph output '{old.name}' would be a value of an enclosing graph")
        if len(self._positions(graph, old)) > 1:
            raise NotApplicable(f"'{old.name}' is a graph output twice")

    def _insert_pending(self, before: ir.Node, metadata: Mapping[str, str]) -> None:
        graph = before.graph
        if graph is None or not self._pending:
            return
        base = next(
            (value.name for made in self._pending for value in made.outputs if value.name),
            before.op_type,
        )
        root_name = self._sources[0].name if self._sources else before.name
        for made in self._pending:
            # The last node takes over the root's name; a name stands for one node only.
            last = made is self._pending[-1]
            made.name = root_name if last else self._node_name(root_name, made.op_type)
            made.metadata_props.update(metadata)
            for value in made.outputs:
                if value.name is None:
                    value.name = self.unique_name(f"{base}_{made.op_type}")
        graph.insert_before(before, self._pending)
        self.touched.extend(self._pending)
        self._pending = []
        self._new_initializers = []

    def _node_name(self, root_name: str | None, op_type: str) -> str | None:
        if not root_name:
            return root_name
        if self._node_names is None:
            self._node_names = {node.name for node in all_nodes(self.model) if node.name}
        unique, _ = _first_free(f"{root_name}_{op_type}", 0, self._node_names)
        self._node_names.add(unique)
        return unique

    def _provenance(self) -> dict[str, str]:
        metadata: dict[str, str] = {}
        origins: dict[str, None] = {}
        for source in self._sources:
            for key, value in source.metadata_props.items():
                metadata.setdefault(key, value)
            known = source.metadata_props.get(ORIGIN_KEY)
            if known is not None:
                origins.update(dict.fromkeys(known.split(", ")))
            else:
                output = next((value.name for value in source.outputs if value.name), "")
                origins[source.name or f"{source.op_type}:{output}"] = None
        metadata[ORIGIN_KEY] = ", ".join(origins)
        metadata[PASS_KEY] = self.journal.pass_name
        return metadata

    def _redirect(self, graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
        if new.type is None:
            new.type = old.type
        if new.shape is None and old.shape is not None:
            new.shape = old.shape.copy()
        is_output = old.is_graph_output()
        for usage in tuple(old.uses()):
            usage.node.replace_input_with(usage.idx, new)
            self.touched.append(usage.node)
        if is_output:
            positions = self._positions(graph, old)
            for index in positions:
                graph.outputs[index] = new
            known = self._output_positions[graph]
            del known[old]
            known.setdefault(new, []).extend(positions)
            # The caller of the model knows this tensor's declared type and shape.
            new.type, new.shape = old.type, old.shape
            new.doc_string = old.doc_string or new.doc_string
            new.metadata_props.update(old.metadata_props)

    def _release(self, value: ir.Value, doomed: list[ir.Node]) -> None:
        """Follow up on a value that lost a use."""
        producer = value.producer()
        count = use_count(value)
        if count == 0 and not value.is_graph_output():
            if producer is None:
                graph = value.graph
                if value.is_initializer() and not value.is_graph_input() and graph is not None:
                    graph.initializers.pop(value.name or "")
                    # What was read of a mapped weight need not stay in memory.
                    release = getattr(value.const_value, "release", None)
                    if release is not None:
                        release()
            elif is_removable(producer):
                doomed.append(producer)
        elif count == 1:
            # It has a single consumer now, which is what many patterns wait for.
            self.touched.extend(usage.node for usage in value.uses())

    def _positions(self, graph: ir.Graph, value: ir.Value) -> list[int]:
        """Where `value` stands among the outputs of `graph`."""
        known = self._output_positions.get(graph, {})
        positions = known.get(value, [])
        count = len(graph.outputs)
        if not positions or any(at >= count or graph.outputs[at] is not value for at in positions):
            known = {}
            for index, output in enumerate(graph.outputs):
                known.setdefault(output, []).append(index)
            self._output_positions[graph] = known
        return known.get(value, [])

    def _describe(self, node: ir.Node, by: ir.Node | ir.Value | Sequence[ir.Value | None]) -> str:
        before = " + ".join(source.op_type for source in reversed(self._sources)) or node.op_type
        if isinstance(by, ir.Node):
            return f"{before} -> {by.op_type}"
        return f"{before} removed"


def is_removable(node: ir.Node) -> bool:
    """Whether the node has no effect once no output of it is used.

    A custom op may do things that the graph does not show, so it stays, and with it the If or
    the Loop whose body it stands in.
    """
    if any(use_count(value) or value.is_graph_output() for value in node.outputs):
        return False
    return _is_standard(node)


def _is_standard(node: ir.Node) -> bool:
    """Whether the node's op, and every op in the bodies that it holds, is a known one."""
    return node.domain in _STANDARD_DOMAINS and all(
        _is_standard(inner) for graph in subgraphs(node) for inner in graph
    )


def _first_free(name: str, start: int, taken: set[str]) -> tuple[str, int]:
    """`name` with the first number from `start` on that is not taken (0 is no number at all)."""
    number = start
    unique = f"{name}_{number}" if number else name
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique, number


def _values_of(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _inputs_of(node: ir.Node) -> Iterable[ir.Value | None]:
    """What the node reads, its subgraphs' bodies included, each value once."""
    seen: dict[int, ir.Value] = {}
    for value in node.inputs:
        if value is not None:
            seen.setdefault(id(value), value)
    for graph in subgraphs(node):
        for inner in graph:
            for value in _inputs_of(inner):
                if value is not None:
                    seen.setdefault(id(value), value)
    return seen.values()


def _detach(node: ir.Node) -> None:
    """Remove the node, and the bodies of its subgraphs, from the uses of what they read."""
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)
    for graph in subgraphs(node):
        for inner in graph:
            _detach(inner)


def _named(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """The tensor under `name`, sharing its data; the tensor given stays as it is."""
    if tensor.name == name:
        return tensor
    return ir.LazyTensor(
        lambda: tensor, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
    )
