"""Replace what does not depend on the inputs by its value.

    f(c1, c2, ...)  ->  constant          where every c is a constant
    Shape(x)        ->  constant          where the dims are known
    Constant        ->  initializer

All constant parts of the model that need arithmetic are evaluated in one ONNX Runtime session,
so the values have the bits that the runtime would have computed; moving data, shape arithmetic
and what IEEE 754 rounds correctly are done without one. float16 is computed as the runtime does,
in float32 and rounded once; bfloat16, for which it has few kernels, in the same way. Integers stay
integers.

Not folded: random operators and Dropout in training, quantization (a folded DequantizeLinear
would undo it), custom operators and calls of functions, operators that hold subgraphs, values
that the caller may override (an initializer that is also an input), and results that would make
the model grow by more than `limit` bytes each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphopt.plugin import (
    Journal,
    Pass,
    Promise,
    Rewriter,
    constant_tensor,
    ir,
    nested_graphs,
    opset_version,
    option,
    outside,
    site_of,
)

from .movement_kernels import Array
from .plan import Plan, rounded
from .session import evaluate_pending


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace what does not depend on the inputs by its value."""

    limit: int = option(
        2**20, "bytes that one folded result may add to the model beyond those it replaces"
    )

    name = "fold-constants"
    promise = Promise.EXACT

    def __post_init__(self) -> None:
        """Refuse a limit below 0.

        Raises:
            ValueError: the limit is negative.
        """
        if self.limit < 0:
            raise ValueError(f"limit must be at least 0 bytes, not {self.limit}")

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Fold every constant part of the model, then turn Constant nodes into initializers."""
        plan = _evaluated_plan(model, journal, self.limit)
        rewriter = Rewriter(model, journal)
        in_functions = {
            graph
            for function in model.functions.values()
            for graph in nested_graphs(function.graph)
        }
        for node in plan.folded:
            _replace(node, plan, rewriter, keeps_nodes=node.graph in in_functions)
        for graph in nested_graphs(model.graph):
            for node in tuple(graph):
                _lift(node, rewriter)


def _evaluated_plan(model: ir.Model, journal: Journal, limit: int) -> Plan:
    """Plan, evaluate, and plan again without the nodes that the runtime refused."""
    failed: dict[ir.Node, str] = {}
    while True:
        plan = Plan(model, journal, limit, failed)
        if not plan.pending:
            return plan
        refused = evaluate_pending(tuple(plan.pending), plan.arrays, model)
        if not refused:
            return plan
        failed.update(refused)


def _replace(node: ir.Node, plan: Plan, rewriter: Rewriter, *, keeps_nodes: bool) -> None:
    """Put constants in the place of those outputs that something not folded uses."""
    journal = rewriter.journal
    site = site_of(node)
    needed = [value for value in node.outputs if _is_boundary(value, plan)]
    if not needed or node.graph is None or not journal.permits(site):
        return
    tensors = {value: _tensor(plan.arrays[value], value) for value in needed}
    shapes = ", ".join(f"{t.dtype.name}{list(t.shape.numpy())}" for t in tensors.values())
    detail = f"{node.op_type} -> constant {shapes}"
    if keeps_nodes or any(value.is_graph_output() for value in needed):
        # A function's body holds no initializers, and an output of a graph wants a producer.
        strange = _unspeakable(tensors.values(), opset_version(node.graph, rewriter.model))
        if strange is not None:
            journal.decline(site, strange)
            return
        rewriter.begin(node)
        constants: list[ir.Value | None] = []
        for value in node.outputs:
            if value in tensors or value.uses():
                tensor = tensors.get(value) or _tensor(plan.arrays[value], value)
                constants.append(rewriter.node("Constant", [], {"value": tensor}).outputs[0])
            else:
                constants.append(None)
        rewriter.replace(node, constants, detail)
        return
    for value in node.outputs:
        if value.uses():
            _initialize(value, tensors.get(value) or _tensor(plan.arrays[value], value))
    rewriter.remove(node)
    journal.record(site, detail)


def _unspeakable(tensors: Iterable[ir.TensorProtocol], opset: int) -> str | None:
    """Why a Constant node cannot hold the tensors; None if it can."""
    if not opset:
        return "the model does not import the domain of Constant"
    for tensor in tensors:
        if opset < _CONSTANT_OF_ANY_TYPE and tensor.dtype not in _OLD_CONSTANT_TYPES:
            return f"operator set {opset} has no Constant of type {tensor.dtype.name}"
    return None


_CONSTANT_OF_ANY_TYPE = 9
_OLD_CONSTANT_TYPES = (ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)


def _is_boundary(value: ir.Value, plan: Plan) -> bool:
    if value.is_graph_output():
        return True
    return any(usage.node not in plan.folded for usage in value.uses())


def _lift(node: ir.Node, rewriter: Rewriter) -> None:
    """Turn a Constant node of a graph into an initializer of the same name."""
    if node.op_type != "Constant" or node.domain != "" or node.graph is None:
        return
    (value,) = node.outputs
    tensor = constant_tensor(value)
    journal, site = rewriter.journal, site_of(node)
    if tensor is None or not value.uses() or not journal.permits(site):
        return
    if value.is_graph_output():
        journal.decline(site, "it is an output of the graph")
        return
    _initialize(value, tensor)
    rewriter.remove(node)
    journal.record(site, "Constant -> initializer")


def _initialize(value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Let an initializer take the place and the name of a node's output."""
    producer = value.producer()
    graph = None if producer is None else producer.graph
    if graph is None:
        return
    name, value.name = value.name, None
    constant = ir.Value(
        name=name,
        shape=ir.Shape(tensor.shape.numpy()),
        type=ir.TensorType(tensor.dtype),
        doc_string=value.doc_string,
        const_value=tensor,
    )
    for usage in tuple(value.uses()):
        usage.node.replace_input_with(usage.idx, constant)
    graph.initializers.add(constant)


def _tensor(array: Array, value: ir.Value) -> ir.TensorProtocol:
    data = rounded(array, value)
    if not data.flags.c_contiguous:
        data = data.copy(order="C")
    return outside(ir.Tensor(data))


__all__ = ["FoldConstants"]
