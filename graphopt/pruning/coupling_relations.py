"""What the rules of operators say about axes: the constraints that the solver works on.

    tie(a, b)           index i of a goes with index i of b
    product(p, f...)    p is the row-major product of the factors f
    match(a, i, b, j)   index i[n] of a goes with index j[n] of b, for every n
    freeze(a, reason)   no index of a may go

An axis is a number; it belongs to a tensor, or is virtual (the groups of a convolution, the
heads inside a projection's columns).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.pruning.groups import Role


@dataclass(frozen=True, slots=True)
class Product:
    """An axis that is the row-major product of others."""

    axis: int
    factors: tuple[int, ...]
    place: str


@dataclass(frozen=True, slots=True)
class Match:
    """Indices of one axis that go with indices of another."""

    first: int
    first_indices: np.ndarray
    second: int
    second_indices: np.ndarray


@dataclass(frozen=True, slots=True)
class Owner:
    """The tensor axis that an axis stands for; `node` and `input` only for a separate use."""

    value: str
    axis: int
    parameter: bool
    node: str = ""
    input: int | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """One role that a tensor axis plays for a node."""

    role: Role
    node: str
    order: int
    input: int


class Relations:
    """The constraints of one model.

    Attributes:
        sizes: for each axis how many indices it has.
        owners: for each axis the tensor axis it stands for; None if it is virtual.
        uses: for each axis the roles it plays.
        reasons: every reason for a freeze, the earliest first.
        frozen: for a frozen axis the place of its reason in `reasons`.
        constants: computed tensors whose numbers a rule relied on.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.owners: list[Owner | None] = []
        self.uses: dict[int, list[Use]] = {}
        self.reasons: list[str] = []
        self.frozen: dict[int, int] = {}
        self.frozen_indices: list[tuple[int, np.ndarray, int]] = []
        self.products: list[Product] = []
        self.matches: list[Match] = []
        self.preferred: set[int] = set()
        self.constants: dict[str, np.ndarray] = {}
        self._parents: list[int] = []
        self._reason_numbers: dict[str, int] = {}

    def axis(self, size: int, owner: Owner | None = None) -> int:
        """A new axis."""
        self.sizes.append(size)
        self.owners.append(owner)
        self._parents.append(len(self._parents))
        return len(self.sizes) - 1

    def find(self, axis: int) -> int:
        """The axis that stands for all that are tied to this one."""
        parents = self._parents
        while parents[axis] != axis:
            parents[axis] = parents[parents[axis]]
            axis = parents[axis]
        return axis

    def tie(self, first: int, second: int) -> None:
        """The two axes have the same indices in the same order."""
        if self.sizes[first] != self.sizes[second]:
            raise AssertionError("axes of different sizes cannot be tied")
        first, second = self.find(first), self.find(second)
        # The earlier axis stands for both, whatever the order of the ties.
        self._parents[max(first, second)] = min(first, second)

    def reason(self, text: str) -> int:
        """The number of a reason."""
        number = self._reason_numbers.setdefault(text, len(self.reasons))
        if number == len(self.reasons):
            self.reasons.append(text)
        return number

    def freeze(self, axis: int, reason: str, indices: np.ndarray | None = None) -> None:
        """No index of the axis may go, or none of `indices`."""
        number = self.reason(reason)
        if indices is None:
            self.frozen.setdefault(axis, number)
        else:
            self.frozen_indices.append((axis, indices, number))

    def product(self, axis: int, factors: Sequence[int], place: str) -> None:
        """The axis is the row-major product of the factors."""
        if self.sizes[axis] != int(np.prod([self.sizes[factor] for factor in factors])):
            raise AssertionError("the factors of an axis must multiply to its size")
        self.products.append(Product(axis, tuple(factors), place))

    def match(
        self, first: int, first_indices: np.ndarray, second: int, second_indices: np.ndarray
    ) -> None:
        """Indices of one axis go with indices of another."""
        self.matches.append(Match(first, first_indices, second, second_indices))

    def use(self, axis: int, use: Use) -> None:
        """The axis plays a role for a node."""
        self.uses.setdefault(axis, []).append(use)
