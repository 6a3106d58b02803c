"""Finds residual blocks, the places where a part of a model adds to what it reads.

    y = x + f(x)        Add(x, f) or Add(f, x), x and f(x) of one shape

f may read constants and the sizes of tensors beside x, and nothing else; what it computes on the
way is read by nobody else. Other sums of two tensors are declined, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.graph import (
    all_graphs,
    all_nodes,
    constant_array,
    constant_tensor,
    ir,
    outer_values,
    subgraphs,
)
from graphopt.pruning.propagation.place import node_name
from graphopt.rewrite import NotApplicable

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
_SIZES = ("Shape", "Size")
_RANDOM = frozenset(
    (
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    )
)
_KNOWN_DOMAINS = ("", "ai.onnx", "com.microsoft")

_CHANNELS_FIRST = frozenset(
    (
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "DepthToSpace",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GroupNormalization",
        "InstanceNormalization",
        "MaxPool",
        "SpaceToDepth",
    )
)
_CHANNELS_LAST = frozenset(("Gemm", "LayerNormalization", "MatMul", "RMSNormalization"))


@dataclass(frozen=True, eq=False)
class ResidualBlock:
    """A sum y = x + f(x) of the main graph.

    Attributes:
        addition: the Add.
        x: what skips f.
        branch: f(x).
        nodes: those that compute f(x) from x, in the order of the graph.
        axis: of the channels of x: 1 for images and signals, the last one (rank - 1) elsewhere.
        channels: how many there are.
    """

    addition: ir.Node
    x: ir.Value
    branch: ir.Value
    nodes: tuple[ir.Node, ...]
    axis: int
    channels: int

    @property
    def name(self) -> str:
        """The name of y, by which the block goes."""
        return node_name(self.addition)

    @property
    def rank(self) -> int:
        """How many axes x has."""
        return len(self.x.shape or ())


def find_blocks(graph: ir.Graph) -> tuple[dict[str, ResidualBlock], dict[str, str]]:
    """The residual blocks of a graph by name, in its order, and why other sums are none.

    Args:
        graph: the main graph of a model with inferred shapes.
    """
    blocks: dict[str, ResidualBlock] = {}
    declined: dict[str, str] = {}
    finder = _Finder(graph)
    for node in graph:
        if node.op_type != "Add" or node.domain not in ("", "ai.onnx"):
            continue
        if any(value is None or finder.is_settled(value) for value in node.inputs):
            continue  # a bias, or arithmetic on sizes
        try:
            blocks[node_name(node)] = finder.block_of(node)
        except NotApplicable as reason:
            declined[node_name(node)] = str(reason)
    return blocks, declined


def split_sums(model: ir.Model) -> None:
    """Take the sum out of each Gemm that adds a computed tensor: Add(Gemm(a, b), x).

    Args:
        model: one with inferred shapes; it is changed in place.
    """
    taken = {value.name for node in all_nodes(model) for value in node.outputs}
    taken.update(name for graph in all_graphs(model) for name in graph.initializers)
    for node in list(model.graph):
        total = node.outputs[0]
        if node.op_type != "Gemm" or node.domain not in ("", "ai.onnx") or len(node.inputs) < 3:
            continue
        x = node.inputs[2]
        scaled = node.attributes.get_float("beta", 1.0) != 1.0
        if x is None or constant_tensor(x) is not None or scaled or x.shape != total.shape:
            continue
        name = f"{total.name}/product"
        while name in taken:
            name += "_"
        taken.add(name)
        attributes = {key: value for key, value in node.attributes.items() if key != "beta"}
        product = ir.Node(
            node.domain,
            "Gemm",
            node.inputs[:2],
            attributes.values(),
            name=name,
            metadata_props=dict(node.metadata_props),
        )
        addition = ir.node(
            "Add",
            [product.outputs[0], x],
            name=node.name,
            metadata_props=dict(node.metadata_props),
        )
        for result, label in ((product.outputs[0], name), (addition.outputs[0], total.name)):
            result.name, result.type, result.shape = label, total.type, total.shape
        model.graph.insert_before(node, [product, addition])
        total.replace_all_uses_with(addition.outputs[0], replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


class _Finder:
    """Knows the order of a graph's nodes, and what depends on constants and sizes alone."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._order = {node: number for number, node in enumerate(graph)}
        self._settled: set[ir.Value] = set()
        for node in graph:
            inputs = [value for value in node.inputs if value is not None]
            own = node.op_type in _RANDOM or node.domain not in _KNOWN_DOMAINS or subgraphs(node)
            if node.op_type in _SIZES or (not own and all(map(self.is_settled, inputs))):
                self._settled.update(node.outputs)

    def is_settled(self, value: ir.Value) -> bool:
        """Whether a value is the same for all inputs of one size."""
        return value in self._settled or constant_tensor(value) is not None

    def block_of(self, addition: ir.Node) -> ResidualBlock:
        """The block that a sum of two tensors closes.

        Raises:
            NotApplicable: it closes none.
        """
        first, second = addition.inputs
        if first is None or second is None or first is second:
            raise NotApplicable("it adds a tensor to itself")
        x, branch = sorted((first, second), key=self._place)
        nodes, others = self._between(x, branch)
        if nodes is None:
            raise NotApplicable(f"neither '{x.name}' nor '{branch.name}' is computed of the other")
        if others:
            raise NotApplicable(f"f(x) reads {_listed(others)} beside x = '{x.name}'")
        if x.shape is None or branch.shape is None or x.shape != branch.shape:
            raise NotApplicable(f"x and f(x) have the shapes {x.shape} and {branch.shape}")
        if x.dtype not in _FLOATS:
            raise NotApplicable(f"x is of type {x.dtype}")
        for node in nodes:
            _check_operator(node)
        self._check_uses(nodes, addition)
        axis = _channel_axis(x, set(nodes))
        channels = x.shape[axis] if x.shape else None
        if not isinstance(channels, int) or channels == 0:
            raise NotApplicable(f"how many channels x = '{x.name}' has is not known")
        return ResidualBlock(addition, x, branch, nodes, axis, channels)

    def _place(self, value: ir.Value) -> int:
        """Where in the graph a value is computed; -1 for what is given."""
        node = value.producer()
        return -1 if node is None else self._order.get(node, -1)

    def _between(
        self, x: ir.Value, branch: ir.Value
    ) -> tuple[tuple[ir.Node, ...] | None, list[str]]:
        """The nodes that compute `branch` (None if not from x), and what else they read."""
        start = self._place(x)
        nodes: set[ir.Node] = set()
        others: dict[str, None] = {}
        reached = False
        waiting = [branch]
        while waiting:
            value = waiting.pop()
            if value is x:
                reached = True
                continue
            if self.is_settled(value):
                continue
            node = value.producer()
            if node is None or self._place(value) <= start:
                others[value.name or ""] = None
            elif node not in nodes:
                nodes.add(node)
                waiting += [item for item in node.inputs if item is not None]
                waiting += [item for body in subgraphs(node) for item in outer_values(body)]
        if not reached:
            return None, []
        return tuple(sorted(nodes, key=self._order.__getitem__)), sorted(others)

    def _check_uses(self, nodes: tuple[ir.Node, ...], addition: ir.Node) -> None:
        """Raise NotApplicable if somebody else reads what is computed on the way."""
        inside = {*nodes, addition}
        for node in nodes:
            for value in node.outputs:
                if value.is_graph_output():
                    raise NotApplicable(f"'{value.name}' within f(x) is an output of a graph")
                for use in value.uses():
                    if use.node in inside or use.node.op_type in _SIZES:
                        continue
                    if use.node.graph is not self._graph:
                        raise NotApplicable(f"'{value.name}' within f(x) is read by a subgraph")
                    reader = node_name(use.node)
                    raise NotApplicable(f"'{value.name}' within f(x) is read by '{reader}' too")


def _check_operator(node: ir.Node) -> None:
    """Raise NotApplicable if a node is more than a function of its inputs."""
    what = f"{node.op_type} '{node_name(node)}' in f(x)"
    if subgraphs(node):
        raise NotApplicable(f"{what} holds a subgraph")
    if node.domain not in _KNOWN_DOMAINS:
        raise NotApplicable(f"{what} is of the domain '{node.domain}' and may hold a state")
    training = node.inputs[2] if node.op_type == "Dropout" and len(node.inputs) > 2 else None
    if training is not None:
        mode = constant_array(training)
        if mode is None or mode.any():
            raise NotApplicable(f"{what} is random")
    if node.op_type in _RANDOM:
        raise NotApplicable(f"{what} is random")


def _channel_axis(x: ir.Value, nodes: set[ir.Node]) -> int:
    """The axis of x that the first operator of f to have channels takes for them.

    Raises:
        NotApplicable: it is neither axis 1 nor the last.
    """
    rank = len(x.shape or ())
    if rank < 2:
        raise NotApplicable(f"x = '{x.name}' has {rank} dims")
    axis = next(_axes_read(x, nodes), 1 if rank > 3 else rank - 1)
    if axis not in (1, rank - 1):
        raise NotApplicable(f"the channels of x = '{x.name}' are its axis {axis}")
    return axis


def _axes_read(x: ir.Value, nodes: set[ir.Node]) -> Iterator[int]:
    """The axes of x that operators of f take for channels, the nearest operator first."""
    rank = len(x.shape or ())
    waiting = [(x, tuple(range(rank)))]
    seen: set[ir.Value] = {x}
    while waiting:
        value, axes = waiting.pop(0)
        for use in value.uses():
            node = use.node
            if node not in nodes:
                continue
            if node.op_type in _CHANNELS_FIRST:
                yield axes[1]
            elif node.op_type in _CHANNELS_LAST and use.idx == 0:
                yield axes[-1]
            result = node.outputs[0]
            if result in seen or result.shape is None or len(result.shape) != rank:
                continue
            seen.add(result)
            moved = axes
            if node.op_type == "Transpose":
                order = node.attributes.get_ints("perm", range(rank)[::-1])
                moved = tuple(axes[index] for index in order)
            elif result.shape != x.shape and node.op_type == "Reshape":
                continue  # which axis is which is not known behind it
            waiting.append((result, moved))


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
