"""The coupling groups as rows for people and machines."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.pruning.coupling_costs import PruningCosts
from graphopt.pruning.groups import Groups, Member


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group.

    Attributes:
        name: the group.
        channels: how many units it has.
        width: how many indices of its first axis one unit takes.
        producers: the nodes whose weights make the channels.
        consumers: the nodes whose weights take them.
        macs: multiply-accumulates of the nodes that get smaller with the group; 0 if frozen.
        frozen: why it cannot be pruned; "" where it can.
    """

    name: str
    channels: int
    width: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    macs: float
    frozen: str


def explain_groups(groups: Groups, costs: PruningCosts) -> list[GroupRow]:
    """A row for every group, in the model's order."""
    return [
        GroupRow(
            group.name,
            group.channels,
            int(group.members[0].indices.shape[1]),
            _nodes(group.producers),
            _nodes(group.consumers),
            0.0 if group.frozen_reason else costs.macs_of_group(group.name),
            group.frozen_reason or "",
        )
        for group in groups
    ]


def _nodes(members: tuple[Member, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(member.node for member in members))
