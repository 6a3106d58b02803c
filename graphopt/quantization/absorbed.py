"""Parameters under which a Relu or a Clip before QuantizeLinear changes nothing.

(lowest - z) * s >= low   and   (highest - z) * s <= high
"""

from __future__ import annotations

import math

import numpy as np

from graphopt.graph import ir
from graphopt.quantization.parameters import Parameters, limits, parameters_of_range


def parameters_within(
    bounds: tuple[float, float], clip: tuple[float, float], dtype: ir.DataType
) -> Parameters:
    """Parameters for a range none of whose integers stands for a number outside `clip`.

    ONNX Runtime drops a Relu or a Clip before QuantizeLinear only then; otherwise the whole
    operator runs in float. So the zero point is the asymmetric one in every case.
    """
    low = min(max(bounds[0], clip[0]), 0.0)
    high = max(min(bounds[1], clip[1]), 0.0)
    lowest, highest = limits(dtype)
    first = parameters_of_range(low, high, dtype, symmetric=False)
    exact = lowest - low / float(first.scale)
    found, least = first, np.inf
    for zero_point in sorted({math.floor(exact), math.ceil(exact)}):
        point = min(max(zero_point, lowest), highest)
        scale = first.scale
        for end, bound in ((lowest, clip[0]), (highest, clip[1])):
            scale = _not_beyond(scale, abs(end - point), abs(bound))
        reach = float(scale)
        lost = max((lowest - point) * reach - low, high - (highest - point) * reach)
        if scale > 0 and lost < least:
            integer = np.asarray(point, np.int64).astype(dtype.numpy())
            found, least = Parameters(dtype, np.asarray(scale, np.float32), integer), lost
    return found


def _not_beyond(scale: np.ndarray, steps: int, bound: float) -> np.ndarray:
    """The largest float32 up to `scale` with steps * scale <= bound, multiplied in float32."""
    width = np.float32(steps)
    if width * scale <= bound:
        return scale
    smaller = np.asarray(bound / steps, np.float32)
    while width * smaller > bound:
        smaller = np.asarray(np.nextafter(smaller, np.float32(0.0)))
    return smaller
