"""Optimizes a model and proves the result; compares two models; finds a guilty rewrite."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'graphopt.pipeline' has no attribute '{name}'")
    value = getattr(import_module(f"graphopt.pipeline.{_LATER[name]}"), name)
    globals()[name] = value
    return value
