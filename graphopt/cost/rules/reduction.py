"""Operators that bring many elements to one, or sum along an axis.

Of n elements to one (a reduction takes its elements in one pass, as its formula says):

    ReduceSum, ReduceProd, ReduceMax, ReduceMin, ArgMax, ArgMin     n - 1
    ReduceMean            additions, 1 division                     n
    ReduceL1              n absolute values, additions              2n - 1
    ReduceSumSquare       n squares, additions                      2n - 1
    ReduceL2              the square root of that                   2n - 1; 1
    ReduceLogSum          log of the sum                            n - 1; 1
    ReduceLogSumExp       log of the sum of exp                     n - 1; n + 1

    CumSum, CumProd       n - 1 for each line of n; n - 2 where exclusive
    NegativeLogLikelihoodLoss       -x[target]: 1 per target, * weight: 1; then the reduction
    SoftmaxCrossEntropyLoss         log softmax over the classes, then the same

Axes are settled before the run: their bytes are not counted.
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.quantity import Number
from graphopt.cost.rules.formulas import bytes_of, combining, known_axis, split_at

# Per element that is read, and per element that is written: (elementwise, transcendentals).
_REDUCTIONS = {
    "ReduceSum": ((0, 0), (0, 0)),
    "ReduceProd": ((0, 0), (0, 0)),
    "ReduceMax": ((0, 0), (0, 0)),
    "ReduceMin": ((0, 0), (0, 0)),
    "ArgMax": ((0, 0), (0, 0)),
    "ArgMin": ((0, 0), (0, 0)),
    "ReduceMean": ((0, 0), (1, 0)),
    "ReduceL1": ((1, 0), (0, 0)),
    "ReduceSumSquare": ((1, 0), (0, 0)),
    "ReduceL2": ((1, 0), (0, 1)),
    "ReduceLogSum": ((0, 0), (0, 1)),
    "ReduceLogSumExp": ((0, 1), (0, 1)),
}


def reduction(node: Operator) -> Work:
    """The combinations, and what is done to each element before and after."""
    size, kept = node.input().size, node.output().size
    before, after = _REDUCTIONS[node.op_type]
    return Work(
        elementwise=combining(size, kept) + before[0] * size + after[0] * kept,
        transcendentals=before[1] * size + after[1] * kept,
        reads=node.input().bytes,
    )


def cumulative(node: Operator) -> Work:
    """Each element of a line but the first (the first two where exclusive) takes one operation."""
    data = node.input()
    axis = 0 if len(data.dims) == 1 else known_axis(node, 1, len(data.dims))
    lines, length = split_at(data.dims, (axis,))
    free = 1 + node.integer("exclusive", 0)
    return Work(elementwise=combining(lines * length, lines * free), reads=data.bytes)


def _loss(node: Operator, targets: Number) -> Number:
    """Negate and weigh each target's term, then sum or average them."""
    weighted = node.has_input(2)
    each = targets * (1 + weighted)
    how = node.text("reduction", "mean")
    if how == "none":
        return each
    sums = combining(targets, 1)
    if how == "sum":
        return each + sums
    return each + sums * (1 + weighted) + 1


def negative_log_likelihood(node: Operator) -> Work:
    """The loss of log probabilities (N, C, ...) for targets (N, ...)."""
    target = node.input(1)
    picked = bytes_of(node.input(), target.size)
    weights = node.input(2).bytes if node.has_input(2) else 0
    return Work(elementwise=_loss(node, target.size), reads=picked + target.bytes + weights)


def softmax_cross_entropy(node: Operator) -> Work:
    """Log softmax of scores (N, C, ...) over the classes, then their loss."""
    size, rows = node.input().size, node.input(1).size
    return Work(
        elementwise=2 * combining(size, rows) + 2 * size + _loss(node, rows),
        transcendentals=size + rows,
    )


RULES = (
    *(Rule("", op_type, reduction) for op_type in _REDUCTIONS),
    Rule("", "CumSum", cumulative),
    Rule("", "CumProd", cumulative),
    Rule("", "NegativeLogLikelihoodLoss", negative_log_likelihood),
    Rule("", "SoftmaxCrossEntropyLoss", softmax_cross_entropy),
)
