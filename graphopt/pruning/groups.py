"""Coupling groups: the channels of a model that can only be removed together.

    group = {unit u} x {(tensor, axis)} -> indices[u] of that axis

Removing unit `u` of a group removes `indices[u]` from the axis of every member. Groups of one
model may share an axis (the two parts of a Concat do), never an index of it, so any choice of
units in any groups can be removed at once.

Values and nodes are named, not held, so a group found in a model speaks of its copies as well.
A node's name here is the name of its first output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import overload

import numpy as np

from graphopt.errors import UsageError


class Role(StrEnum):
    """What an axis of a tensor is to the channels of a group."""

    PRODUCER = "producer"
    """The output axis of a weight: one channel is a filter, or a column of a product."""
    CONSUMER = "consumer"
    """The input axis of a weight: one channel is what the weight multiplies that channel by."""
    VECTOR = "vector"
    """Per-channel numbers: a bias, a scale, a norm's statistics, a slope, an Add's constant."""
    STORED = "stored"
    """A constant that a weight or a vector is computed from: what a DequantizeLinear reads."""
    ACTIVATION = "activation"
    """Anything that is computed at run time."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One axis of one tensor that goes with a group's channels.

    Attributes:
        value: the tensor's name: an initializer, a Constant's output, or an activation.
        axis: which axis of it, counted from 0.
        indices: integers [channels, k]: row `u` holds the indices of the axis that go with
            unit `u` (k is H*W for the rows after a Flatten, 1 for a plain convolution).
        role: what the axis is to the node that uses it.
        node: the node that uses the tensor in that role; "" for an activation.
        input: which input of that node the tensor is; None for an activation.
        separate: the tensor is a vector that several nodes use, and this member speaks of this
            use alone: where the uses disagree the vector is copied.
    """

    value: str
    axis: int
    indices: np.ndarray
    role: Role = Role.ACTIVATION
    node: str = ""
    input: int | None = None
    separate: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class CouplingGroup:
    """Channels tied together through the whole model.

    Attributes:
        name: the first node that produces the channels, in the model's order; with `#2`, `#3`
            for further groups of the same producer (the parts of a Split, say).
        channels: how many units there are; at least one must stay.
        members: every (tensor, axis) that the units reach, producers first.
        frozen_reason: why no unit can be removed; None where units can be.
    """

    name: str
    channels: int
    members: tuple[Member, ...] = field(repr=False)
    frozen_reason: str | None = None

    def of_role(self, role: Role) -> tuple[Member, ...]:
        """The members in one role, in the model's order."""
        return tuple(member for member in self.members if member.role is role)

    @property
    def producers(self) -> tuple[Member, ...]:
        """Weights whose output axis the channels are."""
        return self.of_role(Role.PRODUCER)

    @property
    def consumers(self) -> tuple[Member, ...]:
        """Weights whose input axis the channels are."""
        return self.of_role(Role.CONSUMER)

    @property
    def vectors(self) -> tuple[Member, ...]:
        """Constants with one number for each channel."""
        return self.of_role(Role.VECTOR)


class Groups(Sequence[CouplingGroup]):
    """The coupling groups of a model, in the order of their first producers.

    Attributes:
        shapes: for each tensor of the main graph its sizes; a dim that is not fixed is a
            negative number, the same for equal dims.
        constants: what arithmetic on shapes says of small tensors that are not stored.
    """

    def __init__(
        self,
        groups: Sequence[CouplingGroup],
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        constants: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._groups = tuple(groups)
        self.shapes = dict(shapes or {})
        self.constants = dict(constants or {})
        self._by_name = {group.name: group for group in self._groups}

    def __len__(self) -> int:
        return len(self._groups)

    @overload
    def __getitem__(self, index: int) -> CouplingGroup: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[CouplingGroup, ...]: ...

    def __getitem__(self, index: int | slice) -> CouplingGroup | tuple[CouplingGroup, ...]:
        return self._groups[index]

    def __iter__(self) -> Iterator[CouplingGroup]:
        return iter(self._groups)

    def named(self, name: str) -> CouplingGroup:
        """The group of that name.

        Raises:
            UsageError: there is none.
        """
        found = self._by_name.get(name)
        if found is None:
            raise UsageError(
                f"there is no coupling group '{name}'; `graphopt prune --explain` lists them"
            )
        return found

    def with_frozen(self, reasons: Mapping[str, str]) -> Groups:
        """A copy in which the named groups cannot be pruned either, for these reasons."""
        groups = [
            replace(group, frozen_reason=reasons[group.name])
            if group.name in reasons and group.frozen_reason is None
            else group
            for group in self._groups
        ]
        return Groups(groups, self.shapes, self.constants)

    @property
    def prunable(self) -> tuple[CouplingGroup, ...]:
        """The groups that units can be removed from."""
        return tuple(group for group in self._groups if group.frozen_reason is None)


Kept = Mapping[str, Sequence[int] | np.ndarray]
"""For a group's name the units that stay, in ascending order; groups left out keep all."""


def check_kept(groups: Groups, kept: Kept) -> dict[str, np.ndarray]:
    """`kept` as sorted arrays, without the groups that keep everything.

    Raises:
        UsageError: an unknown or frozen group, a unit out of range, or no unit left.
    """
    checked: dict[str, np.ndarray] = {}
    for name, units in kept.items():
        group = groups.named(name)
        wanted = np.unique(np.asarray(units, dtype=np.int64))
        if not wanted.size:
            raise UsageError(f"group '{name}' would lose all its channels; keep at least one")
        if wanted[0] < 0 or wanted[-1] >= group.channels:
            raise UsageError(f"group '{name}' has units 0 to {group.channels - 1}")
        if len(wanted) == group.channels:
            continue
        if group.frozen_reason is not None:
            raise UsageError(f"group '{name}' cannot be pruned: {group.frozen_reason}")
        checked[name] = wanted
    return checked
