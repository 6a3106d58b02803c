"""What many of the situations are made of."""

import numpy as np

from tests.pruning.pruning_models import Situation, model

IMAGE = "float[1,3,6,6] x"
ROWS = "float[2,5] x"
PADS = "pads=[1,1,1,1]"
STEM = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (4, 8, 1, 1)}


def conv(middle: str, *, channels: int = 8, remove=(1, 6), frozen="", opset=17, group="h", **rest):
    """Conv -> `middle` from h to r -> Conv."""
    weights = {**STEM, **rest.pop("weights", {})}
    body = f"h = Conv<{PADS}>(x, w1, b1)\n{middle}\ny = Conv(r, w2)"
    built = model(IMAGE, "float y", body, weights, opset=opset)
    return Situation(built, group, channels, remove, frozen, **rest)


def rows(middle: str, *, out=(8, 3), remove=(0, 5), channels=8, frozen="", opset=17, **rest):
    """MatMul -> `middle` from h to r -> MatMul."""
    weights = {"w1": (5, 8), "w2": out, **rest.pop("weights", {})}
    body = f"h = MatMul(x, w1)\n{middle}\ny = MatMul(r, w2)"
    built = model(rest.pop("inputs", ROWS), "float y", body, weights, opset=opset)
    return Situation(built, "h", channels, remove, frozen, **rest)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)
