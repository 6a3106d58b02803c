"""Importance: in which order the units of a group go, and what that costs its consumers.

    error(u) = sum over consumers  tr( W_u^T ((H^-1)_uu)^-1 W_u ) / var(Y)      H = cov(X)

is the least-squares error that removing unit u adds to the consumers' outputs when the units that
stay take over what they can (the optimal-brain-surgeon score for a block of columns). After each
removal W and H^-1 are those of the units left, so the order is a greedy backward elimination.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from graphopt.graph import ir
from graphopt.pruning.groups import CouplingGroup, Groups
from graphopt.pruning.linear_layers import Layer, layers_of
from graphopt.runtime import SecondMoment

RIDGE = 1e-4
"""Added to the diagonal of H, relative to its mean: what 1e4 rows cannot tell from noise."""

FEW = 8
"""Rows for each column below which a covariance is shrunk: least squares then promise a quarter
less error than there will be, (1 - 1/8) / (1 + 1/8), and soon much less."""

_STEPS = 96


@dataclass(frozen=True, eq=False)
class Ranking:
    """The order in which the units of a group go.

    Attributes:
        order: all units, the first to go first.
        errors: [channels + 1], the error after so many removals, never falling; its unit is
            the same within a group only.
    """

    order: np.ndarray
    errors: np.ndarray

    def kept(self, count: int) -> np.ndarray:
        """The units that stay when so many do, ascending."""
        return np.sort(self.order[len(self.order) - count :])


def ranked(scores: Mapping[str, np.ndarray]) -> dict[str, Ranking]:
    """Rankings from one score for each unit: the errors are the sums of what went, squared."""
    found: dict[str, Ranking] = {}
    for name, score in scores.items():
        order = np.argsort(score, kind="stable")
        squared = np.asarray(score, np.float64)[order] ** 2
        total = max(float(squared.sum()), 1e-30)
        found[name] = Ranking(order, np.concatenate([[0.0], np.cumsum(squared) / total]))
    return found


def second_order_rankings(
    model: ir.Model,
    groups: Groups,
    moments: Mapping[str, SecondMoment],
    *,
    ridge: float = RIDGE,
    fallback: Mapping[str, np.ndarray] | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, Ranking], dict[str, str]]:
    """For each prunable group's name its ranking; and, by name, why one has none of this kind.

    Args:
        model: the model in which the groups were found.
        groups: of `find_groups`.
        moments: of `consumer_moments`.
        ridge: see `RIDGE`.
        fallback: scores for groups none of whose consumers has a moment.
        progress: called with the number of groups done.
    """
    layers, _ = layers_of(model.graph)
    found: dict[str, Ranking] = {}
    reasons: dict[str, str] = {}
    for number, group in enumerate(groups.prunable):
        systems = _systems(group, layers, moments, ridge)
        if systems:
            found[group.name] = _eliminate(systems, group.channels)
        else:
            reasons[group.name] = "no consumer of the group is a layer that can be refitted"
            if fallback is not None and group.name in fallback:
                found.update(ranked({group.name: fallback[group.name]}))
        if progress is not None:
            progress(number + 1)
    return found, reasons


class System:
    """One consumer's least squares: what it loses when blocks of its columns go.

    Args:
        covariance: [columns, columns], of X (about zero where there is no bias to take up means).
        weight: [columns, outputs].
        blocks: [channels, k], the columns of each unit.
        ridge: added to the diagonal, relative to its mean.
    """

    def __init__(
        self, covariance: np.ndarray, weight: np.ndarray, blocks: np.ndarray, ridge: float
    ) -> None:
        variance = float(np.einsum("io,ij,jo->", weight, covariance, weight, optimize=True))
        self._scale = 1.0 / max(variance, 1e-30)
        level = max(float(np.trace(covariance)) / len(covariance), 1e-30)
        self._inverse = np.linalg.inv(covariance + ridge * level * np.eye(len(covariance)))
        # A column of zeros has been moved nowhere: the ridge alone must not make it costly.
        self._weight = weight - ridge * level * (self._inverse @ weight)
        self._blocks = blocks

    def errors(self, alive: np.ndarray) -> np.ndarray:
        """The error that each of these units adds when it goes next."""
        blocks = self._blocks[alive]
        inner = self._inverse[blocks[:, :, None], blocks[:, None, :]]
        weight = self._weight[blocks]
        return np.asarray((weight * np.linalg.solve(inner, weight)).sum((1, 2)) * self._scale)

    def remove(self, units: np.ndarray) -> None:
        """Take units away; those left take over what they can."""
        columns = self._blocks[units].reshape(-1)
        inner = self._inverse[np.ix_(columns, columns)]
        across = self._inverse[:, columns]
        solved = np.linalg.solve(inner, across.T)
        self._weight -= solved.T @ self._weight[columns]
        self._inverse -= across @ solved
        self._weight[columns] = 0.0
        self._inverse[columns, :] = 0.0
        self._inverse[:, columns] = 0.0


def _systems(
    group: CouplingGroup,
    layers: Mapping[str, Layer],
    moments: Mapping[str, SecondMoment],
    ridge: float,
) -> list[System]:
    systems: list[System] = []
    for member in group.consumers:
        layer, moment = layers.get(member.node), moments.get(member.node)
        if layer is None or moment is None or member.axis != layer.input_axis:
            continue
        covariance = covariance_of(moment, centred=layer.bias is not None)
        blocks = layer.columns_of(member.indices)
        matrix = layer.matrix()
        systems += [
            System(covariance[number], matrix[number], blocks, ridge)
            for number in range(layer.groups)
        ]
    return systems


def covariance_of(moment: SecondMoment, *, centred: bool) -> np.ndarray:
    """[groups, columns, columns]: E[x x^T], less the product of the means where centred.

    With few rows for each column, columns seem to stand in for each other that do so in these rows
    alone: what is off the diagonal is shrunk towards 0 then, by columns / (columns + rows).
    """
    covariance = moment.matrix / moment.rows
    if centred:
        mean = moment.sums / moment.rows
        covariance = covariance - mean[:, :, None] * mean[:, None, :]
    columns = covariance.shape[1]
    if moment.rows < FEW * columns:
        diagonal = covariance * np.eye(columns)
        covariance = diagonal + (covariance - diagonal) * moment.rows / (columns + moment.rows)
    return covariance


def _eliminate(systems: list[System], channels: int) -> Ranking:
    alive = np.arange(channels)
    order: list[int] = []
    errors = [0.0]
    at_once = max(1, channels // _STEPS)
    while len(alive):
        scores = np.maximum(sum(system.errors(alive) for system in systems), 0.0)
        worst = np.argsort(scores, kind="stable")[:at_once]
        gone = alive[worst]
        for system in systems:
            system.remove(gone)
        order += gone.tolist()
        errors += (errors[-1] + np.cumsum(scores[worst])).tolist()
        alive = np.delete(alive, worst)
    return Ranking(np.asarray(order), np.asarray(errors))
