"""Writes a plan into a model: QuantizeLinear and DequantizeLinear around what runs in integers.

    x -> [Q -> DQ] -> Conv(., DQ(W_int8), DQ(b_int32)) -> Relu -> [Q -> DQ] -> ...

A tensor has one Q and one DQ, which all quantized readers share; float readers read the DQ too
if a quantized group writes the tensor in integers, and the float tensor otherwise. Tensors that
are tied share one scale and one zero point in the model too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph import all_nodes, clone, constant_array, ir, opset_version
from graphopt.quantization.backends import BACKENDS
from graphopt.quantization.borders import Borders, readers_of
from graphopt.quantization.constants import QuantizedConstant
from graphopt.quantization.fences import FENCE, is_taken_unasked
from graphopt.quantization.groups import Group, name_of
from graphopt.quantization.opset import least_opset
from graphopt.quantization.parameters import Parameters
from graphopt.quantization.plan import Plan
from graphopt.rewrite import Journal, Rewriter
from graphopt.rewrite.journal import site_of
from graphopt.rewrite.rewriter import ORIGIN_KEY, PASS_KEY


def insert_qdq(model: ir.Model, plan: Plan, journal: Journal) -> None:
    """Insert what the plan says into `model`, in place; one journal entry per group.

    Inputs and outputs of the model keep names, types and shapes. A group that the journal does
    not permit stays float, and its neighbours adapt. What the plan left float is declined.

    Raises:
        UsageError: the plan is of another model, or needs a later operator set.
    """
    _Insertion(model, plan, journal).run()


def quantized(model: ir.Model, plan: Plan) -> ir.Model:
    """A copy of `model` with the plan inserted; it shares the weights that stay float.

    Raises:
        UsageError: as `insert_qdq`.
    """
    copied = clone(model)
    insert_qdq(copied, plan, Journal("insert-qdq"))
    return copied


class _Insertion:
    def __init__(self, model: ir.Model, plan: Plan, journal: Journal) -> None:
        self.model = model
        self.plan = plan
        self.backend = BACKENDS.get(plan.backend)
        self.journal = journal
        self.rewriter = Rewriter(model, journal)
        self.nodes = {name_of(node): node for node in model.graph if name_of(node)}
        self.values: dict[str, ir.Value] = {
            value.name: value
            for value in (
                *model.graph.inputs,
                *(value for node in model.graph for value in node.outputs),
            )
            if value.name
        }
        self.parameters: dict[Parameters, tuple[ir.Value, ir.Value | None]] = {}
        self.constants: dict[tuple[str, Parameters, bytes | None], ir.Value] = {}
        self.node_names = {node.name for node in model.graph if node.name}

    def run(self) -> None:
        self._check()
        known = {name_of(node): node for node in all_nodes(self.model)}
        for name, reason in self.plan.left_float.items():
            if name in known:
                self.journal.decline(site_of(known[name]), reason)
        permitted: list[Group] = []
        for group in self.plan.groups:
            site = site_of(self.nodes[group.name])
            if self.journal.permits(site):
                permitted.append(group)
                kind = self.plan.activations[group.writes[0]] if self._writes(group) else None
                detail = " + ".join(self.nodes[name].op_type for name in group.nodes)
                into = f" to {kind.dtype.name.lower()}" if kind is not None else ""
                self.journal.record(site, f"{detail} quantized{into}")
        borders = Borders(permitted, readers_of(self.model, permitted))
        tensors = dict.fromkeys(
            tensor for group in permitted for tensor in group.tensors if borders.is_integer(tensor)
        )
        # Which they are is asked before the first change: afterwards the readers are others.
        written = {tensor for tensor in tensors if borders.writes(tensor)}
        reading: dict[str, list[tuple[str, int]]] = {}
        for group in permitted:
            for use in group.reads:
                reading.setdefault(use.tensor, []).append((use.node, use.index))
        fenced = {
            tensor
            for tensor in tensors
            if tensor not in written
            and is_taken_unasked(self.values[tensor], written, self.backend)
        }
        for tensor in tensors:
            self._activation(tensor, reading.get(tensor, []), tensor in written, tensor in fenced)
        for group in permitted:
            for use in (*group.weights, *((group.bias,) if group.bias is not None else ())):
                item = self.plan.constants.get((use.node, use.index))
                if item is not None:
                    self._constant(item)

    def _writes(self, group: Group) -> bool:
        return group.writes[0] in self.plan.activations

    def _check(self) -> None:
        """Raise where the plan does not fit the model."""
        for group in self.plan.groups:
            uses = (*group.reads, *group.weights, *((group.bias,) if group.bias else ()))
            for name in group.nodes:
                if name not in self.nodes:
                    raise UsageError(f"the plan is of another model: it has no node {name!r}")
            for use in uses:
                inputs = self.nodes[use.node].inputs if use.node in self.nodes else ()
                value = inputs[use.index] if use.index < len(inputs) else None
                if value is None or value.name != use.tensor:
                    raise UsageError(
                        f"the plan is of another model: {use.node!r} does not read {use.tensor!r}"
                    )
        needed = least_opset(
            [
                *self.plan.activations.values(),
                *(item.parameters for item in self.plan.constants.values()),
            ]
        )
        present = opset_version(self.model.graph, self.model)
        if self.plan.groups and present < needed:
            raise UsageError(
                f"the plan needs opset {needed} and the model has {present}: raise it first"
            )

    # -- activations

    def _activation(
        self, tensor: str, reading: Sequence[tuple[str, int]], written: bool, fenced: bool
    ) -> None:
        """Put a Q and a DQ behind a tensor, and let its readers read the latter."""
        value = self.values[tensor]
        parameters = self.plan.activations[tensor]
        producer = value.producer()
        readers = [self.nodes[node] for node, _ in reading]
        source = _origin(producer if producer is not None else readers[0])
        is_output = written and value.is_graph_output()
        outputs = [i for i, other in enumerate(self.model.graph.outputs) if other is value]
        usages = tuple(value.uses()) if written else ()
        if is_output and outputs:
            # The caller knows the tensor by this name.
            value.name = self.rewriter.unique_name(f"{tensor}_float")
        scale, zero_point = self._parameter_values(parameters, tensor)
        nodes: list[ir.Node] = []
        plain = value
        if fenced:
            fence = self._node(FENCE, [value], tensor, source)
            plain = self._name(fence.outputs[0], f"{tensor}_fenced", ir.DataType.FLOAT, value)
            nodes.append(fence)
        quantize = self._node("QuantizeLinear", [plain, scale, zero_point], tensor, source)
        middle = self._name(quantize.outputs[0], f"{tensor}_quantized", parameters.dtype, value)
        dequantize = self._node("DequantizeLinear", [middle, scale, zero_point], tensor, source)
        result = self._name(
            dequantize.outputs[0], f"{tensor}_dequantized", ir.DataType.FLOAT, value
        )
        if written:
            for usage in usages:
                usage.node.replace_input_with(usage.idx, result)
        else:
            for node, index in reading:
                self.nodes[node].replace_input_with(index, result)
        if is_output and outputs:
            result.name = tensor
            # The declared type and shape belong to the interface.
            result.type, result.shape = value.type, value.shape
            result.doc_string = value.doc_string
            result.metadata_props.update(value.metadata_props)
            for index in outputs:
                self.model.graph.outputs[index] = result
            self.values[tensor] = result
        nodes += [quantize, dequantize]
        graph = self.model.graph
        if producer is not None:
            graph.insert_after(producer, nodes)
        else:
            graph.insert_before(graph[0], nodes)

    # -- constants

    def _constant(self, item: QuantizedConstant) -> None:
        """Let one input of a node read its constant as integers, dequantized."""
        node = self.nodes[item.node]
        value = node.inputs[item.index]
        array = constant_array(value)
        if value is None or array is None:
            raise UsageError(f"input {item.index} of {item.node!r} is no constant")
        if item.parameters.dtype == ir.DataType.INT32:
            array = self._broadcast(array, item, node)
        stored = None if item.integers is None else item.integers.tobytes()
        key = (f"{item.tensor} {array.shape}", item.parameters, stored)
        result = self.constants.get(key)
        if result is None:
            integers = item.quantize(array)
            held = self._initializer(integers, item.parameters.dtype, f"{item.tensor}_quantized")
            scale, zero_point = self._parameter_values(item.parameters, item.tensor)
            axis = item.parameters.axis
            attributes = {} if axis is None else {"axis": axis}
            inputs = [held, scale, zero_point]
            dequantize = self._node(
                "DequantizeLinear", inputs, item.tensor, _origin(node), attributes
            )
            result = self._name(
                dequantize.outputs[0], f"{item.tensor}_dequantized", ir.DataType.FLOAT, held
            )
            self.model.graph.insert_before(node, [dequantize])
            self.constants[key] = result
        node.replace_input_with(item.index, result)
        self._drop(value)

    def _broadcast(self, bias: np.ndarray, item: QuantizedConstant, node: ir.Node) -> np.ndarray:
        """A bias as one number per channel, whatever its shape broadcast from."""
        flat = bias.reshape(-1)
        if item.parameters.axis is None:
            return flat
        return np.broadcast_to(flat, item.parameters.scale.shape)

    def _drop(self, value: ir.Value) -> None:
        """Remove a constant that nobody reads any more."""
        if value._uses or value.is_graph_output():
            return
        producer = value.producer()
        if producer is not None:
            self.model.graph.remove(producer)
        elif value.name in self.model.graph.initializers:
            self.model.graph.initializers.pop(value.name or "")

    # -- making

    def _parameter_values(
        self, parameters: Parameters, name: str
    ) -> tuple[ir.Value, ir.Value | None]:
        """Scale and zero point as initializers; those of equal parameters are the same.

        A bias has no zero point: int32 allows none but 0, which is the default.
        """
        found = self.parameters.get(parameters)
        if found is None:
            scale = self._initializer(parameters.scale, ir.DataType.FLOAT, f"{name}_scale")
            zero_point = None
            if parameters.dtype != ir.DataType.INT32:
                zero_point = self._initializer(
                    parameters.zero_point, parameters.dtype, f"{name}_zero_point"
                )
            found = self.parameters[parameters] = scale, zero_point
        return found

    def _initializer(self, array: np.ndarray, dtype: ir.DataType, name: str) -> ir.Value:
        unique = self.rewriter.unique_name(name)
        tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), dtype, name=unique)
        value = ir.Value(
            name=unique,
            const_value=tensor,
            type=ir.TensorType(dtype),
            shape=ir.Shape(array.shape),
        )
        self.model.graph.initializers.add(value)
        return value

    def _node(
        self,
        op_type: str,
        inputs: Iterable[ir.Value | None],
        tensor: str,
        origin: str,
        attributes: dict[str, int] | None = None,
    ) -> ir.Node:
        """A node that says which one it came with."""
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        made = [ir.AttrInt64(name, value) for name, value in (attributes or {}).items()]
        node = ir.Node("", op_type, given, made)
        base = unique = f"{tensor}_{op_type}"
        number = 1
        while unique in self.node_names:
            unique = f"{base}_{number}"
            number += 1
        self.node_names.add(unique)
        node.name = unique
        node.metadata_props[ORIGIN_KEY] = origin
        node.metadata_props[PASS_KEY] = self.journal.pass_name
        return node

    def _name(self, value: ir.Value, name: str, dtype: ir.DataType, like: ir.Value) -> ir.Value:
        value.name = self.rewriter.unique_name(name)
        value.type = ir.TensorType(dtype)
        value.shape = None if like.shape is None else like.shape.copy()
        return value


def _origin(node: ir.Node) -> str:
    """The nodes of the input model that a node stands for; itself, if no pass made it."""
    known = node.metadata_props.get(ORIGIN_KEY)
    return known or node.name or f"{node.op_type}:{name_of(node)}"
