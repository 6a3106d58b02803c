"""Replaces the columns of a weight one by one; the columns still free make up for each error.

    w_rest -= (w_j - q_j) / U_jj * U_j,rest,    H^-1 = U^T U,    H = X^T X

which keeps the output X w^T as near as it can be (Frantar et al., GPTQ, 2022; after LeCun's optimal
brain surgeon).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

PERCENT_OF_MEAN = 0.01
"""Added to H's diagonal, relative to its mean: what the data does not show stays in bounds."""

_BLOCK = 128
"""Columns whose errors are passed on to the rest in one product."""


def damped(second_moment: np.ndarray, damping: float = PERCENT_OF_MEAN) -> np.ndarray:
    """H as float64 [groups, d, d], with so much of its mean diagonal added to the diagonal."""
    hessian = np.array(second_moment, np.float64)
    diagonal = np.einsum("gii->gi", hessian)
    # An input that was always 0 says nothing of its weights: any positive value keeps H regular.
    level = np.maximum(diagonal.mean(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    level = np.where(level > np.finfo(np.float64).tiny, level, 1.0)
    diagonal += damping * level
    return hessian


def column_by_column(
    weight: np.ndarray, hessian: np.ndarray, choose: Callable[[int, np.ndarray], np.ndarray]
) -> np.ndarray:
    """What `choose` makes of each column, the first first.

    Args:
        weight: [groups, rows, d], float64.
        hessian: of `damped`; finite.
        choose: the number of a column and what it should be, [groups, rows] -> what it becomes.

    Returns:
        float64 [groups, rows, d].
    """
    factor = _inverse_factor(hessian)
    remaining = weight.copy()
    chosen = np.empty_like(weight)
    size = weight.shape[2]
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = np.empty((*weight.shape[:2], end - start))
        for column in range(start, end):
            wanted = remaining[:, :, column]
            chosen[:, :, column] = choose(column, wanted)
            error = (wanted - chosen[:, :, column]) / factor[:, column, column, None]
            errors[:, :, column - start] = error
            remaining[:, :, column + 1 : end] -= (
                error[:, :, None] * factor[:, None, column, column + 1 : end]
            )
        remaining[:, :, end:] -= np.matmul(errors, factor[:, start:end, end:])
    return chosen


def output_error(error: np.ndarray, second_moment: np.ndarray) -> np.ndarray:
    """The squared error of each row's output, summed over the data: [groups, rows].

    Args:
        error: of the weights, [groups, rows, d].
        second_moment: H, [groups, d, d].
    """
    return np.asarray(np.einsum("gri,gri->gr", np.matmul(error, second_moment), error))


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
            extra = max(10 * extra, PERCENT_OF_MEAN)
