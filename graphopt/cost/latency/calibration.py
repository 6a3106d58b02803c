"""Measures a machine: runs calibration models of many kinds for a minute, and fits what it saw."""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from graphopt.cost.latency.fitting import Observation, fit_threads
from graphopt.cost.latency.kernels import kernels
from graphopt.cost.latency.machine import DEFAULT_NAME, MachineProfile
from graphopt.cost.latency.pace import Pace, undisturbed
from graphopt.cost.latency.reference import reference_fit, reference_machine
from graphopt.cost.latency.sampling import Sample, samples
from graphopt.errors import GraphoptError, UsageError
from graphopt.graph import ir
from graphopt.shapes import infer_shapes

SECONDS = 60.0
"""How long a calibration takes, unless asked otherwise."""

# The share of the time that goes into fitting.
_FITTING = 0.27
_PER_MODEL = 0.05
_FEWEST_MODELS = 15
_OVERHEAD_ROUNDS = 3
_FREE_SIZE = 2
_SMALLEST_TABLE = 16

Progress = Callable[[str, float], None]


def calibrate(
    *,
    name: str = DEFAULT_NAME,
    threads: Sequence[int] = (),
    seconds: float = SECONDS,
    seed: int = 0,
    progress: Progress = lambda step, share: None,
) -> MachineProfile:
    """Measure this machine. Nothing else should run meanwhile.

    What is measured corrects what is known of a reference machine, kernel class by kernel class,
    where that tells more than a fit from nothing.

    Args:
        name: what to call the profile.
        threads: numbers of threads to calibrate for; none for 1 and as many as there are cores.
        seconds: about how long to take.
        seed: which calibration models are drawn.
        progress: told what is being done, and the share of the time that has passed.

    Raises:
        UsageError: a number of threads is not positive, or the time is too short.
        RuntimeUnavailableError: ONNX Runtime does not work here.
    """
    begin = time.perf_counter()

    def tell(step: str) -> None:
        progress(step, (time.perf_counter() - begin) / seconds)

    found = measure_samples(threads, seconds * (1 - _FITTING), seed, tell)
    if min(map(len, found.observations.values())) < _FEWEST_MODELS:
        raise UsageError(f"{seconds:g} s are too short to calibrate this machine: give more")
    return fit_machine(found, name, alone=False, tell=tell)


@dataclass(frozen=True)
class Measurements:
    """What was measured of a machine, by number of threads.

    Attributes:
        observations: of each calibration model.
        paces: beside each the machine's pace (see `pace`).
        overheads: of a run (see `run_overhead`).
    """

    observations: dict[int, list[Observation]]
    paces: dict[int, list[float]]
    overheads: dict[int, tuple[float, float]]


def measure_samples(
    threads: Sequence[int], seconds: float, seed: int, tell: Callable[[str], None]
) -> Measurements:
    """Measure calibration models for so many seconds; the arguments are those of `calibrate`.

    Raises:
        UsageError: a number of threads is not positive.
    """
    from graphopt.runtime.cores import available_cores

    counts = sorted(set(threads) or {1, available_cores()})
    if counts[0] < 1:
        raise UsageError(f"{counts[0]} is no number of threads")
    end = time.perf_counter() + seconds
    observations: dict[int, list[Observation]] = {count: [] for count in counts}
    paces: dict[int, list[float]] = {count: [] for count in counts}
    probes = {count: Pace(count) for count in counts}
    overheads = {count: run_overhead(count) for count in counts}
    for number, sample in enumerate(samples(seed)):
        if time.perf_counter() > end:
            break
        tell(f"measuring {sample.family} models ({number + 1})")
        for count, (observation, pace) in observe(sample, probes).items():
            observations[count].append(observation)
            paces[count].append(pace)
    return Measurements(observations, paces, overheads)


def fit_machine(
    found: Measurements, name: str, *, alone: bool, tell: Callable[[str], None]
) -> MachineProfile:
    """The profile of what was measured.

    Args:
        found: the measurements.
        name: what to call the profile.
        alone: leave the reference machine out.
        tell: told what is being done.
    """
    from graphopt.runtime.cores import available_cores

    fits = {}
    for count, observations in found.observations.items():
        kept = list(itertools.compress(observations, undisturbed(found.paces[count])))
        base = None if alone else reference_fit(count)
        fits[count] = fit_threads(kept, found.overheads[count], base, tell)
    reference = "" if alone else reference_machine().name
    return MachineProfile(
        name, processor_name(), available_cores(), _runtime_version(), "cpu", fits, reference
    )


def observe(sample: Sample, probes: Mapping[int, Pace]) -> dict[int, tuple[Observation, float]]:
    """One calibration model, measured with each number of threads; {} where it does not run.

    Beside each observation stands the machine's pace after it (see `pace`).
    """
    from graphopt.runtime.profiling import profile

    model = ir.serde.deserialize_model(sample.model)
    sized = model.clone()
    feed: dict[str, np.ndarray] = {}
    random = np.random.default_rng(0)
    for value in sized.graph.inputs:
        dims = tuple(dim if isinstance(dim, int) else _FREE_SIZE for dim in value.shape or ())
        # Random: a kernel that compares runs several times faster where all numbers are alike.
        if value.dtype == ir.DataType.FLOAT:
            feed[value.name or ""] = random.standard_normal(dims, np.float32)
        else:
            feed[value.name or ""] = random.integers(0, _SMALLEST_TABLE, dims)
    try:
        infer_shapes(sized, input_shapes={name: array.shape for name, array in feed.items()})
        result = {}
        for count, probe in probes.items():
            measured = profile(
                model,
                feed,
                sized=sized,
                threads=count,
                seconds=_PER_MODEL,
                minimum_runs=6,
                maximum_runs=250,
            )
            found = kernels(measured.executed)
            times = [measured.node_seconds.get(node.name or "") for node, _ in found]
            profiled = tuple(seconds for seconds in times if seconds is not None)
            if len(profiled) != len(found):
                continue
            observation = Observation(
                tuple(kernel for _, kernel in found),
                profiled,
                measured.seconds,
                len(sized.graph.inputs) + len(sized.graph.outputs),
            )
            result[count] = (observation, probe.seconds())
    except GraphoptError:
        # An older ONNX Runtime may lack an operator; what else was drawn is enough.
        return {}
    return result


def run_overhead(threads: int) -> tuple[float, float]:
    """Seconds of a run beside its kernels, and for each input and output of the graph.

    From three models of the smallest kernels: one, many in a row, many side by side. What the
    row adds is kernels; what the others add beyond that are inputs and outputs.
    """
    from graphopt.runtime.profiling import profile

    many = 32

    def seconds(chains: int, length: int) -> float:
        nodes: list[onnx.NodeProto] = []
        inputs: list[onnx.ValueInfoProto] = []
        outputs: list[onnx.ValueInfoProto] = []
        for chain in range(chains):
            names = [f"x{chain}_{step}" for step in range(length + 1)]
            nodes += [
                helper.make_node("Relu", [a], [b], name=b) for a, b in itertools.pairwise(names)
            ]
            for name, into in ((names[0], inputs), (names[-1], outputs)):
                into.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]))
        graph = helper.make_graph(nodes, "overhead", inputs, outputs)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        feed = {value.name: np.ones(4, np.float32) for value in inputs}
        model = ir.serde.deserialize_model(onnx.ModelProto.FromString(proto.SerializeToString()))
        return profile(model, feed, threads=threads, seconds=0.1, maximum_runs=240).seconds

    # In turns: the pace of the machine changes from one second to the next.
    rounds = [
        (seconds(1, 1), seconds(1, many + 1), seconds(many + 1, 1)) for _ in range(_OVERHEAD_ROUNDS)
    ]
    one, row, side = np.median(rounds, axis=0)
    kernel = max((row - one) / many, 0.0)
    value = max(((side - one) / many - kernel) / 2, 0.0)
    return float(max(one - kernel - 2 * value, 0.0)), float(value)


def processor_name() -> str:
    """What the system calls its processor."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def _runtime_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("onnxruntime")
    except PackageNotFoundError:  # installed as onnxruntime-gpu, or another of its packages
        return "unknown"
