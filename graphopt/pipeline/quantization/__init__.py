"""Quantizes a model: where that is faster, and as accurate as asked for."""

from graphopt.pipeline.quantization.options import Options
from graphopt.pipeline.quantization.quantizing import QuantizeResult, quantize
from graphopt.pipeline.quantization.report import Evaluation, GroupReport, QuantizeReport

__all__ = [
    "Evaluation",
    "GroupReport",
    "Options",
    "QuantizeReport",
    "QuantizeResult",
    "quantize",
]
