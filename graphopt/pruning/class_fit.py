"""The last layer of a classifier, fitted to the original's probabilities.

    minimize  mean over rows of KL( softmax(t) || softmax(x W + b) )  +  hold/2 |W - W0|^2

Least squares counts an error of a class that nobody would name as much as one that changes the
answer. The problem is convex; each round solves it with the Hessian's upper bound, 1/2 X^T X for
every class (Boehning 1992), from a little further along the way (Nesterov's momentum).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from graphopt.graph import ir
from graphopt.pruning.linear_layers import Layer
from graphopt.pruning.repair_solve import Fit, Rows

_ROUNDS = 30
_HOLDS = (1e-2, 1e-1)
"""How strongly numbers are held, relative to the mean diagonal of X^T X; rows that are not fitted
to say which is best."""
_FOLDS = 4
_WORTH = 0.995
"""What must be left of the divergence at most: less is noise."""
_ROUNDING = 1e-7
"""Divergence for each row that is rounding."""
_FEWEST_ROWS = 40
_PRODUCTS = 1e9
"""Multiplications of a round: with more, some hundred rounds take minutes."""
_FEWEST_CLASSES, _CLEAR, _NAMED = 5, 0.5, 1 / 3
"""Of outputs that nothing tells to be scores: how many there are at least, the mean of the largest
probability, and which part of the classes is named (of the rows, where these are fewer)."""
_SAME_VALUES = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze"})
_OF_CLASSES = frozenset({"ArgMax", "LogSoftmax", "Softmax"})


def gives_classes(layer: Layer, shape: Sequence[int], scores: np.ndarray) -> bool:
    """Whether a layer's outputs are the scores of classes, one row for each sample.

    They are where a Softmax or an ArgMax compares all of them. Where the model gives them as they
    are, they may be something else (coordinates, an embedding): they are taken for scores if there
    are several, their softmax is sure of one of them on average, and of many of them in turn.

    Args:
        layer: the layer.
        shape: of what it gives: [samples, classes] or, of a convolution, [samples, classes, 1, 1].
        scores: [rows, classes], what the original has there.
    """
    classes = layer.outputs
    if layer.groups != 1 or classes < 2 or list(shape[1:2]) != [classes]:
        return False
    if math.prod(shape[1:]) != classes:
        return False
    value: ir.Value = layer.output
    shape = list(shape)
    while True:
        uses = tuple(value.uses())
        if any(_compares(use.node, shape, classes) for use in uses):
            return True
        if value.is_graph_output():
            return _look_like_scores(scores)
        if len(uses) != 1 or uses[0].node.op_type not in _SAME_VALUES:
            return False
        node = uses[0].node
        value = node.outputs[0]
        if node.op_type not in ("Cast", "Identity"):
            dims = [] if value.shape is None else list(value.shape)[1:]
            shape = [shape[0], *(dim for dim in dims if isinstance(dim, int))]
            if len(shape) != len(dims) + 1:
                return False
        if classes not in shape[1:] or math.prod(shape[1:]) != classes:
            return False  # classes of several kinds


def _compares(node: ir.Node, shape: Sequence[int], classes: int) -> bool:
    """Whether it compares all classes of a sample with each other, and nothing else."""
    if node.op_type not in _OF_CLASSES:
        return False
    where, rank = 1 + list(shape[1:]).index(classes), len(shape)
    graph = node.graph
    imports = graph.opset_imports if isinstance(graph, ir.Graph) else {}
    if node.op_type == "ArgMax":
        return node.attributes.get_int("axis", 0) % rank == where
    if imports.get("", 0) < 13:  # it takes the axes from this one on together
        return 1 <= node.attributes.get_int("axis", 1) % rank <= where
    return node.attributes.get_int("axis", -1) % rank == where


def _look_like_scores(scores: np.ndarray) -> bool:
    classes = scores.shape[1]
    if classes < _FEWEST_CLASSES:
        return False
    shares = _softmax(scores.astype(np.float64))
    counts = np.bincount(shares.argmax(1), minlength=classes) / len(shares)
    # The number of classes that are named, each counted by how often (their perplexity).
    named = np.exp(-(counts * np.log(np.maximum(counts, 1e-30))).sum())
    return bool(shares.max(1).mean() >= _CLEAR and named >= _NAMED * min(classes, len(shares)))


def fit_classes(
    rows: Rows, least: Fit, refit: Callable[[Rows], Fit], *, fit_bias: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Better numbers than least squares gave, or None where that is not seen on other rows.

    A quarter of the rows is held out at a time; both kinds of numbers are fitted to the others.

    Args:
        rows: what the layer reads and the original has there, of one group and no branch.
        least: what least squares gave on all rows.
        refit: does the same on some.
        fit_bias: whether the bias may change.

    Returns:
        matrix: [columns, classes].
        bias: [classes].
    """
    x, scores = rows.x[0], rows.target
    count = len(x)
    size, classes = x.shape[1], scores.shape[1]
    if count < _FEWEST_ROWS or (2 * count + size) * size * classes > _PRODUCTS:
        return None
    constant = np.ones((count, 1)) if fit_bias else np.zeros((count, 0))
    columns = np.concatenate([x, constant], axis=1, dtype=np.float32)
    fixed = np.zeros_like(least.bias) if fit_bias else least.bias
    wanted = _softmax(scores)
    folds = np.arange(count) % _FOLDS

    def numbers(fit: Fit) -> np.ndarray:
        return np.concatenate([fit.matrix[0], fit.bias[None]]) if fit_bias else fit.matrix[0]

    def divergence(found: np.ndarray, held: np.ndarray) -> float:
        given = columns[held] @ found.astype(np.float32) + fixed
        return float((wanted[held] * (_logs(scores[held]) - _logs(given))).sum())

    left = dict.fromkeys(_HOLDS, 0.0)
    before = 0.0
    for fold in range(_FOLDS):
        held = folds == fold
        old = numbers(refit(Rows(rows.x[:, ~held], scores[~held], None)))
        before += divergence(old, held)
        for hold in _HOLDS:
            left[hold] += divergence(_solve(columns[~held], wanted[~held], old, fixed, hold), held)
    best = min(left, key=left.__getitem__)
    if not left[best] < _WORTH * before - _ROUNDING * count:
        return None
    found = _solve(columns, wanted, numbers(least), fixed, best)
    if not np.isfinite(found).all():
        return None
    return (found[:-1], found[-1]) if fit_bias else (found, least.bias)


def _solve(
    x: np.ndarray, wanted: np.ndarray, old: np.ndarray, fixed: np.ndarray, hold: float
) -> np.ndarray:
    gram = (x.T @ x).astype(np.float64) / len(x)
    level = hold * max(float(np.trace(gram)) / len(gram), 1e-30)
    inverse = np.linalg.inv(0.5 * gram + level * np.eye(len(gram)))
    now = near = old
    for round_ in range(1, _ROUNDS + 1):
        given = _softmax(x @ near.astype(np.float32) + fixed)
        slope = x.T @ (given - wanted).astype(np.float32) / len(x) + level * (near - old)
        last, now = now, near - inverse @ slope
        near = now + (round_ - 1) / (round_ + 2) * (now - last)
    return now


def _softmax(scores: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(_logs(scores)))


def _logs(scores: np.ndarray) -> np.ndarray:
    """The logarithm of the softmax."""
    lowered = scores - scores.max(1, keepdims=True)
    return np.asarray(lowered - np.log(np.exp(lowered).sum(1, keepdims=True)))
