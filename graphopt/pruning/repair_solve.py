"""Least squares towards a target whose excess beyond an activation's bounds does not matter.

    minimize  sum over rows, outputs  (clip(x W + b + s) - clip(t + s))^2  +  ridge |W - W0|^2

by majorization: where the target lies beyond a bound it is replaced by the prediction while that
is beyond it too, and by the bound otherwise. Each round is a linear system with the same matrix,
and none raises the objective (of entries within the bounds the unclipped error is counted).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

RIDGE = 1e-3
"""How strongly weights are held where they were, relative to the mean diagonal of X^T X."""

_ROUNDS = 8
_SETTLED = 0.01
"""Rounds end where they move the numbers by less, relative to the change so far."""
_CHUNK = 1 << 14
_FACTORS = (1.0, 10.0, 1e2, 1e3, 1e8)


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
    x, mean = _centred(rows.x, centre=fit_bias)
    gram = _product(x, x)
    level = np.trace(gram[:, :columns, :columns], axis1=1, axis2=2) / columns
    hold = np.zeros((groups, columns + 1))
    hold[:, :columns] = (ridge * np.maximum(level, 1e-30))[:, None]
    if not fit_bias:
        hold[:, columns] = 1e12 * max(count, 1)
    inverse = np.linalg.inv(gram + hold[:, :, None] * np.eye(columns + 1))
    target = rows.target.reshape(count, groups, outputs).transpose(1, 0, 2)
    branch: np.ndarray | float = 0.0
    if rows.branch is not None:
        branch = rows.branch.reshape(count, groups, outputs).transpose(1, 0, 2)
    total = target + branch
    shift = old.copy()
    shift[:, -1:] += mean @ old[:, :-1]
    # Everything is counted from what the old numbers give: rounding then touches the change alone.
    start = _applied(x, shift) + branch
    below, above = total <= low, total >= high
    bounded = bool(below.any() or above.any())
    missing, now, near = total - start, start, start
    change = np.zeros_like(old)
    for round_ in range(_ROUNDS if bounded else 1):
        if round_:
            aim = np.where(below, np.minimum(near, low), total)
            missing = np.where(above, np.maximum(near, high), aim) - start
        found = inverse @ _product(x, missing)
        last, now = now, start + _applied(x, found)
        moved = np.linalg.norm(found - change) > _SETTLED * np.linalg.norm(found)
        change = found
        if not moved:
            break
        # Rounds creep: the next one looks from further along the way (Nesterov's momentum).
        near = now + round_ / (round_ + 3) * (now - last)
    wanted = np.clip(total, low, high)
    scale = max(float(wanted.var(axis=1).sum()), 1e-30)
    errors = []
    for result in (start, now):
        difference = np.clip(result, low, high) - wanted
        errors.append(float((difference.astype(np.float64) ** 2).mean(axis=1).sum()) / scale)
    change[:, -1:] -= mean @ change[:, :-1]
    numbers = old + change
    return Fit(numbers[:, :columns], numbers[:, columns].reshape(-1), *errors)


def fitted_on_few(
    rows: Rows,
    matrix: np.ndarray,
    bias: np.ndarray,
    *,
    fit_bias: bool = True,
    low: float = -math.inf,
    high: float = math.inf,
    ridge: float = RIDGE,
) -> Fit:
    """`fitted`, with as strong a ridge as rows that were not fitted to ask for.

    With few rows for each column least squares learns the rows by heart. The last fifth of them
    (of other feeds, where there are several) is held out to choose the ridge; the strongest leaves
    all but the bias where it was. The arguments are those of `fitted`; `ridge` is the weakest.
    """
    count = rows.x.shape[1]
    solve = partial(fitted, matrix=matrix, bias=bias, fit_bias=fit_bias, low=low, high=high)
    if count == 1:
        return solve(rows, ridge=ridge * _FACTORS[-1])
    start = count - max(1, count // 5)
    first, held = _between(rows, 0, start), _between(rows, start, count)
    errors = []
    for factor in _FACTORS:
        fit = solve(first, ridge=ridge * factor)
        errors.append(squared_error(held, fit.matrix, fit.bias, low, high))
    best = int(np.argmin(errors))
    if errors[best] >= squared_error(held, matrix, bias, low, high):
        error = squared_error(rows, matrix, bias, low, high)
        return Fit(matrix, bias, error, error)
    return solve(rows, ridge=ridge * _FACTORS[best])


def _between(rows: Rows, start: int, end: int) -> Rows:
    branch = None if rows.branch is None else rows.branch[start:end]
    return Rows(rows.x[:, start:end], rows.target[start:end], branch)


def squared_error(
    rows: Rows,
    matrix: np.ndarray,
    bias: np.ndarray,
    low: float = -math.inf,
    high: float = math.inf,
) -> float:
    """The mean squared error behind the activation, as float."""
    single = matrix.astype(np.float32)
    found = np.matmul(rows.x, single).transpose(1, 0, 2).reshape(rows.target.shape) + bias
    branch = 0.0 if rows.branch is None else rows.branch
    difference = np.clip(found + branch, low, high) - np.clip(rows.target + branch, low, high)
    return float((difference.astype(np.float64) ** 2).mean())


def _centred(x: np.ndarray, *, centre: bool) -> tuple[np.ndarray, np.ndarray]:
    """The rows less their mean with a column of ones, [groups, rows, columns + 1], and the mean.

    Columns less their means leave the bias by itself; where it is fixed, nothing takes means up
    and they stay.
    """
    groups, count, columns = x.shape
    mean = np.zeros((groups, 1, columns))
    if centre:
        mean = x.mean(axis=1, keepdims=True, dtype=np.float64)
    centred = np.empty((groups, count, columns + 1), np.float32)
    np.subtract(x, mean.astype(np.float32), out=centred[..., :columns])
    centred[..., columns] = 1.0
    return centred, mean.astype(np.float32).astype(np.float64)


def _product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x^T y of every group, summed in float64 over stretches of rows."""
    total = np.zeros((len(x), x.shape[2], y.shape[2]))
    for first in range(0, x.shape[1], _CHUNK):
        part, other = x[:, first : first + _CHUNK], y[:, first : first + _CHUNK]
        if len(x) == 1:
            # Two dims: of one matrix with itself BLAS then computes half.
            total[0] += part[0].T @ (part[0] if y is x else other[0])
        else:
            total += np.matmul(part.transpose(0, 2, 1), other)
    return total


def _applied(x: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    return np.asarray(np.matmul(x, numbers.astype(np.float32)))
