"""Round a weight so that the layer's output changes least, not the weight itself.

    minimize  sum over rows w of (w - q s)^T H (w - q s),   H = X^T X,  q integers in a range

1. Column by column, each rounded to nearest and its error made good by the columns that are
   still free: w_rest -= (w_j - q_j s_j) / U_jj * U_j,rest, with H^-1 = U^T U (Frantar et al.,
   GPTQ, 2022; after LeCun's optimal brain surgeon). The columns of most energy go first.
2. A row keeps nearest rounding where that is still better, so no row is worse than without.

Moving single integers afterwards (coordinate descent) gains less than 1% of the objective.
H comes from the calibration data, see `graphopt.runtime.moments`; where a bias takes up what the
rounding changes on average, the moment about the mean is the right H, see `centred`.
"""

from __future__ import annotations

import numpy as np

from graphopt.runtime import SecondMoment

_BLOCK = 128
"""Columns whose errors are passed on to the rest in one product."""

_PERCENT_OF_MEAN = 0.01
"""Added to the diagonal, relative to its mean: what the data does not show stays in bounds."""


def centred(moment: SecondMoment) -> np.ndarray:
    """The moment about the mean, [groups, d, d]: what is left once a bias absorbs the mean."""
    rows = max(moment.rows, 1)
    outer = moment.sums[:, :, None] * moment.reference_sums[:, None, :]
    return np.asarray(moment.matrix - outer / rows)


def round_to_nearest(
    weight: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, low: int, high: int
) -> np.ndarray:
    """The integers clip(rint(w / s) + z), int64."""
    rounded = np.clip(np.rint(weight / scale) + zero_point, low, high)
    return np.asarray(rounded, np.int64)


def round_second_order(
    weight: np.ndarray,
    scale: np.ndarray,
    zero_point: np.ndarray,
    low: int,
    high: int,
    second_moment: np.ndarray,
    *,
    damping: float = _PERCENT_OF_MEAN,
) -> np.ndarray:
    """Round rows of weights to integers.

    Args:
        weight: [groups, rows, d], float64.
        scale: the scale of each weight, broadcastable to `weight`.
        zero_point: the integer that stands for 0, broadcastable to `weight`.
        low: the smallest integer allowed.
        high: the largest integer allowed.
        second_moment: H, [groups, d, d].
        damping: added to H's diagonal, as a fraction of its mean.

    Returns:
        Integers, int64 [groups, rows, d].
    """
    weight = weight.astype(np.float64)
    scale = np.broadcast_to(scale, weight.shape).astype(np.float64)
    offset = np.broadcast_to(zero_point, weight.shape).astype(np.float64)
    hessian = _damped(second_moment, damping)
    nearest = np.clip(np.rint(weight / scale) + offset, low, high)
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")
    back = np.argsort(order, axis=1, kind="stable")
    permuted = np.take_along_axis(hessian, order[:, :, None], axis=1)
    permuted = np.take_along_axis(permuted, order[:, None, :], axis=2)
    w, s, z = (_columns(array, order) for array in (weight, scale, offset))
    rounded = _columns(_column_by_column(w, s, z, low, high, permuted), back)
    better = objective(weight, scale, offset, rounded, second_moment) < objective(
        weight, scale, offset, nearest, second_moment
    )
    return np.where(better[:, :, None], rounded, nearest).astype(np.int64)


def objective(
    weight: np.ndarray,
    scale: np.ndarray,
    zero_point: np.ndarray,
    integers: np.ndarray,
    second_moment: np.ndarray,
) -> np.ndarray:
    """The squared error of each row's output, summed over the data, [groups, rows]."""
    error = weight - (integers - zero_point) * scale
    return np.asarray(np.einsum("gri,gri->gr", np.matmul(error, second_moment), error))


def _columns(array: np.ndarray, order: np.ndarray) -> np.ndarray:
    return np.take_along_axis(array, order[:, None, :], axis=2)


def _damped(second_moment: np.ndarray, damping: float) -> np.ndarray:
    hessian = np.array(second_moment, np.float64)
    diagonal = np.einsum("gii->gi", hessian)
    # An input that was always 0 says nothing of its weights: any positive value keeps H regular.
    level = np.maximum(diagonal.mean(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    level = np.where(level > np.finfo(np.float64).tiny, level, 1.0)
    diagonal += damping * level
    return hessian


def _inverse_factor(hessian: np.ndarray) -> np.ndarray:
    """U, upper triangular, with H^-1 = U^T U; [groups, d, d]."""
    size = hessian.shape[1]
    identity = np.eye(size)
    extra = 0.0
    while True:
        mean = np.einsum("gii->g", hessian)[:, None, None] / size
        try:
            inverse = np.linalg.inv(hessian + extra * mean * identity)
            inverse = (inverse + inverse.transpose(0, 2, 1)) / 2
            return np.linalg.cholesky(inverse).transpose(0, 2, 1)
        except np.linalg.LinAlgError:
            extra = max(10 * extra, _PERCENT_OF_MEAN)


def _column_by_column(
    weight: np.ndarray,
    scale: np.ndarray,
    offset: np.ndarray,
    low: int,
    high: int,
    hessian: np.ndarray,
) -> np.ndarray:
    factor = _inverse_factor(hessian)
    remaining = weight.copy()
    integers = np.empty_like(weight)
    size = weight.shape[2]
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = np.empty((*weight.shape[:2], end - start))
        for column in range(start, end):
            wanted = remaining[:, :, column]
            step, zero = scale[:, :, column], offset[:, :, column]
            chosen = np.clip(np.rint(wanted / step) + zero, low, high)
            integers[:, :, column] = chosen
            error = (wanted - (chosen - zero) * step) / factor[:, column, column, None]
            errors[:, :, column - start] = error
            remaining[:, :, column + 1 : end] -= (
                error[:, :, None] * factor[:, None, column, column + 1 : end]
            )
        remaining[:, :, end:] -= np.matmul(errors, factor[:, start:end, end:])
    return integers
