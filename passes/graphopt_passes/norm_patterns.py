"""Patterns of how exporters write norms, for the passes that put one operator in their place."""

from __future__ import annotations

from graphopt.plugin import Pattern, constant, one_of, op
from graphopt_passes.operands import is_number


def root_of_mean_square(pattern: Pattern, label: str) -> Pattern:
    """sqrt(mean(v^2) + e): its ReduceMean has the label, the constant e the label `epsilon`.

    The square is Pow(v, 2) or v*v.
    """
    return op("Sqrt", shifted_mean_square(pattern, label))


def shifted_mean_square(pattern: Pattern, label: str) -> Pattern:
    """mean(v^2) + e, labelled as in `root_of_mean_square`."""
    square = one_of(op("Pow", pattern, constant(where=is_number(2))), op("Mul", pattern, pattern))
    mean = op("ReduceMean", square, label=label)
    return op("Add", mean, constant("epsilon"), commutative=True)


def inverse(pattern: Pattern) -> Pattern:
    """1 / v, in either spelling."""
    return one_of(op("Reciprocal", pattern), op("Div", constant(where=is_number(1)), pattern))


def quotient(dividend: Pattern, divisor: Pattern) -> Pattern:
    """The quotient u / v, or u times the inverse of v."""
    return one_of(
        op("Div", dividend, divisor), op("Mul", dividend, inverse(divisor), commutative=True)
    )


def at_once(data: Pattern, mean: Pattern, deviation: Pattern) -> Pattern:
    """x*k + (b - mean*k), k = g / deviation; g has the label `scale`, b the label `bias`."""
    slope = op("Mul", inverse(deviation), constant("scale"), commutative=True)
    return op(
        "Add",
        op("Mul", data, slope, commutative=True),
        op("Sub", constant("bias"), op("Mul", mean, slope, commutative=True)),
        commutative=True,
    )
