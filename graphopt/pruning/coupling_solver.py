"""From relations between axes to coupling groups.

    1. ties            -> classes of axes that share their indices
    2. freezes         -> spread over classes through products and whole matches
    3. products        -> of the factors of an axis one may be pruned along; the others freeze
    4. matches, 3      -> edges between (class, index) pairs; connected components are units
    5. units that reach the same axes equally often -> one group

Any solution of a part of the constraints with the rest frozen is a solution of all of them, so a
choice made in step 3 can cost freedom, never correctness.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from graphopt.pruning.coupling_relations import Match, Owner, Relations, Use
from graphopt.pruning.groups import CouplingGroup, Groups, Member, Role

_SINGLE = "it has a single channel"

MAX_LABELS = 1 << 24
"""More indices than this in one axis are not followed."""


def solve(relations: Relations) -> Groups:
    """The groups that the relations leave."""
    return _Solver(relations).groups()


class _Solver:
    def __init__(self, relations: Relations) -> None:
        self._relations = relations
        self._tie_lone_factors()
        self._products: list[tuple[int, tuple[int, ...], str]] = []
        self._containing: dict[int, list[int]] = defaultdict(list)
        self._matches: list[Match] = []
        self._of_match: dict[int, list[int]] = defaultdict(list)
        self._frozen: dict[int, int] = {}
        self._pending: list[int] = []
        self._index()
        self._spread()
        self._choose_factors()
        self._offsets: dict[int, int] = {}
        self._labels = np.zeros(0, np.int64)
        self._reason_of = np.zeros(0, np.int64)
        self._label()

    def _tie_lone_factors(self) -> None:
        """A product with one factor of more than one index is a tie."""
        relations = self._relations
        for product in relations.products:
            wide = [factor for factor in product.factors if relations.sizes[factor] > 1]
            if len(wide) == 1:
                relations.tie(product.axis, wide[0])

    def _index(self) -> None:
        relations, find = self._relations, self._relations.find
        for axis, size in enumerate(relations.sizes):
            if size == 1:
                relations.freeze(axis, _SINGLE)
            elif size > MAX_LABELS:
                relations.freeze(axis, "it is too long to follow")
        for product in relations.products:
            wide = tuple(find(f) for f in product.factors if relations.sizes[f] > 1)
            if len(wide) < 2:
                continue
            number = len(self._products)
            self._products.append((find(product.axis), wide, product.place))
            for axis in {find(product.axis), *wide}:
                self._containing[axis].append(number)
        for match in relations.matches:
            number = len(self._matches)
            first, second = find(match.first), find(match.second)
            self._matches.append(Match(first, match.first_indices, second, match.second_indices))
            for axis in {first, second}:
                self._of_match[axis].append(number)
        for axis, reason in relations.frozen.items():
            self._freeze(find(axis), reason)
        for _, factors, place in self._products:
            for factor in set(factors):
                if factors.count(factor) > 1:
                    text = f"{place} uses it twice in one axis"
                    self._freeze(factor, relations.reason(text))

    def _freeze(self, axis: int, reason: int) -> None:
        known = self._frozen.get(axis)
        if known is None:
            self._pending.append(axis)
        if known is None or reason < known:
            self._frozen[axis] = reason

    def _spread(self) -> None:
        """Freeze what frozen classes leave no freedom."""
        while self._pending:
            axis = self._pending.pop()
            reason = self._frozen[axis]
            for number in self._containing[axis]:
                whole, factors, _ = self._products[number]
                if axis == whole:
                    for factor in factors:
                        self._freeze(factor, reason)
                elif all(factor in self._frozen for factor in factors):
                    self._freeze(whole, min(self._frozen[factor] for factor in factors))
            for number in self._of_match[axis]:
                match = self._matches[number]
                for other, indices in (
                    (match.second, match.second_indices),
                    (match.first, match.first_indices),
                ):
                    size = self._relations.sizes[other]
                    if other not in self._frozen and len(np.unique(indices)) == size:
                        self._freeze(other, reason)

    def _choose_factors(self) -> None:
        """Of each product leave one factor free: heads before others, then the longest."""
        relations = self._relations
        preferred = {relations.find(axis) for axis in relations.preferred}
        factors = {factor for _, parts, _ in self._products for factor in parts}
        order = sorted(factors, key=lambda f: (f not in preferred, -relations.sizes[f], f))
        for chosen in order:
            if chosen in self._frozen:
                continue
            for number in self._containing[chosen]:
                whole, parts, place = self._products[number]
                if chosen not in parts or whole in self._frozen:
                    continue
                text = f"{place} merges it with an axis that is pruned instead"
                for other in parts:
                    if other != chosen and other not in self._frozen:
                        self._freeze(other, relations.reason(text))
            self._spread()

    def _label(self) -> None:
        """Connect (class, index) pairs, and find the components and what freezes them."""
        relations, find = self._relations, self._relations.find
        start = 0
        for axis in range(len(relations.sizes)):
            if find(axis) == axis and axis not in self._frozen:
                self._offsets[axis] = start
                start += relations.sizes[axis]
        never = len(relations.reasons)
        firsts: list[np.ndarray] = []
        seconds: list[np.ndarray] = []
        reason_of = np.full(start, never, np.int64)
        for match in self._matches:
            a, b = self._offsets.get(match.first), self._offsets.get(match.second)
            if a is not None and b is not None:
                firsts.append(a + match.first_indices)
                seconds.append(b + match.second_indices)
            elif a is not None:
                np.minimum.at(reason_of, a + match.first_indices, self._frozen[match.second])
            elif b is not None:
                np.minimum.at(reason_of, b + match.second_indices, self._frozen[match.first])
        for whole, factors, _ in self._products:
            begin = self._offsets.get(whole)
            free = [factor for factor in factors if factor in self._offsets]
            if begin is None or not free:
                continue
            (factor,) = free
            inner = 1
            for later in reversed(factors):
                if later == factor:
                    break
                inner *= relations.sizes[later]
            position = np.arange(relations.sizes[whole])
            firsts.append(begin + position)
            seconds.append(self._offsets[factor] + position // inner % relations.sizes[factor])
        for axis, indices, number in relations.frozen_indices:
            begin = self._offsets.get(find(axis))
            if begin is not None:
                np.minimum.at(reason_of, begin + indices, number)
        empty = [np.zeros(0, np.int64)]
        self._labels = _components(
            start, np.concatenate(firsts or empty), np.concatenate(seconds or empty)
        )
        spread = np.full(start, never, np.int64)
        np.minimum.at(spread, self._labels, reason_of)
        self._reason_of = spread

    def groups(self) -> Groups:
        """Units that reach the same axes, and for the same reason cannot go, are one group."""
        relations = self._relations
        members_of: dict[int, list[int]] = defaultdict(list)
        for axis, owner in enumerate(relations.owners):
            if owner is not None:
                members_of[relations.find(axis)].append(axis)
        drafts = self._frozen_drafts(members_of)
        signature = self._signatures()
        units: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = defaultdict(list)
        for axis, begin in self._offsets.items():
            if axis not in members_of:
                continue
            label = self._labels[begin : begin + relations.sizes[axis]]
            keys = signature[label]
            for key in dict.fromkeys(keys.tolist()):
                positions = np.flatnonzero(keys == key)
                reasons = self._reason_of[label[positions]]
                for reason in np.unique(reasons).tolist():
                    chosen = positions[reasons == reason]
                    units[key, reason].append((axis, chosen))
        for (_, reason), parts in units.items():
            drafts.append(self._draft(parts, reason, members_of))
        return _named([draft for draft in drafts if draft is not None])

    def _signatures(self) -> np.ndarray:
        """For each component a number that tells which axes it reaches, and how often."""
        relations = self._relations
        total = np.zeros(len(self._labels), np.uint64)
        # Fixed random numbers: equal sums of different axes are as good as impossible.
        random = np.random.default_rng(0).integers(
            0, 2**63, size=len(relations.sizes), dtype=np.uint64
        )
        for axis, begin in self._offsets.items():
            label = self._labels[begin : begin + relations.sizes[axis]]
            np.add.at(total, label, random[axis])
        return total

    def _draft(
        self, parts: list[tuple[int, np.ndarray]], reason: int, members_of: dict[int, list[int]]
    ) -> _Draft | None:
        relations = self._relations
        # Units are numbered by where they stand on the first axis.
        first_axis, first_positions = parts[0]
        first_labels = self._labels[self._offsets[first_axis] + first_positions]
        ordered = list(dict.fromkeys(first_labels.tolist()))
        rank = {label: number for number, label in enumerate(ordered)}
        frozen = relations.reasons[reason] if reason < len(relations.reasons) else None
        if frozen is None and len(ordered) == 1:
            frozen = _SINGLE
        draft = _Draft(len(ordered), frozen)
        for axis, positions in parts:
            labels = self._labels[self._offsets[axis] + positions]
            unit = np.fromiter((rank[label] for label in labels.tolist()), np.int64, len(labels))
            indices = positions[np.argsort(unit, kind="stable")].reshape(len(ordered), -1)
            indices.flags.writeable = False
            draft.add(indices, members_of[axis], relations, activations=True)
        return draft if draft.has_weights() else None

    def _frozen_drafts(self, members_of: dict[int, list[int]]) -> list[_Draft | None]:
        relations = self._relations
        drafts: list[_Draft | None] = []
        for axis, members in members_of.items():
            reason = self._frozen.get(axis)
            if reason is None:
                continue
            size = relations.sizes[axis]
            draft = _Draft(size, relations.reasons[reason])
            if any(member in relations.uses for member in members):
                indices = np.arange(size).reshape(size, 1)
                indices.flags.writeable = False
                draft.add(indices, members, relations, activations=False)
            drafts.append(draft if draft.has_weights() else None)
        return drafts


class _Draft:
    """A group before it has a name."""

    def __init__(self, channels: int, frozen_reason: str | None) -> None:
        self.channels = channels
        self.frozen_reason = frozen_reason
        self.members: list[tuple[int, int, Member]] = []

    def add(
        self, indices: np.ndarray, axes: list[int], relations: Relations, *, activations: bool
    ) -> None:
        """Take in the axes of one class."""
        for axis in axes:
            owner = relations.owners[axis]
            if owner is None:
                continue
            uses = relations.uses.get(axis, ())
            for use in uses:
                self.members.append((*_rank(use), _member(owner, indices, use)))
            if not uses and activations:
                role = Role.STORED if owner.parameter else Role.ACTIVATION
                member = Member(
                    owner.value,
                    owner.axis,
                    indices,
                    role,
                    owner.node,
                    owner.input,
                    separate=bool(owner.node),
                )
                self.members.append((_ROLES.index(role), axis, member))

    def has_weights(self) -> bool:
        """Whether there is anything to make smaller."""
        return any(member.role in (Role.PRODUCER, Role.CONSUMER) for *_, member in self.members)

    def key(self) -> tuple[bool, int, int]:
        """Where the group stands among the others."""
        rank, order, member = min(self.members, key=lambda item: item[:2])
        return rank != 0, order, int(member.indices[0, 0])

    def named(self, name: str) -> CouplingGroup:
        """The group."""
        ordered = sorted(self.members, key=lambda item: item[:2])
        members = tuple(member for *_, member in ordered)
        return CouplingGroup(name, self.channels, members, self.frozen_reason)


_ROLES = (Role.PRODUCER, Role.CONSUMER, Role.VECTOR, Role.STORED, Role.ACTIVATION)


def _rank(use: Use) -> tuple[int, int]:
    return _ROLES.index(use.role), use.order


def _member(owner: Owner, indices: np.ndarray, use: Use) -> Member:
    return Member(
        owner.value, owner.axis, indices, use.role, use.node, use.input, separate=bool(owner.node)
    )


def _named(drafts: list[_Draft]) -> Groups:
    drafts.sort(key=_Draft.key)
    taken: dict[str, int] = {}
    groups = []
    for draft in drafts:
        first = min(draft.members, key=lambda item: item[:2])[2]
        name = first.node if first.role is Role.PRODUCER else f"{first.node}:input"
        taken[name] = taken.get(name, 0) + 1
        groups.append(draft.named(name if taken[name] == 1 else f"{name}#{taken[name]}"))
    return Groups(groups)


def _components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """For each of `count` items the smallest item it is connected to."""
    label = np.arange(count)
    while True:
        a, b = label[first], label[second]
        different = a != b
        if not different.any():
            return label
        # Edges inside one component never matter again.
        first, second, a, b = first[different], second[different], a[different], b[different]
        np.minimum.at(label, np.maximum(a, b), np.minimum(a, b))
        while True:
            jumped = label[label]
            if np.array_equal(jumped, label):
                break
            label = jumped
