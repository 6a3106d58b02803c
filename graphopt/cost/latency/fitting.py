"""Turns what was measured of the calibration models into a machine's fit.

The profiler adds to the time of every kernel. How much is solved for by least squares, from the
difference between the sum of the kernels' times and the time of the same model without the
profiler. It is not the same in every run: what is left of that difference is put down partly to the
profiler and partly to the machine's pace, as likely as either is, so that the kernels of each model
add up to what the whole model takes: what is fitted are true times. Those of kernels that take less
than the profiler adds may come out negative; they are kept as they are, for only so is their mean
right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from graphopt.cost.latency.machine import Ceilings, ClassFit, ThreadFit
from graphopt.cost.latency.operation import FAR_TERMS, Kernel
from graphopt.cost.latency.regression import GaussianProcess, Parameters, fit

_MOST_SAMPLES = 400
_FEWEST_SAMPLES = 4
_HELD_OUT = 4  # one model of so many
LEAST_SECONDS = 4e-7  # of a kernel, where one is asked for
# How far the kernels of a model are scaled at most.
_MOST_SCALING = 1.2
# The standard deviations of what the profiler adds, relative to what it usually does, and of the
# machine's pace, from run to run; and of the first from kernel to kernel.
_CHARGE_DEVIATION, _PACE_DEVIATION, _CHARGE_OF_KERNEL = 0.4, 0.1, 0.2
_MOST_CHARGES = 5.0
_NOISE = 0.01
# Where a time is more uncertain than that, relative to the guess, its ratio stands for its
# logarithm: noise pulls a logarithm down.
_UNCERTAIN = 0.3
_MOST_TARGET = 3.0
_LEAST_START = 2e-7  # seconds
_SLOWEST_MEMORY = 1e-10  # seconds for a byte
# Standard deviations of a sample from what the others predict, beyond which it is left out.
_FURTHEST = 3.5
_LEAST_SPREAD = 0.05
_SHORT = 1e-3  # seconds
_SMALL = 4096.0  # bytes, and operations, of a kernel that hardly does anything
_REFERENCE_WORTH = 20  # models
# By how much samples alone must be more likely, as a logarithm, for the reference to be left out.
_DECISIVE = 10.0
_FEWEST_ALONE = 24
# Standard deviations of how a class differs from the pace of a machine, and of one model of it.
_CLASS_DEVIATION, _MODEL_DEVIATION = 0.1, 0.25
_OFFSET_STEPS = 8


@dataclass(frozen=True)
class Observation:
    """One model, run with a number of threads.

    Attributes:
        kernels: its executed kernels.
        profiled: for each its seconds under the profiler.
        seconds: the time of a run without the profiler.
        values: the number of inputs and outputs of its graph.
    """

    kernels: tuple[Kernel, ...]
    profiled: tuple[float, ...]
    seconds: float
    values: int

    def kernel_seconds(self, run_overhead: tuple[float, float]) -> float:
        """The time of a run without what is not its kernels'."""
        return max(self.seconds - run_overhead[0] - run_overhead[1] * self.values, 1e-6)


class _Sample(NamedTuple):
    """What one kernel took, how uncertain that is, in seconds, and the number of its model."""

    kernel: Kernel
    seconds: float
    error: float
    group: int


def fit_threads(
    observations: Sequence[Observation],
    run_overhead: tuple[float, float],
    reference: ThreadFit | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ThreadFit:
    """The fit for one number of threads.

    Args:
        observations: what was measured with it.
        run_overhead: see `ThreadFit`.
        reference: the fit of a machine that was measured for longer, which is corrected where that
            tells more than these observations alone.
        progress: told what is being done.
    """
    charge = profiler_charge(observations, run_overhead)
    # How far whole models are off is asked of models that the fit did not see.
    seen = [o for index, o in enumerate(observations) if index % _HELD_OUT]
    unseen = observations[::_HELD_OUT]
    progress("fitting")
    bases = {} if reference is None else reference.classes
    whole = _fit_kernels(observations, run_overhead, charge, bases, {})
    trial = _fit_kernels(seen, run_overhead, charge, bases, whole.classes)
    return replace(whole, spread=_spread(unseen, trial, reference))


def _fit_kernels(
    observations: Sequence[Observation],
    run_overhead: tuple[float, float],
    charge: float,
    bases: Mapping[str, ClassFit],
    known: Mapping[str, ClassFit],
) -> ThreadFit:
    samples = []
    by_kind: dict[str, list[_Sample]] = defaultdict(list)
    for group, observation in enumerate(observations):
        times, error = true_times(observation, run_overhead, charge)
        for kernel, seconds in zip(observation.kernels, times, strict=True):
            samples.append((kernel, seconds))
            by_kind[kernel.kind].append(_Sample(kernel, seconds, error, group))
    ceilings = _ceilings(samples)
    pace = _pace(observations, run_overhead, bases)
    chosen = {kind: _chosen(by_kind[kind]) for kind in sorted(by_kind)}
    classes = {
        kind: _best_fit(some, bases.get(kind), pace, known.get(kind))
        for kind, some in chosen.items()
        if len(some) >= _FEWEST_SAMPLES and some[0].kernel.features
    }
    for kind in sorted(bases.keys() - classes.keys()):
        base = bases[kind]
        classes[kind] = ClassFit((pace,), (), (), (), (), base.parameters, base)
    residuals = np.log([max(t, LEAST_SECONDS) / ceilings.bound(kernel) for kernel, t in samples])
    typical = (float(residuals.mean()), float(residuals.std()))
    return ThreadFit(ceilings, run_overhead, charge, 0.0, typical, classes)


def _pace(
    observations: Sequence[Observation],
    run_overhead: tuple[float, float],
    bases: Mapping[str, ClassFit],
) -> float:
    """How many times as long as on the reference machine models take here, all in all."""
    ratios = [
        observation.kernel_seconds(run_overhead) / total
        for observation in observations
        if (total := _total(observation, bases)) is not None
    ]
    return float(np.median(ratios)) if ratios else 1.0


def _total(observation: Observation, classes: Mapping[str, ClassFit]) -> float | None:
    """What the kernels of a model are predicted to take; None if it has none, or unknown ones."""
    by_kind: dict[str, list[Kernel]] = defaultdict(list)
    for kernel in observation.kernels:
        by_kind[kernel.kind].append(kernel)
    if not by_kind or not by_kind.keys() <= classes.keys():
        return None
    return float(sum(classes[kind].seconds(some).sum() for kind, some in by_kind.items()))


def profiler_charge(
    observations: Sequence[Observation], run_overhead: tuple[float, float]
) -> float:
    """Seconds that the profiler adds to a kernel."""
    nodes = np.array([len(o.kernels) for o in observations], float)
    added = np.array([sum(o.profiled) - o.kernel_seconds(run_overhead) for o in observations])
    scale = np.array([3e-6 + _PACE_DEVIATION * o.seconds for o in observations])
    weights = 1 / scale**2
    charge = 0.0
    for _ in range(20):
        charge = float((weights * nodes * added).sum() / (weights * nodes**2).sum())
        error = np.abs(nodes * charge - added) / scale
        weights = 1 / (np.maximum(error, 1.0) * scale**2)  # Huber's: outliers count less
    return max(charge, 0.0)


def true_times(
    observation: Observation, run_overhead: tuple[float, float], charge: float
) -> tuple[list[float], float]:
    """Each kernel's time as it would be without the profiler, and the error of each, in seconds.

    A time may be negative; together they are what the model takes, as nearly as can be told.
    """
    profiled = np.array(observation.profiled)
    total = observation.kernel_seconds(run_overhead)
    usual = max(charge * len(profiled), 1e-9)
    left = float(profiled.sum()) - usual - total
    likely = (_CHARGE_DEVIATION * usual) ** 2
    likely /= likely + (_PACE_DEVIATION * total) ** 2
    charge *= min(max(1 + likely * left / usual, 0.0), _MOST_CHARGES)
    times = profiled - charge
    scale = total / max(float(times.sum()), LEAST_SECONDS)
    times *= min(max(scale, 1 / _MOST_SCALING), _MOST_SCALING)
    return times.tolist(), _CHARGE_OF_KERNEL * charge


def _ceilings(samples: Sequence[tuple[Kernel, float]]) -> Ceilings:
    """The best rates in the samples; a high quantile, for one lucky time is no ceiling."""

    def best(values: list[float], default: float) -> float:
        return float(np.quantile(values, 0.98)) if values else default

    def rates(integer: bool) -> list[float]:
        return [k.flops / t for k, t in certain if k.integer == integer and k.flops > 2e6]

    certain = [(k, t) for k, t in samples if t > LEAST_SECONDS]
    flops = best(rates(False), 1e10)
    near = [k.bytes / t for k, t in certain if 2**16 < k.bytes < 2**19 and k.flops < k.bytes]
    far = [k.bytes / t for k, t in certain if k.bytes > 2**22 and k.flops < k.bytes]
    small = [t for k, t in samples if max(k.bytes, k.flops) < _SMALL]
    dispatch = max(float(np.median(small)), LEAST_SECONDS) if small else LEAST_SECONDS
    near_bandwidth = best(near, 1e10)
    return Ceilings(
        flops, best(rates(True), flops), near_bandwidth, best(far, near_bandwidth), dispatch
    )


def _best_fit(
    samples: list[_Sample], base: ClassFit | None, pace: float, known: ClassFit | None
) -> ClassFit:
    """As a correction of `base`, unless these samples alone predict left-out ones much better."""
    if known is not None:
        return _fit_class(samples, known.base, pace, known.parameters)[0]
    if base is None:
        return _fit_class(samples, None, pace, None)[0]
    corrected, likely = _fit_class(samples, base, pace, None)
    if len(samples) < _FEWEST_ALONE:
        return corrected
    alone, as_likely = _fit_class(samples, None, pace, None)
    return alone if np.nansum(as_likely - likely) > _DECISIVE else corrected


def _fit_class(
    samples: list[_Sample], base: ClassFit | None, pace: float, known: Parameters | None
) -> tuple[ClassFit, np.ndarray]:
    """The fit, and the log density of each sample's seconds given the others; NaN if left out."""
    kernels = [sample.kernel for sample in samples]
    features = np.array([kernel.features for kernel in kernels])
    seconds = np.array([sample.seconds for sample in samples])
    errors = np.array([sample.error for sample in samples])
    groups = np.array([sample.group for sample in samples])
    if base is None:
        terms = np.array([kernel.terms for kernel in kernels])
        rates = _rates(terms, seconds, errors)
        rates *= np.exp(_offset(seconds, errors, terms @ rates))
        guesses = terms @ rates
    else:
        guesses = pace * base.seconds(kernels)
        models = len(np.unique(groups))
        # A few models tell little of how a class differs from the others, unless it does by much.
        offset = _offset(seconds, errors, guesses)
        variance = max(_CLASS_DEVIATION, abs(offset)) ** 2
        told = variance / (variance + _MODEL_DEVIATION**2 / models)
        rates = np.array([pace * np.exp(told * offset)])
        guesses *= rates[0] / pace
    targets, spreads = _targets(seconds, errors, guesses)
    # What is far from all alike is a disturbance of the measurement; it says nothing.
    find = partial(fit, rest=base is not None)
    parameters = known or find(features, targets, spreads, groups)
    process = GaussianProcess(features, targets, spreads, groups, parameters)
    kept = np.abs(process.left_out()) < _FURTHEST
    if kept.sum() >= _FEWEST_SAMPLES and not kept.all():
        features, targets = features[kept], targets[kept]
        spreads, groups = spreads[kept], groups[kept]
        parameters = known or find(features, targets, spreads, groups)
    else:
        kept[:] = True
    densities = np.full(len(seconds), np.nan)
    found = GaussianProcess(features, targets, spreads, groups, parameters)
    measured = np.where(np.abs(errors) < _UNCERTAIN * guesses, np.maximum(seconds, 1e-9), guesses)
    densities[kept] = found.left_out_densities() - np.log(measured[kept])
    made = ClassFit(
        tuple(rates.tolist()),
        tuple(map(tuple, np.round(features, 3).tolist())),
        tuple(np.round(targets, 4).tolist()),
        tuple(np.round(spreads, 4).tolist()),
        tuple(groups.tolist()),
        parameters,
        base,
    )
    return made, densities


def _offset(seconds: np.ndarray, errors: np.ndarray, guesses: np.ndarray) -> float:
    """By how much times are over their guesses, as a logarithm: a median, in small steps."""
    offset = 0.0
    for _ in range(_OFFSET_STEPS):
        targets, spreads = _targets(seconds, errors, guesses * np.exp(offset))
        order = np.argsort(targets)
        weights = np.cumsum(1 / (_UNCERTAIN**2 + spreads[order] ** 2))
        middle = targets[order][np.searchsorted(weights, weights[-1] / 2)]
        offset += float(np.clip(middle, -1.0, 1.0))
    return offset


def _targets(
    seconds: np.ndarray, errors: np.ndarray, guesses: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The logarithms of the ratios of times to guesses, and their standard deviations.

    Of an uncertain time it is the ratio less 1: a logarithm of noise is too small on average.
    """
    ratios, spreads = seconds / guesses, np.hypot(_NOISE, errors / guesses)
    targets = np.where(spreads < _UNCERTAIN, np.log(np.maximum(ratios, 1e-3)), ratios - 1)
    return np.clip(targets, -_MOST_TARGET, _MOST_TARGET), spreads


def _rates(terms: np.ndarray, seconds: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Non-negative rates that add the terms up to the seconds, with the least relative error.

    The first term is one start of a kernel, which takes some time at least.

    Coordinate descent on a convex function: it ends at the minimum.
    """
    unit = np.hypot(np.maximum(seconds, LEAST_SECONDS), errors / _UNCERTAIN)
    matrix, wished_for = terms / unit[:, None], seconds / unit
    scale = np.maximum(np.abs(matrix).max(0), 1e-300)
    matrix = matrix / scale
    weights = np.ones(len(seconds))
    rates = np.zeros(terms.shape[1])
    # Few samples tell of far memory: what they cannot settle is kept to what memory can be.
    lowest, highest = np.zeros(len(rates)), np.full(len(rates), np.inf)
    lowest[0] = _LEAST_START * scale[0]
    highest[-FAR_TERMS:] = _SLOWEST_MEMORY * scale[-FAR_TERMS:]
    for _ in range(4):
        normal = matrix.T @ (weights[:, None] * matrix)
        wanted = matrix.T @ (weights * wished_for)
        used = np.flatnonzero(np.diag(normal))
        for _ in range(300):
            before = rates.copy()
            for index in used:
                gradient = wanted[index] - normal[index] @ rates
                wished = rates[index] + gradient / normal[index, index]
                rates[index] = min(max(wished, lowest[index]), highest[index])
            if np.allclose(rates, before, rtol=1e-6, atol=0.0):
                break
        # Relative to the guess as well as to the time: being too low by half is as bad as
        # being too high by twice.
        guess = np.maximum(matrix @ rates, 0.05)
        weights = 1 / np.maximum(guess, np.abs(guess - wished_for))
    result: np.ndarray = rates / scale
    return result


def _chosen(samples: list[_Sample]) -> list[_Sample]:
    """At most so many samples, those of the same model and features averaged into one."""
    groups: dict[tuple[object, ...], list[_Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.group, sample.kernel.features].append(sample)
    means = [
        some[0]._replace(seconds=float(np.mean([sample.seconds for sample in some])))
        for some in groups.values()
    ]
    step = -(-len(means) // _MOST_SAMPLES)
    return means[::step]


def _spread(
    observations: Sequence[Observation], whole: ThreadFit, reference: ThreadFit | None
) -> float:
    """By how much whole models are off beyond what their kernels account for."""
    errors = []
    for observation in observations:
        seconds = observation.kernel_seconds(whole.run_overhead)
        total = _total(observation, whole.classes)
        # What is measured of a shorter one in a moment is noise.
        if total is not None and seconds > _SHORT:
            errors.append(np.log(seconds / total))
    # Half of a normal distribution lies within 0.6745 standard deviations. By what the pace of a
    # short measurement was off, no prediction is.
    found = float(np.median(np.abs(errors))) / 0.6745 if errors else 0.0
    variance, count = max(found**2 - _PACE_DEVIATION**2, _LEAST_SPREAD**2), len(errors)
    if reference is not None:
        variance = variance * count + reference.spread**2 * _REFERENCE_WORTH
        variance /= count + _REFERENCE_WORTH
    return float(variance**0.5)
