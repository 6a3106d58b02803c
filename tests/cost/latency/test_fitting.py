"""What becomes of measurements: alone, or as a correction of another machine's fit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graphopt.cost.latency.fitting import (
    Observation,
    _best_fit,
    _fit_class,
    _Sample,
    fit_threads,
    true_times,
)
from graphopt.cost.latency.kernels import kernels
from graphopt.cost.latency.machine import ThreadFit
from graphopt.cost.latency.operation import Kernel
from graphopt.cost.latency.reference import reference_fit
from graphopt.cost.latency.sampling import samples
from graphopt.graph import ir
from graphopt.shapes import infer_shapes

OVERHEAD = (1e-6, 0.0)
Seconds = Callable[[float], float]


def kernel(size: float, kind: str = "Tanh") -> Kernel:
    return Kernel(kind, (size,), (1.0, 2.0**size, 0.0, 0.0), 2.0**size, 2.0**size)


def observations(
    sizes: np.ndarray, seconds: Seconds, kinds: tuple[str, ...] = ("Tanh",)
) -> list[Observation]:
    """One model for each size, of one kernel of each kind, with 2% of noise."""
    random = np.random.default_rng(0)
    found = []
    for size in sizes:
        times = [seconds(size) * float(np.exp(0.02 * random.standard_normal())) for _ in kinds]
        every = tuple(kernel(size, kind) for kind in kinds)
        found.append(Observation(every, tuple(times), sum(times) + OVERHEAD[0], 2))
    return found


def winding(size: float) -> float:
    """Fast on some sizes and slow on others."""
    return float(1e-5 * 2 ** (size / 2) * np.exp(0.5 * np.sin(1.5 * size)))


def off(fit: ThreadFit, seconds: Seconds, kind: str = "Tanh") -> float:
    """How far predictions are off over the whole range, as a logarithm."""
    sizes = np.linspace(4, 16, 50)
    found = fit.classes[kind].seconds([kernel(size, kind) for size in sizes])
    return float(np.sqrt(np.mean(np.log(found / [seconds(size) for size in sizes]) ** 2)))


@pytest.fixture(scope="module")
def reference() -> ThreadFit:
    return fit_threads(observations(np.linspace(4, 16, 80), winding, ("Tanh", "Sin")), OVERHEAD)


def test_few_measurements_correct_a_machine_that_is_known_well(reference: ThreadFit) -> None:
    def here(size: float) -> float:
        return 2.5 * winding(size)

    few = observations(np.linspace(4.3, 15.6, 9), here)
    alone, corrected = fit_threads(few, OVERHEAD), fit_threads(few, OVERHEAD, reference)
    assert alone.classes["Tanh"].base is None
    assert corrected.classes["Tanh"].base is reference.classes["Tanh"]
    assert off(corrected, here) < 0.05 < 0.2 < off(alone, here)


def test_what_was_not_measured_is_as_much_slower_as_the_rest(reference: ThreadFit) -> None:
    few = observations(np.linspace(4.3, 15.6, 9), lambda size: 2.5 * winding(size))
    corrected = fit_threads(few, OVERHEAD, reference)
    assert off(corrected, lambda size: 2.5 * winding(size), "Sin") < 0.05
    assert "Sin" not in fit_threads(few, OVERHEAD).classes


def test_a_class_that_is_unlike_the_others_is_corrected(reference: ThreadFit) -> None:
    """Six samples of it tell that here it is three times as slow; one is disturbed."""
    few = observations(np.linspace(4.3, 15.6, 6), lambda size: 3 * winding(size), ("Tanh",))
    usual = observations(np.linspace(4.3, 15.6, 12), winding, ("Sin",))
    worst = few[2]
    few[2] = replace(worst, profiled=(worst.profiled[0] * 8,), seconds=worst.seconds * 8)
    fit = fit_threads([*usual, *few], OVERHEAD, reference)
    assert fit.classes["Tanh"].base is not None
    assert off(fit, lambda size: 3 * winding(size)) < 0.3
    assert off(fit, winding, "Sin") < 0.1


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("count", [12, 60])
def test_a_factor_is_found_in_times_that_are_uncertain(factor: float, count: int) -> None:
    """Times of 1.5 us, each off by half of that."""
    random = np.random.default_rng(0)
    true = 1.5e-6
    base = _fit_class(
        [_Sample(kernel(4.0), true / factor, 0.0, n) for n in range(8)], None, 1.0, None
    )[0]
    drawn = [
        _Sample(kernel(4.0), true + 0.7e-6 * random.standard_normal(), 0.7e-6, n)
        for n in range(count)
    ]
    found = _best_fit(drawn, base, 1.0, None).seconds([kernel(4.0)])[0]
    assert found == pytest.approx(true, rel=0.35)


def test_the_reference_machine_describes_kernels_as_they_are_described_now() -> None:
    """Another feature or term of a class, and it has to be made anew."""
    known = reference_fit(1).classes
    seen = 0
    for sample in itertools.islice(samples(0), 18):
        model = ir.serde.deserialize_model(sample.model)
        infer_shapes(model)
        for _, found in kernels(model):
            if found.kind in known:
                seen += 1
                assert len(found.features) == len(known[found.kind].features[0])
                assert len(found.terms) == len(known[found.kind].rates)
    assert seen > 300


def test_a_machine_that_is_quite_different_is_left_out() -> None:
    def there(size: float) -> float:
        return float(1e-5 * np.exp(2 * np.sin(2.5 * size)))

    def here(size: float) -> float:
        return 1e-5 + 1e-8 * 2**size

    reference = fit_threads(observations(np.linspace(4, 16, 120), there), OVERHEAD)
    found = fit_threads(observations(np.linspace(4, 16, 24), here), OVERHEAD, reference)
    assert found.classes["Tanh"].base is None
    assert off(found, here) < 0.05


@pytest.mark.parametrize("factor", [0.6, 1.0, 2.0])
def test_small_kernels_add_up_to_the_model_whatever_the_profiler_adds(factor: float) -> None:
    """Six microseconds usually: another run's half or double is told from the sum."""
    random = np.random.default_rng(0)
    true = np.full(200, 0.7e-6)
    added = 6e-6 * factor + 0.5e-6 * random.standard_normal(200)
    every = (kernel(4.0),) * 200
    seen = Observation(every, tuple(true + added), float(true.sum()) + OVERHEAD[0], 2)
    times, error = true_times(seen, OVERHEAD, 6e-6)
    assert np.mean(times) == pytest.approx(0.7e-6, rel=0.1)
    assert min(times) < 0
    assert error > 0.5e-6


def test_a_slow_second_is_not_put_down_to_the_profiler() -> None:
    """Large kernels that took 8% longer under it: that is the machine's pace."""
    true = np.full(10, 2e-3)
    seen = Observation((kernel(16.0),) * 10, tuple(true * 1.08 + 6e-6), float(true.sum()), 2)
    times, error = true_times(seen, (0.0, 0.0), 6e-6)
    np.testing.assert_allclose(times, true, rtol=1e-3)
    assert error < 5e-6


def test_rates_of_small_kernels_are_not_pulled_up_by_noise() -> None:
    """Half the times are below nothing; their mean is what a kernel takes."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(40):
        true = np.array([0.6e-6 + 1e-9 * 2**size for size in (2.0, 3.0, 14.0)])
        added = 6e-6 + 1.5e-6 * random.standard_normal(3)
        every = tuple(kernel(size) for size in (2.0, 3.0, 14.0))
        total = float(true.sum()) + OVERHEAD[0]
        found.append(Observation(every, tuple(true + added), total, 2))
    fit = fit_threads(found, OVERHEAD)
    small, large = fit.classes["Tanh"].seconds([kernel(2.0), kernel(14.0)])
    assert small == pytest.approx(0.6e-6, rel=0.5)
    assert large == pytest.approx(17e-6, rel=0.1)
