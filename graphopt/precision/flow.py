"""What a model is to the placement: clusters with one element type each, tensors between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphopt.graph import ir


@dataclass(eq=False)
class Cluster:
    """Slots that have one element type.

    Attributes:
        site: a name for it that is the same in every copy of the model.
        nodes: the nodes whose slots it holds; none for an input or output of the model.
        float_reason: why it has to stay float32; None if it may go.
        boundary: whether it is an input or an output of the model.
    """

    site: str
    nodes: list[ir.Node] = field(default_factory=list)
    float_reason: str | None = None
    boundary: bool = False
    _same: Cluster | None = None

    def root(self) -> Cluster:
        """The cluster that this one has become a part of; itself if it has not."""
        found = self
        while found._same is not None:
            found = found._same
        if found is not self:
            self._same = found  # the next time it is one step
        return found

    def unite(self, other: Cluster) -> None:
        """Let both have one type from now on."""
        first, second = self.root(), other.root()
        if first is second:
            return
        second._same = first
        first.nodes.extend(node for node in second.nodes if node not in first.nodes)
        first.float_reason = first.float_reason or second.float_reason
        first.boundary = first.boundary or second.boundary

    def keep_float(self, reason: str) -> None:
        """Have it stay float32; the first reason stands."""
        root = self.root()
        root.float_reason = root.float_reason or reason


@dataclass(frozen=True)
class Use:
    """One place where a tensor is read.

    Attributes:
        holder: the node that reads it, or the graph whose output it is.
        index: which input, or which output of the graph.
        cluster: the type that it is read as; None where any will do.
    """

    holder: ir.Node | ir.Graph
    index: int
    cluster: Cluster | None


@dataclass(frozen=True)
class Tensor:
    """A float32 value of the model.

    Attributes:
        value: the value.
        graph: the graph that defines it.
        producer: whose type it is made as; None for a constant, which is had in either.
        uses: where it is read.
    """

    value: ir.Value
    graph: ir.Graph
    producer: Cluster | None
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class Flow:
    """The clusters of a model, and the tensors between them, in the order of the walk.

    Attributes:
        clusters: what goes to half together.
        tensors: the float32 values.
        by_node: the cluster of each node that could be half.
        fixed: site of each node that could not -> why.
    """

    clusters: tuple[Cluster, ...]
    tensors: tuple[Tensor, ...]
    by_node: dict[ir.Node, Cluster]
    fixed: dict[str, str] = field(default_factory=dict)

    def constants(self) -> Iterator[Tensor]:
        """The tensors that are constants."""
        return (tensor for tensor in self.tensors if tensor.producer is None)


FIXED = "takes float32 only"
