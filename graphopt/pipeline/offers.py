"""Rewrites that are offered: applied as a whole, timed against the model without, and kept or not.

    plan                        ->  model
    plan, offer                 ->  trial;   kept if the trial is faster by more than the noise
    plan, kept offer, offer     ->  ...

What another machine would keep may differ: what is kept is in the report, and naming the passes
of the report makes the same model again, without a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphopt.catalog import PassLike, resolve, spec_of, split_specs
from graphopt.errors import RuntimeUnavailableError, UsageError
from graphopt.graph import ir
from graphopt.pipeline.execute import execute
from graphopt.pipeline.run import Run, make_plan
from graphopt.plugin import Pass
from graphopt.presets import OFFERS
from graphopt.report import CheckStatus, OfferReport, PassStatus

if TYPE_CHECKING:
    from graphopt.quantization.stopwatch import Stopwatch
    from graphopt.runtime import Feed

WORTH_KEEPING = 0.98
"""With one thread the trial may take so much of the time without it, in the median of the races."""

RACES = 5
"""Races with one thread, each in sessions of its own: those of one model differ as well."""

_RACES_WITH_ALL = 3
_ROUNDS = 3
_WITHOUT, _WITH = "without", "with"


@dataclass(frozen=True)
class Speed:
    """What an offer takes over what the model takes without it; below 1 is faster.

    Attributes:
        single: with one thread, one figure for each race.
        all_threads: with as many threads as ONNX Runtime chooses.
    """

    single: tuple[float, ...]
    all_threads: tuple[float, ...]

    @property
    def pays(self) -> bool:
        """Faster by more than the noise with one thread, and not slower with all."""
        lost = sum(ratio >= 1 for ratio in self.single)
        return (
            float(np.median(self.single)) <= WORTH_KEEPING
            and lost <= len(self.single) // 5
            and float(np.median(self.all_threads)) <= 1
        )

    def __str__(self) -> str:
        """How many times as fast the model is with the offer."""
        single, together = (1 / np.median(ratios) for ratios in (self.single, self.all_threads))
        return f"{single:.3f}x as fast with one thread, {together:.3f}x with all"


def plan_and_offers(
    level: int,
    passes: str | Sequence[PassLike] | None,
    skip: str | Sequence[str],
    provider: str | None,
) -> tuple[tuple[Pass, ...], tuple[Pass, ...]]:
    """The passes to run, and those to try behind them; none of the latter without a provider.

    Raises:
        UsageError: an unknown level, pass or provider, a pass to skip that would not run, or a
            provider at a level that measures nothing.
        RuntimeUnavailableError: this build of ONNX Runtime does not have the provider.
    """
    if provider is None:
        return make_plan(level, passes, skip), ()
    from graphopt.runtime.session import import_onnxruntime, provider_names

    if level != 3:
        raise UsageError("a provider is what -O3 measures with: give both")
    provider_names(import_onnxruntime(), provider)
    skipped = split_specs(skip) if isinstance(skip, str) else skip
    plan = make_plan(level, passes, [name for name in skipped if name not in OFFERS])
    taken = {*skipped, *(item.name for item in plan)}
    return plan, tuple(resolve(name) for name in OFFERS if name not in taken)


def take_offers(
    offers: Sequence[Pass],
    plan: tuple[Pass, ...],
    run: Run,
    model: ir.Model,
    *,
    begin: Callable[[tuple[Pass, ...]], Run],
    speed_of: Callable[[ir.Model, ir.Model], Speed],
    tell: Callable[[str], None],
) -> tuple[Run, ir.Model, list[OfferReport]]:
    """Try the offers in turn, each behind the plan and what was kept of those before it.

    Args:
        offers: what to try.
        plan: what ran.
        run: the run of the plan.
        model: its result.
        begin: makes a run of another plan on the same original.
        speed_of: times a model and a trial of an offer.
        tell: called with a line about what is being done.

    Returns:
        The run and the model with what pays, and a report of each offer that changes anything.

    Raises:
        PassError: an offer had to be undone and the run is strict.
    """
    reports = []
    for offer in offers:
        name = spec_of(offer)
        # Alone it takes a fraction of the time, and most models have no place for most offers.
        if not any(step.changed for step in execute(model, (offer,))[1]):
            continue
        tell(f"{name} (offered)")
        trial = begin((*plan, offer))
        changed = trial.until_equivalent()
        done = next(entry for entry in trial.pass_reports() if entry.name == name)
        if trial.check_report.status is CheckStatus.FAILED or done.status is PassStatus.UNDONE:
            reason = done.problem or trial.check_report.reason
            reports.append(OfferReport(name, False, f"undone: {reason}"))
            continue
        tell(f"{name} (measuring)")
        try:
            speed = speed_of(model, changed)
        except RuntimeUnavailableError as error:
            reports.append(OfferReport(name, False, f"not measured: {error}"))
            continue
        reports.append(OfferReport(name, speed.pays, str(speed)))
        if speed.pays:
            plan, run, model = (*plan, offer), trial, changed
    return run, model, reports


def measured_speed(
    before: ir.Model,
    after: ir.Model,
    feed: Feed,
    provider: str,
    stopwatch: Stopwatch | None = None,
) -> Speed:
    """Race two models in ONNX Runtime as it runs them for its users.

    Args:
        before: the model without an offer.
        after: the one with it.
        feed: the inputs of every run.
        provider: "cpu", or another that this build of ONNX Runtime has.
        stopwatch: what measures; by default the machine's clock.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot load or run one of them.
    """
    # Most runs race nothing, and do not wait for its import.
    from graphopt.quantization.stopwatch import RunningStopwatch

    clock = stopwatch or RunningStopwatch(before, feed, provider=provider)
    models = {_WITHOUT: before, _WITH: after}
    # A session made second may run a hundredth or two faster, so they take turns; in most
    # races that is the model without.
    turned = {_WITH: after, _WITHOUT: before}

    def races(threads: int, count: int) -> tuple[float, ...]:
        return tuple(
            clock.race(models if index % 2 else turned, threads, _ROUNDS).ratio(_WITH, _WITHOUT)
            for index in range(count)
        )

    return Speed(races(1, RACES), races(0, _RACES_WITH_ALL))
