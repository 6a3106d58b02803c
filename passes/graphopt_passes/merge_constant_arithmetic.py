"""Compute once what is done to one value with two constants, one after the other.

    (x + c) + d   ->  x + (c + d)          and with - in either place
    (x * c) * d   ->  x * (c * d)          and with / in either place, for floats

Declined where the first result is used elsewhere, where the merged constant would be larger than
both together (a row and a column make a matrix), where one is a weight rather than a number or
a bias (over a million elements, which would be held in float64), where it leaves the range of its
type, where two floats nearly cancel (adding 2**23 and taking it away again rounds), and for
integer division, which rounds after each step.
"""

from __future__ import annotations

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Pattern,
    Promise,
    RewritePass,
    Rewriter,
    constant,
    constant_tensor,
    ir,
    one_of,
    op,
    variable,
)
from graphopt_passes.parameters import parameter
from graphopt_passes.scaled_weights import rounded

_LARGEST = 1 << 20
"""Elements of a constant that is merged."""

_LEAST_LEFT = 0.01
"""A sum of two constants below this part of the larger counts as their cancelling."""


def _is_small(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and tensor.size <= _LARGEST


_FIRST, _SECOND = constant("first", where=_is_small), constant("second", where=_is_small)


def _pair(straight: str, inverse: str) -> tuple[Pattern, Pattern]:
    """Patterns for a chain of two operators that undo each other."""
    inner = one_of(
        op(straight, variable("x"), _FIRST, commutative=True, label="inner"),
        op(inverse, variable("x"), _FIRST, label="inner"),
    )
    return op(straight, inner, _SECOND, commutative=True), op(inverse, inner, _SECOND)


class MergeConstantArithmetic(RewritePass):
    """Add or multiply once where two constants are added, or multiplied, in a row."""

    name = "merge-constant-arithmetic"
    promise = Promise.EQUIVALENT
    patterns = (*_pair("Add", "Sub"), *_pair("Mul", "Div"))

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Merge the constants in float64, or in their integers."""
        root, inner = match.root, match.node("inner")
        first = parameter(match.value("first"), "the first constant")
        second = parameter(match.value("second"), "the second constant")
        straight = "Add" if root.op_type in ("Add", "Sub") else "Mul"
        merged = _merged(straight, (inner.op_type, first), (root.op_type, second))
        if merged.size > first.size + second.size:
            raise NotApplicable("the merged constant would be larger than both")
        value = rewriter.initializer(merged, match.value("first").name or "constant")
        rewriter.stand_for([root, inner])
        rewriter.replace(root, rewriter.node(straight, [match.value("x"), value]))


def _merged(
    straight: str, first: tuple[str, np.ndarray], second: tuple[str, np.ndarray]
) -> np.ndarray:
    """The constant to add, or to multiply by, in place of both."""
    dtype = first[1].dtype
    whole = dtype.kind in "iu"
    parts = []
    for op_type, array in (first, second):
        part = array if whole else array.astype(np.float64)
        if op_type == "Sub":
            part = np.negative(part)
        elif op_type == "Div":
            if whole:
                raise NotApplicable("a division of integers rounds")
            if not array.all():
                raise NotApplicable("a constant divides by zero")
            part = 1 / part
        parts.append(part)
    merged = parts[0] + parts[1] if straight == "Add" else parts[0] * parts[1]
    if whole:
        return np.asarray(merged, dtype)
    result = rounded(merged, dtype)
    if not np.isfinite(result).all():
        raise NotApplicable(f"the merged constant overflows {dtype.name}")
    if straight == "Add" and _cancel(*parts):
        raise NotApplicable("the constants cancel, and what they round would not be rounded")
    if straight == "Mul" and bool((result == 0).any()):
        raise NotApplicable(f"the merged constant underflows {dtype.name}")
    return result


def _cancel(first: np.ndarray, second: np.ndarray) -> bool:
    larger = np.maximum(abs(first), abs(second))
    return bool(((abs(first + second) < _LEAST_LEFT * larger) & (larger > 1)).any())
