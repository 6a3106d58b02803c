"""Multiplies weights by factors, in float64 and rounded once."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from graphopt.plugin import NotApplicable

_CHUNK = 1 << 18
"""Elements that are held in float64 at a time."""

_NEGLIGIBLE = 1e-30
"""An error that no sum in the types with float32's range can show, whatever the channel's size."""


def scaled(weight: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """`weight * factor`, rounded once to the weight's type.

    Raises:
        NotApplicable: it overflows, or a channel as a whole sinks below the type's normal
            numbers, where fewer digits are left.
    """
    result = np.empty(weight.shape, weight.dtype)
    error, largest = np.zeros(factor.shape), np.zeros(factor.shape)
    constant_axes = tuple(axis for axis, size in enumerate(factor.shape) if size == 1)
    step = max(1, _CHUNK // max(1, weight[:1].size))
    for start in range(0, weight.shape[0], step):
        rows = slice(start, start + step)
        place = rows if factor.shape[0] > 1 else slice(None)
        exact = weight[rows].astype(np.float64) * factor[place]
        result[rows] = rounded(exact, weight.dtype)
        with np.errstate(invalid="ignore"):
            wrong = abs(result[rows].astype(np.float64) - exact)
        for worst, seen in ((error, wrong), (largest, abs(exact))):
            peak = seen.max(axis=constant_axes, keepdims=True, initial=0)
            worst[place] = np.maximum(worst[place], peak)
    if not np.isfinite(error).all():
        raise NotApplicable(f"the fused weight overflows {weight.dtype.name}")
    epsilon = float(ml_dtypes.finfo(weight.dtype).eps)  # type: ignore[no-untyped-call]
    if (error > epsilon * largest + _NEGLIGIBLE).any():
        raise NotApplicable(f"the fused weight underflows {weight.dtype.name}")
    return result


def rounded(exact: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Numbers in float64 in another type; what leaves its range becomes infinite."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.asarray(exact, np.float64).astype(dtype)
