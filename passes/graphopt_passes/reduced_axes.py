"""The axes that a reduction takes, as they stand on the other side of a Transpose."""

from __future__ import annotations

from graphopt.plugin import NotApplicable, ir
from graphopt_passes.operands import integers, no_references

REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)


def keeps_dims(node: ir.Node) -> bool:
    """Whether a reduction leaves an axis of 1 in place of each that it takes."""
    held = node.attributes.get("keepdims")
    return held is None or held.as_int() != 0


def axes_before(node: ir.Node, order: tuple[int, ...]) -> list[int]:
    """The axes that a reduction without keepdims takes, as they stand before a Transpose.

    Raises:
        NotApplicable: the axes are not known, or those that are left change their order.
    """
    no_references(node)
    axes = integers(node, "axes", 1)
    if not axes:
        raise NotApplicable("the reduction takes all axes, or none")
    taken = {axis % len(order) for axis in axes}
    left = [order[place] for place in range(len(order)) if place not in taken]
    if left != sorted(left):
        raise NotApplicable("the axes that are left change their order")
    return sorted(order[place] for place in taken)
