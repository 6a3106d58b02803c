"""The shape of a broadcast, as far as it is certain."""

from collections.abc import Sequence

from graphopt.shapes import arithmetic
from graphopt.shapes.expression import Dim, Expression, lower_bound

Dims = tuple[Dim, ...]


class Contradiction(Exception):  # noqa: N818 - not an error until the caller says so
    """The dims cannot come together whatever the sizes."""


def broadcast_dim(a: Dim, b: Dim, nonempty: bool = False) -> Dim:
    """The dim of the result where these two meet; None if it depends on the run.

    Args:
        a: one dim.
        b: the other.
        nonempty: take both to be at least 1. Then the result is the larger one: equal to the
            other, or that is stretched to it.

    Raises:
        Contradiction: two integers that differ, neither of them 1.
    """
    if isinstance(a, int) and isinstance(b, int):
        if a == b or b == 1:
            return a
        if a == 1:
            return b
        raise Contradiction
    if a == 1 and isinstance(a, int):
        return b
    if b == 1 and isinstance(b, int):
        return a
    if isinstance(a, Expression) and a == b:
        return a
    for one, other in ((a, b), (b, a)):
        # Never 1, so the other one is stretched to it, or equal. (0 is not stretched either.)
        if isinstance(one, int) or (lower_bound(one) or 0) >= 2:
            return one
        # `other` is Min(constant, one), e.g. a table of positions cut to the length: equal, or
        # 1, or 0 exactly where `one` is.
        if isinstance(one, Expression) and isinstance(other, Expression):
            cut = arithmetic.minimum(one, other) == other
            rest = [argument for argument in arithmetic.minimum_arguments(other) if argument != one]
            if cut and rest and all(isinstance(r, int) and r >= 1 for r in rest):
                return one
    if nonempty and a is not None and b is not None:
        return arithmetic.maximum(a, b)
    return None


def broadcast(shapes: Sequence[Dims | None], nonempty: bool = False) -> Dims | None:
    """The shape of the broadcast of all; None if a rank is unknown.

    `nonempty` is that of `broadcast_dim`.

    Raises:
        Contradiction: the shapes cannot be broadcast whatever the sizes.
    """
    if any(shape is None for shape in shapes) or not shapes:
        return None
    known = [shape for shape in shapes if shape is not None]
    rank = max(len(shape) for shape in known)
    result: list[Dim] = [1] * rank
    for shape in known:
        offset = rank - len(shape)
        for axis, dim in enumerate(shape):
            result[offset + axis] = broadcast_dim(result[offset + axis], dim, nonempty)
    return tuple(result)
