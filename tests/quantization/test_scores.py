"""What integer outputs are read from is made visible, and measured."""

import numpy as np
import pytest

from graphopt.graph import from_text
from graphopt.pipeline.task_metric import read_metric
from graphopt.quantization.scores import can_be_measured, with_scores
from graphopt.quantization.sensitivity import NoiseMeter

FEEDS = [{"x": np.arange(8, dtype=np.float32).reshape(2, 4)}]


def classes(bias: float = 0.0):
    head = '<ir_version: 9, opset_import: ["" : 18]> g (float[2, 4] x) => (int64[2] y)'
    body = f"b = Constant<value_float = {bias}>() s = Add(x, b)"
    return from_text(f"{head} {{ {body} n = ArgMax<axis = 1>(s) y = Squeeze(n) }}")


def rounded():
    head = '<ir_version: 9, opset_import: ["" : 18]> g (float[2, 4] x) => (uint8[2, 4] y)'
    body = "f = Constant<value_float = 0.5>() z = Cast<to = 2>(f) y = QuantizeLinear(x, f, z)"
    return from_text(f"{head} {{ {body} }}")


@pytest.mark.parametrize("model", [classes(), rounded()])
def test_scores_become_outputs_of_a_copy(model):
    shown = with_scores(model)
    assert [value.name for value in shown.graph.outputs] == ["y", "y:scores"]
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert can_be_measured(model)


def test_noise_is_measured_where_the_class_stays_the_same():
    signal = float((FEEDS[0]["x"] ** 2).sum())
    noise = NoiseMeter(classes(), FEEDS).noise(classes(bias=0.5))
    assert noise == pytest.approx(8 * 0.25 / signal)
    metric = read_metric("sqnr", original=classes(), data=FEEDS)
    assert metric.measure(classes(bias=0.5)) == pytest.approx(-10 * np.log10(noise))


def test_what_is_computed_in_integers_has_no_scores():
    head = '<ir_version: 9, opset_import: ["" : 18]> g (float[2, 4] x) => (int64 y)'
    counted = from_text(f"{head} {{ y = Size(x) }}")
    assert [value.name for value in with_scores(counted).graph.outputs] == ["y"]
    assert not can_be_measured(counted)


def test_float_outputs_are_enough():
    head = '<ir_version: 9, opset_import: ["" : 18]> g (float[2, 4] x) => (float[2, 4] s, int64 n)'
    both = from_text(f"{head} {{ s = Neg(x) n = Size(s) }}")
    assert with_scores(both) is both
