"""What a model costs after pruning, without pruning it.

    MACs(node)  = MACs before * product over the axes that they run over of (indices left / indices)
    parameters  = sum over weights of the product over axes of indices left

The axes are those of the weight, of both factors where neither is one, and of the result for
anything else. Indices left = size - sum over groups of units removed * indices of one unit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from math import prod

import numpy as np

from graphopt.cost import Number, Quantity, estimate_cost
from graphopt.graph import constant_tensor, ir
from graphopt.pruning.groups import Groups
from graphopt.pruning.propagation.place import node_name

_WEIGHTS = {"Conv": (1,), "ConvTranspose": (1,), "LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2)}
_PRODUCTS = ("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "Einsum")

Counts = Mapping[str, int]
"""For a group's name how many units stay; groups left out keep all."""


class PruningCosts:
    """MACs and parameters of a model as functions of how many units each group keeps.

    Args:
        model: the model in which the groups were found; it is not changed.
        groups: of `find_groups`.
        sizes: sizes of free dims by symbol; those left out count as 1.
    """

    def __init__(
        self, model: ir.Model, groups: Groups, sizes: Mapping[str, int] | None = None
    ) -> None:
        self._groups = groups
        self._widths: dict[tuple[str, int], list[tuple[str, int]]] = defaultdict(list)
        for group in groups:
            seen: set[tuple[str, int]] = set()
            for member in group.members:
                key = member.value, member.axis
                if group.frozen_reason is None and key not in seen:
                    seen.add(key)
                    self._widths[key].append((group.name, member.indices.shape[1]))
        self._nodes: dict[str, tuple[float, tuple[tuple[str, int], ...]]] = {}
        self._constants: list[tuple[int, tuple[tuple[str, int], ...]]] = []
        self._read(model, sizes or {})
        self.macs_before = self.macs({})
        self.parameters_before = self.parameters({})

    def _read(self, model: ir.Model, sizes: Mapping[str, int]) -> None:
        macs = {row.name: count_at(row.macs, sizes) for row in estimate_cost(model).by_node}
        for node in model.graph:
            name = node_name(node)
            count = macs.get(node.name or name, 0.0)
            if count:
                self._nodes[name] = count, self._axes_of(node)
        for value in model.graph.initializers.values():
            if value.const_value is not None:
                self._add_constant(value, value.const_value)
        for node in model.graph:
            tensor = constant_tensor(node.outputs[0]) if node.op_type == "Constant" else None
            if tensor is not None:
                self._add_constant(node.outputs[0], tensor)

    def _add_constant(self, value: ir.Value, tensor: ir.TensorProtocol) -> None:
        # An int64 constant says where or how large: pruning rewrites it, it is no parameter.
        if tensor.dtype != ir.DataType.INT64:
            self._constants.append((tensor.size, self._changing(value)))

    def _changing(self, value: ir.Value | None) -> tuple[tuple[str, int], ...]:
        """The axes of a tensor that can become shorter."""
        if value is None or not value.name:
            return ()
        rank = len(self._groups.shapes.get(value.name, ()))
        return tuple(
            (value.name, axis) for axis in range(rank) if (value.name, axis) in self._widths
        )

    def _axes_of(self, node: ir.Node) -> tuple[tuple[str, int], ...]:
        inputs = node.inputs
        if node.op_type in _WEIGHTS:
            indices = _WEIGHTS[node.op_type]
            return self._changing(inputs[indices[0]])
        if node.op_type in _PRODUCTS:
            for value in inputs[:2]:
                if value is not None and _is_weight(value):
                    return self._changing(value)
            # Neither is a weight: every axis of the result, and the one that is summed over.
            first = inputs[0]
            rank = len(self._groups.shapes.get(first.name or "", ())) if first is not None else 0
            inner = (first.name or "", rank - 1) if first is not None else ("", 0)
            result = self._changing(node.outputs[0])
            return (*result, inner) if inner in self._widths else result
        return self._changing(node.outputs[0])

    def _left(self, axis: tuple[str, int], counts: Counts) -> float:
        value, number = axis
        size = self._groups.shapes[value][number]
        gone = sum(
            (self._groups.named(name).channels - counts[name]) * width
            for name, width in self._widths[axis]
            if name in counts
        )
        return (size - gone) / size

    def macs(self, counts: Counts) -> float:
        """Multiply-accumulates of one run."""
        return sum(
            count * prod(self._left(axis, counts) for axis in axes)
            for count, axes in self._nodes.values()
        )

    def parameters(self, counts: Counts) -> float:
        """Elements of all constants but the int64 ones, which are shapes and indices."""
        return sum(
            size * prod(self._left(axis, counts) for axis in axes) for size, axes in self._constants
        )

    def macs_of_group(self, name: str) -> float:
        """Multiply-accumulates of the nodes that become smaller with a group."""
        return sum(
            count
            for count, axes in self._nodes.values()
            if any(name == other for axis in axes for other, _ in self._widths[axis])
        )


def unit_width(groups: Groups, name: str) -> int:
    """How many indices of its first producer's axis one unit of a group takes."""
    members = groups.named(name).members
    return int(members[0].indices.shape[1]) if members else 1


def counts_of(kept: Mapping[str, np.ndarray]) -> dict[str, int]:
    """How many units each group keeps."""
    return {name: len(units) for name, units in kept.items()}


def _is_weight(value: ir.Value) -> bool:
    seen: ir.Value | None = value
    while seen is not None:
        if constant_tensor(seen) is not None:
            return True
        producer = seen.producer()
        if producer is None or producer.op_type not in ("DequantizeLinear", "Transpose", "Cast"):
            return False
        seen = producer.inputs[0]
    return False


def count_at(count: Number, sizes: Mapping[str, int]) -> float:
    """A count at these sizes of free dims; those left out count as 1, and what is unknown as 0."""
    if isinstance(count, Quantity):
        count = count.at({name: sizes.get(name, 1) for name in count.symbols})
    if isinstance(count, Quantity):
        return 0.0
    return max(float(count), 0.0)  # at size 1 a window may not fit at all
