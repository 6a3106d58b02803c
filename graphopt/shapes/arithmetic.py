"""Exact arithmetic on dims, in normal form; None wherever a result is not certain."""

import math
from collections.abc import Iterable, Mapping

from graphopt.shapes.expression import (
    FLOOR,
    MAXIMUM,
    MINIMUM,
    Call,
    Dim,
    Expression,
    Known,
    Monomial,
    Variable,
    arguments_of,
    lower_bound,
    monomial_order,
    symbol,
    upper_bound,
    variable_text,
)

# Larger expressions are given up as unknown: they cost time and nobody can use them.
MAX_TERMS = 24


MAX_COEFFICIENT = 2**31


MAX_DEGREE = 12


MAX_DEPTH = 6


def is_non_negative(dim: Dim) -> bool:
    """Whether `dim` is certainly 0 or more."""
    low = lower_bound(dim)
    if low is not None and low >= 0:
        return True
    return isinstance(dim, Expression) and dim.depth > 0 and _floors_cannot_lower(dim)


def _floors_cannot_lower(dim: Expression) -> bool:
    """Whether it stays at 0 or more when one floor is replaced by its bounds.

    (e - d + 1)/d <= floor(e/d) <= e/d, so that `N - 8*floor(N/8)` is seen to be a remainder.
    """
    for monomial, coefficient in dim.terms:
        if len(monomial) != 1 or monomial[0][1] != 1:
            continue
        call = monomial[0][0]
        if not isinstance(call, Call) or call.function != FLOOR:
            continue
        numerator, denominator = call.arguments
        if not isinstance(denominator, int):
            continue
        extreme = numerator if coefficient < 0 else subtract(numerator, denominator - 1)
        rest = _make({m: c for m, c in dim.terms if m != monomial})
        low = lower_bound(add(multiply(rest, denominator), multiply(extreme, coefficient)))
        if low is not None and low >= 0:
            return True
    return False


def is_positive(dim: Dim) -> bool:
    """Whether `dim` is certainly 1 or more."""
    low = lower_bound(dim)
    return low is not None and low >= 1


def at_least(a: Dim, b: Dim) -> bool:
    """Whether `a >= b` for all sizes, as far as this algebra can tell."""
    if is_non_negative(subtract(a, b)):
        return True
    # x >= Min(x, y) and Max(x, y) >= x, which intervals alone do not show.
    if isinstance(b, Expression):
        below, above = arguments_of(b, MINIMUM), arguments_of(b, MAXIMUM)
        if any(a == c or is_non_negative(subtract(a, c)) for c in below):
            return True
        if above and all(is_non_negative(subtract(a, c)) for c in above):
            return True
    if isinstance(a, Expression):
        below, above = arguments_of(a, MINIMUM), arguments_of(a, MAXIMUM)
        if any(b == c or is_non_negative(subtract(c, b)) for c in above):
            return True
        return bool(below) and all(is_non_negative(subtract(c, b)) for c in below)
    return False


def minimum_arguments(dim: Expression) -> tuple[Known, ...]:
    """What `dim` is the minimum of; empty where it is no minimum."""
    return arguments_of(dim, MINIMUM)


def _make(terms: Mapping[Monomial, int]) -> Dim:
    """The dim with these terms in normal form; None where it grew out of bounds."""
    kept = {monomial: c for monomial, c in terms.items() if c}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    if len(kept) > MAX_TERMS or any(abs(c) > MAX_COEFFICIENT for c in kept.values()):
        return None
    if any(sum(power for _, power in monomial) > MAX_DEGREE for monomial in kept):
        return None
    made = Expression(tuple(sorted(kept.items(), key=lambda item: monomial_order(item[0]))))
    return _with_shortest_floors(made) if made.depth else made


def _with_shortest_floors(dim: Expression) -> Expression:
    """Of `floor((N + 1)/2)` and `N - floor(N/2)`, which are equal, always the same one."""
    for monomial, _ in dim.terms:
        terms = dict(dim.terms)
        flipped = _flipped_floor(monomial)
        if flipped is None or monomial not in terms:
            continue
        coefficient = terms.pop(monomial)
        for other, factor in flipped.items():
            terms[other] = terms.get(other, 0) + coefficient * factor
        kept = sorted(
            ((m, c) for m, c in terms.items() if c), key=lambda item: monomial_order(item[0])
        )
        if not kept or kept[0][0] == ():
            continue
        made = Expression(tuple(kept))
        if (len(kept), len(made.text), made.text) < (len(dim.terms), len(dim.text), dim.text):
            dim = made
    return dim


def _flipped_floor(monomial: Monomial) -> dict[Monomial, int] | None:
    """The terms of a lone floor the other way round, None for another monomial.

    floor((k*x + c)/d) = x - floor(((d - k)*x + d - 1 - c)/d) for each 0 < k < d
    """
    call = monomial[0][0] if len(monomial) == 1 and monomial[0][1] == 1 else None
    if not isinstance(call, Call) or call.function != FLOOR:
        return None
    numerator, divisor = call.arguments
    if not isinstance(divisor, int) or not isinstance(numerator, Expression) or numerator.depth:
        return None
    old = dict(numerator.terms)
    constant = old.pop((), 0)
    if not all(0 <= c < divisor for c in (constant, *old.values())):
        return None
    new = {m: divisor - c for m, c in old.items()}
    new[()] = divisor - 1 - constant
    kept = sorted(((m, c) for m, c in new.items() if c), key=lambda item: monomial_order(item[0]))
    inner = Expression(tuple(kept))
    return {**dict.fromkeys(old, 1), ((Call(FLOOR, (inner, divisor)), 1),): -1}


def _terms(dim: Known) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(dim, Expression):
        return dim.terms
    return (((), dim),) if dim else ()


def _call(function: str, arguments: tuple[Known, ...]) -> Dim:
    call = Call(function, arguments)
    if call.depth > MAX_DEPTH:
        return None
    return Expression(((((call, 1),), 1),))


def add(a: Dim, b: Dim) -> Dim:
    """A + b."""
    if a is None or b is None:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    total = dict(_terms(a))
    for monomial, coefficient in _terms(b):
        total[monomial] = total.get(monomial, 0) + coefficient
    return _make(total)


def negate(a: Dim) -> Dim:
    """-a."""
    if a is None:
        return None
    if isinstance(a, int):
        return -a
    return _make({monomial: -coefficient for monomial, coefficient in a.terms})


def subtract(a: Dim, b: Dim) -> Dim:
    """A - b."""
    return add(a, negate(b))


def multiply(a: Dim, b: Dim) -> Dim:
    """A * b; 0 times the unknown is 0."""
    if (isinstance(a, int) and a == 0) or (isinstance(b, int) and b == 0):
        return 0
    if a is None or b is None:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    left, right = _terms(a), _terms(b)
    if len(left) * len(right) > MAX_TERMS * 4:
        return None
    total: dict[Monomial, int] = {}
    for monomial_a, coefficient_a in left:
        for monomial_b, coefficient_b in right:
            monomial = _merge(monomial_a, monomial_b)
            total[monomial] = total.get(monomial, 0) + coefficient_a * coefficient_b
    return _make(total)


def product(dims: Iterable[Dim]) -> Dim:
    """The product of the dims, 1 for none."""
    total: Dim = 1
    for dim in dims:
        total = multiply(total, dim)
    return total


def _merge(a: Monomial, b: Monomial) -> Monomial:
    powers: dict[Variable, int] = dict(a)
    for variable, power in b:
        powers[variable] = powers.get(variable, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: variable_text(item[0])))


def floor_divide(a: Dim, b: Dim) -> Dim:
    """floor(a / b) for a positive b; None otherwise, and where b may be 0."""
    if a is None or b is None:
        return None
    if not isinstance(b, int):
        exact = divide_exactly(a, b)
        if exact is not None:
            return exact
        if not is_positive(b):
            return None
        return _call(FLOOR, (a, b))
    if b <= 0:
        return None
    if isinstance(a, int):
        return a // b
    # floor((q*b + r)/b) = q + floor(r/b): keep only remainders under the floor.
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, coefficient in a.terms:
        whole[monomial], rest[monomial] = divmod(coefficient, b)
    constant = rest.pop((), 0)
    rest = {monomial: coefficient for monomial, coefficient in rest.items() if coefficient}
    if not rest:
        return _make(whole)
    # floor((g*e + c)/(g*d)) = floor((e + floor(c/g))/d)
    common = math.gcd(b, *rest.values())
    rest = {monomial: coefficient // common for monomial, coefficient in rest.items()}
    rest[()] = constant // common
    return add(_make(whole), _floor_call(_make(rest), b // common))


def _floor_call(a: Dim, b: int) -> Dim:
    if a is None or b == 1:
        return a
    if isinstance(a, int):
        return a // b
    # floor((floor(x/y) + c)/b) = floor((x + c*y)/(y*b))
    inner = [(m, c) for m, c in a.terms if m != ()]
    if len(inner) == 1 and inner[0][1] == 1:
        monomial = inner[0][0]
        if len(monomial) == 1 and monomial[0][1] == 1:
            variable = monomial[0][0]
            if isinstance(variable, Call) and variable.function == FLOOR:
                numerator, denominator = variable.arguments
                if isinstance(denominator, int):
                    offset = dict(a.terms).get((), 0)
                    return floor_divide(add(numerator, offset * denominator), denominator * b)
    return _call(FLOOR, (a, b))


def ceil_divide(a: Dim, b: Dim) -> Dim:
    """ceil(a / b) for a positive b; None otherwise."""
    return floor_divide(add(a, subtract(b, 1)), b) if isinstance(b, int) else None


def truncated_divide(a: Dim, b: Dim) -> Dim:
    """A / b rounded towards zero, as ONNX's integer Div; None where it is not certain."""
    if isinstance(b, int) and b < 0:
        return negate(truncated_divide(a, -b))
    if isinstance(a, int) and isinstance(b, int):
        return None if b == 0 else (abs(a) // b) * (1 if a >= 0 else -1)
    if is_non_negative(a):
        return floor_divide(a, b)
    # An exact quotient is the same however it is rounded.
    return None if a is None or b is None else divide_exactly(a, b)


def modulo(a: Dim, b: Dim) -> Dim:
    """A - b*floor(a/b) for a positive b; None otherwise."""
    if not is_positive(b):
        return None
    return subtract(a, multiply(b, floor_divide(a, b)))


def divide_exactly(a: Dim, b: Dim) -> Dim:
    """The polynomial q with a = q*b, or None. Where b is 0, a is 0 and q is what it tends to."""
    if a is None or b is None or b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a % b == 0 else None
    lead_monomial, lead_coefficient = _terms(b)[0]
    quotient: Dim = 0
    rest: Dim = a
    for _ in range(MAX_TERMS):
        if rest is None or quotient is None:
            return None
        if rest == 0:
            return quotient
        monomial, coefficient = _terms(rest)[0]
        factor = _monomial_quotient(monomial, lead_monomial)
        if factor is None or coefficient % lead_coefficient:
            return None
        step = _make({factor: coefficient // lead_coefficient})
        quotient = add(quotient, step)
        rest = subtract(rest, multiply(step, b))
    return None


def _monomial_quotient(a: Monomial, b: Monomial) -> Monomial | None:
    powers: dict[Variable, int] = dict(a)
    for variable, power in b:
        left = powers.get(variable, 0) - power
        if left < 0:
            return None
        if left:
            powers[variable] = left
        else:
            del powers[variable]
    return tuple(powers.items())


def maximum(a: Dim, b: Dim) -> Dim:
    """The greater of the two."""
    return _extreme(MAXIMUM, a, b)


def minimum(a: Dim, b: Dim) -> Dim:
    """The lesser of the two."""
    if a == 1 and isinstance(b, Expression):
        return _extreme(MINIMUM, a, _above_zero_with(b))
    if b == 1 and isinstance(a, Expression):
        return _extreme(MINIMUM, _above_zero_with(a), b)
    return _extreme(MINIMUM, a, b)


def _above_zero_with(dim: Expression) -> Dim:
    """The plainest dim that is above zero for the same sizes as `dim`, or `dim` itself.

    All that Min(1, dim) tells: Min(1, 2*N + Min(1, N)) is Min(1, N), as 2*N + Min(1, N) and N are
    above zero together.
    """
    terms = _terms_above_zero_with(dim)
    made = None if terms is None else _make(dict.fromkeys(terms, 1))
    return dim if made is None else made


def _terms_above_zero_with(dim: Expression) -> set[Monomial] | None:
    terms: set[Monomial] = set()
    for monomial, coefficient in dim.terms:
        least = Expression(((monomial, 1),)).bounds()[0]
        if coefficient < 0 or least is None or least < 0:
            return None
        lesser = arguments_of(Expression(((monomial, 1),)), MINIMUM)
        if len(lesser) == 2 and 1 in lesser:
            inner = next(argument for argument in lesser if argument != 1)
            within = _terms_above_zero_with(inner) if isinstance(inner, Expression) else None
            if within is None:
                return None
            terms |= within
        else:
            terms.add(tuple((variable, 1) for variable, _ in monomial))
    return terms


def _extreme(function: str, a: Dim, b: Dim) -> Dim:
    if a is None or b is None:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b) if function == MAXIMUM else min(a, b)
    flat: list[Known] = []
    for dim in (a, b):
        nested = arguments_of(dim, function) if isinstance(dim, Expression) else ()
        flat.extend(nested or (dim,))
    kept: list[Known] = []
    for index, dim in enumerate(flat):
        others = flat[:index] + flat[index + 1 :]
        if dim in kept or any(_loses(function, dim, other, index, flat) for other in others):
            continue
        kept.append(dim)
    if len(kept) == 1:
        return kept[0]
    if len(kept) > MAX_TERMS:
        return None
    return _call(
        function, tuple(sorted(kept, key=lambda dim: (isinstance(dim, Expression), str(dim))))
    )


def _loses(function: str, dim: Known, other: Known, index: int, flat: list[Known]) -> bool:
    """Whether `other` makes `dim` superfluous; of two equal ones the first stays."""
    if dim == other:
        return flat.index(dim) < index
    return at_least(other, dim) if function == MAXIMUM else at_least(dim, other)


def compare(a: Dim, b: Dim) -> int | None:
    """-1, 0 or 1 where a < b, a == b or a > b for all sizes; None where it is not certain."""
    if a is None or b is None:
        return None
    difference = subtract(a, b)
    if difference == 0:
        return 0
    low, high = lower_bound(difference), upper_bound(difference)
    if low is not None and low > 0:
        return 1
    if high is not None and high < 0:
        return -1
    return None


def substitute(dim: Dim, sizes: Mapping[str, Dim]) -> Dim:
    """`dim` with symbols replaced; symbols that are not in `sizes` stay."""
    if not isinstance(dim, Expression):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        term: Dim = coefficient
        for variable, power in monomial:
            replacement = _substitute_variable(variable, sizes)
            for _ in range(power):
                term = multiply(term, replacement)
        total = add(total, term)
    return total


def _substitute_variable(variable: Variable, sizes: Mapping[str, Dim]) -> Dim:
    if isinstance(variable, str):
        return sizes.get(variable, symbol(variable))
    arguments = [substitute(argument, sizes) for argument in variable.arguments]
    function = {FLOOR: floor_divide, MAXIMUM: maximum, MINIMUM: minimum}[variable.function]
    result = arguments[0]
    for argument in arguments[1:]:
        result = function(result, argument)
    return result
