"""The repairs of accuracy, each undone where it does not hold what it promises."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from graphopt.graph import clone, ir
from graphopt.pipeline.check import Checker
from graphopt.pipeline.guard import first_problem
from graphopt.pipeline.quantization.candidates import Candidates
from graphopt.pipeline.quantization.data import (
    AVERAGED_OVER,
    CHECKED,
    REPAIRED_WITH,
    CalibrationData,
    Feeds,
)
from graphopt.pipeline.quantization.options import Options
from graphopt.pipeline.quantization.report import QuantizeReport
from graphopt.report import CheckStatus
from graphopt.rewrite import Journal
from graphopt.shapes import infer_shapes

if TYPE_CHECKING:
    pass

Tell = Callable[[str], None]

MATRICES = ("MatMul", "Gemm")
USUAL_STRENGTH = 0.5

ROWS = 128
"""So many rows (positions) of each of the feeds tell how to round."""


def repaired_model(
    model: ir.Model,
    options: Options,
    feeds: Feeds,
    checker: Checker,
    report: QuantizeReport,
    tell: Tell,
) -> ir.Model:
    """The float model, equalized and smoothed as the options say; it computes the same.

    What moves the outputs by more than floats do is undone, and the report says so.
    """
    from graphopt.quantization.repair.equalization import equalize_channels
    from graphopt.quantization.repair.smoothing import smooth_activations

    steps: list[tuple[str, Callable[[ir.Model, Journal], None]]] = []
    if options.equalize:
        steps.append(("cross-layer equalization", equalize_channels))
    strength = _smoothing_strength(model, options)
    if strength:
        op_types = ("Conv", *MATRICES) if _has_depthwise(model) else MATRICES
        steps.append(
            (
                f"smoothing of activations (strength {strength:g})",
                lambda changed, journal: smooth_activations(
                    changed,
                    feeds,
                    journal,
                    strength=strength,
                    op_types=op_types,
                    threads=options.threads,
                ),
            )
        )
    for name, step in steps:
        tell(name)
        changed, journal = clone(model), Journal(name)
        step(changed, journal)
        if not journal.rewrites:
            report.repairs.append(f"{name}: nothing to do")
            continue
        problem = first_problem(changed)
        if problem is None:
            check = checker.compare(changed)
            problem = check.reason if check.status is CheckStatus.FAILED else None
        if problem is not None:
            report.warnings.append(f"{name} was undone: {problem}")
            continue
        infer_shapes(changed)
        report.repairs.append(f"{name} at {len(journal.rewrites)} places")
        model = changed
    return model


def _smoothing_strength(model: ir.Model, options: Options) -> float:
    """Depthwise channels differ most, and have nobody to even out with: there it wins unasked."""
    if options.smooth == "off":
        return 0.0
    if options.smooth == "auto":
        return USUAL_STRENGTH if options.kind == "static" and _has_depthwise(model) else 0.0
    return float(options.smooth)


def _has_depthwise(model: ir.Model) -> bool:
    for node in model.graph:
        weight = node.inputs[1] if node.op_type == "Conv" and len(node.inputs) > 1 else None
        shape = None if weight is None else weight.shape
        groups = node.attributes.get_int("group", 1) if node.op_type == "Conv" else 1
        if groups > 1 and shape is not None and shape[1] == 1:
            return True
    return False


def rounded_weights(
    candidates: Candidates,
    options: Options,
    data: CalibrationData,
    report: QuantizeReport,
    tell: Tell,
) -> Mapping[tuple[str, int], np.ndarray]:
    """Integers of weights rounded by what the layers compute, where the outputs gain by it."""
    from graphopt.quantization.repair.weight_rounding import round_weights
    from graphopt.quantization.sensitivity import NoiseMeter

    # Beside depthwise convolutions it was seen to be undone in the end, after most of the time.
    if options.rounding == "nearest" or (
        options.rounding == "auto" and _has_depthwise(candidates.model)
    ):
        return {}
    tell("rounding weights")
    constants = candidates.plan().constants
    found = round_weights(
        candidates.model,
        {place: constant.parameters for place, constant in constants.items()},
        data.calibration.first(REPAIRED_WITH),
        # A correction of the biases may be undone, and rounding that relies on it does harm then.
        biases_follow=False,
        rows_per_feed=ROWS,
        seed=options.seed,
        threads=options.threads,
        progress=lambda count: tell(f"rounding weights ({count})"),
    )
    if not found.integers:
        return {}
    meter = NoiseMeter(candidates.model, data.check.first(CHECKED), threads=options.threads)
    rounded = dataclasses.replace(candidates, rounded=found.integers)
    if meter.noise(rounded.build()) > meter.noise(candidates.build()):
        report.repairs.append("second-order rounding: undone, it made more noise at the outputs")
        return {}
    report.repairs.append(f"second-order rounding of {len(found.integers)} weights")
    return found.integers


def with_repaired_bias(
    model: ir.Model,
    candidates: Candidates,
    given_up: Mapping[str, str],
    data: CalibrationData,
    options: Options,
    report: QuantizeReport,
    tell: Tell,
) -> ir.Model:
    """The quantized model with its biases corrected, where that makes less noise at the outputs."""
    from graphopt.quantization.insertion import quantized
    from graphopt.quantization.repair.bias_correction import correct_biases
    from graphopt.quantization.sensitivity import NoiseMeter

    if not options.bias_correction:
        return model
    plan = candidates.plan(given_up)
    float_model = correct_biases(
        candidates.model,
        lambda changed: quantized(changed, plan),
        data.calibration.first(AVERAGED_OVER),
        threads=options.threads,
        progress=lambda done, count: tell(f"correcting biases ({done}/{count})"),
    )
    corrected = quantized(float_model, plan)
    meter = NoiseMeter(candidates.model, data.check.first(CHECKED), threads=options.threads)
    if meter.noise(corrected) > meter.noise(model):
        report.repairs.append("bias correction: undone, it made more noise at the outputs")
        return model
    report.repairs.append("bias correction")
    return corrected
