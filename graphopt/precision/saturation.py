"""Tells where an overflow does no harm: what saturates gives the same for infinity.

    Tanh(x + 0.0447 x^3)     x^3 beyond the range is +-infinity, and Tanh of that is +-1

Sound as long as infinity meets only finite addends and factors that are not 0 on its way.
"""

from __future__ import annotations

from graphopt.graph import constant_tensor, ir
from graphopt.precision.evidence import Evidence
from graphopt.precision.operators import MOVEMENT

_ENDS = frozenset({"Erf", "HardSigmoid", "Sigmoid", "Tanh"})
_DEEPEST = 8


def saturates(value: ir.Value, evidence: Evidence, depth: int = _DEEPEST) -> bool:
    """Whether all that becomes of a value is the same for its sign times infinity."""
    uses = list(value.uses())
    if not uses or value.is_graph_output() or not depth:
        return False
    return all(_absorbs(use.node, use.idx, evidence, depth) for use in uses)


def _absorbs(node: ir.Node, index: int, evidence: Evidence, depth: int) -> bool:
    if node.op_type in _ENDS:
        return True
    if node.op_type in ("Add", "Sub"):
        other = node.inputs[1 - index]
        passes = other is not None and other is not node.inputs[index]
        passes = passes and other is not None and evidence.overflow(other) is None
    elif node.op_type == "Mul" or (node.op_type == "Div" and index == 0):
        factor = node.inputs[1 - index]
        held = constant_tensor(factor)
        passes = held is not None and held.size == 1 and float(held.numpy().item()) != 0
    else:
        passes = node.op_type in MOVEMENT and index == 0
    return passes and all(saturates(made, evidence, depth - 1) for made in node.outputs)
