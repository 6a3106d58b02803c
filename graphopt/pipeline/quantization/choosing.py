"""Chooses which groups are quantized: those that pay, and of them those that may be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from graphopt.errors import EquivalenceError, RuntimeUnavailableError, UsageError
from graphopt.graph import ir
from graphopt.pipeline.quantization.candidates import Candidates
from graphopt.pipeline.quantization.data import CalibrationData
from graphopt.pipeline.quantization.options import Options
from graphopt.pipeline.quantization.report import QuantizeReport
from graphopt.pipeline.quantization.search import search
from graphopt.pipeline.task_metric import read_metric
from graphopt.quantization.scores import can_be_measured

Tell = Callable[[str], None]

LEAST_SQNR = 10.0
"""In dB, at the outputs: a result with more noise is never given back unasked."""

SENSITIVITY_FEEDS = 8
"""So many samples tell which groups do the most harm."""


@dataclass
class Choice:
    """What stays float, and what is known of each group.

    Attributes:
        float_groups: group -> why.
        gains: group -> seconds saved; empty where nothing was measured.
        noise: group -> noise at the outputs; empty where that was not asked.
        winner: "int8", "mixed", "dynamic" or "float".
    """

    float_groups: dict[str, str] = field(default_factory=dict)
    gains: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)
    winner: str = "int8"


@dataclass(frozen=True)
class Budget:
    """What the result has to reach.

    Attributes:
        name: of the figure.
        reference: the original's figure; inf where it has none.
        allows: whether a figure is enough.
        measure: the figure of a model.
        text: how it was asked for.
    """

    name: str
    reference: float
    allows: Callable[[float], bool]
    measure: Callable[[ir.Model], float]
    text: str


def judging_provider(options: Options) -> str:
    """Where outputs are compared: the CPU computes those of a backend that is not here too."""
    from graphopt.runtime import has_provider

    provider = options.rules.provider or "cpu"
    return provider if has_provider(provider) else "cpu"


def read_budgets(original: ir.Model, data: CalibrationData, options: Options) -> Budget | None:
    """The budget that the options name; None if they name none.

    Raises:
        UsageError: a drop is asked for in a metric that the original has no figure in.
    """
    drop, least = options.drop, options.least_sqnr
    provider = judging_provider(options)
    if drop is None and least is None:
        return None
    spec = options.metric if drop is not None else "sqnr"
    metric = read_metric(spec, original=original, data=data.check, provider=provider)
    if drop is None:
        floor = float(least or 0.0)
        return Budget(
            metric.name,
            math.inf,
            lambda value: value >= floor,
            _remembering(metric.measure),
            f"{floor:g} dB",
        )
    if not metric.bounded:
        raise UsageError(
            "a drop needs a metric that the original has a figure in, and SQNR is none: "
            "give --metric module:function, or --least-sqnr instead of --max-drop"
        )
    reference = metric.measure(original)
    return Budget(
        metric.name,
        reference,
        lambda value: drop.allows(reference, value),
        _remembering(metric.measure),
        str(drop),
    )


def usual_budget(original: ir.Model, data: CalibrationData, options: Options) -> Budget | None:
    """What a result has to reach where nothing was asked for; None if that cannot be measured."""
    if not can_be_measured(original):
        return None
    return read_budgets(
        original, data, dataclasses.replace(options, max_drop=None, least_sqnr=LEAST_SQNR)
    )


def _remembering(measure: Callable[[ir.Model], float]) -> Callable[[ir.Model], float]:
    """The same measure, which does not measure the last model again."""
    last: list[tuple[ir.Model, float]] = []

    def remembered(model: ir.Model) -> float:
        if not last or last[0][0] is not model:
            last[:] = [(model, measure(model))]
        return last[0][1]

    return remembered


def faster_groups(
    candidates: Candidates,
    data: CalibrationData,
    others: Mapping[str, ir.Model],
    tell: Tell,
) -> Choice:
    """The groups that pay, measured here."""
    from graphopt.quantization.speed import choose_groups

    found = choose_groups(
        candidates.model,
        candidates.placement,
        candidates.build,
        next(iter(data.calibration)),
        fixed=candidates.fixed,
        others=others,
        progress=tell,
    )
    return Choice(dict(found.float_groups), found.gains, {}, found.winner)


def slow_groups(candidates: Candidates) -> dict[str, str]:
    """The groups that are known not to pay, where nothing is measured."""
    return {group.name: group.slow for group in candidates.placement.groups if group.slow}


def without_outsized(
    candidates: Candidates,
    choice: Choice,
    data: CalibrationData,
    options: Options,
    tell: Tell,
    *,
    worth_it: Callable[[ir.Model, ir.Model], bool],
) -> Choice:
    """Give up the few groups that make most of the noise, if what is left is worth it.

    What a group saves by itself does not tell: where the first convolution is float, ONNX Runtime
    may transpose between all that follow. So `worth_it` gets the model before and after.
    """
    from graphopt.quantization.sensitivity import NoiseMeter, outsized

    names = [name for name in candidates.groups if name not in choice.float_groups]
    feeds = data.calibration.first(SENSITIVITY_FEEDS)
    meter = NoiseMeter(candidates.model, feeds, threads=options.threads)

    def noise_of(part: Sequence[str]) -> float:
        tell(f"looking for what makes most of the noise (among {len(part)} groups)")
        return meter.noise(candidates.only(part))

    found = outsized(names, noise_of, choice.gains or dict.fromkeys(names, 1.0))
    choice.noise = found.noise
    if not found.shares:
        return choice
    given_up = {
        name: f"it alone makes {share:.0%} of the noise at the outputs"
        for name, share in found.shares.items()
    }
    tell("racing what is left against the original")
    before = candidates.build(choice.float_groups)
    if worth_it(before, candidates.build({**choice.float_groups, **given_up})):
        choice.float_groups.update(given_up)
    return choice


def _noise(
    candidates: Candidates, choice: Choice, data: CalibrationData, options: Options, tell: Tell
) -> Mapping[str, float]:
    from graphopt.quantization.sensitivity import output_noise

    names = [name for name in candidates.groups if name not in choice.float_groups]
    return output_noise(
        candidates.model,
        lambda name: candidates.only([name]),
        names,
        data.calibration.first(SENSITIVITY_FEEDS),
        threads=options.threads,
        progress=lambda done: tell(f"measuring sensitivity ({done}/{len(names)})"),
    )


def within_budget(
    candidates: Candidates,
    choice: Choice,
    budget: Budget,
    data: CalibrationData,
    options: Options,
    report: QuantizeReport,
    tell: Tell,
    *,
    force: bool,
) -> Choice:
    """Give up groups until the budget is kept; the report gets what was tried.

    Raises:
        EquivalenceError: not even a single quantized group is within the budget.
    """
    from graphopt.quantization.sensitivity import giving_up_order

    def build(names: Sequence[str]) -> ir.Model:
        given_up = dict.fromkeys(names, _reason(budget))
        return candidates.build({**choice.float_groups, **given_up})

    tell(f"measuring {budget.name}")
    first = budget.measure(build(()))
    names = [name for name in candidates.groups if name not in choice.float_groups]
    order: list[str] = names
    if not budget.allows(first):
        choice.noise = _noise(candidates, choice, data, options, tell)
        noise = {name: choice.noise[name] for name in names}
        order = giving_up_order(noise, choice.gains or dict.fromkeys(names, 1.0))
    count = 1

    def measure(given_up: Sequence[str]) -> float:
        nonlocal count
        count += 1
        tell(f"measuring {budget.name} with {len(given_up)} groups in float ({count})")
        return budget.measure(build(given_up))

    gains = choice.gains or dict.fromkeys(names, 1.0)
    found = search(order, gains, measure, budget.allows, first=first)
    report.curve = list(found.evaluations)
    given_up = found.given_up
    if given_up is None:
        best = max(found.evaluations, key=lambda item: item.value)
        given_up = tuple(order[: best.float_groups])
    if found.given_up is None and not force:
        raise EquivalenceError(
            f"no mixture keeps {budget.name} within {budget.text} of the original's "
            f"{budget.reference:.6g} (the best one: {best.value:.6g} with {best.float_groups} of "
            f"{len(order)} groups in float); nothing was written; allow more, or write it "
            "with --force"
        )
    for name in given_up:
        choice.float_groups[name] = _reason(budget, choice.noise.get(name))
    return choice


def _reason(budget: Budget, noise: float | None = None) -> str:
    alone = "" if not noise else f"; by itself it adds noise at {10 * math.log10(noise):.0f} dB"
    return f"given up to keep {budget.name} within {budget.text}{alone}"


def unavailable(error: RuntimeUnavailableError) -> str:
    """The warning where nothing can be measured."""
    return f"what is faster could not be measured, so all that may be is quantized: {error}"
