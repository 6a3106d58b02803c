"""Exact integer arithmetic on symbolic dims: polynomials with a canonical text.

A dim is an `int`, an `Expression`, or `None` (unknown). An expression is a polynomial with
integer coefficients whose variables are symbols (dims of graph inputs, integers >= 0) and
opaque calls `floor(a/b)`, `Max(a, b)`, `Min(a, b)`. It is kept in a normal form, so equal
polynomials are equal objects and print equal.

sympy is not used: it takes half a second to import, and onnx_ir's symbols are declared
positive there, so that `Max(1, N)` would become `N`, which is wrong for an empty batch.
"""

from collections.abc import Callable

FLOOR, MAXIMUM, MINIMUM = "floor", "Max", "Min"


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


def arguments_of(dim: Expression, function: str) -> tuple[Known, ...]:
    """The arguments of `dim` where it is just that call, else nothing."""
    if len(dim.terms) == 1:
        monomial, coefficient = dim.terms[0]
        if coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1:
            variable = monomial[0][0]
            if isinstance(variable, Call) and variable.function == function:
                return variable.arguments
    return ()


def monomial_order(monomial: Monomial) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Higher degrees first, the constant last, then by text."""
    degree = sum(power for _, power in monomial)
    return -degree, tuple((variable_text(v), -power) for v, power in monomial)


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
    if call.function == FLOOR:
        return _floor_bounds(call, lows[0], highs[0])
    pick: Callable[[list[int]], int] = max if call.function == MAXIMUM else min
    known_lows = [low for low in lows if low is not None]
    known_highs = [high for high in highs if high is not None]
    if call.function == MAXIMUM:
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


def variable_text(variable: Variable) -> str:
    """The text of a symbol or a call."""
    return variable if isinstance(variable, str) else variable.text


def _monomial_text(monomial: Monomial) -> str:
    return "*".join(
        variable_text(variable) + (f"**{power}" if power > 1 else "")
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
        if not text and coefficient < 0:
            # onnx_ir reads -N**2 as (-N)**2.
            powered = size == 1 and monomial and monomial[0][1] > 1
            text = f"-1*{body}" if powered else f"-{body}"
        elif not text:
            text = body
        else:
            text += f" + {body}" if coefficient > 0 else f" - {body}"
    return text


def _call_text(function: str, arguments: tuple[Known, ...]) -> str:
    if function != FLOOR:
        return f"{function}({', '.join(str(argument) for argument in arguments)})"
    sides = []
    for argument in arguments:
        simple = not isinstance(argument, Expression) or argument.symbol is not None
        sides.append(str(argument) if simple else f"({argument})")
    return f"floor({sides[0]}/{sides[1]})"
