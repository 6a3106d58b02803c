"""Second-order importance: the order is the greedy optimum, and its errors are true."""

import itertools

import numpy as np
import pytest

from graphopt.graph import ir
from graphopt.pruning.coupling import find_groups
from graphopt.pruning.importance import System, second_order_rankings
from graphopt.pruning.importance_measures import geometric_median_scores, norm_scale_scores
from graphopt.pruning.importance_sensitivity import output_scales
from graphopt.pruning.statistics import consumer_moments


def correlated_rows(seed: int, channels: int = 8, rows: int = 4000) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(channels // 2, channels))
    return random.normal(size=(rows, channels // 2)) @ mixing + 0.3 * random.normal(
        size=(rows, channels)
    )


def least_error(x: np.ndarray, weight: np.ndarray, kept: list[int]) -> float:
    y = x @ weight
    fit = np.linalg.lstsq(x[:, kept], y, rcond=None)[0]
    return float(((x[:, kept] @ fit - y) ** 2).sum() / (y**2).sum())


def eliminate(x: np.ndarray, weight: np.ndarray, count: int) -> tuple[list[int], float]:
    blocks = np.arange(x.shape[1])[:, None]
    system = System(x.T @ x / len(x), weight, blocks, 1e-9)
    alive, error = list(range(x.shape[1])), 0.0
    for _ in range(count):
        scores = system.errors(np.asarray(alive))
        error += float(scores.min())
        system.remove(np.asarray([alive.pop(int(scores.argmin()))]))
    return alive, error


@pytest.mark.parametrize("seed", range(5))
def test_errors_are_those_of_a_least_squares_refit(seed: int) -> None:
    x = correlated_rows(seed)
    weight = np.random.default_rng(seed + 100).normal(size=(8, 5))
    kept, error = eliminate(x, weight, 4)
    assert error == pytest.approx(least_error(x, weight, kept), rel=1e-4)


def test_greedy_order_beats_magnitude_and_is_near_the_best_choice() -> None:
    chosen, magnitude, best = [], [], []
    for seed in range(8):
        x = correlated_rows(seed)
        weight = np.random.default_rng(seed + 100).normal(size=(8, 5))
        kept, _ = eliminate(x, weight, 4)
        chosen.append(least_error(x, weight, kept))
        largest = np.argsort(-np.linalg.norm(weight, axis=1))[:4].tolist()
        magnitude.append(least_error(x, weight, largest))
        best.append(
            min(least_error(x, weight, list(c)) for c in itertools.combinations(range(8), 4))
        )
    assert np.mean(chosen) < 0.8 * np.mean(magnitude)
    assert np.mean(chosen) <= 1.3 * np.mean(best)


def small_network(seed: int = 0) -> ir.Model:
    model = ir.from_onnx_text(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        small (float[N, 3, 8, 8] x) => (float[N, 4] y)
        <float[8, 3, 3, 3] w, float[8] b, float[6, 8, 3, 3] v, float[6] c, float[6, 4] u>
        {
          h = Conv<pads = [1, 1, 1, 1]>(x, w, b)
          r = Relu(h)
          z = Conv<pads = [1, 1, 1, 1]>(r, v, c)
          s = Relu(z)
          p = GlobalAveragePool(s)
          f = Flatten(p)
          y = MatMul(f, u)
        }
        """
    )
    random = np.random.default_rng(seed)
    for name, shape in (
        ("w", (8, 3, 3, 3)),
        ("b", (8,)),
        ("v", (6, 8, 3, 3)),
        ("c", (6,)),
        ("u", (6, 4)),
    ):
        value = next(
            v for node in model.graph for v in node.inputs if v is not None and v.name == name
        )
        value.const_value = ir.tensor(random.normal(size=shape).astype(np.float32), name=name)
        model.graph.initializers[name] = value
    return model


def feeds_for(count: int = 16, seed: int = 1) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [{"x": random.normal(size=(2, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def test_a_unit_without_effect_goes_first_and_costs_nothing() -> None:
    model = small_network()
    weight = model.graph.initializers["v"].const_value.numpy().copy()
    weight[:, 5] = 0.0
    model.graph.initializers["v"].const_value = ir.tensor(weight, name="v")
    groups = find_groups(model)
    rankings, reasons = second_order_rankings(
        model, groups, consumer_moments(model, groups, feeds_for())
    )
    first = rankings["h"]
    assert first.order[0] == 5
    assert first.errors[1] < 1e-9 < first.errors[2]
    assert reasons == {}


def test_a_copied_unit_costs_nothing_to_remove() -> None:
    model = small_network()
    for name in ("w", "b"):
        array = model.graph.initializers[name].const_value.numpy().copy()
        array[2] = array[6]
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)
    groups = find_groups(model)
    moments = consumer_moments(model, groups, feeds_for())
    rankings, _ = second_order_rankings(model, groups, moments)
    assert rankings["h"].order[0] in (2, 6)
    assert rankings["h"].errors[1] < 1e-3
    scales = output_scales(model, groups, rankings, moments, feeds_for(4))
    assert set(scales) == set(rankings)
    assert all(np.isfinite(scale) and scale >= 0 for scale in scales.values())


def test_geometric_median_is_least_for_the_filter_nearest_the_others() -> None:
    model = small_network()
    array = model.graph.initializers["w"].const_value.numpy().copy()
    array[3] = np.delete(array, 3, axis=0).mean(axis=0)
    model.graph.initializers["w"].const_value = ir.tensor(array, name="w")
    assert int(geometric_median_scores(model, find_groups(model))["h"].argmin()) == 3


def test_norm_scale_reads_the_norm_that_was_folded_away() -> None:
    original = ir.from_onnx_text(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        normed (float[N, 3, 8, 8] x) => (float[N, 8, 8, 8] h)
        <float[8] k = {1, -9, 2, 3, 4, 5, 6, 7}, float[8] m = {0, 0, 0, 0, 0, 0, 0, 0},
         float[8] s = {1, 1, 1, 1, 1, 1, 1, 1}>
        {
          q = Identity(x)
          h = BatchNormalization(q, k, m, m, s)
        }
        """
    )
    groups = find_groups(small_network())
    scores = norm_scale_scores(original, groups)
    assert np.argsort(scores["h"]).tolist()[0] == 0
    assert int(scores["h"].argmax()) == 1
