"""prune: load, prepare, find groups, choose channels, remove them, verify, save.

    channels of each group, by importance, until the budget is met -> smaller model

The budget is a ratio of every group's channels, or a target in MACs, parameters or measured
latency, or the most that a metric may drop. What comes out is valid and runs, or is not written.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph import ModelSource, clone, ir
from graphopt.pipeline.model_files import load_valid
from graphopt.pipeline.prune_budget import Budget
from graphopt.pipeline.prune_check import Judge
from graphopt.pipeline.prune_latency import LATENCY_ROUND_TO
from graphopt.pipeline.prune_report import Delivery, SmallerModel, SmallerModelReport
from graphopt.pipeline.run import Run, make_plan
from graphopt.pruning.allocation_choice import make_choice
from graphopt.pruning.coupling import find_groups
from graphopt.pruning.coupling_costs import PruningCosts, counts_of
from graphopt.pruning.groups import CouplingGroup, Groups
from graphopt.pruning.merging import merge
from graphopt.pruning.repair import RepairReport
from graphopt.pruning.repair import repair as refit
from graphopt.pruning.surgery import kept_indices
from graphopt.pruning.surgery import prune as remove_units
from graphopt.pruning.uniform import uniform_kept
from graphopt.runtime.augmentation import check_images, read_augmentations, with_changed
from graphopt.shapes import infer_shapes

Kept = dict[str, np.ndarray]

PREPARATION_LEVEL = 2
"""The -O level that a model is brought to first: what is folded away cannot freeze anything."""


@dataclass(slots=True, kw_only=True)
class PruneReport(SmallerModelReport):
    """What was pruned, and what is known of the result.

    Attributes:
        groups: by name the channels before and after, of the groups that lost some.
        frozen: by name why a group could not be pruned.
        repaired: by layer its error relative to the original's variance, before and after.
        not_repaired: by layer or group why its numbers are those of the original.
    """

    groups: dict[str, tuple[int, int]]
    frozen: dict[str, str]
    repaired: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    not_repaired: dict[str, str] = dataclasses.field(default_factory=dict)


class PruneResult(SmallerModel[PruneReport]):
    """What `prune` gives back."""


@dataclass(frozen=True)
class Explanation:
    """The groups of a prepared model, and what they cost."""

    groups: Groups
    costs: PruningCosts


def prune(
    source: ModelSource,
    *,
    output: str | os.PathLike[str] | None = None,
    ratio: float | None = None,
    target_macs: str | float | None = None,
    target_params: str | float | None = None,
    target_latency: str | float | None = None,
    max_drop: str | None = None,
    metric: str | Callable[..., float] | None = None,
    importance: str = "auto",
    repair: bool = True,
    round_to: int | None = None,
    min_channels: int = 1,
    ignore: Sequence[str] = (),
    calibration: Any = None,
    samples: int | None = 1024,
    augment: Sequence[str] = (),
    input_shapes: Mapping[str, Sequence[int | str | None]] | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    threads: int = 0,
    measure: bool = False,
    overwrite: bool = False,
    external_data: bool | None = None,
    progress: Callable[[str], None] | None = None,
) -> PruneResult:
    """Remove channels from a model until a budget is met.

    Args:
        source: a path, the bytes of a model, an `onnx.ModelProto` or an `ir.Model`.
        output: where to write the result.
        ratio: the share of channels to remove from every group, 0 to 1.
        target_macs: "50%" of the original's, or a count (1.5e6, "30M").
        target_params: the same for parameters.
        target_latency: "50%" of the original's measured latency, or a time ("3ms").
        max_drop: the most that the metric may fall ("1%", "0.5"): as much is removed as that
            allows, or, beside another budget, a result that falls further is refused.
        metric: see `graphopt.pipeline.task_metric.read_metric`.
        importance: which channels go first: one of `graphopt.pruning.allocation_choice.MEASURES`,
            or "auto": second-order where there is data, l1 elsewhere.
        repair: refit what stays to the original on the calibration data; without data, let
            channels that stay stand in for those that go, as far as their weights tell.
        round_to: keep a multiple of this many channels in each group; None for 1, and for what
            kernels are fast at where a latency is asked for.
        min_channels: keep at least this many.
        ignore: regular expressions; a group whose name, nodes or weights match stays whole.
        calibration: unlabelled inputs: a path, `module:function`, or an iterable of feeds.
        samples: how many feeds of it to read; None for all.
        augment: "mirror", "shift=N": images changed so are further samples, twice as many by each.
        input_shapes: shapes by input name.
        dims: sizes of symbolic dims.
        seed: of random importance, of inputs that are made up and of changes of images.
        threads: that latencies are measured with; 0 leaves the choice to ONNX Runtime.
        measure: time both models, with the optimizations that ONNX Runtime makes by default.
        overwrite: let `output` replace a file.
        external_data: keep weights in a file of their own; None decides by size and source.
        progress: called with a line about what is being done.

    Raises:
        UsageError: an option is wrong, or no budget is given.
        UnreadableModelError: the source is no model.
        InvalidModelError: the source breaks the rules of ONNX.
        EquivalenceError: the budget cannot be met, or the metric falls further than allowed.
        OutputError: the result cannot be written.
    """
    tell = progress or _silent
    budget = Budget.read(
        ratio=ratio,
        macs=target_macs,
        parameters=target_params,
        latency=target_latency,
        max_drop=max_drop,
    )
    if round_to is None:
        round_to = 1 if budget.latency is None else LATENCY_ROUND_TO
    augmentations = read_augmentations(augment)
    if augmentations and calibration is None:
        raise UsageError("--augment changes images of the calibration data; give some with --calib")
    delivery = Delivery(source, output, overwrite=overwrite, external_data=external_data, tell=tell)
    original = delivery.original
    model = prepared(original, input_shapes, dims, tell)
    tell("finding groups of channels")
    groups = ignoring(find_groups(model), ignore)
    judge = Judge(
        original,
        calibration=calibration,
        samples=samples,
        metric=metric,
        seed=seed,
        described=delivery.described,
        threads=threads,
    )
    costs = PruningCosts(model, groups, judge.sizes())
    tell("ranking channels")
    if judge.feeds:
        check_images(judge.feeds[0], augmentations)
    feeds = with_changed(judge.feeds or [], augmentations, seed)
    if importance == "auto":
        importance = "second-order" if feeds else "l1"
    choice = make_choice(
        model,
        original,
        groups,
        costs,
        feeds,
        measure=importance,
        round_to=round_to,
        least=min_channels,
        seed=seed,
        tell=tell,
    )
    # A later place in the order is a higher score.
    scores = {name: np.argsort(ranking.order) for name, ranking in choice.rankings.items()}

    def choose(share: float) -> Kept:
        if budget.ratio is not None or not feeds:
            return uniform_kept(
                groups,
                scores,
                share,
                round_to=round_to,
                least=min_channels,
                in_turn=budget.ratio is None,
            )
        return choice.along_path(share)

    # By the id of the model that was built; a later one may have the id of one that is gone.
    reports: dict[int, RepairReport] = {}

    def mend(pruned: ir.Model, kept: Kept) -> None:
        if repair and feeds:
            tell("repairing")
            indices = kept_indices(groups, kept)
            reports[id(pruned)] = refit(pruned, model, feeds, indices, seed=seed)

    def build(kept: Kept) -> ir.Model:
        pruned = clone(model)
        skipped = merge(pruned, groups, kept) if repair and not feeds else {}
        reports[id(pruned)] = RepairReport(skipped=skipped)
        remove_units(pruned, groups, kept)
        return pruned

    kept, pruned = budget.meet(choose, build, mend, costs, judge, tell)
    repaired = reports[id(pruned)]
    counts = counts_of(kept)
    report = PruneReport(
        groups={name: (groups.named(name).channels, count) for name, count in counts.items()},
        frozen=frozen_reasons(groups),
        macs=(costs.macs_before, costs.macs(counts)),
        parameters=(costs.parameters_before, costs.parameters(counts)),
        repaired=repaired.refitted,
        not_repaired=repaired.skipped,
    )
    given = delivery.give(pruned, judge, report, measure=measure)
    return PruneResult(given, report)


def explain(
    source: ModelSource,
    *,
    input_shapes: Mapping[str, Sequence[int | str | None]] | None = None,
    dims: Mapping[str, int] | None = None,
    ignore: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Explanation:
    """The coupling groups of a model, as `prune` would see them.

    The arguments, and what is raised, are those of `prune`.
    """
    tell = progress or _silent
    tell("loading")
    model = prepared(load_valid(source), input_shapes, dims, tell)
    tell("finding groups of channels")
    groups = ignoring(find_groups(model), ignore)
    return Explanation(groups, PruningCosts(model, groups))


def ignoring(groups: Groups, patterns: Sequence[str]) -> Groups:
    """The groups, those frozen that a pattern finds in the name of a group, node or weight.

    Raises:
        UsageError: a pattern is no regular expression, or finds nothing.
    """
    frozen: dict[str, str] = {}
    for pattern in patterns:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise UsageError(f"--ignore '{pattern}' is no regular expression: {error}") from error
        found = [group.name for group in groups if _mentions(group, compiled)]
        if not found:
            raise UsageError(f"--ignore '{pattern}' matches no group; --explain lists them")
        frozen.update(dict.fromkeys(found, f"--ignore {pattern}"))
    if not frozen:
        return groups
    return groups.with_frozen(frozen)


def _mentions(group: CouplingGroup, pattern: re.Pattern[str]) -> bool:
    names = {group.name}
    for member in (*group.producers, *group.consumers, *group.vectors):
        names.update((member.value, member.node))
    return any(pattern.search(name) for name in names)


def frozen_reasons(groups: Groups) -> dict[str, str]:
    """Why the groups that cannot be pruned cannot, by name."""
    return {group.name: group.frozen_reason for group in groups if group.frozen_reason is not None}


def prepared(
    original: ir.Model,
    input_shapes: Mapping[str, Sequence[int | str | None]] | None = None,
    dims: Mapping[str, int] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> ir.Model:
    """A copy, folded and fused: constants in place, sizes known, batch norms in their weights."""
    infer_shapes(original, input_shapes=input_shapes, dims=dims)
    return Run(original, make_plan(PREPARATION_LEVEL, None), None, tell=tell).until_equivalent()


def _silent(_: str) -> None:
    """Say nothing."""
