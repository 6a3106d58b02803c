"""Reads the clusters of a model that go to half together, and the tensors between them.

A cluster is a node's group of slots (see `slots`), or several that share a type: what a loop
carries is one with the loop's input and output and the body's, and a branch's output one with
the If's. The model's inputs and outputs have clusters of their own. A tensor that is made by
one cluster and read by another is where a Cast may have to stand.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphopt.graph import constant_tensor, ir, nested_graphs, subgraphs
from graphopt.graph.operators import KNOWN_DOMAINS
from graphopt.graph.walk import imported_version
from graphopt.precision.flow import FIXED, Cluster, Flow, Tensor, Use
from graphopt.precision.formats import HalfFormat
from graphopt.precision.slots import Slots, holds_float32, is_container, is_untyped, slots_of
from graphopt.rewrite.journal import site_of


def flow_of(model: ir.Model, half: HalfFormat) -> Flow:
    """Read the clusters and tensors of a model; types must have been inferred.

    Bodies of functions are left alone, and calls of them stay float32: inline them before.
    """
    return _Reader(model, half).read()


class _Reader:
    def __init__(self, model: ir.Model, half: HalfFormat) -> None:
        self._model = model
        self._half = half
        self._version = imported_version(model.opset_imports, "")
        self._fixed = Cluster("", float_reason=FIXED)
        self._produced: dict[ir.Value, Cluster] = {}
        self._uses: dict[ir.Value, list[Use]] = {}
        self._clusters: list[Cluster] = []
        self._by_node: dict[ir.Node, Cluster] = {}
        self._outputs: dict[tuple[ir.Graph, int], Cluster] = {}
        self._fixed_nodes: dict[str, str] = {}

    def read(self) -> Flow:
        main = self._model.graph
        graphs = list(nested_graphs(main))
        for value in main.inputs:
            if holds_float32(value):
                self._produced[value] = self._new(f"input {value.name}", boundary=True)
        known: dict[ir.Value, Cluster] = {}
        for index, value in enumerate(main.outputs):
            if holds_float32(value):
                cluster = known.get(value)
                if cluster is None:
                    cluster = known[value] = self._new(f"output {value.name}", boundary=True)
                    if value in self._produced:
                        cluster.unite(self._produced[value])  # an output that is an input
                self._outputs[main, index] = cluster
        for graph in graphs:
            for node in graph:
                self._read_node(node)
        for graph in graphs:
            for index, value in enumerate(graph.outputs):
                if holds_float32(value):
                    cluster = self._outputs.get((graph, index), self._fixed)
                    self._uses.setdefault(value, []).append(Use(graph, index, cluster))
        tensors = tuple(self._tensors(graphs))
        for tensor in tensors:
            if is_container(tensor.value):
                self._unite_container(tensor)
        roots = [cluster for cluster in self._clusters if cluster.root() is cluster]
        return Flow(tuple(roots), tensors, self._by_node, self._fixed_nodes)

    def _new(self, site: str, node: ir.Node | None = None, *, boundary: bool = False) -> Cluster:
        cluster = Cluster(site, [] if node is None else [node], boundary=boundary)
        self._clusters.append(cluster)
        return cluster

    def _read_node(self, node: ir.Node) -> None:
        if constant_tensor(node.outputs[0] if node.outputs else None) is not None:
            return
        if node.domain == "":
            if node.op_type == "If":
                self._read_if(node)
                return
            if node.op_type == "Loop":
                self._read_loop(node)
                return
            if node.op_type == "Scan" and self._version >= 9:
                self._read_scan(node)
                return
            if node.op_type == "SequenceMap":
                self._read_sequence_map(node)
                return
        version = imported_version(self._model.opset_imports, node.domain)
        self._add(node, slots_of(node, version, self._half))
        for graph in subgraphs(node):
            # What a node that is not understood feeds its bodies is float32.
            for value in graph.inputs:
                if holds_float32(value):
                    self._produced[value] = self._fixed

    def _add(self, node: ir.Node, slots: Slots) -> None:
        if slots.inputs or slots.outputs:
            cluster = self._new(site_of(node), node)
            cluster.float_reason = slots.declined
            self._by_node[node] = cluster
            for index in slots.inputs:
                self._read_input(node, index, cluster)
            for index in slots.outputs:
                self._produced[node.outputs[index]] = cluster
        elif slots.fixed_inputs or slots.fixed_outputs:
            self._fixed_nodes[site_of(node)] = self._why_fixed(node)
        for index in slots.fixed_inputs:
            self._read_input(node, index, self._fixed)
        for index in slots.fixed_outputs:
            self._produced[node.outputs[index]] = self._fixed
        settled = {*slots.inputs, *slots.fixed_inputs}
        for index, value in enumerate(node.inputs):
            if index not in settled and holds_float32(value):
                self._read_input(node, index, None)

    def _why_fixed(self, node: ir.Node) -> str:
        name = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
        if (node.domain, node.op_type, node.overload) in self._model.functions:
            return f"the body of the function {name} cannot be put in its place"
        if node.domain not in KNOWN_DOMAINS:
            return f"it is not known whether {name} takes {self._half.name}"
        return f"{name} takes float32 only in this opset"

    def _read_input(self, node: ir.Node, index: int, cluster: Cluster | None) -> None:
        value = node.inputs[index]
        if value is not None and holds_float32(value):
            self._uses.setdefault(value, []).append(Use(node, index, cluster))

    # Control flow: the slots of one place in it, outside and inside, are one cluster. --------

    def _tie(
        self,
        node: ir.Node,
        inputs: list[int],
        outputs: list[int],
        body_inputs: list[ir.Value],
        body_outputs: list[tuple[ir.Graph, int]],
    ) -> None:
        values = [node.inputs[i] for i in inputs if i < len(node.inputs)]
        values += [node.outputs[i] for i in outputs if i < len(node.outputs)]
        values += body_inputs
        values += [graph.outputs[i] for graph, i in body_outputs if i < len(graph.outputs)]
        if not any(holds_float32(value) for value in values):
            return
        name = next((node.outputs[i].name for i in outputs if i < len(node.outputs)), "")
        cluster = self._new(f"{node.op_type} {node.name or ''} -> {name}".replace("  ", " "), node)
        if any(is_untyped(value) for value in values):
            cluster.keep_float("the type of what one of its bodies gives is not known")
        self._by_node.setdefault(node, cluster)
        for index in inputs:
            if index < len(node.inputs):
                self._read_input(node, index, cluster)
        for index in outputs:
            if index < len(node.outputs):
                self._produced[node.outputs[index]] = cluster
        for value in body_inputs:
            self._produced[value] = cluster
        for place in body_outputs:
            self._outputs[place] = cluster

    def _read_if(self, node: ir.Node) -> None:
        branches = subgraphs(node)
        for index in range(len(node.outputs)):
            self._tie(node, [], [index], [], [(graph, index) for graph in branches])

    def _read_loop(self, node: ir.Node) -> None:
        (body,) = subgraphs(node)
        carried = len(body.inputs) - 2
        for index in range(carried):
            place = [(body, 1 + index)]
            self._tie(node, [2 + index], [index], [body.inputs[2 + index]], place)
        for index in range(carried, len(body.outputs) - 1):
            self._tie(node, [], [index], [], [(body, 1 + index)])

    def _read_scan(self, node: ir.Node) -> None:
        (body,) = subgraphs(node)
        scanned = node.attributes.get_int("num_scan_inputs", 0) or 0
        states = len(node.inputs) - scanned
        for index in range(len(body.inputs)):
            is_state = index < states
            place = [(body, index)] if is_state else []
            outputs = [index] if is_state else []
            self._tie(node, [index], outputs, [body.inputs[index]], place)
        for index in range(states, len(body.outputs)):
            self._tie(node, [], [index], [], [(body, index)])

    def _read_sequence_map(self, node: ir.Node) -> None:
        (body,) = subgraphs(node)
        for index, value in enumerate(body.inputs):
            self._tie(node, [index], [], [value], [])
        for index in range(len(body.outputs)):
            self._tie(node, [], [index], [], [(body, index)])

    # ---------------------------------------------------------------------------------------

    def _tensors(self, graphs: list[ir.Graph]) -> Iterator[Tensor]:
        for graph in graphs:
            values: dict[ir.Value, None] = dict.fromkeys(graph.inputs)
            values.update(dict.fromkeys(graph.initializers.values()))
            for node in graph:
                values.update(dict.fromkeys(node.outputs))
            for value in values:
                if not holds_float32(value):
                    continue
                producer = self._produced.get(value)
                if producer is None and constant_tensor(value) is None:
                    producer = self._fixed  # a sparse constant, or something not understood
                yield Tensor(value, graph, producer, tuple(self._uses.get(value, ())))

    def _unite_container(self, tensor: Tensor) -> None:
        """No Cast takes a sequence: all who touch it have its type."""
        producer = tensor.producer
        if producer is None:
            return
        for use in tensor.uses:
            if use.cluster is self._fixed or producer is self._fixed:
                for touched in (producer, use.cluster):
                    if touched is not None and touched is not self._fixed:
                        touched.keep_float("a sequence that it shares must hold float32")
            elif use.cluster is not None:
                producer.unite(use.cluster)
