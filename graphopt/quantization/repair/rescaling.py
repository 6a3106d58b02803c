"""Where a factor per channel can be taken off one side of a tensor and put on the other.

    y = W2 f(W1 x + b1)  =  (W2 s) f(W1 x / s + b1 / s)        for s > 0, f(s t) = s f(t)

A root (Conv, ConvTranspose, Gemm, MatMul, LayerNormalization, BatchNormalization, or a Mul by a
constant) takes 1/s. From there the factor runs through what commutes with it: Relu, LeakyRelu,
PRelu, pooling, Transpose, Mul by a constant; an added constant is divided too. It must end in
linear operators wherever the tensor goes, and these take s.

Not found, with the reason, where the tensor (or what is made of it) is an output of the graph,
is added to another (a residual chain would have to be scaled as a whole), or goes through
something that does not commute: Clip has one bound for all channels, Sigmoid is not homogeneous.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from graphopt.graph import constant_array, ir
from graphopt.quantization.repair.linear_layer import (
    LINEAR_OPERATORS,
    LinearLayer,
    linear_layer,
)
from graphopt.rewrite import NotApplicable
from graphopt.shapes import known_shape

_ELEMENTWISE = ("Relu", "LeakyRelu", "PRelu", "Identity", "Dropout")
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_NORMALIZATIONS = ("LayerNormalization", "BatchNormalization")


@dataclass
class Rescaling:
    """One tensor whose channels can be rescaled.

    Attributes:
        root: the node that takes the inverse factors.
        channels: how many factors there are.
        consumers: the linear operators that take the factors, in the graph's order.
        offsets: the Add and Sub nodes whose constant is divided, with its place among the
            inputs and the axis of channels.
        tensors: the names of the tensors that change, with their axis of channels.
    """

    root: ir.Node
    channels: int
    consumers: list[ir.Node] = field(default_factory=list)
    offsets: list[tuple[ir.Node, int, int]] = field(default_factory=list)
    tensors: dict[str, int] = field(default_factory=dict)

    def layers(self) -> list[LinearLayer]:
        """The consumers with their present weights."""
        return [linear_layer(node) for node in self.consumers]

    def apply(self, factors: np.ndarray) -> None:
        """Divide the tensor's channels by `factors` [channels], and make it good behind."""
        _divide_root(self.root, factors)
        for node, index, axis in self.offsets:
            array = constant_array(node.inputs[index])
            if array is None:
                raise RuntimeError(f"the constant of '{node.outputs[0].name}' has gone")
            rank = _rank(node.outputs[0])
            shape = [1] * rank
            shape[axis % rank] = -1
            set_constant(node, index, array.astype(np.float64) / factors.reshape(shape))
        for layer in self.layers():
            set_constant(layer.node, layer.weight_index, layer.scaled_inputs(factors))


def rescalings(
    graph: ir.Graph,
) -> Iterator[tuple[ir.Node, Rescaling | NotApplicable]]:
    """Every root of a graph in its order, with its rescaling or the reason why there is none."""
    within: set[int] = set()
    for node in graph:
        if id(node) in within or not _may_be_root(node):
            continue
        try:
            found = rescaling(node)
        except NotApplicable as refusal:
            yield node, refusal
        else:
            within.update(id(inner) for inner, _, _ in found.offsets)
            within.update(
                id(producer)
                for value in _values(found)
                if (producer := value.producer()) is not None
            )
            yield node, found


def rescaling(root: ir.Node) -> Rescaling:
    """What is rescaled with the output of `root`.

    Raises:
        NotApplicable: something stands in the way; the message says what.
    """
    axis, channels = _root_channels(root)
    if channels < 2:
        raise NotApplicable("there is one channel")
    found = Rescaling(root, channels)
    waiting = [(root.outputs[0], axis)]
    while waiting:
        value, axis = waiting.pop()
        if value.is_graph_output():
            raise NotApplicable(f"'{value.name}' is an output of the graph")
        if not value.uses():
            raise NotApplicable(f"'{value.name}' has no consumer")
        found.tensors[value.name or ""] = axis
        for use in value.uses():
            if use.node.graph is not root.graph:
                raise NotApplicable(f"'{value.name}' is used in a subgraph")
            following = _through(use.node, use.idx, value, axis, found)
            if following is not None:
                waiting.append(following)
    position = {id(node): at for at, node in enumerate(root.graph or ())}
    found.consumers.sort(key=lambda node: position[id(node)])
    return found


def set_constant(node: ir.Node, index: int, array: np.ndarray) -> None:
    """Let an input of `node` be this constant, in float32; others that use the old keep it."""
    value = node.inputs[index]
    graph = node.graph
    if value is None or graph is None:
        raise RuntimeError(f"{node.op_type} has no input {index}")
    tensor = np.ascontiguousarray(array, np.float32)
    only = len(value.uses()) == 1 and not value.is_graph_output() and not value.is_graph_input()
    same = value.const_value is not None and tuple(value.const_value.shape) == tensor.shape
    if value.is_initializer() and value.graph is graph and only and same:
        value.const_value = ir.tensor(tensor, name=value.name)
        return
    name = unique_name(graph, f"{value.name}_rescaled")
    replacement = ir.Value(name=name, const_value=ir.tensor(tensor, name=name))
    replacement.shape = ir.Shape(tensor.shape)
    replacement.type = ir.TensorType(ir.DataType.FLOAT)
    graph.initializers.add(replacement)
    node.replace_input_with(index, replacement)
    producer = value.producer()
    if not value.uses() and not value.is_graph_output():
        if producer is not None:
            graph.remove(producer, safe=True)
        elif value.is_initializer() and not value.is_graph_input() and value.graph is not None:
            value.graph.initializers.pop(value.name or "")


def unique_name(graph: ir.Graph, name: str) -> str:
    """`name`, or with the first number behind it that no value of the graph has."""
    taken = set(graph.initializers)
    taken.update(value.name or "" for value in graph.inputs)
    taken.update(value.name or "" for node in graph for value in node.outputs)
    number, unique = 0, name
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique


def bias_of(node: ir.Node) -> tuple[int, np.ndarray] | None:
    """The bias of Conv, ConvTranspose or Gemm: its input index and data; None without one.

    Raises:
        NotApplicable: it has one that is no constant.
    """
    if node.op_type == "MatMul" or len(node.inputs) < 3 or node.inputs[2] is None:
        return None
    bias = constant_array(node.inputs[2])
    if bias is None:
        raise NotApplicable(f"{node.op_type} bias is not a constant")
    return 2, bias


def _values(found: Rescaling) -> Iterator[ir.Value]:
    for node in found.root.graph or ():
        for value in node.outputs:
            if value.name in found.tensors:
                yield value


def _may_be_root(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Mul":
        return _constant_input(node) is not None
    return node.op_type in LINEAR_OPERATORS or node.op_type in _NORMALIZATIONS


def _root_channels(root: ir.Node) -> tuple[int, int]:
    """The axis of the root's output that is rescaled, and its size."""
    if root.op_type in LINEAR_OPERATORS:
        layer = linear_layer(root)
        bias_of(root)
        if root.op_type == "MatMul":
            return (-1 if layer.weight_index == 1 else -2), layer.outputs
        return 1, layer.outputs
    if root.op_type == "Mul":
        index = _constant_input(root)
        array = None if index is None else constant_array(root.inputs[index])
        if array is None or array.dtype != np.float32 or array.size <= 1:
            raise NotApplicable("Mul is not by one factor per channel")
        varying = [at for at, size in enumerate(array.shape) if size != 1]
        if len(varying) != 1:
            raise NotApplicable("the constant of Mul varies along several axes")
        return varying[0] - array.ndim, int(array.size)
    scale = constant_array(root.inputs[1])
    offset = constant_array(root.inputs[2]) if len(root.inputs) > 2 else None
    if scale is None or scale.dtype != np.float32 or scale.ndim != 1:
        raise NotApplicable(f"{root.op_type} scale is no constant vector of float32")
    if offset is None and len(root.inputs) > 2 and root.inputs[2] is not None:
        raise NotApplicable(f"{root.op_type} bias is not a constant")
    if any(output.uses() for output in root.outputs[1:]):
        raise NotApplicable(f"{root.op_type} has further outputs in use")
    if root.op_type == "BatchNormalization":
        return 1, int(scale.size)
    rank = _rank(root.outputs[0])
    if root.attributes.get_int("axis", -1) not in (-1, rank - 1):
        raise NotApplicable("LayerNormalization normalizes several axes")
    return -1, int(scale.size)


def _through(
    node: ir.Node, index: int, value: ir.Value, axis: int, found: Rescaling
) -> tuple[ir.Value, int] | None:
    """What follows of a use of the tensor: the value that is rescaled as well, or None.

    Raises:
        NotApplicable: the factor cannot pass.
    """
    kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    if kind in LINEAR_OPERATORS:
        _end(node, index, value, axis, found)
        return None
    if kind in _ELEMENTWISE and index == 0:
        if kind == "PRelu" and constant_array(node.inputs[1]) is None:
            raise NotApplicable("PRelu slope is not a constant")
        return node.outputs[0], axis
    if kind in _POOLS:
        if _normal(axis, value) != 1 or any(out.uses() for out in node.outputs[1:]):
            raise NotApplicable(f"{kind} mixes the channels")
        return node.outputs[0], axis
    if kind == "Transpose":
        rank = _rank(value)
        order = list(node.attributes.get_ints("perm", list(range(rank))[::-1]))
        return node.outputs[0], order.index(axis % rank)
    if kind == "Flatten":
        shape = known_shape(value)
        if shape is None or _normal(axis, value) != 1 or any(dim != 1 for dim in shape[2:]):
            raise NotApplicable("Flatten mixes channels and positions")
        if node.attributes.get_int("axis", 1) != 1:
            raise NotApplicable("Flatten mixes channels and samples")
        return node.outputs[0], 1
    if kind in ("Add", "Sub", "Mul", "Div"):
        return _through_arithmetic(node, index, value, axis, found)
    if kind == "Clip":
        raise NotApplicable("Clip has the same bounds for all channels")
    raise NotApplicable(f"{kind} does not commute with a factor per channel")


def _through_arithmetic(
    node: ir.Node, index: int, value: ir.Value, axis: int, found: Rescaling
) -> tuple[ir.Value, int]:
    other = 1 - index
    array = constant_array(node.inputs[other])
    if array is None:
        what = "another tensor" if node.op_type in ("Add", "Sub") else "a tensor that varies"
        raise NotApplicable(f"{node.op_type} joins it with {what} ('{node.outputs[0].name}')")
    rank = _rank(value)
    if array.ndim > rank:
        raise NotApplicable(f"{node.op_type} raises the rank")
    if node.op_type == "Div" and index == 1:
        raise NotApplicable("Div divides by it")
    if node.op_type in ("Add", "Sub"):
        if array.dtype != np.float32:
            raise NotApplicable(f"{node.op_type} adds {array.dtype}")
        found.offsets.append((node, other, axis % rank))
    return node.outputs[0], axis % rank


def _end(node: ir.Node, index: int, value: ir.Value, axis: int, found: Rescaling) -> None:
    layer = linear_layer(node)
    if index != 1 - layer.weight_index:
        raise NotApplicable(f"{node.op_type} '{layer.name}' takes it as a bias")
    if node.op_type == "MatMul":
        expected = _rank(value) - (1 if layer.weight_index == 1 else 2)
    elif node.op_type == "Gemm":
        expected = 0 if node.attributes.get_int("transA", 0) else 1
    else:
        expected = 1
    if _normal(axis, value) != expected or layer.inputs != found.channels:
        raise NotApplicable(f"{node.op_type} '{layer.name}' does not read it channel by channel")
    if node in found.consumers:
        raise NotApplicable(f"{node.op_type} '{layer.name}' reads it twice")
    found.consumers.append(node)


def _divide_root(root: ir.Node, factors: np.ndarray) -> None:
    if root.op_type in LINEAR_OPERATORS:
        layer = linear_layer(root)
        bias = bias_of(root)
        set_constant(root, layer.weight_index, layer.scaled_outputs(1 / factors))
        if bias is not None:
            set_constant(root, bias[0], bias[1].astype(np.float64) / factors)
        return
    if root.op_type == "Mul":
        index = _constant_input(root)
        array = None if index is None else constant_array(root.inputs[index])
        if index is None or array is None:
            raise RuntimeError(f"the constant of '{root.outputs[0].name}' has gone")
        set_constant(root, index, array.astype(np.float64) / factors.reshape(array.shape))
        return
    for index in (1, 2):
        array = constant_array(root.inputs[index]) if index < len(root.inputs) else None
        if array is not None:
            set_constant(root, index, array.astype(np.float64) / factors)


def _constant_input(node: ir.Node) -> int | None:
    for index in (1, 0):
        if constant_array(node.inputs[index]) is not None:
            return None if constant_array(node.inputs[1 - index]) is not None else index
    return None


def _rank(value: ir.Value) -> int:
    shape = known_shape(value)
    if shape is None:
        raise NotApplicable(f"the rank of '{value.name}' is unknown")
    return len(shape)


def _normal(axis: int, value: ir.Value) -> int:
    """A non-negative axis."""
    return axis if axis >= 0 else axis % _rank(value)
