"""Optimizes a model and proves the result; compares two models; finds a guilty rewrite."""

from graphopt.pipeline.bisection import Culprit
from graphopt.pipeline.optimization import Result, bisect, compare, optimize

__all__ = ["Culprit", "Result", "bisect", "compare", "optimize"]
