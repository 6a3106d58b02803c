"""Decides what becomes of each Concat.

    signal = sum_k (a_k / 4)^2 * |W_k|^2,   noise = s^2 / 12 * sum_k |W_k|^2,   s = max width / 255

One scale for all branches of a Concat is that of the widest. A branch r times narrower keeps
255 / r levels: at r = 100 nearly nothing. Where the next operator weighs the branches by its
weights, what counts is what reaches its output: a narrow branch that it hardly uses loses
nothing that matters, one that its weights lift out is lost. a_k is the largest magnitude of branch
k, four times its root mean square in a normal distribution; W_k are the weights of its channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from graphopt.quantization.backends.backend import Role
from graphopt.quantization.borders import Borders
from graphopt.quantization.groups import Group
from graphopt.quantization.parameters import limits, parameters_of_range
from graphopt.shapes import known_shape

if TYPE_CHECKING:
    from graphopt.quantization.planning import Planner

# The ratio of two ranges up to which one scale serves both: a narrower one loses 18 dB.
_ALIKE = 8.0
# A branch that others read too gives up its own scale for the output's only up to this ratio.
_NEARLY_EQUAL = 1.5
_LEAST_DECIBELS = 32.0
_PEAK = 4.0


@dataclass(frozen=True)
class JoinDecision:
    """What becomes of the Concats of a model.

    Attributes:
        ties: branch -> the output whose parameters it takes.
        left_float: group -> why it has to be float: a Concat, or what reads it.
    """

    ties: Mapping[str, str]
    left_float: Mapping[str, str]


def decide_joins(planner: Planner, borders: Borders) -> JoinDecision:
    """Which branches share parameters, and which groups have to be float, as things stand."""
    ties: dict[str, str] = {}
    left_float: dict[str, str] = {}
    readers = _readers(borders)
    for group in planner.placement.groups:
        if group.role is not Role.JOIN:
            continue
        output = group.writes[0]
        widths = [_magnitude(planner, use.tensor) for use in group.reads]
        positive = [width for width in widths if width > 0]
        ratio = max(positive) / min(positive) if positive else 1.0
        if ratio > _ALIKE:
            reason = f"its branches differ {ratio:.0f}-fold in range"
            lost = _lost(planner, borders, group, widths, readers)
            left_float.update(dict.fromkeys(lost, reason))
            if group.name in borders.groups and (lost or borders.has_float_reader(output)):
                left_float[group.name] = reason
        if group.name in borders.groups and group.name not in left_float:
            ties.update(_tied(planner, borders, group, widths))
    return JoinDecision(ties, left_float)


def _tied(planner: Planner, borders: Borders, group: Group, widths: list[float]) -> dict[str, str]:
    """The branches that take the parameters of the output."""
    output = group.writes[0]
    bounds = planner.range_of(output)
    if bounds is None:
        return {}
    form = planner.backend.activation
    common = parameters_of_range(*bounds, form.dtype, symmetric=form.symmetric)
    ends = common.dequantize(np.array(limits(form.dtype), np.int64))
    found: dict[str, str] = {}
    for use, width in zip(group.reads, widths, strict=True):
        writer = borders.writer(use.tensor)
        if writer is not None and writer.role is Role.MOVEMENT:
            # What moves elements has the parameters of what it moves.
            continue
        clip = writer.clip if writer is not None and planner.backend.ranges_absorb else None
        if clip is not None and (ends[0] < clip[0] or ends[1] > clip[1]):
            continue
        if width * _NEARLY_EQUAL >= max(widths) or not _read_elsewhere(borders, use.tensor, group):
            found[use.tensor] = output
    return found


def _read_elsewhere(borders: Borders, tensor: str, group: Group) -> bool:
    return borders.reads(tensor, but=group) or borders.has_float_reader(tensor)


def _readers(borders: Borders) -> dict[str, list[Group]]:
    found: dict[str, list[Group]] = {}
    for group in borders.groups.values():
        for use in group.reads:
            found.setdefault(use.tensor, []).append(group)
    return found


def _magnitude(planner: Planner, tensor: str) -> float:
    low, high = planner.range_of(tensor) or (0.0, 0.0)
    return max(abs(low), abs(high))


def _lost(
    planner: Planner,
    borders: Borders,
    join: Group,
    widths: list[float],
    readers: Mapping[str, list[Group]],
) -> list[str]:
    """The quantized groups that read the output and need what one scale would lose."""
    found: list[str] = []
    pending = [join.writes[0]]
    while pending:
        for reader in readers.get(pending.pop(), []):
            if reader.role is Role.PRODUCT and _survives(planner, join, widths, reader):
                continue
            if reader.name not in found:
                found.append(reader.name)
                if reader.role in (Role.MOVEMENT, Role.JOIN):
                    pending.extend(reader.writes)
    return found


def _survives(planner: Planner, join: Group, widths: list[float], reader: Group) -> bool:
    """Whether what a product makes of the branches survives one scale for all of them."""
    if len(reader.weights) != 1 or reader.reads[0].tensor != join.writes[0]:
        return False
    node = planner.nodes[reader.name]
    weight = planner.constant(reader.weights[0]).astype(np.float64)
    if node.op_type != "Conv" or node.attributes.get_int("group", 1) != 1:
        return False
    concat = planner.nodes[join.name]
    if concat.attributes.get_int("axis", 1) not in (1, 1 - weight.ndim):
        return False
    channels: list[int] = []
    for value in concat.inputs:
        shape = known_shape(value) if value is not None else None
        size = shape[1] if shape is not None and len(shape) > 1 else None
        if not isinstance(size, int):
            return False
        channels.append(size)
    power = np.square(weight).sum(axis=tuple(i for i in range(weight.ndim) if i != 1))
    if sum(channels) != len(power):
        return False
    ends = pairwise(np.cumsum([0, *channels]))
    by_branch = [float(power[start:end].sum()) for start, end in ends]
    signal = sum((w / _PEAK) ** 2 * p for w, p in zip(widths, by_branch, strict=True))
    step = 2 * max(widths) / 255
    noise = step**2 / 12 * sum(by_branch)
    return noise == 0 or 10 * math.log10(max(signal, 1e-300) / noise) >= _LEAST_DECIBELS
