"""Measures a model for real, and lays the prediction for each node beside what it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphopt.cost.latency.fitting import LEAST_SECONDS, Observation, true_times
from graphopt.cost.latency.kernels import kernels
from graphopt.cost.latency.machine import MachineProfile
from graphopt.cost.latency.prediction import Latency, NodeLatency, predict_executed, sized_model
from graphopt.cost.latency.reference import reference_fit
from graphopt.errors import RuntimeUnavailableError
from graphopt.graph import ModelSource, ir, load, nested_graphs, subgraphs

if TYPE_CHECKING:
    from graphopt.runtime import Feed


@dataclass(frozen=True)
class MeasuredNode:
    """One executed node: what it took, and what it was predicted to take.

    Attributes:
        name: the executed node's name.
        op_type: its operator, with its domain unless that is ONNX's.
        kind: its kernel class.
        seconds: what it took, without what the profiler adds.
        share: its part of the whole run.
        predicted: what it was predicted to take; None without a machine profile.
        low: the lower end of the prediction's interval; None without a machine profile.
        high: the upper end; None without a machine profile.
        flops: its operations, 2 per MAC.
        bytes: its traffic.
        of_peak: its operations per second, as a share of the machine's ceiling; None where it
            has none, or without a machine profile.
    """

    name: str
    op_type: str
    kind: str
    seconds: float
    share: float
    predicted: float | None
    low: float | None
    high: float | None
    flops: float
    bytes: float
    of_peak: float | None


@dataclass(frozen=True)
class Measured:
    """What a model took.

    Attributes:
        seconds: the median time of a run.
        quartiles: the first and third quartile, in seconds.
        runs: how many runs these are of.
        of_peak: operations per second of the whole, as a share of the machine's ceiling; None
            without a machine profile.
        predicted: the prediction for the same graph; None without a machine profile.
        by_node: the executed nodes, in order; pandas takes them as they are.
    """

    seconds: float
    quartiles: tuple[float, float]
    runs: int
    of_peak: float | None
    predicted: Latency | None
    by_node: tuple[MeasuredNode, ...]


def measure(
    model: ModelSource,
    *,
    profile: MachineProfile | None = None,
    threads: int = 1,
    input_shapes: Mapping[str, Sequence[int | str | None]] | None = None,
    dims: Mapping[str, int] | None = None,
    feed: Feed | None = None,
    seconds: float = 1.0,
) -> Measured:
    """Time a model, and its nodes by ONNX Runtime's profiler.

    Args:
        model: the model.
        profile: the machine to predict for and to compare with; None for neither.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        input_shapes: sizes of inputs whose dims are free; not with `feed`.
        dims: sizes of free dims by name; not with `feed`.
        feed: the inputs; None for made-up ones.
        seconds: about how long to run.

    Raises:
        UsageError: the profile has no such number of threads, or free dims have no size.
        RuntimeUnavailableError: ONNX Runtime cannot load or run the model.
    """
    from graphopt.runtime.profiling import profile as run_profiled

    fit = None if profile is None else profile.at(threads)
    given = load(model)
    if feed is not None:
        input_shapes = {name: np.shape(value) for name, value in feed.items()}
        dims = None
    sized = sized_model(given, input_shapes, dims)
    if feed is None:
        feed = _feed(given, sized)
    taken = run_profiled(given, feed, sized=sized, threads=threads, seconds=seconds)
    pairs = kernels(taken.executed)
    own = _own_seconds(taken.executed, taken.node_seconds)
    observation = Observation(
        tuple(kernel for _, kernel in pairs),
        tuple(own.get(node.name or "", 0.0) for node, _ in pairs),
        taken.seconds,
        len(given.graph.inputs) + len(given.graph.outputs),
    )
    overhead = (0.0, 0.0) if fit is None else fit.run_overhead
    charge = (fit or reference_fit(threads)).profiler_charge
    times = np.maximum(true_times(observation, overhead, charge)[0], LEAST_SECONDS)
    # Those that came out below nothing, and are not, were taken from the others.
    times *= min(observation.kernel_seconds(overhead) / float(times.sum()), 1.0)
    predicted = None
    if fit is not None and profile is not None:
        predicted = predict_executed(taken.executed, profile.name, threads or profile.cores, fit)
    rows = []
    for index, ((node, kernel), time) in enumerate(zip(pairs, times.tolist(), strict=True)):
        guess: NodeLatency | None = None if predicted is None else predicted.by_node[index]
        peak = None
        if fit is not None and kernel.flops:
            peak = fit.ceilings.compute(kernel) / time
        rows.append(
            MeasuredNode(
                name=node.name or "",
                op_type=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
                kind=kernel.kind,
                seconds=time,
                share=time / taken.seconds,
                predicted=None if guess is None else guess.seconds,
                low=None if guess is None else guess.low,
                high=None if guess is None else guess.high,
                flops=kernel.flops,
                bytes=kernel.bytes,
                of_peak=peak,
            )
        )
    whole = None
    if fit is not None:
        whole = sum(fit.ceilings.compute(kernel) for _, kernel in pairs) / taken.seconds
    return Measured(taken.seconds, taken.quartiles, taken.runs, whole, predicted, tuple(rows))


def _feed(given: ir.Model, sized: ir.Model) -> Feed:
    """Inputs of the sizes of `sized` that the model was seen to run on."""
    from graphopt.runtime import Session, runnable_feeds

    fixed = given.clone()
    for value, known in zip(fixed.graph.inputs, sized.graph.inputs, strict=True):
        value.shape = known.shape
    found = runnable_feeds(fixed, Session(given), count=1, override_defaults=False)
    if not found:
        raise RuntimeUnavailableError(
            "no inputs were found on which the model runs: give some with --input-data"
        )
    return found[0]


def _own_seconds(executed: ir.Model, seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by node, those of nodes in its branches taken out of a node's own."""
    own = dict(seconds)
    for graph in nested_graphs(executed.graph):
        for node in graph:
            inner = [
                seconds.get(nested.name or "", 0.0) for body in subgraphs(node) for nested in body
            ]
            if inner and node.name in own:
                own[node.name] = max(own[node.name] - sum(inner), 0.0)
    return own
