"""prune: what its report says is true of the model that it gives back."""

from __future__ import annotations

import numpy as np
import pytest

import graphopt
from graphopt.graph import ir
from tests.pruning.pruning_models import model

DATA = {"x": np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)}


def network() -> ir.Model:
    body = "h = Gemm(x, w, b)\nr = Relu(h)\ny = MatMul(r, v)"
    weights = {"w": (6, 16), "b": (16,), "v": (16, 5)}
    return model("float[N, 6] x", "float[N, 5] y", body, weights)


@pytest.mark.parametrize("allowed", [0, 1])
def test_the_repairs_are_those_of_the_model_that_is_given(allowed: int) -> None:
    """The search for the largest drop builds models that it then drops."""
    steps = 7
    figures = iter([1.0] * (1 + allowed) + [0.0] * (steps - allowed) + [1.0])
    found = graphopt.prune(
        network(), calibration=DATA, max_drop="0", metric=lambda run: next(figures)
    )
    report = found.report
    assert set(report.groups) == ({"h"} if allowed else set())
    assert set(report.repaired) == ({"y"} if allowed else set())
    if allowed:
        left = report.groups["h"][1] / 16
        same = graphopt.prune(
            network(), calibration=DATA, ratio=1 - left, metric=lambda run: 1.0
        ).report
        assert same.groups == report.groups
        assert same.repaired == report.repaired
