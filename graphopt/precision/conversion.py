"""Carries out a placement: types change, constants are rounded, Casts go where types meet.

    x (float32) -> Conv -> y -> Resize(scales) -> z      ->      x -> Cast -> Conv(half) -> ...

Each tensor is cast at most once, beside its producer; those who read it in the other precision
share the Cast, in subgraphs too. A constant is rounded, and kept in float32 as well only where
somebody reads it so. A Cast of the model that has nothing left to do goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from graphopt.graph import constant_tensor, ir, nested_graphs
from graphopt.precision.flow import Cluster, Flow, Tensor, Use
from graphopt.precision.formats import HalfFormat
from graphopt.precision.operators import DTYPE_ATTRIBUTES, FLOAT_BY_DEFAULT
from graphopt.precision.slots import with_element
from graphopt.rewrite import Journal, Rewriter
from graphopt.rewrite.rewriter import ORIGIN_KEY, PASS_KEY


@dataclass(frozen=True)
class Conversion:
    """What was done.

    Attributes:
        half_nodes: how many nodes compute in half now.
        casts: how many Casts were added.
        removed_casts: how many of the model's own went.
    """

    half_nodes: int
    casts: int
    removed_casts: int


def apply_placement(
    model: ir.Model,
    flow: Flow,
    placement: dict[Cluster, bool],
    half: HalfFormat,
    journal: Journal,
    clamped: Mapping[ir.Value, float] | None = None,
    rounded: Mapping[ir.Value, np.ndarray] | None = None,
) -> Conversion:
    """Convert what the placement says; `model` is the one that `flow` was read from.

    Args:
        model: changed in place.
        flow: its clusters and tensors.
        placement: which clusters go to half. Where the journal does not permit it, one stays.
        half: the type.
        journal: takes one record for each cluster with nodes.
        clamped: constants -> the magnitude to clamp their finite values to.
        rounded: constants -> what they become in half, where that is not the nearest.
    """
    chosen: set[Cluster] = set()
    for cluster in flow.clusters:
        if not placement.get(cluster):
            continue
        if cluster.nodes:
            if not journal.permits(cluster.site):
                continue
            kinds = " + ".join(dict.fromkeys(node.op_type for node in cluster.nodes))
            journal.record(cluster.site, f"{kinds} in {half.name}")
        chosen.add(cluster)
    return _Editor(model, half, journal, chosen, clamped or {}, rounded or {}).run(flow)


@dataclass
class _Editor:
    model: ir.Model
    half: HalfFormat
    journal: Journal
    chosen: set[Cluster]
    clamped: Mapping[ir.Value, float]
    rounded: Mapping[ir.Value, np.ndarray]
    casts: int = 0
    _names: Rewriter = field(init=False)

    def __post_init__(self) -> None:
        self._names = Rewriter(self.model, self.journal)

    def run(self, flow: Flow) -> Conversion:
        if not self.chosen:
            return Conversion(0, 0, 0)
        for node, cluster in flow.by_node.items():
            if self._is_half(cluster):
                self._change_attributes(node)
        for tensor in flow.tensors:
            if tensor.producer is None:
                self._change_constant(tensor)
            else:
                self._change_value(tensor, self._is_half(tensor.producer))
        removed = self._remove_idle_casts()
        count = sum(self._is_half(cluster) for cluster in flow.by_node.values())
        return Conversion(count, self.casts, removed)

    def _is_half(self, cluster: Cluster) -> bool:
        return cluster.root() in self.chosen

    # Values --------------------------------------------------------------------------------

    def _change_value(self, tensor: Tensor, made_half: bool) -> None:
        value = tensor.value
        others = [
            use
            for use in tensor.uses
            if use.cluster is not None and self._is_half(use.cluster) != made_half
        ]
        if made_half:
            value.type = with_element(value.type, self.half.dtype)
            if value.is_initializer() and value.const_value is not None:
                value.const_value = self._in_half(value.const_value, value.name, limit=None)
        if others:
            self._cast(tensor, others, to_half=not made_half)

    def _cast(self, tensor: Tensor, uses: list[Use], *, to_half: bool) -> None:
        """Add one Cast beside the producer, and have `uses` read what it gives."""
        value = tensor.value
        dtype = self.half.dtype if to_half else ir.DataType.FLOAT
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], num_outputs=1)
        made = node.outputs[0]
        made.type = ir.TensorType(dtype)
        made.shape = None if value.shape is None else value.shape.copy()
        suffix = "half" if to_half else "float"
        name = value.name or "value"
        is_output = any(use.holder is self.model.graph for use in uses)
        if is_output:
            # The interface keeps its names: the producer's tensor takes another.
            value.name = self._names.unique_name(f"{name}_{'float' if to_half else 'half'}")
            made.name = name
            made.doc_string, value.doc_string = value.doc_string, None
            made.metadata_props.update(value.metadata_props)
        else:
            made.name = self._names.unique_name(f"{name}_{suffix}")
        producer = value.producer()
        if producer is not None:
            node.name = f"{made.name}_Cast"
            node.metadata_props[ORIGIN_KEY] = producer.metadata_props.get(
                ORIGIN_KEY, producer.name or f"{producer.op_type}:{name}"
            )
            tensor.graph.insert_after(producer, node)
        else:
            node.name = f"{made.name}_Cast"
            node.metadata_props[ORIGIN_KEY] = name
            first = next(iter(tensor.graph), None)
            if first is None:
                tensor.graph.append(node)
            else:
                tensor.graph.insert_before(first, node)
        node.metadata_props[PASS_KEY] = self.journal.pass_name
        self.casts += 1
        _redirect(uses, made)

    def _change_constant(self, tensor: Tensor) -> None:
        """Give each reader the constant in its own precision."""
        value = tensor.value
        held = constant_tensor(value)
        wanted = [
            use for use in tensor.uses if use.cluster is not None and self._is_half(use.cluster)
        ]
        if held is None or not wanted:
            return
        producer = value.producer()
        in_place = len(wanted) == sum(use.cluster is not None for use in tensor.uses)
        if in_place and producer is None:
            value.const_value = self._constant(value, held, value.name)
            value.type = ir.TensorType(self.half.dtype)
            return
        name = value.name or "constant"
        unique = name if in_place else self._names.unique_name(f"{name}_half")
        rounded = self._constant(value, held, unique)
        if producer is None:
            new = ir.Value(name=unique, const_value=rounded)
            tensor.graph.initializers.add(new)
        else:
            node = ir.Node("", "Constant", [], [ir.AttrTensor("value", rounded)], num_outputs=1)
            node.name = producer.name if in_place else f"{producer.name or name}_half"
            node.metadata_props.update(producer.metadata_props)
            node.metadata_props.setdefault(ORIGIN_KEY, producer.name or f"Constant:{name}")
            node.metadata_props[PASS_KEY] = self.journal.pass_name
            tensor.graph.insert_before(producer, node)
            new = node.outputs[0]
            if in_place:
                value.name = None
            new.name = unique
        new.type = ir.TensorType(self.half.dtype)
        new.shape = ir.Shape(held.shape.numpy())
        _redirect(list(tensor.uses) if in_place else wanted, new)
        if in_place and producer is not None:
            tensor.graph.remove(producer, safe=True)

    def _constant(
        self, value: ir.Value, held: ir.TensorProtocol, name: str | None
    ) -> ir.TensorProtocol:
        """What a constant becomes in half."""
        chosen = self.rounded.get(value)
        if chosen is not None:
            return ir.tensor(self.half.cast(chosen), dtype=self.half.dtype, name=name)
        return self._in_half(held, name, limit=self.clamped.get(value))

    def _in_half(
        self, tensor: ir.TensorProtocol, name: str | None, *, limit: float | None
    ) -> ir.TensorProtocol:
        """The tensor in half, read and rounded each time it is asked for: nothing is kept."""
        half = self.half

        def evaluate() -> ir.TensorProtocol:
            array = half.cast(tensor.numpy(), limit=limit)
            release = getattr(tensor, "release", None)
            if release is not None:
                release()
            return ir.tensor(array, dtype=half.dtype, name=name)

        shape = ir.Shape([int(size) for size in tensor.shape.numpy()])
        return ir.LazyTensor(evaluate, dtype=half.dtype, shape=shape, name=name)

    # Nodes ---------------------------------------------------------------------------------

    def _change_attributes(self, node: ir.Node) -> None:
        """Let attributes that speak of float32 speak of half."""
        for name in DTYPE_ATTRIBUTES:
            held = node.attributes.get(name)
            if held is not None and not held.is_ref() and held.value == ir.DataType.FLOAT:
                node.attributes[name] = ir.AttrInt64(name, int(self.half.dtype))
        missing = FLOAT_BY_DEFAULT.get(node.op_type)
        if missing is not None and missing not in node.attributes:
            node.attributes[missing] = ir.AttrInt64(missing, int(self.half.dtype))
        if node.op_type == "ConstantOfShape":
            held = node.attributes.get("value")
            filled = np.zeros(1, np.float32) if held is None else held.as_tensor().numpy()
            array = self.half.cast(filled, limit=self.clamped.get(node.outputs[0]))
            node.attributes["value"] = ir.AttrTensor(
                "value", ir.tensor(array, dtype=self.half.dtype)
            )

    def _remove_idle_casts(self) -> int:
        """Take out the model's own Casts whose input has the type wanted already."""
        removed = 0
        for graph in list(nested_graphs(self.model.graph)):
            for node in list(graph):
                if node.op_type != "Cast" or node.domain != "":
                    continue
                source, made = node.inputs[0], node.outputs[0]
                if source is None or source.dtype != node.attributes.get_int("to", 0):
                    continue
                if source.dtype != self.half.dtype or made.is_graph_output():
                    continue
                for use in tuple(made.uses()):
                    use.node.replace_input_with(use.idx, source)
                graph.remove(node, safe=True)
                removed += 1
        return removed


def _redirect(uses: list[Use], value: ir.Value) -> None:
    for use in uses:
        if isinstance(use.holder, ir.Node):
            use.holder.replace_input_with(use.index, value)
        else:
            use.holder.outputs[use.index] = value


def count_casts(model: ir.Model) -> int:
    """Cast nodes of a model, those in subgraphs included."""
    return sum(node.op_type == "Cast" for graph in nested_graphs(model.graph) for node in graph)
