"""Pooling over windows, whole maps and regions.

Per output element, over a window of k places (padded ones included):

    MaxPool                      k - 1 comparisons
    AveragePool                  k - 1 additions, 1 division: k
    LpPool, p = 1                k absolute values, k - 1 additions
    LpPool, p = 2                k squares, k - 1 additions; 1 square root
    LpPool, p > 2                k absolute values, k - 1 additions; k powers and 1 root

A global pool is the same with k the whole map.

RoiAlign with sampling_ratio s has s*s samples per output element, each of four neighbours with
a weight each: 4*s*s products. The mean adds them all up and divides: 8*s*s. With mode max
nothing is added, the largest of the products counts: 8*s*s - 1. Where the places lie and their
weights are the same for all channels and not counted.

Which bytes overlapping windows share is not looked at: each input is read once.
"""

from __future__ import annotations

import math

from graphopt.cost.operator import MOVE, Operator, Rule, UnknownShapeError, Work
from graphopt.cost.quantity import Number
from graphopt.cost.rules.formulas import combining, fixed

_NCHWC = "com.microsoft.nchwc"


def _window(node: Operator) -> int:
    kernel = node.integers("kernel_shape")
    if kernel is None:
        raise UnknownShapeError("kernel_shape is missing")
    return math.prod(kernel)


def max_pool(node: Operator) -> Work:
    """The largest of each window."""
    return Work(elementwise=(_window(node) - 1) * node.output().size)


def average_pool(node: Operator) -> Work:
    """The mean of each window."""
    return Work(elementwise=_window(node) * node.output().size)


def _norm(node: Operator, taken: Number, outputs: Number) -> Work:
    """The p-norms of `outputs` windows that have `taken` places together."""
    p = node.integer("p", 2)
    return Work(
        elementwise=taken + combining(taken, outputs),
        transcendentals={1: 0, 2: outputs}.get(p, taken + outputs),
    )


def lp_pool(node: Operator) -> Work:
    """The p-norm of each window."""
    outputs = node.output().size
    return _norm(node, _window(node) * outputs, outputs)


def global_max_pool(node: Operator) -> Work:
    """The largest of each map."""
    return Work(elementwise=combining(node.input().size, node.output().size))


def global_average_pool(node: Operator) -> Work:
    """The mean of each map."""
    size, outputs = node.input().size, node.output().size
    return Work(elementwise=combining(size, outputs) + outputs)


def global_lp_pool(node: Operator) -> Work:
    """The p-norm of each map."""
    return _norm(node, node.input().size, node.output().size)


def max_roi_pool(node: Operator) -> Work:
    """The largest of each cell of each region, as if each region were the whole map."""
    maps, (regions, _) = node.input().dims, node.input(1).dims
    taken = regions * maps[1] * maps[2] * maps[3]
    return Work(
        elementwise=combining(taken, node.output().size),
        note="counted as if each region were the whole map: their sizes are data",
    )


def roi_align(node: Operator) -> Work:
    """The mean of interpolated samples in each cell, or the largest weighted neighbour.

    Source: the operator's own definition, and its reference implementation in ONNX.
    """
    ratio = node.integer("sampling_ratio", 0)
    samples = max(1, ratio) ** 2
    mean = node.text("mode", "avg") == "avg"
    return Work(
        elementwise=(8 * samples - 1 + mean) * node.output().size,
        note=""
        if ratio > 0
        else "counted with one sample per cell: how many it takes depends on the regions",
    )


RULES = (
    *(Rule(domain, "MaxPool", max_pool) for domain in ("", _NCHWC)),
    *(Rule(domain, "AveragePool", average_pool) for domain in ("", _NCHWC)),
    *(Rule(domain, "GlobalMaxPool", global_max_pool) for domain in ("", _NCHWC)),
    *(Rule(domain, "GlobalAveragePool", global_average_pool) for domain in ("", _NCHWC)),
    Rule("", "LpPool", lp_pool),
    Rule("", "GlobalLpPool", global_lp_pool),
    *fixed("", MOVE, "MaxUnpool"),
    Rule("", "MaxRoiPool", max_roi_pool),
    Rule("", "RoiAlign", roi_align),
    Rule("com.microsoft", "NhwcMaxPool", max_pool),
)
