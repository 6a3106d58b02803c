"""What is known of the result: validity, interface, accuracy by group and in all, latency."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from graphopt.errors import EquivalenceError, RuntimeUnavailableError
from graphopt.graph import ir
from graphopt.pipeline.guard import first_problem, interface_change, interface_of
from graphopt.pipeline.quantization.candidates import Candidates
from graphopt.pipeline.quantization.choosing import Choice
from graphopt.pipeline.quantization.data import Feeds
from graphopt.pipeline.quantization.report import GroupReport, QuantizeReport
from graphopt.pipeline.tensor_comparison import tensors_of
from graphopt.quantization.parameters import Parameters, limits
from graphopt.quantization.plan import Plan
from graphopt.quantization.stopwatch import Race, RunningStopwatch
from graphopt.runtime import Feed

ROUNDS = 4
"""Of the race of the result against the original."""

KEPT_GAIN = 0.8
"""The share of the gain that is kept where groups are given up to be more accurate, unasked."""

COMPARED = 4
"""So many samples tell the SQNR of every layer."""


def verify_result(original: ir.Model, model: ir.Model) -> None:
    """Check that the result is valid and keeps the interface.

    Raises:
        EquivalenceError: it is or does not; that would be a defect of ours.
    """
    problem = first_problem(model)
    if problem is not None:
        raise EquivalenceError(f"the quantized model is invalid: {problem}; nothing was written")
    change = interface_change(interface_of(original), interface_of(model), drops_defaults=True)
    if change is not None:
        raise EquivalenceError(
            f"the quantized model has another interface: {change}; nothing was written"
        )


def describe_groups(
    candidates: Candidates,
    plan: Plan,
    choice: Choice,
    model: ir.Model,
    feeds: Feeds,
    report: QuantizeReport,
) -> None:
    """Fill in the report's groups, with the SQNR of each one's output."""
    found: Mapping[str, float] = {}
    try:
        tensors = tensors_of(candidates.model, model, feeds.first(COMPARED))
        found = {item.name: item.sqnr for item in tensors.tensors if not math.isnan(item.sqnr)}
    except RuntimeUnavailableError as error:
        report.warnings.append(f"the layers could not be compared: {error}")
    quantized = {group.name for group in plan.groups}
    for group in candidates.placement.groups:
        output = group.writes[0] if group.writes else group.name
        parameters = plan.activations.get(output)
        span = None
        if group.name in quantized and parameters is not None and parameters.axis is None:
            span = _span(parameters)
        weight = next((plan.constants.get((use.node, use.index)) for use in group.weights), None)
        kind = weight.parameters if weight is not None else parameters
        name = candidates.backend.activation.dtype if kind is None else kind.dtype
        report.groups.append(
            GroupReport(
                group.name,
                group.op_type,
                name.name.lower() if group.name in quantized else "float",
                span,
                found.get(output),
                choice.noise.get(group.name),
                choice.gains.get(group.name),
                plan.left_float.get(group.name, ""),
            )
        )
    report.declined = dict(candidates.placement.declined)
    report.warnings.extend(f"'{name}': {note}" for name, note in plan.notes.items())


def measure_latency(
    original: ir.Model, model: ir.Model, feed: Feed, provider: str, report: QuantizeReport
) -> str:
    """Race both models, as ONNX Runtime runs them for its users.

    Returns:
        Where the result is slower with one thread or with ONNX Runtime's number of them: how
        much, one sentence; "" elsewhere.
    """
    try:
        slower, race = race_with(original, model, feed, provider)
    except RuntimeUnavailableError as error:
        report.warnings.append(f"the latency could not be measured: {error}")
        return ""
    report.latency_before = race.typical("float")
    report.latency_after = report.latency_before * race.ratio("result", "float")
    return slower


def race_with(original: ir.Model, model: ir.Model, feed: Feed, provider: str) -> tuple[str, Race]:
    """Where a model is slower than the original, as a sentence or ""; the race by default.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot run one of them.
    """
    watch = RunningStopwatch(original, feed, provider=provider)
    models = {"float": original, "result": model}
    slower = ""
    for threads, count in ((1, "one thread"), (0, "ONNX Runtime's number of threads")):
        race = watch.race(models, threads, ROUNDS)
        ratio = race.ratio("result", "float")
        if ratio > 1.0:
            slower = f"with {count} it takes {ratio:.2f} times as long as the original"
    return slower, race


def keeps_gain(
    original: ir.Model, before: ir.Model, after: ir.Model, feed: Feed, provider: str
) -> bool:
    """Whether `after` is no slower than the original and keeps most of what `before` saves.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot run one of them.
    """
    watch = RunningStopwatch(original, feed, provider=provider)
    models = {"float": original, "before": before, "after": after}
    saved = {"before": 0.0, "after": 0.0}
    for threads in (1, 0):
        race = watch.race(models, threads, ROUNDS)
        if race.ratio("after", "float") > 1.0:
            return False
        for name in saved:
            saved[name] += 1.0 - race.ratio(name, "float")
    return saved["after"] >= KEPT_GAIN * saved["before"]


def left_float(report: QuantizeReport, reason: str) -> None:
    """Make it the report of the float model, for one reason."""
    report.kind, report.sqnr = "float", None
    report.repairs.clear()
    report.latency_after = report.latency_before
    report.metric_after = report.metric_before
    report.groups = [
        dataclasses.replace(group, precision="float", range=None, sqnr=None, reason=reason)
        for group in report.groups
    ]
    report.warnings.append(f"int8 was taken back: {reason}; the result is the float model")


def _span(parameters: Parameters) -> tuple[float, float]:
    """The numbers that the lowest and the highest integer stand for."""
    lowest, highest = limits(parameters.dtype)
    scale, zero = float(parameters.scale), int(parameters.zero_point)
    return (lowest - zero) * scale, (highest - zero) * scale
