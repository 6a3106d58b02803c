"""Round a weight so that the layer's output changes least, not the weight itself.

    minimize  sum over rows w of (w - q s)^T H (w - q s),   H = X^T X,  q integers in a range

1. Column by column, each rounded to nearest and its error made good by the columns that are
   still free, see `graphopt.runtime.compensation`. The columns of most energy go first.
2. A row keeps nearest rounding where that is still better, so no row is worse than without.

Moving single integers afterwards (coordinate descent) gains less than 1% of the objective.
H comes from the calibration data, see `graphopt.runtime.moments`; where a bias takes up what the
rounding changes on average, the moment about the mean is the right H, see `centred`.
"""

from __future__ import annotations

import numpy as np

from graphopt.runtime import SecondMoment
from graphopt.runtime.compensation import (
    PERCENT_OF_MEAN,
    column_by_column,
    damped,
    output_error,
)


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
    damping: float = PERCENT_OF_MEAN,
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
    hessian = damped(second_moment, damping)
    nearest = np.clip(np.rint(weight / scale) + offset, low, high)
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")
    back = np.argsort(order, axis=1, kind="stable")
    permuted = np.take_along_axis(hessian, order[:, :, None], axis=1)
    permuted = np.take_along_axis(permuted, order[:, None, :], axis=2)
    w, s, z = (_columns(array, order) for array in (weight, scale, offset))
    integers = np.empty_like(w)

    def choose(column: int, wanted: np.ndarray) -> np.ndarray:
        step, zero = s[:, :, column], z[:, :, column]
        integers[:, :, column] = np.clip(np.rint(wanted / step) + zero, low, high)
        return np.asarray((integers[:, :, column] - zero) * step)

    column_by_column(w, permuted, choose)
    rounded = _columns(integers, back)
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
    return output_error(weight - (integers - zero_point) * scale, second_moment)


def _columns(array: np.ndarray, order: np.ndarray) -> np.ndarray:
    return np.take_along_axis(array, order[:, None, :], axis=2)
