"""The repairs of accuracy, each undone where it does not hold what it promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from graphopt.graph import clone, ir
from graphopt.pipeline.check import Checker
from graphopt.pipeline.guard import first_problem
from graphopt.pipeline.quantization.candidates import Candidates
from graphopt.pipeline.quantization.data import Feeds
from graphopt.pipeline.quantization.options import Options
from graphopt.pipeline.quantization.report import QuantizeReport
from graphopt.report import CheckStatus
from graphopt.rewrite import Journal
from graphopt.shapes import infer_shapes

if TYPE_CHECKING:
    from graphopt.runtime import Feed

Tell = Callable[[str], None]


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
    if options.smooth is not None:
        strength = options.smooth
        steps.append(
            (
                f"smoothing of activations (strength {strength:g})",
                lambda changed, journal: smooth_activations(
                    changed, feeds, journal, strength=strength, threads=options.threads
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


def rounded_weights(
    candidates: Candidates, options: Options, feeds: Feeds, report: QuantizeReport, tell: Tell
) -> Mapping[tuple[str, int], np.ndarray]:
    """Integers of weights that the options want rounded by what the layers compute."""
    from graphopt.quantization.repair.weight_rounding import round_weights

    if options.rounding == "nearest":
        return {}
    tell("rounding weights")
    constants = candidates.plan().constants
    found = round_weights(
        candidates.model,
        {place: constant.parameters for place, constant in constants.items()},
        feeds,
        biases_follow=options.bias_correction,
        seed=options.seed,
        threads=options.threads,
        progress=lambda count: tell(f"rounding weights ({count})"),
    )
    report.repairs.append(f"second-order rounding of {len(found.integers)} weights")
    return found.integers


def repaired_bias(
    candidates: Candidates,
    given_up: Mapping[str, str],
    options: Options,
    feeds: Feeds,
    report: QuantizeReport,
    tell: Tell,
) -> ir.Model | None:
    """The quantized model with its biases corrected; None where the options do not want that."""
    from graphopt.quantization.insertion import quantized
    from graphopt.quantization.repair.bias_correction import correct_biases

    if not options.bias_correction:
        return None
    plan = candidates.plan(given_up)
    corrected = correct_biases(
        candidates.model,
        lambda changed: quantized(changed, plan),
        feeds,
        threads=options.threads,
        progress=lambda done, count: tell(f"correcting biases ({done}/{count})"),
    )
    report.repairs.append("bias correction")
    return quantized(corrected, plan)


def first_feed(feeds: Feeds) -> Feed:
    """The first of the feeds; there is one."""
    return next(iter(feeds))
