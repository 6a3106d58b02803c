"""Formulas that several families share; none of them is a rule.

to one, of n elements        n - 1 (additions, comparisons, ...)
softmax of a row of n        n - 1 comparisons, n subtractions, n exp, n - 1 additions,
                             n divisions: 4n - 2, and n exp
normalized row of n          by its RMS: square, mean, + epsilon, sqrt, divide: 3n + 1, and 1 sqrt;
                             by mean and deviation: mean, x - mean, square, mean, + epsilon, sqrt,
                             1 / that, times that: 5n + 2, and 1 sqrt;
                             n each for a scale and a shift
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

from graphopt.cost.operator import Operator, Rule, Tensor, UnknownShapeError, Work
from graphopt.cost.quantity import Number, maximum, minimum, product

Count = Callable[[Operator], Work]


def combining(size_in: Number, size_out: Number) -> Number:
    """Binary operations that bring `size_in` elements down to `size_out`: n - 1 for each.

    With an empty input there are none; where dims are free they are taken to be at least 1.
    """
    steps = size_in - size_out
    return max(0, steps) if isinstance(steps, int) else steps


def softmax(rows: Number, length: Number) -> tuple[Number, Number]:
    """Elementwise operations and transcendentals of `rows` softmaxes over `length` elements."""
    size = rows * length
    return 2 * combining(size, rows) + 2 * size, size


def normalized(
    size: Number, rows: Number, *, centred: bool, scale: bool = True, shift: bool = False
) -> tuple[Number, Number]:
    """Elementwise operations and transcendentals of `size` elements, normalized in `rows` rows.

    Args:
        size: how many elements there are in all rows together.
        rows: how many rows.
        centred: whether the mean is taken off; otherwise a row is divided by its RMS.
        scale: whether each element is multiplied afterwards by a factor of its own.
        shift: whether something is added to each element afterwards.
    """
    each, per_row = (5, 2) if centred else (3, 1)
    return (each + scale + shift) * size + per_row * rows, rows


def split_at(dims: Sequence[Number], axes: Iterable[int]) -> tuple[Number, Number]:
    """How many groups, and how many elements each, where the `axes` of `dims` form a group."""
    chosen = {axis % len(dims) for axis in axes} if dims else set()
    groups = product(dim for index, dim in enumerate(dims) if index not in chosen)
    return groups, product(dim for index, dim in enumerate(dims) if index in chosen)


def bytes_of(tensor: Tensor, count: Number) -> Number:
    """The bytes that `count` elements of this tensor's type take."""
    return dataclasses.replace(tensor, shape=(count,)).bytes


def overlap_bytes(source: Tensor, target: Tensor) -> Number:
    """The bytes of the part of `source` that fits into `target`, axis by axis."""
    pairs = zip(source.dims, target.dims, strict=True)
    return bytes_of(source, product(minimum(a, b) for a, b in pairs))


def known_number(node: Operator, index: int, name: str) -> Number:
    """The single number in the input at `index`.

    Raises:
        UnknownShapeError: it is left out, or not known before the run.
    """
    elements = node.input(index).elements
    if elements is None or len(elements) != 1 or elements[0] is None:
        raise UnknownShapeError(f"the {name} '{node.input(index).name}' is not known")
    return elements[0]


def known_axis(node: Operator, index: int, rank: int) -> int:
    """The axis in the input at `index`, counted from the front.

    Raises:
        UnknownShapeError: it is left out, or not known before the run.
    """
    axis = known_number(node, index, "axis")
    if not isinstance(axis, int):
        raise UnknownShapeError(f"the axis '{node.input(index).name}' depends on a shape")
    return axis % rank


def ceil_ratio(a: Number, b: Number) -> Number:
    """The ratio a / b, rounded up; b is taken to be at least 1."""
    return (a + b - 1) // maximum(b, 1)


def is_given(node: Operator, name: str) -> bool:
    """Whether the float attribute `name` is there."""
    return not math.isnan(node.number(name, math.nan))


def fixed(domain: str, work: Work, op_types: str) -> tuple[Rule, ...]:
    """One rule for each of the space-separated `op_types`, which all do the same `work`."""
    return tuple(Rule(domain, op_type, lambda node: work) for op_type in op_types.split())
