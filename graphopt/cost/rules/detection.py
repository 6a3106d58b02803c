"""Selection and search: what they do depends on the data, so each has a stated model.

    TopK                 every element is compared once with the least of those kept
    Unique               every element is compared once (a hash table, no sort)
    NonMaxSuppression    every score is compared once with the threshold; overlaps of the boxes
                         that pass are not counted
    DynamicTimeWarping   per cell of the matrix: two minima and one addition

Each says so in its note. TopK's K and the thresholds are settled before the run.
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work


def top_k(node: Operator) -> Work:
    """One comparison per element."""
    return Work(
        elementwise=node.input().size,
        reads=node.input().bytes,
        note="one comparison per element: keeping the k in order depends on the data",
    )


def unique(node: Operator) -> Work:
    """One comparison per element."""
    return Work(
        elementwise=node.input().size,
        note="one comparison per element: sorting depends on the data",
    )


def non_max_suppression(node: Operator) -> Work:
    """One comparison per score."""
    scores = node.input(1)
    return Work(
        elementwise=scores.size,
        reads=node.input().bytes + scores.bytes,
        note="one comparison per score: how many boxes are held against others depends on the data",
    )


def time_warping(node: Operator) -> Work:
    """Each cell adds its cost to the cheapest of three ways to it."""
    return Work(
        elementwise=3 * node.input().size,
        note="counted without the way back: its length depends on the data",
    )


RULES = (
    Rule("", "TopK", top_k),
    Rule("", "Unique", unique),
    Rule("com.microsoft", "Unique", unique),
    Rule("", "NonMaxSuppression", non_max_suppression),
    Rule("com.microsoft", "DynamicTimeWarping", time_warping),
)
