"""The 16-bit float types, and what they can hold.

              largest    smallest normal  smallest  unit roundoff  integers exact up to
    float16   65504      2^-14            2^-24     2^-11          2^11 = 2048
    bfloat16  3.39e38    2^-126           2^-133    2^-8           2^8 = 256

Sources: IEEE 754-2019, table 3.5 (binary16); bfloat16 is the upper half of a binary32.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from graphopt.errors import UsageError
from graphopt.graph import ir


@dataclass(frozen=True)
class HalfFormat:
    """A 16-bit float type.

    Attributes:
        name: as users call it, "fp16" or "bf16".
        dtype: the element type in ONNX.
        type_name: the element type as operator schemas spell it.
        largest: the largest finite number.
        smallest_normal: the smallest positive number of full precision.
        smallest: the smallest positive number.
        roundoff: the largest relative error of rounding to nearest, for normal numbers.
        largest_integer: every integer up to this magnitude is exact.
    """

    name: str
    dtype: ir.DataType
    type_name: str
    largest: float
    smallest_normal: float
    smallest: float
    roundoff: float
    largest_integer: int

    def cast(self, array: np.ndarray, *, limit: float | None = None) -> np.ndarray:
        """`array` in this type, rounded to nearest; finite values clamped to +-`limit` first."""
        if limit is not None:
            array = np.where(np.isinf(array), array, array.clip(-limit, limit))
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray(array.astype(self.dtype.numpy()))

    def rounded(self, array: np.ndarray) -> np.ndarray:
        """`array` rounded to this type, as float32."""
        return self.cast(array).astype(np.float32)


FLOAT16 = HalfFormat(
    "fp16", ir.DataType.FLOAT16, "float16", 65504.0, 2.0**-14, 2.0**-24, 2.0**-11, 2048
)
BFLOAT16 = HalfFormat(
    "bf16",
    ir.DataType.BFLOAT16,
    "bfloat16",
    float(ml_dtypes.finfo(ml_dtypes.bfloat16).max),  # type: ignore[no-untyped-call]
    2.0**-126,
    2.0**-133,
    2.0**-8,
    256,
)
FORMATS = {item.name: item for item in (FLOAT16, BFLOAT16)}


def format_named(name: str) -> HalfFormat:
    """The format that users call `name`.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in FORMATS:
        raise UsageError(f"there is no half format '{name}': use fp16 or bf16")
    return FORMATS[name]
