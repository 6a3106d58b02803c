"""Rounds a layer's weights to half so that its output changes least, not the weights themselves.

    minimize  sum over rows w of (w - q)^T H (w - q),   H = X^T X,  q numbers of the half type

Half numbers lie as far apart as they are large, so nearest rounding errs by up to 2^-12 of each
weight, and the errors of hundreds of weights add up, in the mean too where inputs are positive.
Column by column, each is rounded to nearest and its error made good by the columns still free:
w_rest -= (w_j - q_j) / U_jj * U_j,rest, with H^-1 = U^T U (Frantar et al., GPTQ, 2022; after
LeCun's optimal brain surgeon). The bias is a column too, of ones: large ones, which come first,
lose digits that the weights make up for. A row keeps nearest rounding where that is better.
"""

from __future__ import annotations

import numpy as np

from graphopt.precision.formats import HalfFormat

_DAMPING = 0.01
"""Added to the diagonal, relative to its mean: what the data does not show stays in bounds."""
_BLOCK = 64
"""Columns whose errors are passed on to the rest in one product."""


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
    chosen = _column_by_column(_columns(weight, order), _damped(hessian), half)
    chosen = _columns(chosen, back)
    better = output_error(weight - chosen, moment) < output_error(weight - nearest, moment)
    return np.where(better[:, :, None], chosen, nearest)


def output_error(error: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """The squared error of each row's output, summed over the data: [groups, rows].

    Args:
        error: of the weights, [groups, rows, d].
        moment: H, [groups, d, d].
    """
    return np.asarray(np.einsum("gri,gri->gr", np.matmul(error, moment), error))


def _nearest(weight: np.ndarray, half: HalfFormat) -> np.ndarray:
    return half.cast(weight).astype(np.float64)


def _spacing(rounded: np.ndarray, half: HalfFormat) -> np.ndarray:
    """The distance to the next half number."""
    magnitude = np.maximum(np.abs(rounded), half.smallest_normal)
    return np.asarray(2 * half.roundoff * np.exp2(np.floor(np.log2(magnitude))))


def _columns(array: np.ndarray, order: np.ndarray) -> np.ndarray:
    return np.take_along_axis(array, order[:, None, :], axis=2)


def _damped(hessian: np.ndarray) -> np.ndarray:
    diagonal = np.einsum("gii->gi", hessian)
    level = diagonal.mean(axis=1, keepdims=True)
    # An input that was always 0 says nothing of its weights: any positive value keeps H regular.
    diagonal += np.where(level > 0, _DAMPING * level, 1.0)
    return hessian


def _inverse_factor(hessian: np.ndarray) -> np.ndarray:
    """U, upper triangular, with H^-1 = U^T U; [groups, d, d]."""
    inverse = np.linalg.inv(hessian)
    inverse = (inverse + inverse.transpose(0, 2, 1)) / 2
    return np.linalg.cholesky(inverse).transpose(0, 2, 1)


def _column_by_column(weight: np.ndarray, hessian: np.ndarray, half: HalfFormat) -> np.ndarray:
    """As the head of this file says; nearest rounding where H is as good as singular."""
    try:
        factor = _inverse_factor(hessian)
    except np.linalg.LinAlgError:
        return _nearest(weight, half)
    remaining = weight.copy()
    chosen = np.empty_like(weight)
    size = weight.shape[2]
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = np.empty((*weight.shape[:2], end - start))
        for column in range(start, end):
            wanted = remaining[:, :, column]
            chosen[:, :, column] = _nearest(wanted, half)
            error = (wanted - chosen[:, :, column]) / factor[:, column, column, None]
            errors[:, :, column - start] = error
            remaining[:, :, column + 1 : end] -= (
                error[:, :, None] * factor[:, None, column, column + 1 : end]
            )
        remaining[:, :, end:] -= np.matmul(errors, factor[:, start:end, end:])
    return chosen
