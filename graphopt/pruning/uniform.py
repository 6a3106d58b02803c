"""Pruning every group alike, by the size of its weights: what needs no data.

units kept = units - floor(units * share), the largest scores, in multiples that kernels like
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph import ir
from graphopt.pruning.coupling import find_groups
from graphopt.pruning.coupling_costs import unit_width
from graphopt.pruning.groups import Groups
from graphopt.pruning.magnitude import magnitude_scores
from graphopt.pruning.surgery import prune, site_of_group
from graphopt.rewrite import Journal

Kept = dict[str, np.ndarray]

_DONE = "graphopt.pruned_channels"


def prune_channels(
    model: ir.Model,
    journal: Journal,
    *,
    ratio: float,
    importance: str,
    round_to: int,
    least: int,
    plan: str,
) -> None:
    """Prune a model by a plan, or by the same share of every group; once, however often called.

    Args:
        model: changed in place.
        journal: is asked before each group and told after it, and of what is frozen.
        ratio: the share of each group to remove, 0 to 1; not used with a plan.
        importance: which units go first, see `magnitude_scores`.
        round_to: keep a multiple of this many channels.
        least: keep at least this many.
        plan: a JSON file that has for a group's name the units to keep; "" for none.

    Raises:
        UsageError: an option is wrong, or the plan does not fit the model.
    """
    if model.meta.get(_DONE):
        return
    if not 0 <= ratio < 1:
        raise UsageError(f"ratio is {ratio}; it must be at least 0 and below 1")
    groups = find_groups(model)
    for group in groups:
        if group.frozen_reason is not None:
            journal.decline(site_of_group(group.name), group.frozen_reason)
    if plan:
        kept = _read_plan(plan)
    else:
        scores = magnitude_scores(model, groups, importance)
        kept = uniform_kept(groups, scores, ratio, round_to=round_to, least=least)
    prune(model, groups, kept, journal)
    # The pipeline runs passes until nothing changes: a share of a share is not what was asked.
    model.meta[_DONE] = True


def _read_plan(path: str) -> Kept:
    try:
        found: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the plan '{path}' cannot be read: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(units, list) for units in found.values()):
        raise UsageError(f"the plan '{path}' must have for each group's name a list of units")
    return {name: np.asarray(units, np.int64) for name, units in found.items()}


def uniform_kept(
    groups: Groups,
    scores: Mapping[str, np.ndarray],
    share: float,
    *,
    round_to: int = 1,
    least: int = 1,
    in_turn: bool = False,
) -> Kept:
    """Of every group that can be pruned the same share, the lowest scores first.

    Args:
        groups: of `find_groups`.
        scores: for each group's name the importance of its units.
        share: how much of each group to remove, 0 to 1.
        round_to: keep a multiple of this many channels (rounded up).
        least: keep at least this many channels.
        in_turn: let groups lose their next units one after another as the share grows, and not
            all at once, so that there are more models to choose from between two shares.
    """
    kept: Kept = {}
    prunable = groups.prunable
    for number, group in enumerate(prunable):
        wanted = share
        if in_turn and 0 < share < 1:
            step = max(round_to / unit_width(groups, group.name), 1) / group.channels
            # Later groups are ahead: in most networks they have more channels to spare.
            wanted = min(max(share + step * ((number + 0.5) / len(prunable) - 0.5), 0.0), 1.0)
        count = kept_count(groups, group.name, wanted, round_to=round_to, least=least)
        if count < group.channels:
            # A stable sort: of equal scores the later unit goes.
            order = np.argsort(-scores[group.name], kind="stable")
            kept[group.name] = np.sort(order[:count])
    return kept


def kept_count(
    groups: Groups, name: str, share: float, *, round_to: int = 1, least: int = 1
) -> int:
    """How many units of a group stay where a share of them goes."""
    channels, width = groups.named(name).channels, unit_width(groups, name)
    wanted = channels - math.floor(channels * share + 1e-9)
    wanted = max(wanted, math.ceil(least / width), 1)
    # A unit may be several channels (a head): the multiple is of channels, not of units.
    step = round_to // math.gcd(round_to, width)
    return min(math.ceil(wanted / step) * step, channels)
