"""Numbers that may depend on free dims: polynomials with integer coefficients, exact.

A count of a model whose dims are all known is a plain `int`. Where dims are free it is a
`Quantity`, a polynomial (`10368*batch`), printed in a normal form: equal polynomials print equal.
The variables are dims, so they are integers >= 0, and `floor`, `Max` and `Min` of such
polynomials.

Unlike `graphopt.shapes.arithmetic`, which gives up on large expressions because a dim is of no
use then, nothing here is ever given up: a total is the sum over all nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from graphopt.shapes.dim_text import declared_name, safe_name
from graphopt.shapes.expression import (
    FLOOR,
    MAXIMUM,
    MINIMUM,
    Call,
    Expression,
    Monomial,
    Variable,
    lower_bound,
    monomial_order,
    variable_text,
)

_MAX_COMPARED = 16
"""Among more candidates than this for a largest number, only coefficients are compared."""

_PLAIN = re.compile(r"\w[\w.]*(\[\d+\])?'*|(trips|bytes)\([\w.]+\)'*")

_MAX_COVERS = 64

_ESCAPED = re.compile(r"\b_x_\w+")


class Quantity:
    """A number that depends on free dims. Immutable; equal where the polynomials are.

    Supports `+`, `-`, `*` and `//` with integers and other quantities, `**` with an integer, and
    `max` through `maximum`. A result that does not depend on any dim is a plain `int`. Whatever
    needs one number (an order, a division, `int`) is a TypeError: use `at` first. Made by `free`.
    """

    __slots__ = ("_expression", "_terms")

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self._terms = terms
        self._expression: Expression | None = None

    @property
    def symbols(self) -> tuple[str, ...]:
        """The names of the dims that it depends on, sorted."""
        return tuple(sorted(declared_name(name) for name in self._known().symbols()))

    def at(self, sizes: Mapping[str, int]) -> Number:
        """The number at these sizes of the dims; dims that `sizes` does not name stay free."""
        values: dict[Variable, Number] = {}
        result: list[Number] = []
        for monomial, coefficient in self._terms.items():
            term: Number = coefficient
            for variable, power in monomial:
                if variable not in values:
                    values[variable] = _variable_at(variable, sizes)
                for _ in range(power):
                    term = term * values[variable]
            result.append(term)
        return total(result)

    def __add__(self, other: Number) -> Number:
        return total((self, other))

    __radd__ = __add__

    def __neg__(self) -> Number:
        return self * -1

    def __sub__(self, other: Number) -> Number:
        return total((self, other * -1))

    def __rsub__(self, other: Number) -> Number:
        return total((other, self * -1))

    def __mul__(self, other: Number) -> Number:
        if not isinstance(other, Quantity):
            if other == 1:
                return self
            return _make({monomial: c * other for monomial, c in self._terms.items()})
        terms: dict[Monomial, int] = {}
        for monomial, coefficient in self._terms.items():
            for other_monomial, factor in other._terms.items():
                merged = _merged(monomial, other_monomial)
                terms[merged] = terms.get(merged, 0) + coefficient * factor
        return _make(terms)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: Number) -> Number:
        return _floor_divided(self, divisor)

    def __rfloordiv__(self, dividend: Number) -> Number:
        return _floor_divided(dividend, self)

    def __pow__(self, power: int) -> Number:
        return product([self] * power)

    def _needs_a_number(self, *_: object) -> Any:
        raise TypeError(
            f"'{self}' is not one number: evaluate it first, with .at({{'{self.symbols[0]}': 1}})"
        )

    __lt__ = __le__ = __gt__ = __ge__ = __truediv__ = __rtruediv__ = _needs_a_number
    __int__ = __float__ = __index__ = _needs_a_number

    def __format__(self, spec: str) -> str:
        # `{number:,}` writes an int; a quantity is written as it is.
        return str(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self._terms == other._terms

    def __hash__(self) -> int:
        return hash(frozenset(self._terms.items()))

    def __str__(self) -> str:
        return _ESCAPED.sub(lambda found: _printed(declared_name(found[0])), self._known().text)

    def __repr__(self) -> str:
        return f"Quantity('{self}')"

    def _known(self) -> Expression:
        """As an expression, whose normal form is worth its price only where it is looked at."""
        if self._expression is None:
            ordered = sorted(self._terms.items(), key=lambda item: monomial_order(item[0]))
            self._expression = Expression(tuple(ordered))
        return self._expression


def _printed(name: str) -> str:
    """A dim's name in an expression: quoted where it could be taken for a part of it."""
    return name if _PLAIN.fullmatch(name) else f"'{name}'"


Number = int | Quantity
"""An exact count: an `int`, or a `Quantity` where it depends on free dims."""


def free(name: str) -> Quantity:
    """The quantity that is the dim `name` itself."""
    return Quantity({((safe_name(name), 1),): 1})


def of_expression(dim: int | Expression) -> Number:
    """A dim of `graphopt.shapes` as a number."""
    return Quantity(dict(dim.terms)) if isinstance(dim, Expression) else dim


def total(numbers: Iterable[Number]) -> Number:
    """The sum, in one pass however many there are."""
    constant = 0
    terms: dict[Monomial, int] = {}
    for number in numbers:
        if isinstance(number, Quantity):
            for monomial, coefficient in number._terms.items():
                terms[monomial] = terms.get(monomial, 0) + coefficient
        else:
            constant += number
    if not terms:
        return constant
    if constant:
        terms[()] = terms.get((), 0) + constant
    return _make(terms)


def product(numbers: Iterable[Number]) -> Number:
    """The product, 1 for none."""
    result: Number = 1
    for number in numbers:
        result = result * number
    return result


def maximum(a: Number, b: Number) -> Number:
    """The larger of two; `Max(a, b)` where that depends on the dims."""
    return _extreme(MAXIMUM, a, b)


def largest(numbers: Iterable[Number]) -> Number:
    """The largest of any number of counts, 0 for none; faster than one `maximum` after another.

    The counts must not be negative.
    """
    candidates = set(numbers)
    # What has the larger coefficients is seldom dominated: then few comparisons are needed.
    ordered = sorted(candidates, key=lambda number: (-sum(_terms(number).values()), str(number)))
    kept: list[Number] = []
    for candidate in ordered:
        terms = _terms(candidate)
        # Past a point pruning costs more than the expression gets shorter by it.
        if not any(_covers(_terms(other), terms) for other in kept[:_MAX_COVERS]):
            kept.append(candidate)
    result: Number = 0
    if len(kept) > _MAX_COMPARED:
        return _call(MAXIMUM, *sorted(kept, key=str))
    for number in kept:
        result = maximum(result, number)
    return result


def _covers(larger: Mapping[Monomial, int], terms: Mapping[Monomial, int]) -> bool:
    """Whether no coefficient is above its counterpart: enough, since no variable is negative."""
    return all(
        coefficient <= larger.get(monomial, 0) for monomial, coefficient in terms.items()
    ) and all(coefficient >= 0 or monomial in terms for monomial, coefficient in larger.items())


def minimum(a: Number, b: Number) -> Number:
    """The smaller of two; `Min(a, b)` where that depends on the dims."""
    return _extreme(MINIMUM, a, b)


def evaluated(number: Number, sizes: Mapping[str, int]) -> Number:
    """`number` at these sizes; an `int` is what it is."""
    return number.at(sizes) if isinstance(number, Quantity) else number


def at_least(a: Number, b: Number) -> bool:
    """Whether a >= b for all sizes of the dims, as far as bounds and signs show it."""
    difference = a - b
    if isinstance(difference, Quantity):
        low = lower_bound(difference._known())
        return low is not None and low >= 0
    return difference >= 0


def _terms(number: Number) -> Mapping[Monomial, int]:
    return number._terms if isinstance(number, Quantity) else {(): number}


def _make(terms: dict[Monomial, int]) -> Number:
    if 0 in terms.values():
        terms = {monomial: coefficient for monomial, coefficient in terms.items() if coefficient}
    if not terms:
        return 0
    if len(terms) == 1 and () in terms:
        return terms[()]
    return Quantity(terms)


def _merged(a: Monomial, b: Monomial) -> Monomial:
    if not a or not b:
        return a or b
    powers: dict[Variable, int] = dict(a)
    for variable, power in b:
        powers[variable] = powers.get(variable, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: variable_text(item[0])))


def _known(number: Number) -> int | Expression:
    return number._known() if isinstance(number, Quantity) else number


def _call(function: str, *arguments: Number) -> Quantity:
    call = Call(function, tuple(_known(argument) for argument in arguments))
    return Quantity({((call, 1),): 1})


def _floor_divided(dividend: Number, divisor: Number) -> Number:
    if isinstance(dividend, int) and isinstance(divisor, int):
        return dividend // divisor
    if isinstance(divisor, int) and divisor > 0:
        terms = _terms(dividend)
        if all(coefficient % divisor == 0 for coefficient in terms.values()):
            return _make({m: coefficient // divisor for m, coefficient in terms.items()})
    if dividend == divisor:
        return 1
    return _call(FLOOR, dividend, divisor)


def _extreme(function: str, a: Number, b: Number) -> Number:
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b) if function == MAXIMUM else min(a, b)
    if at_least(a, b):
        return a if function == MAXIMUM else b
    if at_least(b, a):
        return b if function == MAXIMUM else a
    kept: list[Number] = []
    for candidate in (*_arguments(function, a), *_arguments(function, b)):
        if any(_loses(function, candidate, other) for other in kept):
            continue
        kept = [other for other in kept if not _loses(function, other, candidate)]
        kept.append(candidate)
    if len(kept) == 1:
        return kept[0]
    return _call(function, *sorted(kept, key=str))


def _arguments(function: str, number: Number) -> tuple[Number, ...]:
    terms = _terms(number)
    monomial = next(iter(terms), ())
    if len(terms) == 1 and terms[monomial] == 1 and len(monomial) == 1 and monomial[0][1] == 1:
        variable = monomial[0][0]
        if isinstance(variable, Call) and variable.function == function:
            return tuple(of_expression(argument) for argument in variable.arguments)
    return (number,)


def _loses(function: str, number: Number, other: Number) -> bool:
    return at_least(other, number) if function == MAXIMUM else at_least(number, other)


def _variable_at(variable: Variable, sizes: Mapping[str, int]) -> Number:
    if isinstance(variable, str):
        size = sizes.get(declared_name(variable))
        return Quantity({((variable, 1),): 1}) if size is None else size
    arguments = [evaluated(of_expression(argument), sizes) for argument in variable.arguments]
    if variable.function == FLOOR:
        return _floor_divided(arguments[0], arguments[1])
    result = arguments[0]
    for argument in arguments[1:]:
        result = _extreme(variable.function, result, argument)
    return result
