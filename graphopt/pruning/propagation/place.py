"""What a rule sees of one node, and how it says what goes with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.graph import constant_array, constant_tensor, ir
from graphopt.pruning.coupling_relations import Relations, Use
from graphopt.pruning.groups import Role
from graphopt.shapes import symbolic_value

MAX_SIZES = 1 << 16
"""Constants of shapes and indices are read up to this many elements."""


class NotUnderstood(Exception):  # noqa: N818 - a refusal, not an error
    """Raised by a rule that cannot say what the node does; the message completes "op 'y' ..."."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as one node sees it.

    Attributes:
        value: the value itself.
        axes: the number of each axis among the model's relations.
        sizes: the size of each axis; a stand-in for one that is not fixed.
        fixed: whether the size of each axis is the same in every run.
        parameter: whether it is computed from constants alone.
    """

    value: ir.Value
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    fixed: tuple[bool, ...]
    parameter: bool

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.axes)


class Place:
    """One node: its tensors, its attributes, and the relations to add to.

    Args:
        node: the node.
        version: of the operator set it is of.
        order: its position in the model.
        inputs: its inputs; None where one is left out.
        outputs: its outputs; None where one is left out.
        relations: what is known so far.
    """

    def __init__(
        self,
        node: ir.Node,
        version: int,
        order: int,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor | None],
        relations: Relations,
    ) -> None:
        self.node = node
        self.version = version
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.relations = relations
        self._order = order
        self._touched: set[int] = set()

    @property
    def name(self) -> str:
        """The name of its first output, by which the node goes."""
        return node_name(self.node)

    def label(self) -> str:
        """The node in words."""
        return f"{self.node.op_type} '{self.name}'"

    def input(self, index: int) -> Tensor:
        """An input that must be there."""
        found = self.optional(index)
        if found is None:
            raise NotUnderstood(f"lacks its input {index}")
        return found

    def optional(self, index: int) -> Tensor | None:
        """An input that may be left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def output(self, index: int = 0) -> Tensor:
        """An output that must be there."""
        found = self.outputs[index] if index < len(self.outputs) else None
        if found is None:
            raise NotUnderstood(f"lacks its output {index}")
        return found

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return self.node.attributes.get_int(name, default)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """An attribute of integers; None where it is absent."""
        found = self.node.attributes.get_ints(name, None)
        return None if found is None else tuple(found)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        return self.node.attributes.get_string(name, default)

    def constant(self, index: int) -> np.ndarray | None:
        """The data of a small constant input."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        found = small_constant(value)
        if found is not None and value is not None and constant_tensor(value) is None:
            self.relations.constants[value.name or ""] = found
        return found

    def has_input(self, index: int) -> bool:
        """Whether the input is there at all."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def axis_of(self, tensor: Tensor, axis: int) -> int:
        """An axis counted from 0, whichever end it was counted from."""
        found = axis + tensor.rank if axis < 0 else axis
        if not 0 <= found < tensor.rank:
            raise NotUnderstood("names an axis that its input lacks")
        return found

    def tie(self, first: Tensor, first_axis: int, second: Tensor, second_axis: int) -> None:
        """Index i of one axis goes with index i of the other."""
        fixed = first.fixed[first_axis] and second.fixed[second_axis]
        if not fixed and first.sizes[first_axis] != second.sizes[second_axis]:
            # Two ways of writing one size that varies; neither axis is one of channels.
            self.freeze(first, first_axis, "has it at a size that varies")
            self.freeze(second, second_axis, "has it at a size that varies")
            return
        self.tie_axis(first, first_axis, second.axes[second_axis])
        self._touched.add(second.axes[second_axis])

    def tie_axis(self, tensor: Tensor, axis: int, other: int) -> None:
        """Index i of the tensor's axis goes with index i of a virtual axis."""
        if tensor.sizes[axis] != self.relations.sizes[other]:
            raise NotUnderstood("has shapes that do not fit together")
        self.relations.tie(tensor.axes[axis], other)
        self._touched.add(tensor.axes[axis])

    def same(self, first: Tensor, second: Tensor, *, but: Sequence[int] = ()) -> None:
        """All axes of two tensors of one shape go together, except those of `but`."""
        if first.rank != second.rank:
            raise NotUnderstood("has shapes that do not fit together")
        for axis in range(first.rank):
            if axis not in but:
                self.tie(first, axis, second, axis)

    def freeze(self, tensor: Tensor, axis: int, why: str) -> None:
        """No index of the axis may go, because the node `why` ("normalizes over it")."""
        self.relations.freeze(tensor.axes[axis], f"{self.label()} {why}")
        self._touched.add(tensor.axes[axis])

    def freeze_indices(self, tensor: Tensor, axis: int, indices: np.ndarray, why: str) -> None:
        """Some indices of the axis may not go."""
        self.relations.freeze(tensor.axes[axis], f"{self.label()} {why}", indices)

    def freeze_all(self, tensor: Tensor | None, why: str) -> None:
        """No index of any axis may go."""
        if tensor is not None:
            for axis in range(tensor.rank):
                self.freeze(tensor, axis, why)

    def freeze_virtual(self, axis: int, why: str) -> None:
        """No index of a virtual axis may go."""
        self.relations.freeze(axis, f"{self.label()} {why}")

    def virtual(self, size: int, *, preferred: bool = False) -> int:
        """An axis of no tensor; a preferred one is chosen among the factors of a product."""
        axis = self.relations.axis(size)
        if preferred:
            self.relations.preferred.add(axis)
        return axis

    def prefer(self, tensor: Tensor, axis: int) -> None:
        """Where an axis is cut into factors, and this is one, prune along this one."""
        self.relations.preferred.add(tensor.axes[axis])

    def product(self, tensor: Tensor, axis: int, factors: Sequence[int]) -> None:
        """The axis is the row-major product of virtual axes."""
        sizes = [self.relations.sizes[factor] for factor in factors]
        if tensor.sizes[axis] != int(np.prod(sizes)):
            raise NotUnderstood("has shapes that do not fit together")
        self.relations.product(tensor.axes[axis], factors, self.label())
        self._touched.add(tensor.axes[axis])

    def match(
        self,
        first: Tensor,
        first_axis: int,
        first_indices: np.ndarray,
        second: Tensor,
        second_axis: int,
        second_indices: np.ndarray,
    ) -> None:
        """Some indices of one axis go with some of the other, in this order."""
        a, b = first.axes[first_axis], second.axes[second_axis]
        self.relations.match(a, first_indices, b, second_indices)
        self._touched.update((a, b))

    def ignore(self, tensor: Tensor, axis: int) -> None:
        """The axis has size 1 and is stretched, or is not bound by this node."""
        self._touched.add(tensor.axes[axis])

    def weight(self, index: int, axis: int, role: Role) -> None:
        """The input's axis plays a role, if the input is a parameter."""
        tensor = self.optional(index)
        if tensor is not None and tensor.parameter:
            use = Use(role, self.name, self._order, index)
            self.relations.use(tensor.axes[axis], use)

    def finish(self) -> None:
        """Freeze every axis that the rule did not speak of."""
        for tensor in (*self.inputs, *self.outputs):
            if tensor is not None:
                for axis in range(tensor.rank):
                    if tensor.axes[axis] not in self._touched and tensor.sizes[axis] != 1:
                        self.freeze(tensor, axis, "needs all of it")


def node_name(node: ir.Node) -> str:
    """The name by which a node goes: that of its first output."""
    return next((value.name for value in node.outputs if value.name), node.name or "")


def small_constant(value: ir.Value | None) -> np.ndarray | None:
    """The data of a small constant, whether it is stored or known by arithmetic on shapes."""
    found = constant_array(value, MAX_SIZES)
    if found is not None or value is None:
        return found
    known = symbolic_value(value)
    if known is None or not all(isinstance(item, int) for item in known.reshape(-1)):
        return None
    return known.astype(np.int64)
