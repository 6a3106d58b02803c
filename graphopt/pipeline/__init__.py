"""Optimizes a model and proves the result; compares two models; finds a guilty rewrite."""

from graphopt.pipeline.bisection import Culprit
from graphopt.pipeline.optimization import Result, bisect, compare, optimize
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
