"""Turns what was measured of the calibration models into a machine's fit.

The profiler adds to the time of every kernel, more for one with many inputs. How much is solved
for by least squares, from the difference between the sum of the kernels' times and the time of
the same model without the profiler. Then the kernels of each model are scaled (by a few percent)
so that they add up to what the whole model takes: what is fitted are true times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphopt.cost.latency.machine import Ceilings, ClassFit, ThreadFit
from graphopt.cost.latency.operation import FAR_TERMS, Kernel
from graphopt.cost.latency.regression import GaussianProcess, Parameters, fit

_MOST_SAMPLES = 400
_FEWEST_SAMPLES = 4
_HELD_OUT = 4  # one model of so many
_LEAST_SECONDS = 1e-7
# How far the kernels of a model are scaled at most.
_MOST_SCALING = 1.2
# What a kernel's time is uncertain by: the profiler counts microseconds, of many runs.
_RESOLUTION = 0.08e-6
_NOISE = 0.01
_SLOWEST_MEMORY = 1e-10  # seconds for a byte
# Standard deviations of a sample from what the others predict, beyond which it is left out.
_FURTHEST = 3.5


@dataclass(frozen=True)
class Observation:
    """One model, run with a number of threads.

    Attributes:
        kernels: its executed kernels.
        tensors: for each the number of its inputs and outputs.
        profiled: for each its seconds under the profiler.
        seconds: the time of a run without the profiler.
        values: the number of inputs and outputs of its graph.
    """

    kernels: tuple[Kernel, ...]
    tensors: tuple[int, ...]
    profiled: tuple[float, ...]
    seconds: float
    values: int

    def kernel_seconds(self, run_overhead: tuple[float, float]) -> float:
        """The time of a run without what is not its kernels'."""
        return max(self.seconds - run_overhead[0] - run_overhead[1] * self.values, 1e-6)


def fit_threads(
    observations: Sequence[Observation],
    run_overhead: tuple[float, float],
    progress: Callable[[str], None] = lambda _: None,
) -> ThreadFit:
    """The fit for one number of threads.

    Args:
        observations: what was measured with it.
        run_overhead: see `ThreadFit`.
        progress: told what is being done.
    """
    charge = profiler_charge(observations, run_overhead)
    # How far whole models are off is asked of models that the fit did not see.
    seen = [o for index, o in enumerate(observations) if index % _HELD_OUT]
    unseen = observations[::_HELD_OUT]
    progress("fitting")
    whole = _fit_kernels(observations, run_overhead, charge, {})
    known = {kind: found.parameters for kind, found in whole.classes.items()}
    trial = _fit_kernels(seen, run_overhead, charge, known)
    return replace(whole, spread=_spread(unseen, trial))


def _fit_kernels(
    observations: Sequence[Observation],
    run_overhead: tuple[float, float],
    charge: tuple[float, float],
    known: Mapping[str, Parameters],
) -> ThreadFit:
    samples = [s for o in observations for s in true_times(o, run_overhead, charge)]
    ceilings = _ceilings(samples)
    by_kind: dict[str, list[tuple[Kernel, float]]] = defaultdict(list)
    for kernel, seconds in samples:
        by_kind[kernel.kind].append((kernel, seconds))
    classes = {
        kind: _fit_class(by_kind[kind], known.get(kind))
        for kind in sorted(by_kind)
        if len(by_kind[kind]) >= _FEWEST_SAMPLES and by_kind[kind][0][0].features
    }
    residuals = np.array([np.log(t / ceilings.bound(kernel)) for kernel, t in samples])
    typical = (float(residuals.mean()), float(residuals.std()))
    return ThreadFit(ceilings, run_overhead, charge, 0.0, typical, classes)


def profiler_charge(
    observations: Sequence[Observation], run_overhead: tuple[float, float]
) -> tuple[float, float]:
    """Seconds that the profiler adds to a kernel, and to it for each of its inputs and outputs."""
    nodes = np.array([len(o.kernels) for o in observations], float)
    tensors = np.array([sum(o.tensors) for o in observations], float)
    added = np.array([sum(o.profiled) - o.kernel_seconds(run_overhead) for o in observations])
    scale = np.array([3e-6 + 0.02 * o.seconds for o in observations])
    weights = 1 / scale
    solution: np.ndarray = np.zeros(2)
    for _ in range(20):
        matrix = np.stack([nodes, tensors], 1) * weights[:, None]
        solution = np.linalg.lstsq(matrix, added * weights, rcond=None)[0]
        error = np.abs(np.stack([nodes, tensors], 1) @ solution - added) / scale
        weights = np.sqrt(1 / np.maximum(error, 1.0)) / scale  # Huber's: outliers count less
    return float(solution[0]), float(solution[1])


def true_times(
    observation: Observation, run_overhead: tuple[float, float], charge: tuple[float, float]
) -> list[tuple[Kernel, float]]:
    """Each kernel with its time as it would be without the profiler."""
    times = np.array(observation.profiled) - charge[0] - charge[1] * np.array(observation.tensors)
    times = np.maximum(times, _LEAST_SECONDS)
    scale = observation.kernel_seconds(run_overhead) / float(times.sum())
    times *= min(max(scale, 1 / _MOST_SCALING), _MOST_SCALING)
    return list(zip(observation.kernels, times.tolist(), strict=True))


def _ceilings(samples: Sequence[tuple[Kernel, float]]) -> Ceilings:
    """The best rates in the samples; a high quantile, for one lucky time is no ceiling."""

    def best(values: list[float], default: float) -> float:
        return float(np.quantile(values, 0.98)) if values else default

    def rates(integer: bool) -> list[float]:
        return [k.flops / t for k, t in samples if k.integer == integer and k.flops > 2e6]

    flops = best(rates(False), 1e10)
    near = [k.bytes / t for k, t in samples if 2**16 < k.bytes < 2**19 and k.flops < k.bytes]
    far = [k.bytes / t for k, t in samples if k.bytes > 2**22 and k.flops < k.bytes]
    dispatch = float(np.quantile([t for _, t in samples], 0.02))
    near_bandwidth = best(near, 1e10)
    return Ceilings(
        flops, best(rates(True), flops), near_bandwidth, best(far, near_bandwidth), dispatch
    )


def _fit_class(samples: list[tuple[Kernel, float]], known: Parameters | None) -> ClassFit:
    samples = _chosen(samples)
    features = np.array([kernel.features for kernel, _ in samples])
    seconds = np.array([time for _, time in samples])
    terms = np.array([kernel.terms for kernel, _ in samples])
    rates = _rates(terms, seconds)
    targets = np.log(seconds / (terms @ rates))
    spreads = np.hypot(_NOISE, _RESOLUTION / seconds)
    # What is far from all alike is a disturbance of the measurement; it says nothing.
    parameters = known or fit(features, targets, spreads)
    process = GaussianProcess(features, targets, spreads, parameters)
    kept = np.abs(process.left_out()) < _FURTHEST
    if kept.sum() >= _FEWEST_SAMPLES and not kept.all():
        features, targets, spreads = features[kept], targets[kept], spreads[kept]
        parameters = known or fit(features, targets, spreads)
    return ClassFit(
        tuple(rates.tolist()),
        tuple(map(tuple, np.round(features, 3).tolist())),
        tuple(np.round(targets, 4).tolist()),
        tuple(np.round(spreads, 4).tolist()),
        parameters,
    )


def _rates(terms: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Non-negative rates that add the terms up to the seconds, with the least relative error.

    Coordinate descent on a convex function: it ends at the minimum.
    """
    matrix = terms / seconds[:, None]
    scale = np.maximum(np.abs(matrix).max(0), 1e-300)
    matrix = matrix / scale
    weights = np.ones(len(seconds))
    rates = np.zeros(terms.shape[1])
    # Few samples tell of far memory: what they cannot settle is kept to what memory can be.
    highest = np.full(len(rates), np.inf)
    highest[-FAR_TERMS:] = _SLOWEST_MEMORY * scale[-FAR_TERMS:]
    for _ in range(4):
        normal = matrix.T @ (weights[:, None] * matrix)
        wanted = matrix.T @ weights
        for _ in range(300):
            for index in np.flatnonzero(np.diag(normal)):
                gradient = wanted[index] - normal[index] @ rates
                wished = rates[index] + gradient / normal[index, index]
                rates[index] = min(max(wished, 0.0), highest[index])
        # Relative to the guess as well as to the time: being too low by half is as bad as
        # being too high by twice.
        guess = np.maximum(matrix @ rates, 0.05)
        weights = 1 / np.maximum(guess, np.abs(guess - 1))
    result: np.ndarray = rates / scale
    return result if result.any() else np.append(np.median(seconds), np.zeros(len(rates) - 1))


def _chosen(samples: list[tuple[Kernel, float]]) -> list[tuple[Kernel, float]]:
    """At most so many samples, those of the same features averaged into one."""
    groups: dict[tuple[float, ...], list[tuple[Kernel, float]]] = defaultdict(list)
    for kernel, seconds in samples:
        groups[kernel.features].append((kernel, seconds))
    means = [
        (group[0][0], float(np.exp(np.mean([np.log(seconds) for _, seconds in group]))))
        for group in groups.values()
    ]
    step = -(-len(means) // _MOST_SAMPLES)
    return means[::step]


def _spread(observations: Sequence[Observation], whole: ThreadFit) -> float:
    """By how much whole models are off beyond what their kernels account for."""
    processes: dict[str, GaussianProcess] = {k: f.process() for k, f in whole.classes.items()}
    errors = []
    for observation in observations:
        total = whole.run_overhead[0] + whole.run_overhead[1] * observation.values
        for kernel in observation.kernels:
            process = processes.get(kernel.kind)
            if process is None:
                break
            mean, _ = process.predict(np.array([kernel.features]))
            total += whole.classes[kernel.kind].guess(kernel) * float(np.exp(mean[0]))
        else:
            errors.append(np.log(observation.seconds / total))
    if len(errors) < _FEWEST_SAMPLES:
        return 0.1
    # 80 % of a normal distribution lie within 1.28 standard deviations.
    return float(np.quantile(np.abs(errors), 0.8)) / 1.2816
