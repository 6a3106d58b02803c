"""Gaussian-process regression of one smooth function of a few features, in numpy.

The covariance of two points is  a² · Matérn-5/2(|(x - x') / l|) + b² · (1 + x·x')  plus noise: a
trend in each feature, and smooth departures from it with a length scale per feature. Of the noise
one part is that of each sample, and one is shared by all that were measured together. The
parameters maximize the marginal likelihood (Rasmussen and Williams, Gaussian Processes for
Machine Learning, chapters 2 and 5). The mean is 0 before any sample is seen. Far from all data
the function returns to its trend, and the variance says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

_MOST_FOR_PARAMETERS = 220
_STEPS = 60
_LEAST_SCALE = 0.5
_SHARED = 0.1
"""The standard deviation of what samples share that were measured together: a machine that others
use as well is faster in one second than in the next."""
_ROOT5 = 5.0**0.5
# Prior on the logarithms of the parameters: normal, and weak. It decides where data is scarce.
_PRIOR_MEAN = {"length": 1.0, "signal": -1.2, "trend": -2.5, "noise": -2.5}
# What is left of a guess that was fitted to the same kernels elsewhere.
_PRIOR_MEAN_OF_REST = {"length": 1.0, "signal": -3.5, "trend": -4.0, "noise": -1.7}
_PRIOR_SPREAD = {"length": 1.0, "signal": 0.8, "trend": 0.8, "noise": 0.7}


@dataclass(frozen=True)
class Parameters:
    """What a process was fitted to be.

    Attributes:
        lengths: the length scale of each feature, in standard deviations of that feature.
        signal: the standard deviation of the smooth departures.
        trend: the standard deviation of the slopes.
        noise: the standard deviation of what no feature explains.
    """

    lengths: tuple[float, ...]
    signal: float
    trend: float
    noise: float


class GaussianProcess:
    """A process conditioned on samples.

    Args:
        features: n rows of d features.
        targets: n values.
        spreads: the standard deviation of the measurement error of each value.
        groups: for each sample a number of those that it was measured together with.
        parameters: from `fit`.
    """

    def __init__(
        self,
        features: Array,
        targets: Array,
        spreads: Array,
        groups: Array,
        parameters: Parameters,
    ) -> None:
        self._centre, self._scale = _standard(features)
        self._points = (features - self._centre) / self._scale
        self.parameters = parameters
        covariance = _covariance(self._points, self._points, parameters)
        covariance += _error(spreads, groups)
        covariance[np.diag_indices_from(covariance)] += parameters.noise**2
        self._inverse_root = np.linalg.inv(np.linalg.cholesky(covariance))
        self._weights = self._inverse_root.T @ (self._inverse_root @ targets)

    def mean(self, features: Array) -> Array:
        """The mean at each of m points."""
        points = (features - self._centre) / self._scale
        cross = _covariance(points, self._points, self.parameters)
        result: Array = cross @ self._weights
        return result

    def predict(self, features: Array) -> tuple[Array, Array]:
        """The mean at each of m points, and the m x m covariance of the function there."""
        points = (features - self._centre) / self._scale
        cross = _covariance(points, self._points, self.parameters)
        solved = self._inverse_root @ cross.T
        covariance = _covariance(points, points, self.parameters) - solved.T @ solved
        return cross @ self._weights, covariance

    def left_out(self) -> Array:
        """For each sample, by how many standard deviations it is off what the others predict."""
        result: Array = self._weights / np.sqrt(self._precisions)
        return result

    def left_out_densities(self) -> Array:
        """The log density of each sample, given the others (the same, 5.4.2; a constant less)."""
        variances = 1 / self._precisions
        errors = self._weights * variances
        result: Array = -0.5 * np.log(variances) - 0.5 * errors**2 / variances
        return result

    @property
    def _precisions(self) -> Array:
        """The diagonal of the inverse covariance."""
        diagonal: Array = (self._inverse_root**2).sum(0)
        return diagonal


def fit(
    features: Array, targets: Array, spreads: Array, groups: Array, *, rest: bool = False
) -> Parameters:
    """The parameters of the process that explains the samples best; deterministic.

    Args:
        features: n rows of d features.
        targets: n values.
        spreads: the standard deviation of the measurement error of each value.
        groups: for each sample a number of those that it was measured together with.
        rest: whether the values are what is left of a good guess, and so are likely to be small.
    """
    step = -(-len(targets) // _MOST_FOR_PARAMETERS)
    features, targets = features[::step], targets[::step]
    error = _error(spreads[::step], groups[::step])
    centre, scale = _standard(features)
    points = (features - centre) / scale
    used = np.ptp(features, axis=0) > 0
    names = ["length"] * features.shape[1] + ["signal", "trend", "noise"]
    likely = _PRIOR_MEAN_OF_REST if rest else _PRIOR_MEAN
    mean = np.array([likely[name] for name in names])
    spread = np.array([_PRIOR_SPREAD[name] for name in names])
    logs = mean.copy()
    # Rprop: the sign of the gradient alone is used, with a step size for each parameter.
    sizes = np.full(len(logs), 0.2)
    last = np.zeros(len(logs))
    for _ in range(_STEPS if len(targets) > 3 else 0):
        gradient = _gradient(points[:, used], targets, error, _kept(logs, used))
        full = np.zeros(len(logs))
        full[np.append(used, [True] * 3)] = gradient
        full -= (logs - mean) / spread**2
        turned = full * last < 0
        sizes = np.clip(np.where(turned, 0.5 * sizes, 1.2 * sizes), 1e-3, 0.5)
        full[turned] = 0.0
        logs = logs + np.sign(full) * sizes
        last = full
    lengths = tuple(float(value) for value in np.exp(logs[:-3]))
    signal, trend, noise = (float(value) for value in np.exp(logs[-3:]))
    return Parameters(lengths, signal, trend, noise)


def _kept(logs: Array, used: Array) -> Array:
    kept: Array = logs[np.append(used, [True] * 3)]
    return kept


def _standard(features: Array) -> tuple[Array, Array]:
    # A flag that is seldom set, or a size that hardly varies, is not to be blown up.
    return features.mean(axis=0), np.maximum(features.std(axis=0), _LEAST_SCALE)


def _covariance(a: Array, b: Array, parameters: Parameters) -> Array:
    lengths = np.array(parameters.lengths)
    distance = _distance(a / lengths, b / lengths)
    smooth = (1 + distance + distance**2 / 3) * np.exp(-distance)
    result: Array = parameters.signal**2 * smooth + parameters.trend**2 * (1 + a @ b.T)
    return result


def _distance(a: Array, b: Array) -> Array:
    """sqrt(5) times the Euclidean distance of each row of `a` to each of `b`."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    result: Array = _ROOT5 * np.sqrt(np.maximum(squares, 0.0))
    return result


def _error(spreads: Array, groups: Array) -> Array:
    """The covariance of the measurement errors."""
    result: Array = _SHARED**2 * (groups[:, None] == groups[None]) + np.diag(spreads**2)
    return result


def _gradient(points: Array, values: Array, error: Array, logs: Array) -> Array:
    """The gradient of the log marginal likelihood in the logarithms of the parameters."""
    lengths = np.exp(logs[:-3])
    signal, trend, noise = np.exp(2 * logs[-3:])
    scaled = points / lengths
    distance = _distance(scaled, scaled)
    decay = np.exp(-distance)
    smooth = signal * (1 + distance + distance**2 / 3) * decay
    linear = trend * (1 + points @ points.T)
    covariance = smooth + linear + error
    covariance[np.diag_indices_from(covariance)] += noise
    inverse = np.linalg.inv(covariance)
    weights = inverse @ values
    # d L / d K, of which the trace of the product with d K / d parameter is wanted.
    slope = 0.5 * (np.outer(weights, weights) - inverse)
    inner = slope * signal * (5.0 / 3.0) * (1 + distance) * decay
    rows = inner.sum(1)
    by_length = 2 * ((scaled**2) * rows[:, None] - scaled * (inner @ scaled)).sum(0)
    others: Sequence[float] = (
        2 * float((slope * smooth).sum()),
        2 * float((slope * linear).sum()),
        2 * noise * float(np.trace(slope)),
    )
    return np.append(by_length, others)
