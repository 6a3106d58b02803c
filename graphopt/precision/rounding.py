"""Rounds a layer's weights to half so that its output changes least, not the weights themselves.

    minimize  sum over rows w of (w - q)^T H (w - q),   H = X^T X,  q numbers of the half type

Half numbers lie as far apart as they are large, so nearest rounding errs by up to 2^-12 of each
weight, and the errors of hundreds of weights add up, in the mean too where inputs are positive.
Column by column, each is rounded to nearest and its error made good by the columns still free, see
`graphopt.runtime.compensation`. The bias is a column too, of ones: large ones, which come first,
lose digits that the weights make up for. A row keeps nearest rounding where that is better.
"""

from __future__ import annotations

import numpy as np

from graphopt.precision.formats import HalfFormat
from graphopt.runtime.compensation import column_by_column, damped, output_error


def round_rows(weight: np.ndarray, moment: np.ndarray, half: HalfFormat) -> np.ndarray:
    """Half numbers for rows of weights.

    Args:
        weight: [groups, rows, d], float64.
        moment: H, [groups, d, d], float64.
        half: the type.

    Returns:
        float64 [groups, rows, d], every number one that `half` holds.
    """
    nearest = _nearest(weight, half)
    if not np.isfinite(moment).all() or not np.isfinite(nearest).all():
        return nearest
    # What nearest rounding loses by a column: those that lose most go first, while others are
    # left to make up for it.
    diagonal = np.einsum("gii->gi", moment)
    lost = diagonal * np.square(_spacing(nearest, half)).mean(axis=1)
    order = np.argsort(-lost, axis=1, kind="stable")
    back = np.argsort(order, axis=1, kind="stable")
    hessian = np.take_along_axis(moment, order[:, :, None], axis=1)
    hessian = np.take_along_axis(hessian, order[:, None, :], axis=2)
    chosen = column_by_column(
        _columns(weight, order), damped(hessian), lambda _, wanted: _nearest(wanted, half)
    )
    chosen = _columns(chosen, back)
    better = output_error(weight - chosen, moment) < output_error(weight - nearest, moment)
    return np.where(better[:, :, None], chosen, nearest)


def _nearest(weight: np.ndarray, half: HalfFormat) -> np.ndarray:
    return half.cast(weight).astype(np.float64)


def _spacing(rounded: np.ndarray, half: HalfFormat) -> np.ndarray:
    """The distance to the next half number."""
    magnitude = np.maximum(np.abs(rounded), half.smallest_normal)
    return np.asarray(2 * half.roundoff * np.exp2(np.floor(np.log2(magnitude))))


def _columns(array: np.ndarray, order: np.ndarray) -> np.ndarray:
    return np.take_along_axis(array, order[:, None, :], axis=2)
