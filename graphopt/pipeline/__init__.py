"""Optimizes a model and proves the result; compares two models; finds a guilty rewrite."""

from typing import TYPE_CHECKING

from graphopt.lazy import lazy_names
from graphopt.pipeline.bisection import Culprit
from graphopt.pipeline.optimization import Result, bisect, compare, optimize

if TYPE_CHECKING:
    from graphopt.pipeline.quantization import QuantizeResult, quantize
    from graphopt.pipeline.tensor_comparison import compare_tensors

__all__ = [
    "Culprit",
    "QuantizeResult",
    "Result",
    "bisect",
    "compare",
    "compare_tensors",
    "optimize",
    "quantize",
]

_LATER = {
    "QuantizeResult": "quantization",
    "compare_tensors": "tensor_comparison",
    "quantize": "quantization",
}
"""Where the names live that a lossless run does not wait for."""


__getattr__ = lazy_names(__name__, _LATER)
