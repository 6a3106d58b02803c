"""Predicts the latency of a model on a calibrated machine, node by node, with an interval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.cost.latency.kernels import kernels
from graphopt.cost.latency.machine import MachineProfile, ThreadFit
from graphopt.cost.latency.operation import Kernel
from graphopt.errors import UsageError
from graphopt.graph import ModelSource, ir, load

INTERVAL = 0.8
"""How often the time of a model should be inside its interval."""

_DEVIATIONS = 1.2816  # of a normal distribution: 80% of it lies closer to its mean
_UNKNOWN_SPREAD = 1.0


@dataclass(frozen=True)
class NodeLatency:
    """What one executed node is predicted to take.

    Attributes:
        name: the executed node's name; ONNX Runtime may have made it of several.
        op_type: its operator, with its domain unless that is ONNX's.
        kind: its kernel class.
        seconds: the prediction.
        low: the lower end of its interval.
        high: the upper end.
        share: its part of the whole.
        flops: its operations, 2 per MAC.
        bytes: its traffic.
        bound: "compute", "memory" or "overhead", whichever sets the least time it could take.
    """

    name: str
    op_type: str
    kind: str
    seconds: float
    low: float
    high: float
    share: float
    flops: float
    bytes: float
    bound: str


@dataclass(frozen=True)
class Latency:
    """What a model is predicted to take.

    Attributes:
        seconds: one run, the median.
        low: the lower end of the interval that holds it with probability `INTERVAL`.
        high: the upper end.
        by_node: the executed nodes, in order; pandas takes them as they are.
        machine: the profile's name.
        threads: threads within one operator.
        notes: what makes the prediction doubtful, one line each.
    """

    seconds: float
    low: float
    high: float
    by_node: tuple[NodeLatency, ...]
    machine: str
    threads: int
    notes: tuple[str, ...] = ()


def predict(
    model: ModelSource,
    profile: MachineProfile,
    *,
    threads: int = 1,
    input_shapes: Mapping[str, Sequence[int | str | None]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Latency:
    """Predict how long a run of a model takes. It is loaded by ONNX Runtime, and not run.

    Args:
        model: the model.
        profile: the machine, from `load_profile` or `calibrate`.
        threads: threads within one operator; 0 for as many as the machine has cores.
        input_shapes: sizes of inputs whose dims are free.
        dims: sizes of free dims by name. A free dim that leads an input, and is not given, is 1.

    Raises:
        UsageError: the profile has no such number of threads, or free dims have no size.
        RuntimeUnavailableError: ONNX Runtime cannot load the model.
    """
    from graphopt.runtime.executed import executed_model

    fit = profile.at(threads)
    given = load(model)
    sized = sized_model(given, input_shapes, dims)
    executed = executed_model(given, sized=sized, threads=threads, provider=profile.provider)
    return predict_executed(executed, profile.name, threads or profile.cores, fit)


def sized_model(
    model: ir.Model,
    input_shapes: Mapping[str, Sequence[int | str | None]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> ir.Model:
    """A copy of a model with the shapes that follow from sizes for its free dims.

    Raises:
        UsageError: a free dim that does not lead an input has no size.
        ShapeError: the sizes contradict the model.
    """
    from graphopt.shapes import infer_shapes

    copy = model.clone()
    infer_shapes(copy, input_shapes=input_shapes, dims=dims)
    free: dict[str, str] = {}
    shapes: dict[str, list[int | None]] = {}
    for value in copy.graph.inputs:
        if value.is_initializer() or value.shape is None:
            continue
        sizes = [dim if isinstance(dim, int) else None for dim in value.shape]
        if None not in sizes:
            continue
        if sizes[0] is None:
            sizes[0] = 1
        shapes[value.name or ""] = sizes
    if shapes:
        infer_shapes(copy, input_shapes=shapes)
        for value in copy.graph.inputs:
            for dim in value.shape or ():
                if not isinstance(dim, int):
                    free[dim.value or "?"] = value.name or ""
    if free:
        named = ", ".join(f"'{dim}' of input '{name}'" for dim, name in free.items())
        raise UsageError(f"the time depends on {named}: give sizes with --dim or --input-shape")
    return copy


def predict_executed(executed: ir.Model, machine: str, threads: int, fit: ThreadFit) -> Latency:
    """The prediction for an executed graph (see `graphopt.runtime.executed`)."""
    pairs = kernels(executed)
    seconds, spread, covariance, notes = _times([kernel for _, kernel in pairs], fit)
    values = len(executed.graph.inputs) + len(executed.graph.outputs)
    total = float(seconds.sum()) + fit.run_overhead[0] + fit.run_overhead[1] * values
    deviation = float(np.hypot(np.sqrt(max(covariance, 0.0)) / total, fit.spread))
    rows = tuple(
        NodeLatency(
            name=node.name or "",
            op_type=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
            kind=kernel.kind,
            seconds=float(time),
            low=float(time * np.exp(-_DEVIATIONS * own)),
            high=float(time * np.exp(_DEVIATIONS * own)),
            share=float(time / total),
            flops=kernel.flops,
            bytes=kernel.bytes,
            bound=_bound(kernel, fit),
        )
        for (node, kernel), time, own in zip(pairs, seconds, spread, strict=True)
    )
    factor = float(np.exp(_DEVIATIONS * deviation))
    return Latency(total, total / factor, total * factor, rows, machine, threads, tuple(notes))


def _times(
    found: Sequence[Kernel], fit: ThreadFit
) -> tuple[np.ndarray, np.ndarray, float, list[str]]:
    """Seconds and log deviation of each kernel, the variance of their sum, and notes.

    The errors of two kernels of a class are as correlated as the process says; those of kernels
    with the same features are the same error. Classes are independent.
    """
    seconds = np.zeros(len(found))
    spread = np.zeros(len(found))
    variance = 0.0
    notes = []
    groups: dict[str, list[int]] = defaultdict(list)
    for index, kernel in enumerate(found):
        groups[kernel.kind].append(index)
    for kind, members in groups.items():
        known = fit.classes.get(kind)
        if known is None:
            average, deviation = fit.typical
            bounds = np.array([fit.ceilings.bound(found[index]) for index in members])
            seconds[members] = bounds * np.exp(average)
            spread[members] = max(deviation, _UNKNOWN_SPREAD)
            variance += float((seconds[members] * spread[members]).sum()) ** 2
            notes.append(f"{kind}: {len(members)} nodes of a class that was not calibrated")
            continue
        if not known.features:
            notes.append(f"{kind}: {len(members)} nodes of a class that was not measured here")
        guesses = known.guesses([found[index] for index in members])
        rows, which = np.unique(
            np.array([found[index].features for index in members]), axis=0, return_inverse=True
        )
        mean, covariance = known.correction(rows)
        which = which.reshape(-1)
        covariance = covariance + np.eye(len(rows)) * known.parameters.noise**2
        seconds[members] = guesses * np.exp(mean[which])
        spread[members] = np.sqrt(np.maximum(np.diag(covariance), 0.0))[which]
        weights = np.bincount(which, seconds[members], len(rows))
        variance += float(weights @ covariance @ weights)
    return seconds, spread, variance, notes


def _bound(kernel: Kernel, fit: ThreadFit) -> str:
    ceilings = fit.ceilings
    near = kernel.bytes < 2**20
    memory = kernel.bytes / (ceilings.near_bandwidth if near else ceilings.far_bandwidth)
    least = {
        "compute": ceilings.compute(kernel),
        "memory": memory,
        "overhead": ceilings.dispatch,
    }
    return max(least, key=lambda name: least[name])
