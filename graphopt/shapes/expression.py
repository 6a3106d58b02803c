"""Exact integer arithmetic on symbolic dims: polynomials with a canonical text.

A dim is an `int`, an `Expression`, or `None` (unknown). An expression is a polynomial with
integer coefficients whose variables are symbols (dims of graph inputs, integers >= 0) and
opaque calls `floor(a/b)`, `Max(a, b)`, `Min(a, b)`. It is kept in a normal form, so equal
polynomials are equal objects and print equal.

sympy is not used: it takes half a second to import, and onnx_ir's symbols are declared
positive there, so that `Max(1, N)` would become `N`, which is wrong for an empty batch.
"""

import math
from collections.abc import Callable, Iterable, Mapping

# Larger expressions are given up as unknown: they cost time and nobody can use them.
MAX_TERMS = 24
MAX_COEFFICIENT = 2**31
MAX_DEGREE = 12
MAX_DEPTH = 6

_FLOOR, _MAX, _MIN = "floor", "Max", "Min"


class Call:
    """A variable that stands for a function of expressions, e.g. `floor((N + 1)/2)`."""

    __slots__ = ("arguments", "depth", "function", "text")

    def __init__(self, function: str, arguments: tuple["int | Expression", ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.depth = 1 + max((_depth(argument) for argument in arguments), default=0)
        self.text = _call_text(function, arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


Variable = str | Call
# Sorted by the variable's text; powers are at least 1. The empty monomial is the constant.
Monomial = tuple[tuple[Variable, int], ...]


class Expression:
    """A polynomial that is not a plain integer. Immutable; equal where the polynomials are."""

    __slots__ = ("_bounds", "_hash", "depth", "terms", "text")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self.depth = max(
            (v.depth for mono, _ in terms for v, _ in mono if isinstance(v, Call)), default=0
        )
        self.text = _terms_text(terms)
        self._hash = hash(self.text)
        self._bounds: tuple[int | None, int | None] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.text == other.text

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return self.text

    @property
    def symbol(self) -> str | None:
        """The name of the symbol that this expression is, alone; None if it is more."""
        if len(self.terms) == 1:
            monomial, coefficient = self.terms[0]
            if coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1:
                variable = monomial[0][0]
                return variable if isinstance(variable, str) else None
        return None

    def bounds(self) -> tuple[int | None, int | None]:
        """The least and the greatest value over all sizes, None where there is no such bound."""
        if self._bounds is None:
            low: int | None = 0
            high: int | None = 0
            for monomial, coefficient in self.terms:
                term = _scaled(_monomial_bounds(monomial), coefficient)
                low = None if low is None or term[0] is None else low + term[0]
                high = None if high is None or term[1] is None else high + term[1]
            self._bounds = (low, high)
        return self._bounds

    def symbols(self) -> set[str]:
        """The names of the symbols in it."""
        found: set[str] = set()
        for monomial, _ in self.terms:
            for variable, _ in monomial:
                if isinstance(variable, str):
                    found.add(variable)
                else:
                    for argument in variable.arguments:
                        if isinstance(argument, Expression):
                            found |= argument.symbols()
        return found


Known = int | Expression
Dim = int | Expression | None


def _depth(dim: Known) -> int:
    return dim.depth if isinstance(dim, Expression) else 0


def symbol(name: str) -> Expression:
    """The expression that is the symbol `name` alone."""
    return Expression(((((name, 1),), 1),))


def lower_bound(dim: Dim) -> int | None:
    """The least value `dim` can have, None if there is no bound."""
    if isinstance(dim, int):
        return dim
    return None if dim is None else dim.bounds()[0]


def upper_bound(dim: Dim) -> int | None:
    """The greatest value `dim` can have, None if there is no bound."""
    if isinstance(dim, int):
        return dim
    return None if dim is None else dim.bounds()[1]


def is_non_negative(dim: Dim) -> bool:
    """Whether `dim` is certainly 0 or more."""
    low = lower_bound(dim)
    return low is not None and low >= 0


def is_positive(dim: Dim) -> bool:
    """Whether `dim` is certainly 1 or more."""
    low = lower_bound(dim)
    return low is not None and low >= 1


def at_least(a: Dim, b: Dim) -> bool:
    """Whether `a >= b` for all sizes, as far as this algebra can tell."""
    if is_non_negative(subtract(a, b)):
        return True
    if isinstance(a, Expression) and isinstance(b, Expression):
        # x >= Min(x, y) and Max(x, y) >= x, which intervals alone do not show.
        return a in _arguments(b, _MIN) or b in _arguments(a, _MAX)
    if isinstance(b, Expression):
        return any(at_least(a, c) for c in _arguments(b, _MIN) if isinstance(c, int))
    if isinstance(a, Expression):
        return any(at_least(c, b) for c in _arguments(a, _MAX) if isinstance(c, int))
    return False


def minimum_arguments(dim: Expression) -> tuple[Known, ...]:
    """What `dim` is the minimum of; empty where it is no minimum."""
    return _arguments(dim, _MIN)


def _arguments(dim: Expression, function: str) -> tuple[Known, ...]:
    """The arguments of `dim` where it is just that call, else nothing."""
    if len(dim.terms) == 1:
        monomial, coefficient = dim.terms[0]
        if coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1:
            variable = monomial[0][0]
            if isinstance(variable, Call) and variable.function == function:
                return variable.arguments
    return ()


# Construction ------------------------------------------------------------------------------


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
    return Expression(tuple(sorted(kept.items(), key=lambda item: _order(item[0]))))


def _order(monomial: Monomial) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Higher degrees first, the constant last, then by text."""
    degree = sum(power for _, power in monomial)
    return -degree, tuple((_variable_text(v), -power) for v, power in monomial)


def _terms(dim: Known) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(dim, Expression):
        return dim.terms
    return (((), dim),) if dim else ()


def _call(function: str, arguments: tuple[Known, ...]) -> Dim:
    call = Call(function, arguments)
    if call.depth > MAX_DEPTH:
        return None
    return Expression(((((call, 1),), 1),))


# Arithmetic --------------------------------------------------------------------------------


def add(a: Dim, b: Dim) -> Dim:
    """a + b."""
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
    """a - b."""
    return add(a, negate(b))


def multiply(a: Dim, b: Dim) -> Dim:
    """a * b; 0 times the unknown is 0."""
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
    return tuple(sorted(powers.items(), key=lambda item: _variable_text(item[0])))


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
        return _call(_FLOOR, (a, b))
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
            if isinstance(variable, Call) and variable.function == _FLOOR:
                numerator, denominator = variable.arguments
                if isinstance(denominator, int):
                    offset = dict(a.terms).get((), 0)
                    return floor_divide(add(numerator, offset * denominator), denominator * b)
    return _call(_FLOOR, (a, b))


def ceil_divide(a: Dim, b: Dim) -> Dim:
    """ceil(a / b) for a positive b; None otherwise."""
    return negate(floor_divide(negate(a), b))


def truncated_divide(a: Dim, b: Dim) -> Dim:
    """a / b rounded towards zero, as ONNX's integer Div; None where it is not certain."""
    if isinstance(b, int) and b < 0:
        return negate(truncated_divide(a, -b))
    if isinstance(a, int) and isinstance(b, int):
        return None if b == 0 else (abs(a) // b) * (1 if a >= 0 else -1)
    if is_non_negative(a):
        return floor_divide(a, b)
    # An exact quotient is the same however it is rounded.
    return None if a is None or b is None else divide_exactly(a, b)


def modulo(a: Dim, b: Dim) -> Dim:
    """a - b*floor(a/b) for a positive b; None otherwise."""
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
    return _extreme(_MAX, a, b)


def minimum(a: Dim, b: Dim) -> Dim:
    """The lesser of the two."""
    return _extreme(_MIN, a, b)


def _extreme(function: str, a: Dim, b: Dim) -> Dim:
    if a is None or b is None:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b) if function == _MAX else min(a, b)
    flat: list[Known] = []
    for dim in (a, b):
        nested = _arguments(dim, function) if isinstance(dim, Expression) else ()
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
    return _call(function, tuple(sorted(kept, key=lambda dim: (isinstance(dim, Expression), str(dim)))))


def _loses(function: str, dim: Known, other: Known, index: int, flat: list[Known]) -> bool:
    """Whether `other` makes `dim` superfluous; of two equal ones the first stays."""
    if dim == other:
        return flat.index(dim) < index
    return at_least(other, dim) if function == _MAX else at_least(dim, other)


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
    function = {_FLOOR: floor_divide, _MAX: maximum, _MIN: minimum}[variable.function]
    result = arguments[0]
    for argument in arguments[1:]:
        result = function(result, argument)
    return result


# Bounds ------------------------------------------------------------------------------------

_Bounds = tuple[int | None, int | None]


def _scaled(bounds: _Bounds, factor: int) -> _Bounds:
    low, high = bounds
    if factor < 0:
        low, high = high, low
    return (
        None if low is None else low * factor,
        None if high is None else high * factor,
    )


def _monomial_bounds(monomial: Monomial) -> _Bounds:
    """Exact for one variable; for a product only what follows from signs."""
    low, high = 1, 1
    unbounded = False
    for variable, power in monomial:
        least, greatest = (0, None) if isinstance(variable, str) else _call_bounds(variable)
        if least is None or least < 0:
            # A factor that may be negative: nothing is said, unless it stands alone.
            return (least, greatest) if len(monomial) == 1 and power == 1 else (None, None)
        low *= least**power
        if greatest is None:
            unbounded = True
        else:
            high *= greatest**power
    return low, None if unbounded else high


def _call_bounds(call: Call) -> _Bounds:
    lows = [lower_bound(argument) for argument in call.arguments]
    highs = [upper_bound(argument) for argument in call.arguments]
    if call.function == _FLOOR:
        return _floor_bounds(call, lows[0], highs[0])
    pick: Callable[[list[int]], int] = max if call.function == _MAX else min
    known_lows = [low for low in lows if low is not None]
    known_highs = [high for high in highs if high is not None]
    if call.function == _MAX:
        return (
            pick(known_lows) if known_lows else None,
            pick(known_highs) if len(known_highs) == len(highs) else None,
        )
    return (
        pick(known_lows) if len(known_lows) == len(lows) else None,
        pick(known_highs) if known_highs else None,
    )


def _floor_bounds(call: Call, low: int | None, high: int | None) -> _Bounds:
    denominator = call.arguments[1]
    if isinstance(denominator, int):
        return (
            None if low is None else low // denominator,
            None if high is None else high // denominator,
        )
    # The denominator is at least 1, so the quotient lies between 0 and the numerator.
    return (0 if low is not None and low >= 0 else None), (
        high if high is not None and high >= 0 else None
    )


# Text --------------------------------------------------------------------------------------


def _variable_text(variable: Variable) -> str:
    return variable if isinstance(variable, str) else variable.text


def _monomial_text(monomial: Monomial) -> str:
    return "*".join(
        _variable_text(variable) + (f"**{power}" if power > 1 else "")
        for variable, power in monomial
    )


def _terms_text(terms: tuple[tuple[Monomial, int], ...]) -> str:
    """As sympy writes it: `2*N`, `B*S + 1`, `N - 1`. A leading minus only if all are negative."""
    ordered = sorted(terms, key=lambda item: item[1] < 0) if terms[0][1] < 0 else terms
    text = ""
    for monomial, coefficient in ordered:
        size = abs(coefficient)
        if not monomial:
            body = str(size)
        else:
            body = _monomial_text(monomial)
            body = body if size == 1 else f"{size}*{body}"
        if not text:
            text = body if coefficient > 0 else f"-{body}"
        else:
            text += f" + {body}" if coefficient > 0 else f" - {body}"
    return text


def _call_text(function: str, arguments: tuple[Known, ...]) -> str:
    if function != _FLOOR:
        return f"{function}({', '.join(str(argument) for argument in arguments)})"
    sides = []
    for argument in arguments:
        simple = not isinstance(argument, Expression) or argument.symbol is not None
        sides.append(str(argument) if simple else f"({argument})")
    return f"floor({sides[0]}/{sides[1]})"
