"""Chooses what goes to half: a minimum cut between what must and what must not.

    minimize   sum over tensors  cast(t) * [t is made in one precision and read in the other]
             + sum over clusters gain(c) * [c stays float32]

Each cluster is half (the source's side) or float32 (the sink's). The first term counts a Cast
once however many read its result, which two auxiliary vertices for a tensor with producer p
and readers c express: `all = AND c` costs a Cast when p is half and not all readers are;
`any = OR c` when p is float32 and some reader is half. Every term is submodular, so a minimum
cut is the exact optimum (Kolmogorov and Zabih 2004). Of several, the one with the fewest
float32 clusters is taken: it is unique.

Casts come first, in the order of magnitude of the weights: matrix products and what holds
weights go to half whatever the casts; then the number of Casts is minimal; then the number of
nodes in float32, and the sizes of the tensors that are cast.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from graphopt.graph import constant_tensor, ir
from graphopt.precision.flow import Cluster, Flow, Tensor
from graphopt.precision.operators import MATRIX

_CAST = 10_000
_SIZE = 8  # of a cast, per doubling of the tensor: breaks ties in favour of small ones
_LIGHT = 100
_HEAVY = 10**9
_NEVER = 10**15
_WEIGHT_ELEMENTS = 256


@dataclass
class _Network:
    """Vertices are numbers; 0 is the source (half), 1 the sink (float32)."""

    size: int = 2
    edges: Counter[tuple[int, int]] = field(default_factory=Counter)

    def vertex(self) -> int:
        self.size += 1
        return self.size - 1

    def add(self, start: int, end: int, capacity: int) -> None:
        """Charge `capacity` when `start` is half and `end` float32."""
        if start != end:
            self.edges[start, end] += capacity

    def float_side(self) -> set[int]:
        """The fewest vertices that are float32 in a minimum cut."""
        import networkx

        graph = networkx.DiGraph()
        graph.add_nodes_from(range(self.size))
        for (start, end), capacity in self.edges.items():
            graph.add_edge(start, end, capacity=capacity)
        residual = networkx.algorithms.flow.preflow_push(
            graph, 0, 1, capacity="capacity", value_only=True
        )
        reached = {1}
        stack = [1]
        while stack:
            vertex = stack.pop()
            for before, _, held in residual.in_edges(vertex, data=True):
                if before not in reached and held["flow"] < held["capacity"]:
                    reached.add(before)
                    stack.append(before)
        return reached


def choose(flow: Flow) -> dict[Cluster, bool]:
    """Whether each cluster goes to half, at the least cost; deterministic."""
    network = _Network()
    vertices = {cluster: network.vertex() for cluster in flow.clusters}
    sizes = _constant_sizes(flow)
    idle = _idle_boundaries(flow)
    for cluster, vertex in vertices.items():
        if cluster.float_reason is not None:
            network.add(vertex, 1, _NEVER)
        elif cluster.boundary and not cluster.nodes:
            network.add(0, vertex, _LIGHT if cluster in idle else _HEAVY)
        elif sizes[cluster] >= _WEIGHT_ELEMENTS or _is_matrix(cluster):
            network.add(0, vertex, _HEAVY)
        else:
            network.add(0, vertex, _LIGHT * len(cluster.nodes))
    for tensor in flow.tensors:
        _charge_cast(network, vertices, tensor)
    floats = _contracted(network) if network.size > 2 else set()
    return {cluster: vertex not in floats for cluster, vertex in vertices.items()}


def _contracted(network: _Network) -> set[int]:
    """Solve with vertices that are bound to a side merged into it: most are."""
    side: dict[int, int] = {0: 0, 1: 1}
    forward: dict[int, list[int]] = {}
    backward: dict[int, list[int]] = {}
    for (start, end), capacity in network.edges.items():
        if capacity >= _NEVER:
            forward.setdefault(start, []).append(end)
            backward.setdefault(end, []).append(start)
    # start -> end without bound: where end is float32, start is too.
    stack = [1]
    while stack:
        for start in backward.get(stack.pop(), ()):
            if start not in side:
                side[start] = 1
                stack.append(start)
    if not any(end == 1 for _, end in network.edges):
        return set()  # nobody wants float32
    smaller = _Network()
    names: dict[int, int] = dict(side)
    for vertex in range(2, network.size):
        if vertex not in names:
            names[vertex] = smaller.vertex()
    for (start, end), capacity in network.edges.items():
        if names[start] != 1 and names[end] != 0:
            smaller.add(names[start], names[end], capacity)
    floats = smaller.float_side()
    return {vertex for vertex, name in names.items() if name in floats}


def _charge_cast(network: _Network, vertices: dict[Cluster, int], tensor: Tensor) -> None:
    if tensor.producer is None:
        return
    source = vertices.get(tensor.producer.root(), 1)
    readers = list(
        dict.fromkeys(
            vertices.get(use.cluster.root(), 1) for use in tensor.uses if use.cluster is not None
        )
    )
    readers = [reader for reader in readers if reader != source]
    if not readers:
        return
    cost = _CAST + round(_SIZE * math.log2(1 + _element_count(tensor.value)))
    if len(readers) == 1:
        network.add(source, readers[0], cost)
        network.add(readers[0], source, cost)
        return
    every, some = network.vertex(), network.vertex()
    network.add(source, every, cost)
    network.add(some, source, cost)
    for reader in readers:
        network.add(every, reader, _NEVER)
        network.add(reader, some, _NEVER)


def _is_matrix(cluster: Cluster) -> bool:
    return any(node.op_type in MATRIX for node in cluster.nodes)


def _idle_boundaries(flow: Flow) -> set[Cluster]:
    """Inputs and outputs of the model whose other side is float32 in any case."""
    idle: dict[Cluster, bool] = {}
    for tensor in flow.tensors:
        if tensor.producer is None:
            continue
        producer = tensor.producer.root()
        readers = [use.cluster.root() for use in tensor.uses if use.cluster is not None]
        if producer.boundary and not producer.nodes:
            idle[producer] = bool(readers) and all(r.float_reason is not None for r in readers)
        for reader in readers:
            if reader.boundary and not reader.nodes and reader is not producer:
                idle[reader] = producer.float_reason is not None
    return {cluster for cluster, is_idle in idle.items() if is_idle}


def _constant_sizes(flow: Flow) -> dict[Cluster, int]:
    """The most elements that a constant read by each cluster has; 0 where it reads none."""
    sizes = dict.fromkeys(flow.clusters, 0)
    for tensor in flow.constants():
        held = constant_tensor(tensor.value)
        if held is None:
            continue
        for use in tensor.uses:
            if use.cluster is not None and use.cluster.root() in sizes:
                root = use.cluster.root()
                sizes[root] = max(sizes[root], int(held.size))
    return sizes


def _element_count(value: ir.Value) -> float:
    """Elements of a value, a free dim counted as 1; 0 where the rank is unknown."""
    if value.shape is None:
        return 0.0
    return float(np.prod([dim if isinstance(dim, int) else 1 for dim in value.shape.dims]))
