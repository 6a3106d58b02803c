"""prune: take units of coupling groups out of a model.

    constant[axis]   -> constant[kept indices of axis]
    sizes in a node  -> the sizes that are left (Reshape, Split, Slice, Gather, group, ...)

Nothing is refitted: where the removed channels were not zero the outputs change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from graphopt.graph import all_graphs, constant_array, ir, opset_version
from graphopt.pruning.groups import CouplingGroup, Groups, Kept, check_kept
from graphopt.pruning.propagation import rule_of
from graphopt.pruning.propagation.place import node_name, small_constant
from graphopt.rewrite import Journal

_Masks = dict[int, np.ndarray]  # for an axis which of its indices stay


def prune(model: ir.Model, groups: Groups, kept: Kept, journal: Journal | None = None) -> None:
    """Remove from each named group the units that are not kept.

    Args:
        model: changed in place; the model in which the groups were found, or a copy of it with
            other numbers in its weights.
        groups: of `find_groups`.
        kept: for a group's name the units that stay.
        journal: is asked before each group and told after it.

    Raises:
        UsageError: `kept` names an unknown or frozen group, or leaves it nothing.
    """
    wanted = check_kept(groups, kept)
    if journal is not None:
        wanted = {
            name: units for name, units in wanted.items() if journal.permits(site_of_group(name))
        }
        if journal.limit is not None:
            left = max(journal.limit - len(journal.rewrites), 0)
            wanted = dict(list(wanted.items())[:left])
    if not wanted:
        return
    _Surgery(model, groups, wanted).run()
    if journal is not None:
        for name, units in wanted.items():
            before = groups.named(name).channels
            journal.record(site_of_group(name), f"{before} -> {len(units)} channels")


def site_of_group(name: str) -> str:
    """The name of a group's place in a journal."""
    return f"channels of {name}"


def kept_indices(groups: Groups, kept: Kept) -> dict[tuple[str, int], np.ndarray]:
    """For each (tensor, axis) that loses something, the indices that stay.

    A vector that several nodes use apart from each other is left out: its members say `separate`.
    """
    masks, _ = _masks(groups, check_kept(groups, kept))
    return {
        (value, axis): np.flatnonzero(mask)
        for value, axes in masks.items()
        for axis, mask in axes.items()
    }


def _masks(
    groups: Groups, kept: dict[str, np.ndarray]
) -> tuple[dict[str, _Masks], dict[tuple[str, str, int], _Masks]]:
    whole: dict[str, _Masks] = defaultdict(dict)
    separate: dict[tuple[str, str, int], _Masks] = defaultdict(dict)
    for name, units in kept.items():
        group = groups.named(name)
        gone = np.ones(group.channels, bool)
        gone[units] = False
        for member in group.members:
            axes = (
                separate[member.value, member.node, member.input]
                if member.separate and member.input is not None
                else whole[member.value]
            )
            if member.axis not in axes:
                axes[member.axis] = np.ones(groups.shapes[member.value][member.axis], bool)
            axes[member.axis][member.indices[gone].reshape(-1)] = False
    return whole, separate


class _Surgery:
    def __init__(self, model: ir.Model, groups: Groups, kept: dict[str, np.ndarray]) -> None:
        self.model = model
        self.shapes = groups.shapes
        self.constants = groups.constants
        self.whole, self.separate = _masks(groups, kept)
        self._names: set[str] | None = None
        self._version: dict[str, int] = {}

    def run(self) -> None:
        """Adapt the nodes, which look at the old sizes, then slice."""
        nodes = [node for node in self.model.graph if self._is_touched(node)]
        for node in nodes:
            rule = rule_of(node)
            if rule is not None and rule.adapt is not None:
                rule.adapt(_NodeChange(self, node))
        for node in nodes:
            self._separate_vectors(node)
        for name, axes in self.whole.items():
            self._slice(name, axes)
        self._drop_unused()

    def _is_touched(self, node: ir.Node) -> bool:
        return any(
            value is not None
            and (value.name in self.whole or (value.name, node_name(node), index) in self.separate)
            for index, value in enumerate((*node.inputs, *node.outputs))
        )

    def masks_of(self, node: ir.Node, index: int) -> _Masks:
        """What stays of an input of a node."""
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or value.name is None:
            return {}
        own = self.separate.get((value.name, node_name(node), index))
        return own if own is not None else self.whole.get(value.name, {})

    def version(self, node: ir.Node) -> int:
        """The version of the operator set of a node."""
        found = self._version.get(node.domain)
        if found is None:
            found = self._version[node.domain] = opset_version(node, self.model)
        return found

    def new_constant(self, array: np.ndarray, name: str, like: ir.Value | None) -> ir.Value:
        """An initializer of the main graph under a name that nothing else has."""
        if self._names is None:
            self._names = {
                value.name or ""
                for graph in all_graphs(self.model)
                for value in (
                    *graph.inputs,
                    *graph.initializers.values(),
                    *(output for node in graph for output in node.outputs),
                )
            }
        unique, number = name, 0
        while unique in self._names:
            number += 1
            unique = f"{name}_{number}"
        self._names.add(unique)
        dtype = None if like is None else like.dtype
        tensor = ir.Tensor(array, dtype=dtype, name=unique)
        value = ir.Value(
            name=unique,
            const_value=tensor,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
        )
        self.model.graph.initializers.add(value)
        return value

    def _separate_vectors(self, node: ir.Node) -> None:
        """Give the node its own copy of a vector that other nodes keep more of."""
        name = node_name(node)
        for index, value in enumerate(node.inputs):
            axes = self.separate.get((value.name or "", name, index)) if value else None
            array = constant_array(value) if axes else None
            if value is None or axes is None or array is None:
                continue
            sliced = _taken(array, axes)
            node.replace_input_with(index, self.new_constant(sliced, f"{value.name}_kept", value))

    def _slice(self, name: str, axes: _Masks) -> None:
        value = self._values.get(name)
        if value is None:
            return
        producer = value.producer()
        array = (
            None
            if producer is not None and producer.op_type != "Constant"
            else (constant_array(value))
        )
        if array is not None:
            sliced = _taken(array, axes)
            tensor = ir.Tensor(sliced, dtype=value.dtype, name=name)
            if producer is not None:
                producer.attributes.clear()
                producer.attributes.add(ir.AttrTensor("value", tensor))
            else:
                value.const_value = tensor
        if value.shape is not None:
            dims = list(value.shape)
            for axis, mask in axes.items():
                dims[axis] = int(mask.sum())
            value.shape = ir.Shape(dims)

    @property
    def _values(self) -> dict[str, ir.Value]:
        found = getattr(self, "_values_by_name", None)
        if found is None:
            graph = self.model.graph
            found = {
                value.name: value
                for value in (
                    *graph.initializers.values(),
                    *(output for node in graph for output in node.outputs),
                )
                if value.name
            }
            self._values_by_name: dict[str, ir.Value] = found
        return found

    def _drop_unused(self) -> None:
        graph = self.model.graph
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del graph.initializers[name]


class _NodeChange:
    """What a rule's `adapt` sees and does (see propagation.rule.Change)."""

    def __init__(self, surgery: _Surgery, node: ir.Node) -> None:
        self._surgery = surgery
        self.node = node
        self.version = surgery.version(node)
        self._inputs = [value.name if value is not None else None for value in node.inputs]

    def kept_input(self, index: int, axis: int) -> np.ndarray | None:
        mask = self._surgery.masks_of(self.node, index).get(axis)
        return None if mask is None else np.flatnonzero(mask)

    def kept_output(self, index: int, axis: int) -> np.ndarray | None:
        name = self.node.outputs[index].name or ""
        mask = self._surgery.whole.get(name, {}).get(axis)
        return None if mask is None else np.flatnonzero(mask)

    def _shape(self, name: str | None) -> tuple[int, ...]:
        return self._surgery.shapes.get(name or "", ())

    def input_shape(self, index: int) -> tuple[int | None, ...]:
        name = self._inputs[index] if index < len(self._inputs) else None
        return tuple(size if size >= 0 else None for size in self._shape(name))

    def output_shape(self, index: int) -> tuple[int | None, ...]:
        sizes = self._shape(self.node.outputs[index].name)
        return tuple(size if size >= 0 else None for size in sizes)

    def same_dim(self, axis: int) -> bool:
        first, second = self._shape(self._inputs[0]), self._shape(self.node.outputs[0].name)
        return axis < min(len(first), len(second)) and first[axis] == second[axis]

    def constant(self, index: int) -> np.ndarray | None:
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        known = self._surgery.constants.get(value.name or "") if value is not None else None
        return small_constant(value) if known is None else known

    def set_constant(self, index: int, array: np.ndarray) -> None:
        old = self.node.inputs[index] if index < len(self.node.inputs) else None
        value = self._surgery.new_constant(array, f"{node_name(self.node)}_kept", None)
        if index >= len(self.node.inputs):
            self.node.resize_inputs(index + 1)
        self.node.replace_input_with(index, value)
        self._inputs += [None] * (len(self.node.inputs) - len(self._inputs))
        if old is not None:
            _remove_if_unused(old)

    def set_attribute(self, name: str, value: int | Sequence[int]) -> None:
        if isinstance(value, int):
            self.node.attributes.add(ir.AttrInt64(name, value))
        else:
            self.node.attributes.add(ir.AttrInt64s(name, list(value)))

    def remove_attribute(self, name: str) -> None:
        self.node.attributes.pop(name, None)

    def become_gather(self, axis: int, indices: np.ndarray) -> None:
        for index in range(1, len(self.node.inputs)):
            old = self.node.inputs[index]
            self.node.replace_input_with(index, None)
            if old is not None:
                _remove_if_unused(old)
        self.node.resize_inputs(2)
        self.node.attributes.clear()
        self.node.op_type = "Gather"
        self.set_attribute("axis", axis)
        self.set_constant(1, np.asarray(indices, np.int64))


def _remove_if_unused(value: ir.Value) -> None:
    """Take away a Constant node that lost its last use."""
    producer = value.producer()
    graph = None if producer is None else producer.graph
    if producer is None or graph is None or producer.op_type != "Constant":
        return
    if not value.uses() and not value.is_graph_output():
        graph.remove(producer, safe=True)


def _taken(array: np.ndarray, axes: _Masks) -> np.ndarray:
    for axis, mask in sorted(axes.items()):
        array = np.take(array, np.flatnonzero(mask), axis)
    return np.ascontiguousarray(array)


def prunable_units(group: CouplingGroup) -> int:
    """How many units may go: all but one, or none of a frozen group."""
    return 0 if group.frozen_reason is not None else group.channels - 1
