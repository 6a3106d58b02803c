"""Least squares towards a target whose excess beyond an activation's bounds does not matter.

    minimize  sum over rows, outputs  (clip(x W + b + s) - clip(t + s))^2  +  ridge |W - W0|^2

by majorization: where the target lies beyond a bound it is replaced by the prediction while that
is beyond it too, and by the bound otherwise. Each round is a linear system with the same matrix,
and none raises the objective (of entries within the bounds the unclipped error is counted).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

RIDGE = 1e-4
"""How strongly weights are held where they were, relative to the mean diagonal of X^T X."""

_ROUNDS = 8
_CHUNK = 1 << 14


@dataclass(frozen=True, eq=False)
class Rows:
    """What a layer reads and should give, row by row.

    Attributes:
        x: float32 [groups, rows, columns].
        target: float32 [rows, outputs], of the layer alone.
        branch: [rows, outputs] that is added to it before the activation; None for nothing.
    """

    x: np.ndarray
    target: np.ndarray
    branch: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Fit:
    """A layer's new numbers.

    Attributes:
        matrix: [groups, columns, outputs/group].
        bias: [outputs].
        before: the mean squared error behind the activation with the old numbers, relative to
            the target's variance there.
        after: with the new ones.
    """

    matrix: np.ndarray
    bias: np.ndarray
    before: float
    after: float


def fitted(
    rows: Rows,
    matrix: np.ndarray,
    bias: np.ndarray,
    *,
    fit_bias: bool = True,
    low: float = -math.inf,
    high: float = math.inf,
    ridge: float = RIDGE,
) -> Fit:
    """The best numbers of a layer, near the given ones where the rows do not tell.

    Args:
        rows: the data.
        matrix: the old numbers, [groups, columns, outputs/group].
        bias: [outputs].
        fit_bias: whether the bias may change.
        low: what the activation raises its input to.
        high: what it cuts it off at.
        ridge: see `RIDGE`.
    """
    groups, count, columns = rows.x.shape
    outputs = matrix.shape[2]
    old = np.concatenate([matrix, bias.reshape(groups, 1, outputs)], axis=1)
    gram = np.zeros((groups, columns + 1, columns + 1))
    # Columns less their means leave the bias by itself; where it is fixed, nothing takes means up.
    mean = rows.x.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    if not fit_bias:
        mean[:] = 0.0
    for part in _parts(rows.x, mean):
        gram += np.matmul(part.transpose(0, 2, 1), part)
    level = np.trace(gram[:, :columns, :columns], axis1=1, axis2=2) / columns
    hold = np.zeros((groups, columns + 1))
    hold[:, :columns] = (ridge * np.maximum(level, 1e-30))[:, None]
    if not fit_bias:
        hold[:, columns] = 1e12 * max(count, 1)
    left = gram + hold[:, :, None] * np.eye(columns + 1)
    inverse = np.linalg.inv(left)
    target = rows.target.reshape(count, groups, outputs).transpose(1, 0, 2)
    branch: np.ndarray | float = 0.0
    if rows.branch is not None:
        branch = rows.branch.reshape(count, groups, outputs).transpose(1, 0, 2)
    total = target + branch
    # What is solved for is the change: rounding in the sums then touches that alone.
    start_from = _applied(rows.x, old)
    below, above = total <= low, total >= high
    bounded = bool(below.any() or above.any())
    numbers = old
    aim = target
    for round_ in range(_ROUNDS if bounded else 1):
        if bounded:
            now = _applied(rows.x, numbers) + branch
            aim = np.where(below, np.minimum(now, low), total)
            aim = np.where(above, np.maximum(now, high), aim) - branch
            if round_ == 0:
                # The first round takes every target as it is: the old numbers are far off.
                aim = target
        product = np.zeros((groups, columns + 1, outputs))
        missing = aim - start_from
        for start, part in zip(range(0, count, _CHUNK), _parts(rows.x, mean), strict=True):
            product += np.matmul(part.transpose(0, 2, 1), missing[:, start : start + _CHUNK])
        change = inverse @ product
        change[:, -1:] -= mean @ change[:, :-1]
        numbers = old + change
    wanted = np.clip(total, low, high)
    scale = max(float(wanted.var(axis=1).sum()), 1e-30)
    errors = []
    for candidate in (old, numbers):
        difference = np.clip(_applied(rows.x, candidate) + branch, low, high) - wanted
        errors.append(float((difference.astype(np.float64) ** 2).mean(axis=1).sum()) / scale)
    return Fit(numbers[:, :columns], numbers[:, columns].reshape(-1), *errors)


def _parts(x: np.ndarray, mean: np.ndarray) -> Iterator[np.ndarray]:
    """The rows less the mean, with a column of ones, some at a time."""
    for start in range(0, x.shape[1], _CHUNK):
        part = x[:, start : start + _CHUNK] - mean
        yield np.concatenate([part, np.ones((*part.shape[:2], 1), np.float32)], axis=2)


def _applied(x: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    single = numbers.astype(np.float32)
    return np.asarray(np.matmul(x, single[:, :-1]) + single[:, -1:])
