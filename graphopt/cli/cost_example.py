"""Numbers to look at for a model with free dims: the same counts at sizes of our choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphopt.errors import ShapeError

if TYPE_CHECKING:
    from graphopt.cost import Cost

_INNER_SIZES = (64, 224, 256, 16, 1)
"""What to try for dims other than the first: lengths and heights; not every one suits a model."""


@dataclass(frozen=True)
class Example:
    """Counts without free dims, and the sizes that were taken for these.

    Attributes:
        cost: the counts; all of them are integers.
        sizes: sizes of free dims of the inputs, `batch=1`; empty where there are none.
        guessed: free dims that depend on data, which are taken for 1.
    """

    cost: Cost
    sizes: dict[str, int]
    guessed: tuple[str, ...]

    @property
    def text(self) -> str:
        """`batch=1, sequence=64`; empty where nothing had to be chosen."""
        given = [f"{name}={size}" for name, size in self.sizes.items()]
        return ", ".join([*given, *["1 for what depends on data"] * bool(self.guessed)])


def example_of(cost: Cost, count: Callable[[dict[str, int]], Cost]) -> Example:
    """The counts at 1 for the first dim of each input, and at a common size for the others.

    Args:
        cost: the counts with their free dims.
        count: counts the same model with these further sizes; it may raise `ShapeError`.
    """
    for sizes in _assignments(cost):
        try:
            found = count(sizes) if sizes else cost
        except ShapeError:
            continue
        break
    else:
        sizes, found = {}, cost
    guessed = found.symbols
    return Example(found.at(dict.fromkeys(guessed, 1)), sizes, guessed)


def _assignments(cost: Cost) -> Iterator[dict[str, int]]:
    from graphopt.cost import Quantity

    leading: dict[str, None] = {}
    others: dict[str, None] = {}
    for _, shape in cost.inputs:
        for axis, dim in enumerate(shape or ()):
            if isinstance(dim, Quantity):
                (leading if axis == 0 else others).update(dict.fromkeys(dim.symbols))
    inner = [name for name in others if name not in leading]
    for size in _INNER_SIZES:
        yield dict.fromkeys(leading, 1) | dict.fromkeys(inner, size)
