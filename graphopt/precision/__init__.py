"""Half precision: what stays float32, and where the casts go."""

from graphopt.precision.conversion import Conversion, count_casts
from graphopt.precision.evidence import REAL_MARGIN, SEEDED_MARGIN, Measured, Measurements
from graphopt.precision.formats import BFLOAT16, FLOAT16, HalfFormat, format_named
from graphopt.precision.kernels import KERNELS, Kernels, kernels_of
from graphopt.precision.regions import Blocked
from graphopt.precision.request import Plan, Request, convert, make_plan

__all__ = [
    "BFLOAT16",
    "FLOAT16",
    "KERNELS",
    "REAL_MARGIN",
    "SEEDED_MARGIN",
    "Blocked",
    "Conversion",
    "HalfFormat",
    "Kernels",
    "Measured",
    "Measurements",
    "Plan",
    "Request",
    "convert",
    "count_casts",
    "format_named",
    "kernels_of",
    "make_plan",
]
