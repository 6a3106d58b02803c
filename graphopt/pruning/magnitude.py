"""Importance from the weights alone: how large the numbers are that make a channel.

    l1: sum over producers of  mean |w| of the unit / mean |w| of the producer
    l2: the same with sqrt(mean w^2)
    random: drawn from the seed, the control that every other measure has to beat

Each producer's share is relative to its own mean, so that no layer's scale decides for the others.
"""

from __future__ import annotations

import zlib

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph import constant_array, ir
from graphopt.pruning.groups import CouplingGroup, Groups

MAGNITUDES = ("l1", "l2", "random")


def magnitude_scores(
    model: ir.Model, groups: Groups, measure: str, seed: int = 0
) -> dict[str, np.ndarray]:
    """For each prunable group's name the importance of its units, float64 [channels].

    Raises:
        UsageError: there is no such measure.
    """
    if measure not in MAGNITUDES:
        raise UsageError(f"there is no importance '{measure}'; it is one of {MAGNITUDES}")
    arrays = {value.name: value for value in model.graph.initializers.values()}
    arrays |= {v.name: v for node in model.graph for v in node.outputs}
    return {
        group.name: _random(group, seed)
        if measure == "random"
        else _of_group(group, arrays, measure)
        for group in groups.prunable
    }


def _random(group: CouplingGroup, seed: int) -> np.ndarray:
    generator = np.random.default_rng([seed, zlib.crc32(group.name.encode())])
    return generator.random(group.channels)


def _of_group(group: CouplingGroup, values: dict[str | None, ir.Value], measure: str) -> np.ndarray:
    total = np.zeros(group.channels)
    for member in (*group.producers, *group.consumers):
        array = _weight(values.get(member.value))
        if array is None or array.dtype.kind not in "fV":
            continue
        moved = np.moveaxis(np.asarray(array, np.float64), member.axis, 0)
        flat = moved.reshape(len(moved), -1)[member.indices.reshape(-1)]
        flat = flat.reshape(group.channels, -1)
        size = np.abs(flat).mean(1) if measure == "l1" else np.sqrt((flat**2).mean(1))
        mean = size.mean()
        if mean > 0:
            total += size / mean
    return total


def _weight(value: ir.Value | None) -> np.ndarray | None:
    return constant_array(value)
