"""What a group does to the outputs, where outputs are rounded and rows are few."""

import numpy as np

from graphopt.pruning.coupling import find_groups
from graphopt.pruning.importance import second_order_rankings
from graphopt.pruning.importance_sensitivity import observed, output_scales
from graphopt.pruning.statistics import consumer_moments
from graphopt.shapes import infer_shapes
from tests.pruning.pruning_models import model

ROUNDED = """
  a = MatMul(x, v)
  b = Relu(a)
  c = MatMul(b, w)
  d = Softmax(c)
  q = QuantizeLinear(d, scale, zero)
"""


def rounded():
    weights = {
        "v": (6, 8),
        "w": (8, 4),
        "scale": np.array(1 / 256, np.float32),
        "zero": np.array(0, np.uint8),
    }
    made = model("float[N,6] x", "uint8[N,4] q", ROUNDED, weights)
    infer_shapes(made)
    return made


def feeds(rows: int, columns: int = 6):
    random = np.random.default_rng(0)
    return [{"x": random.standard_normal((rows, columns)).astype(np.float32)}]


def test_behind_a_rounded_output_the_scores_tell() -> None:
    assert observed(rounded()) == ["c"]
    source = rounded()
    groups = find_groups(source)
    moments = consumer_moments(source, groups, feeds(64))
    rankings, _ = second_order_rankings(source, groups, moments)
    scales = output_scales(source, groups, rankings, moments, feeds(64))
    assert scales
    assert all(scale > 0 for scale in scales.values())


def test_an_output_of_floats_is_watched_itself() -> None:
    source = model("float[N,4] x", "float[N,4] y", "y = Relu(x)")
    assert observed(source) == ["y"]


def test_where_nothing_tells_all_groups_count_alike() -> None:
    source = model(
        "int64[N,4] x", "int64[N,4] y", "y = Add(x, one)", {"one": np.array(1, np.int64)}
    )
    assert observed(source) == []
    assert output_scales(source, find_groups(source), {}, {}, []) == {}


def test_few_rows_do_not_make_channels_look_free() -> None:
    body = "a = MatMul(x, v)\n  b = Sigmoid(a)\n  y = MatMul(b, w)"
    source = model("float[N,32] x", "float[N,4] y", body, {"v": (32, 64), "w": (64, 4)})
    groups = find_groups(source)

    def error_of_half(rows: int) -> float:
        moments = consumer_moments(source, groups, feeds(rows, 32))
        rankings, _ = second_order_rankings(source, groups, moments)
        (ranking,) = rankings.values()
        return float(ranking.errors[32])

    # 24 rows are no more than 24 of 64 columns: by themselves they say that 40 cost nothing.
    assert error_of_half(24) > 0.2 * error_of_half(8192)
