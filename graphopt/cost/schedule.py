"""A graph as a schedule: steps that read and write values, and which of these share a buffer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from graphopt.cost.quantity import Number
from graphopt.graph import ir
from graphopt.graph.walk import outer_values, subgraphs

Shares = Mapping[tuple[str, str], tuple[int, ...]]
"""(domain, op type) -> positions of the inputs whose buffer output 0 may have."""

CONTRIB = "com.microsoft"
NCHWC = "com.microsoft.nchwc"


def shares(domain: str, positions: tuple[int, ...], op_types: str) -> Shares:
    """A table with the same positions for several op types, given in one text."""
    return {(domain, op_type): positions for op_type in op_types.split()}


VIEWS: Shares = shares("", (0,), "Dropout Flatten Identity Reshape Squeeze Unsqueeze")
"""Ops whose output 0 is another shape, or another name, of an input's bytes."""

IN_PLACE: Shares = {
    **shares(
        "",
        (0,),
        "Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization BitwiseNot Cast CastLike Ceil "
        "Celu Clip Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish IsInf IsNaN LeakyRelu Log "
        "LogSoftmax Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softmax "
        "Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu",
    ),
    **shares(
        "",
        (0, 1),
        "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less "
        "LessOrEqual Max Mean Min Mod Mul Or Pow PRelu Sub Sum Xor",
    ),
    **shares("", (1, 2), "Where"),
    **shares(CONTRIB, (0,), "BiasGelu FastGelu Gelu QuickGelu"),
    **shares(CONTRIB, (3,), "FusedConv"),
    **shares(NCHWC, (3,), "Conv"),
}
"""Ops that can write output 0 over an input: element by element, or along one axis in turn."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a schedule.

    Values are named by anything hashable. Those that are neither written by a step nor among
    the inputs of the schedule (weights, values of an outer graph) take no memory.

    Attributes:
        name: the node's name.
        reads: the values it reads, captured ones included; twice where it is given twice.
        writes: the values it writes.
        views: (written, read) pairs in which the written value always is the read one's buffer.
        in_place: (written, read) pairs in which it may have the read one's buffer, if that dies
            here and has the same size; the first that applies is taken.
        inner: bytes that are held only while the step runs (the peak inside the body of a Loop
            or an If): without and with computing in place.
    """

    name: str
    reads: tuple[Hashable, ...]
    writes: tuple[Hashable, ...]
    views: tuple[tuple[Hashable, Hashable], ...] = ()
    in_place: tuple[tuple[Hashable, Hashable], ...] = ()
    inner: tuple[Number, Number] = (0, 0)


def steps_of(
    graph: ir.Graph,
    *,
    views: Shares = VIEWS,
    in_place: Shares = IN_PLACE,
    inner: Callable[[ir.Node], tuple[Number, Number]] | None = None,
) -> tuple[Step, ...]:
    """The nodes of a graph as steps, in the order in which the graph lists them.

    Args:
        graph: the graph; the values of the steps are its `ir.Value`s.
        views: the ops whose output is a view.
        in_place: the ops that can run in place.
        inner: the bytes that a node with subgraphs holds only while it runs; None for none.
    """
    steps = []
    for node in graph:
        bodies = subgraphs(node)
        reads = [value for value in node.inputs if value is not None]
        for body in bodies:
            reads.extend(outer_values(body))
        steps.append(
            Step(
                node.name or next((value.name for value in node.outputs if value.name), ""),
                tuple(reads),
                tuple(value for value in node.outputs if value.name),
                _pairs(node, views),
                _pairs(node, in_place),
                inner(node) if bodies and inner is not None else (0, 0),
            )
        )
    return tuple(steps)


def _pairs(node: ir.Node, table: Shares) -> tuple[tuple[ir.Value, ir.Value], ...]:
    domain = "" if node.domain == "ai.onnx" else node.domain
    positions = table.get((domain, node.op_type))
    if positions is None or not node.outputs:
        return ()
    inputs = node.inputs
    sources = (inputs[position] for position in positions if position < len(inputs))
    return tuple((node.outputs[0], source) for source in sources if source is not None)
