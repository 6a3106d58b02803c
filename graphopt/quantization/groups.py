"""What runs in integers together: a node and the activations that its kernel takes in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphopt.graph import ir
from graphopt.quantization.backends.backend import Role


@dataclass(frozen=True)
class Use:
    """One input of a node.

    Attributes:
        node: the node, by the name of its first output.
        index: which input.
        tensor: the value read there.
    """

    node: str
    index: int
    tensor: str


@dataclass(frozen=True)
class Group:
    """The smallest set of nodes that run in integers together or not at all.

    Attributes:
        name: the first output of the main node.
        op_type: the operator of the main node.
        role: what that does with integers.
        nodes: main node first, then the absorbed ones, by their first outputs.
        reads: the activations that are integers when the group is quantized.
        writes: the values the group gives to others: the outputs of its last node.
        writes_integers: whether its kernel writes integers: True always, False never, None as
            its consumers need.
        weights: the constants that become integers.
        bias: the bias that becomes integers, if any.
        clip: the bounds that absorbed activations hold `writes` within.
        slow: why it is not worth quantizing unless measured to be; "" if it is.
        chained: whether it pays only behind an integer Conv.
        saturates: whether its kernel may add two products in int16.
    """

    name: str
    op_type: str
    role: Role
    nodes: tuple[str, ...]
    reads: tuple[Use, ...]
    writes: tuple[str, ...]
    writes_integers: bool | None
    weights: tuple[Use, ...] = ()
    bias: Use | None = None
    clip: tuple[float, float] | None = None
    slow: str = ""
    chained: bool = False
    saturates: bool = False

    @property
    def tensors(self) -> tuple[str, ...]:
        """The activations that it reads and writes in integers."""
        return tuple(dict.fromkeys([*(use.tensor for use in self.reads), *self.writes]))


@dataclass(frozen=True)
class Placement:
    """What a backend can run in integers of one model.

    Attributes:
        backend: the backend's name.
        groups: in the order of the graph; no node is in two.
        ties: tensor -> the tensor whose parameters it has, for what operators that only move
            elements write; the latter is the one to calibrate.
        fixed: tensor -> its range, where that is known without data (behind a Softmax).
        activations: the tensors to calibrate: what groups read or write, less the tied ones and
            those whose range is fixed.
        declined: node name (first output) -> why it stays float. Nodes whose operator has no
            rule are not listed unless they are of a kind that is usually quantized.
    """

    backend: str
    groups: tuple[Group, ...]
    ties: Mapping[str, str]
    fixed: Mapping[str, tuple[float, float]]
    activations: tuple[str, ...]
    declined: Mapping[str, str] = field(default_factory=dict)


def name_of(node: ir.Node) -> str:
    """The name a node goes by: that of its first output; "" if it has none."""
    return next((value.name for value in node.outputs if value.name), "")
