"""A rule: how an operator relates axes, and how its node changes when indices go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from graphopt.graph import ir
from graphopt.pruning.propagation.place import Place


class Change(Protocol):
    """What is removed around one node, and the means to adapt it.

    `kept_input(i, axis)` and `kept_output(i, axis)` are the indices that stay, in ascending
    order; None where all stay. Sizes are those from before.
    """

    node: ir.Node
    version: int

    def kept_input(self, index: int, axis: int) -> np.ndarray | None:
        """The indices of an input's axis that stay; None if all."""

    def kept_output(self, index: int, axis: int) -> np.ndarray | None:
        """The indices of an output's axis that stay; None if all."""

    def input_shape(self, index: int) -> tuple[int | None, ...]:
        """The shape of an input before; None for a dim that is not fixed."""

    def output_shape(self, index: int) -> tuple[int | None, ...]:
        """The shape of an output before; None for a dim that is not fixed."""

    def same_dim(self, axis: int) -> bool:
        """Whether that axis of the first input and of the first output have one size."""

    def constant(self, index: int) -> np.ndarray | None:
        """The data of a small constant input."""

    def set_constant(self, index: int, array: np.ndarray) -> None:
        """Give the node a constant of its own as that input."""

    def set_attribute(self, name: str, value: int | Sequence[int]) -> None:
        """Give an attribute another value."""

    def remove_attribute(self, name: str) -> None:
        """Take an attribute away."""

    def become_gather(self, axis: int, indices: np.ndarray) -> None:
        """Make the node a Gather of these indices from its first input."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How an operator relates axes, and what in its node depends on their sizes.

    Attributes:
        relate: adds relations; raises NotUnderstood where it cannot say.
        adapt: changes attributes and constants; None where a node never needs it.
    """

    relate: Callable[[Place], None]
    adapt: Callable[[Change], None] | None = None


def standard(names: Sequence[str], rule: Rule) -> dict[tuple[str, str], Rule]:
    """The rule for operators of ONNX's own domain."""
    return {("", name): rule for name in names}
