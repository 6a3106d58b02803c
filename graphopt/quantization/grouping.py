"""Forms the group around one node, or says why the node stays float.

Conv -> Relu -> Q              one group: Relu is what the lowest integer stands for
MatMul -> Add(constant [N])    one group: the constant is the bias of the product
Conv -> Add(x) -> Relu         one group where the backend adds the residual in its kernel
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from graphopt.graph import constant_array, constant_tensor, ir, opset_version
from graphopt.quantization.backends.backend import Backend, Output, Role, Rule
from graphopt.quantization.groups import Group, Use, name_of
from graphopt.quantization.placement_conditions import CONDITIONS
from graphopt.rewrite.constant_time import use_count
from graphopt.shapes import known_shape

_QUANTIZED_ALREADY = "its neighbours are quantized already"
_WRITES = {Output.INTEGER: True, Output.EITHER: None, Output.FLOAT: False}
_UNBOUNDED = float(np.finfo(np.float32).max)


class Declined(Exception):  # noqa: N818 - a refusal, not an error
    """A node stays float; the message says why, as the end of a sentence about it."""


class NotFloat(Declined):
    """A node stays as it is, since what it reads is no float32."""


class Formed(NamedTuple):
    """A group, and the nodes that are in it."""

    group: Group
    nodes: tuple[ir.Node, ...]


def form_group(
    node: ir.Node, rule: Rule, backend: Backend, model: ir.Model, excluded: set[ir.Node]
) -> Formed:
    """The group with `node` as its main node; of those in `excluded` it takes in none.

    Raises:
        Declined: the node stays float.
    """
    for name in rule.conditions:
        reason = CONDITIONS[name](node)
        if reason is not None:
            raise Declined(reason)
    role = rule.role
    reads, weights = _operands(node, rule)
    if not reads:
        if not (rule.table and weights):
            raise Declined("it reads constants only")
        role = Role.LOOKUP
    elif role in (Role.MOVEMENT, Role.JOIN) and weights:
        raise Declined("it reads a constant")
    tail = _Tail(node, rule, model, excluded)
    tail.absorb()
    bias = tail.bias or _bias(node, rule)
    if bias is not None and (backend.bias is None or not _bias_fits(bias, tail, weights)):
        bias = None
    for value in tail.last.outputs:
        if any(_quantizes(usage.node) for usage in value.uses()):
            raise Declined(_QUANTIZED_ALREADY)
    group = Group(
        name=name_of(node),
        op_type=node.op_type,
        role=role,
        nodes=tuple(name_of(member) for member in tail.nodes),
        reads=(*reads, *tail.reads),
        writes=tuple(value.name for value in tail.last.outputs if value.name),
        writes_integers=True if tail.is_merged() else _WRITES[rule.output],
        weights=tuple(weights),
        bias=bias,
        clip=tail.clip,
        slow=rule.slow,
        chained=rule.chained,
        saturates=rule.saturates and not _is_depthwise(node),
    )
    return Formed(group, tuple(tail.nodes))


def _operands(node: ir.Node, rule: Rule) -> tuple[list[Use], list[Use]]:
    """The activations and the constants among the operands."""
    reads: list[Use] = []
    weights: list[Use] = []
    indices = range(len(node.inputs)) if rule.operands is None else rule.operands
    for index in indices:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or not value.name:
            raise Declined("an operand is missing")
        use = Use(name_of(node), index, value.name)
        tensor = constant_tensor(value)
        if tensor is not None:
            if tensor.dtype != ir.DataType.FLOAT:
                raise NotFloat(f"its constant is {tensor.dtype.name.lower()}, not float")
            weights.append(use)
            continue
        _check_activation(value)
        reads.append(use)
    return reads, weights


def _check_activation(value: ir.Value) -> None:
    if value.dtype is None:
        raise Declined(f"the type of '{value.name}' is not known")
    if value.dtype != ir.DataType.FLOAT:
        raise NotFloat(f"'{value.name}' is {value.dtype.name.lower()}, not float")
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        raise Declined(_QUANTIZED_ALREADY)


def _quantizes(node: ir.Node) -> bool:
    return node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear")


def _bias(node: ir.Node, rule: Rule) -> Use | None:
    """The constant bias of the main node."""
    if rule.bias is None or len(node.inputs) <= rule.bias:
        return None
    value = node.inputs[rule.bias]
    if value is None or not value.name:
        return None
    if constant_tensor(value) is None:
        raise Declined("its bias is not a constant")
    return Use(name_of(node), rule.bias, value.name)


def _bias_fits(bias: Use, tail: _Tail, weights: list[Use]) -> bool:
    """Whether a bias can be integers: beside one constant weight, on the right."""
    if bias.node == tail.nodes[0].outputs[0].name:
        return True
    return len(weights) == 1 and weights[0].index == 1 and tail.is_gemm


def _is_depthwise(node: ir.Node) -> bool:
    """Whether a Conv has one input and one output channel per group: its kernel adds in int32."""
    weight = constant_tensor(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.op_type != "Conv" or weight is None:
        return False
    dims = weight.shape.numpy()
    return dims[1] == 1 and node.attributes.get_int("group", 1) == dims[0]


@dataclass
class _Tail:
    """What stands behind a main node and belongs to its kernel.

    Attributes:
        node: the main node.
        rule: its rule.
        model: the model.
        excluded: nodes that the user wants float, and those of other groups.
    """

    node: ir.Node
    rule: Rule
    model: ir.Model
    excluded: set[ir.Node]

    def __post_init__(self) -> None:
        self.nodes = [self.node]
        self.reads: list[Use] = []
        self.bias: Use | None = None
        self.clip: tuple[float, float] | None = None
        self.is_gemm = False

    @property
    def last(self) -> ir.Node:
        """The node that gives its outputs to others."""
        return self.nodes[-1]

    def absorb(self) -> None:
        """Take in what follows, as far as the rule allows."""
        if "Add" in self.rule.absorbs:
            self._absorb_bias()
        if self.rule.absorbs_residual:
            self._absorb_residual()
        # Two activations in a row are what an exporter leaves of Relu6.
        while self._absorb_activation():
            pass

    def is_merged(self) -> bool:
        """Whether the backend would merge a float output with its reader; see `Rule`."""
        if self.last is not self.node:
            return False
        shape = known_shape(self.node.outputs[0])
        if shape is not None and len(shape) != 2:
            return False
        return any(self._next(op_type) is not None for op_type in self.rule.merged_with)

    def _next(self, op_type: str) -> ir.Node | None:
        """The only reader of what the group writes so far, if it is of that operator."""
        outputs = [value for value in self.last.outputs if value.name]
        if len(outputs) != 1 or outputs[0].is_graph_output() or use_count(outputs[0]) != 1:
            return None
        (usage,) = outputs[0].uses()
        reader = usage.node
        if reader.op_type != op_type or reader.domain != "" or reader in self.excluded:
            return None
        return reader if reader.graph is self.node.graph else None

    def _other_side(self, add: ir.Node) -> tuple[int, ir.Value] | None:
        for index, value in enumerate(add.inputs):
            if value is not None and value.producer() is not self.last:
                return index, value
        return None

    def _absorb_bias(self) -> None:
        """An Add of one number per column behind a MatMul."""
        add = self._next("Add")
        other = None if add is None else self._other_side(add)
        if add is None or other is None or not other[1].name:
            return
        tensor = constant_tensor(other[1])
        weight = constant_tensor(self.node.inputs[1])
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or weight is None:
            return
        columns = weight.shape.numpy()
        shape = known_shape(self.node.inputs[0]) if self.node.inputs[0] is not None else None
        dims = tensor.shape.numpy()
        rank = 1 if shape is None else len(shape)
        if len(columns) != 2 or not dims or dims[-1] != columns[1]:
            return
        if tensor.size != columns[1] or len(dims) > rank:
            return
        self.nodes.append(add)
        self.bias = Use(name_of(add), other[0], other[1].name)
        # ONNX Runtime makes a Gemm of the two where it knows the rows: of rank 2, or static.
        self.is_gemm = shape is not None and (
            len(shape) == 2 or all(isinstance(dim, int) for dim in shape)
        )

    def _absorb_residual(self) -> None:
        add = self._next("Add")
        other = None if add is None else self._other_side(add)
        if add is None or other is None or not other[1].name:
            return
        if constant_tensor(other[1]) is not None:
            return
        try:
            _check_activation(other[1])
        except Declined:
            return
        self.nodes.append(add)
        self.reads.append(Use(name_of(add), other[0], other[1].name))

    def _absorb_activation(self) -> bool:
        for op_type in ("Relu", "Clip"):
            if op_type not in self.rule.absorbs:
                continue
            follower = self._next(op_type)
            bounds = None if follower is None else self._bounds(follower)
            if follower is None or bounds is None:
                continue
            low, high = self.clip or (-_UNBOUNDED, _UNBOUNDED)
            self.clip = max(low, bounds[0]), min(high, bounds[1])
            self.nodes.append(follower)
            return True
        return False

    def _bounds(self, node: ir.Node) -> tuple[float, float] | None:
        """What an activation holds its output within; None where integers cannot."""
        if node.op_type == "Relu":
            return 0.0, _UNBOUNDED
        bounds = [-_UNBOUNDED, _UNBOUNDED]
        if opset_version(node, self.model) < 11:
            bounds = [
                node.attributes.get_float(name, default)
                for name, default in zip(("min", "max"), bounds, strict=True)
            ]
        else:
            for index, value in enumerate(node.inputs[1:3]):
                if value is None or not value.name:
                    continue
                array = constant_array(value, 1)
                if array is None:
                    return None
                bounds[index] = float(array.reshape(-1)[0])
        low, high = bounds
        # 0 is always among the numbers that integers stand for.
        return (low, high) if low <= 0.0 <= high and low < high else None
