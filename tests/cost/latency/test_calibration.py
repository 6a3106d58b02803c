"""Calibration on a few small models: it sees what they take, and predicts their like."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from onnx import TensorProto

from graphopt.cost.latency import MachineProfile, calibrate, calibration, measure, predict
from graphopt.cost.latency.pace import Pace, undisturbed
from graphopt.cost.latency.sampling import Sample, samples
from graphopt.cost.latency.sketch import Sketch
from graphopt.errors import UsageError


def _linear(seed: int, rows: int = 64) -> Sample:
    """Three linear layers, each with an activation, of random widths."""
    sketch = Sketch(np.random.default_rng(seed))
    x = sketch.input((rows, 64))
    for _ in range(3):
        x = sketch.unary("Relu", sketch.linear(x, int(sketch.random.integers(64, 512))))
    sketch.output(x)
    return Sample("linear", sketch.model())


def _few(_: int) -> Iterator[Sample]:
    return (_linear(seed) for seed in range(18))


@pytest.fixture(scope="module")
def machine() -> MachineProfile:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "samples", _few)
        return calibrate(name="few", threads=[1], seconds=60)


def test_the_profile_has_samples_of_the_classes_that_ran(machine: MachineProfile) -> None:
    fit = machine.at(1)
    assert len(fit.classes["MatMul, constant"].targets) > 10
    assert fit.classes["Conv, pointwise (NCHWc)"].targets == ()  # as the reference machine has it
    assert fit.ceilings.flops > 1e8
    assert all(charge >= 0 for charge in fit.run_overhead)
    assert machine.name == "few"
    assert list(machine.threads) == [1]
    assert MachineProfile.from_json(machine.to_json()).at(1).spread == fit.spread


def test_a_model_of_the_same_kind_is_predicted(machine: MachineProfile) -> None:
    model = _linear(99).model
    found, taken = predict(model, machine), measure(model, seconds=0.2)
    assert 1 / 3 < found.seconds / taken.seconds < 3


def test_too_little_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "samples", lambda _: itertools.islice(_few(0), 2))
    with pytest.raises(UsageError, match="10 s are too short to calibrate"):
        calibrate(threads=[1], seconds=10)


def test_a_number_of_threads_is_positive() -> None:
    with pytest.raises(UsageError, match="0 is no number of threads"):
        calibrate(threads=[0])


@pytest.mark.parametrize("family", ["operators", "recurrent", "convolutional int8"])
def test_a_model_of_each_kind_runs(family: str) -> None:
    sample = next(sample for sample in samples(5) if sample.family == family)
    observation, pace = calibration.observe(sample, {1: Pace(1)})[1]
    assert len(observation.kernels) == len(observation.profiled)
    assert observation.seconds > 0
    assert pace > 0
    unknown = [kernel.kind for kernel in observation.kernels if "unknown shape" in kernel.kind]
    assert not unknown


def test_slow_measurements_are_left_out_and_half_is_kept() -> None:
    assert undisturbed([1.0, 1.02, 1.2, 1.9, 1.0]) == [True, True, True, False, True]
    assert sum(undisturbed([1.0, 2.0, 3.0, 4.0])) >= 2
    assert undisturbed([]) == []


def test_outputs_are_reduced_to_a_number() -> None:
    sketch = Sketch(np.random.default_rng(0))
    sketch.output(sketch.unary("Tanh", sketch.input((3, 4))))
    sketch.reduce_outputs()
    (output,) = sketch.model().graph.output
    assert output.type.tensor_type.elem_type == TensorProto.FLOAT
    assert [node.op_type for node in sketch.model().graph.node] == ["Tanh", "Reshape", "Gather"]
