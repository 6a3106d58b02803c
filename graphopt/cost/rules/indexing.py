"""Operators that pick elements by their place, or put them there.

    Slice, DynamicSlice              reads what it writes
    Gather, GatherElements, GatherND reads the indices and what they pick
    Compress                         reads the condition and what it picks
    OneHot                           reads the indices and two values
    NonZero                          one comparison per element
    Scatter, ScatterND, TensorScatter    reads all, writes the whole output; `reduction` is one
                                     operation per update
    Col2Im                           one addition per element of the columns: those that
                                     padding takes away are counted too

An element that is picked twice is read twice. Bytes of inputs that only say starts, ends,
axes or a depth are not counted.
"""

from __future__ import annotations

from graphopt.cost.operator import MOVE, Operator, Rule, Work
from graphopt.cost.rules.formulas import fixed


def slicing(node: Operator) -> Work:
    """The part that is taken, read and written."""
    return Work(reads=node.output().bytes)


def gather(node: Operator) -> Work:
    """As many elements as come out, at the places that the second input says."""
    return Work(reads=node.input(1).bytes + node.output().bytes)


def compress(node: Operator) -> Work:
    """The slices where the condition holds."""
    return Work(reads=node.input(1).bytes + node.output().bytes)


def one_hot(node: Operator) -> Work:
    """Two values, one of them at the index of each row."""
    return Work(reads=node.input(0).bytes + node.input(2).bytes)


def non_zero(node: Operator) -> Work:
    """Each element is compared with zero."""
    return Work(elementwise=node.input().size)


def scatter(node: Operator) -> Work:
    """A copy of the data with the updates in place of, or combined with, what is there."""
    combined = node.text("reduction", "none") != "none"
    return Work(elementwise=node.input(2).size if combined else 0)


def overlap_add(node: Operator) -> Work:
    """Each element of the columns is added to its place in the image."""
    columns = node.input()
    return Work(elementwise=columns.size, reads=columns.bytes)


RULES = (
    *(Rule("", op_type, slicing) for op_type in ("Slice", "DynamicSlice")),
    *(Rule("", op_type, gather) for op_type in ("Gather", "GatherElements", "GatherND")),
    *(Rule("", op_type, scatter) for op_type in ("Scatter", "ScatterElements", "ScatterND")),
    *fixed("", MOVE, "TensorScatter"),
    Rule("", "Compress", compress),
    Rule("", "OneHot", one_hot),
    Rule("", "NonZero", non_zero),
    Rule("", "Col2Im", overlap_add),
    Rule("com.microsoft", "GatherND", gather),
)
