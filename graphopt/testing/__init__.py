"""What the tests of a pass need: golden cases, and models on which careless passes fail.

A golden case is a text file: a model before and after a pass. A project that offers passes
keeps its cases anywhere under its tests and writes in the `conftest.py` at their top

    pytest_plugins = ["graphopt.testing.pytest_plugin"]

Then pytest runs every `*.onnxtxt` file as a test, and `pytest --update` writes the halves
that passes produce. `golden_cases` and `Case.check` are the same for any other test runner.
"""

from graphopt.testing.golden import Case, GoldenMismatch, golden_cases, read_case
from graphopt.testing.trap import TrapResult, run_traps

__all__ = [
    "Case",
    "GoldenMismatch",
    "TrapResult",
    "golden_cases",
    "read_case",
    "run_traps",
]
