"""The Gaussian process: its gradient, its predictions, its honesty."""

import numpy as np

from graphopt.cost.latency import regression
from graphopt.cost.latency.regression import GaussianProcess, Parameters, fit

Samples = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _samples(count: int, seed: int = 0) -> Samples:
    """Features, values, spreads, and groups of three that share a part of their errors."""
    random = np.random.default_rng(seed)
    features = random.uniform(-3, 3, (count, 3))
    values = np.sin(features[:, 0]) + 0.3 * features[:, 1]
    groups = np.arange(count) // 3
    values += 0.05 * random.standard_normal(count) + 0.1 * random.standard_normal(count)[groups]
    return features, values, np.full(count, 0.01), groups


def _log_likelihood(
    logs: np.ndarray, points: np.ndarray, values: np.ndarray, groups: np.ndarray
) -> float:
    """By the textbook's formula, the covariance written out point by point."""
    lengths = np.exp(logs[:-3])
    signal, trend, noise = np.exp(logs[-3:])
    size = len(points)
    covariance = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            r = 5**0.5 * np.linalg.norm((points[i] - points[j]) / lengths)
            covariance[i, j] = signal**2 * (1 + r + r * r / 3) * np.exp(-r)
            covariance[i, j] += trend**2 * (1 + points[i] @ points[j])
            covariance[i, j] += regression._SHARED**2 * float(groups[i] == groups[j])
        covariance[i, i] += noise**2 + 0.01**2
    solved = np.linalg.solve(covariance, values)
    return float(-0.5 * values @ solved - 0.5 * np.linalg.slogdet(covariance)[1])


def test_the_gradient_is_that_of_the_likelihood() -> None:
    features, values, spreads, groups = _samples(25)
    logs = np.array([0.1, 0.4, 0.8, -0.5, -1.2, -2.0])
    found = regression._gradient(features, values, regression._error(spreads, groups), logs)
    step = 1e-5
    for index in range(len(logs)):
        moved = np.eye(len(logs))[index] * step
        difference = _log_likelihood(logs + moved, features, values, groups) - _log_likelihood(
            logs - moved, features, values, groups
        )
        assert np.isclose(found[index], difference / (2 * step), rtol=1e-4, atol=1e-4)


def test_it_predicts_a_smooth_function_and_covers_it() -> None:
    features, *rest = samples = _samples(150)
    process = GaussianProcess(features, *rest, fit(*samples))
    new, *_ = _samples(200, seed=1)
    truth = np.sin(new[:, 0]) + 0.3 * new[:, 1]
    mean, covariance = process.predict(new)
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 0.06
    deviations = np.abs(mean - truth) / np.sqrt(np.diag(covariance))
    assert 0.6 < np.mean(deviations < 1.28) <= 1.0


def test_far_from_all_samples_it_is_unsure() -> None:
    features, *rest = samples = _samples(60)
    process = GaussianProcess(features, *rest, fit(*samples))
    _, near = process.predict(features[:1])
    _, far = process.predict(np.full((1, 3), 40.0))
    assert far[0, 0] > 10 * near[0, 0]


def test_a_wrong_sample_stands_out() -> None:
    features, values, spreads, groups = _samples(80)
    values[7] += 3.0
    parameters = Parameters((1.5, 3.0, 5.0), 0.8, 0.2, 0.06)
    off = np.abs(GaussianProcess(features, values, spreads, groups, parameters).left_out())
    assert off.argmax() == 7
    assert off[7] > 5


def test_the_same_samples_give_the_same_parameters() -> None:
    assert fit(*_samples(50)) == fit(*_samples(50))


def test_a_sample_that_is_left_out_is_as_likely_as_a_process_without_it_says() -> None:
    features, values, spreads, groups = _samples(12)
    parameters = Parameters((0.8, 1.0, 2.0), 0.6, 0.1, 0.1)
    process = GaussianProcess(features, values, spreads, groups, parameters)
    covariance = regression._covariance(process._points, process._points, parameters)
    covariance += regression._error(spreads, groups) + np.eye(12) * parameters.noise**2
    densities = []
    for index in range(12):
        others = np.arange(12) != index
        gain = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, index])
        error = values[index] - gain @ values[others]
        variance = covariance[index, index] - gain @ covariance[others, index]
        densities.append(-0.5 * np.log(variance) - 0.5 * error**2 / variance)
    np.testing.assert_allclose(process.left_out_densities(), densities, rtol=1e-9)
    np.testing.assert_allclose(process.mean(features), process.predict(features)[0], rtol=1e-12)
