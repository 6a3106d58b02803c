"""A seeded generator of random valid ONNX models, and what it takes to test an optimizer on them.

`random_model` makes a model, `check_model` says what an optimizer does wrong on it, `shrink`
makes the failing model small.
"""

from tests.generate.check import check_model, interface_changes, run
from tests.generate.model import Feed, InvalidGraph, newest_opset, random_model
from tests.generate.shrink import save_failure, shrink

__all__ = [
    "Feed",
    "InvalidGraph",
    "check_model",
    "interface_changes",
    "newest_opset",
    "random_model",
    "run",
    "save_failure",
    "shrink",
]
