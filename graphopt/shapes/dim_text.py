"""Between a dim's text in the model and its expression.

Any text may name a dim: `batch-size`, `1x`, `past + 1`, `N/2`. What a graph input declares is
a *name*, whatever it looks like: `past + 1` is not known to be one more than `past`, since no
runtime checks it. Inside expressions such a name is spelled in a reversible safe form, alone
it keeps its own spelling.
"""

import re
from collections.abc import Callable, Mapping

from graphopt.graph import ir
from graphopt.shapes import arithmetic, expression
from graphopt.shapes.expression import Dim, Expression

# What exporters write into dim_param for "I do not know": not a name, two are not equal.
_PLACEHOLDERS = frozenset({"", "?", "*", "-1", "None", "none", "unknown", "Unknown", "undefined"})
_SAFE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*\Z")
_ESCAPE = re.compile(r"_x([0-9a-f]+)_")
_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z_][A-Za-z0-9_.]*)|(//|\*\*|[-+*/%(),]))")
_MAX_TEXT = 1000


def is_placeholder(text: str | None) -> bool:
    """Whether a dim_param says nothing."""
    return text is None or text.strip() in _PLACEHOLDERS


def safe_name(name: str) -> str:
    """`name` where it can stand in an expression as it is, else its escaped spelling."""
    if _SAFE_NAME.match(name) and not name.startswith("_x_"):
        return name
    escaped = "".join(c if c.isascii() and c.isalnum() else f"_x{ord(c):x}_" for c in name)
    return f"_x_{escaped}"


def declared_name(safe: str) -> str:
    """The inverse of `safe_name`."""
    if not safe.startswith("_x_"):
        return safe
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), safe[3:])


class DimNames:
    """The symbols that the graph inputs declare, and both directions between dims and texts."""

    def __init__(self) -> None:
        self._declared: dict[str, Expression] = {}
        self._read: dict[str, Dim] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._declared

    def declare(self, name: str) -> Expression:
        """The symbol of this name; from now on the text is the name and nothing else."""
        found = self._declared.get(name)
        if found is None:
            found = self._declared[name] = expression.symbol(safe_name(name))
        return found

    def to_dim(self, dim: "int | ir.SymbolicDim") -> Dim:
        """What a dim of an `ir.Shape` says, in declared symbols only; None if nothing."""
        if not isinstance(dim, ir.SymbolicDim):
            return dim
        text = dim.value
        if text is None or is_placeholder(text):
            return None
        if text in self._declared:
            return self._declared[text]
        if text not in self._read:
            self._read[text] = self._parse_known(text)
        return self._read[text]

    def to_ir(self, dim: Dim) -> "int | ir.SymbolicDim":
        """The dim as `ir.Shape` holds it."""
        if not isinstance(dim, Expression):
            return ir.SymbolicDim(None) if dim is None else dim
        name = dim.symbol
        if name is not None:
            return ir.SymbolicDim(declared_name(name))
        # An input may declare a name that reads like this expression: tell them apart.
        return ir.SymbolicDim(f"({dim.text})" if dim.text in self._declared else dim.text)

    def _parse_known(self, text: str) -> Dim:
        known = {symbol.text: symbol for symbol in self._declared.values()}
        try:
            return parse(text, lambda name: known.get(name))
        except ValueError:
            return None


def parse(text: str, lookup: Callable[[str], Dim]) -> Dim:
    """The dim that an expression says, its names resolved by `lookup`.

    Raises:
        ValueError: the text is no expression in integers, or it names nothing known.
    """
    if len(text) > _MAX_TEXT:
        raise ValueError("the expression is too long")
    parser = _Parser(text, lookup)
    dim = parser.sum()
    parser.expect("")
    return dim


def evaluate(dim: "int | ir.SymbolicDim", sizes: Mapping[str, int]) -> int | None:
    """The value of a dim for these sizes of the declared symbols; None if it stays unknown.

    `sizes` has the names as the graph inputs declare them.
    """
    names = DimNames()
    for name in sizes:
        names.declare(name)
    known = names.to_dim(dim)
    value = arithmetic.substitute(known, {safe_name(name): size for name, size in sizes.items()})
    return value if isinstance(value, int) else None


class _Parser:
    """Recursive descent over + - * / // % **, floor, Max and Min. `/` only under a floor."""

    def __init__(self, text: str, lookup: Callable[[str], Dim]) -> None:
        self._tokens: list[str] = []
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None:
                raise ValueError(f"unexpected {text[position]!r}")
            self._tokens.append(match[0].strip())
            position = match.end()
        self._tokens.append("")
        self._next = 0
        self._depth = 0
        self._lookup = lookup

    def _peek(self) -> str:
        return self._tokens[self._next]

    def _take(self) -> str:
        token = self._tokens[self._next]
        if token:
            self._next += 1
        return token

    def expect(self, token: str) -> None:
        if self._take() != token:
            raise ValueError(f"expected {token or 'the end'!r}")

    def sum(self) -> Dim:
        self._depth += 1
        if self._depth > 50:
            raise ValueError("nested too deeply")
        left = self._product()
        while self._peek() in ("+", "-"):
            operator = arithmetic.add if self._take() == "+" else arithmetic.subtract
            left = operator(left, self._product())
        self._depth -= 1
        return left

    def _product(self) -> Dim:
        left = self._factor()
        while self._peek() in ("*", "//", "%"):
            operator = {
                "*": arithmetic.multiply,
                "//": arithmetic.floor_divide,
                "%": arithmetic.modulo,
            }[self._take()]
            left = operator(left, self._factor())
        return left

    def _factor(self) -> Dim:
        if self._peek() == "-":
            self._take()
            return arithmetic.negate(self._factor())
        atom = self._atom()
        if self._peek() == "**":
            self._take()
            power = self._take()
            if not power.isdigit() or int(power) > arithmetic.MAX_DEGREE:
                raise ValueError("a power must be a small integer")
            atom = arithmetic.product([atom] * int(power))
        return atom

    def _atom(self) -> Dim:
        token = self._take()
        if token.isdigit():
            return int(token)
        if token == "(":  # noqa: S105 - a parenthesis, not a password
            inner = self.sum()
            self.expect(")")
            return inner
        if self._peek() == "(" and token in ("floor", "Max", "Min", "max", "min"):
            self._take()
            return self._call(token)
        dim = self._lookup(token) if token and (token[0].isalpha() or token[0] == "_") else None
        if dim is None:
            raise ValueError(f"unknown name {token!r}")
        return dim

    def _call(self, function: str) -> Dim:
        result = self.sum()
        if function == "floor":
            self.expect("/")
            result = arithmetic.floor_divide(result, self._factor())
        else:
            pick = arithmetic.maximum if function in ("Max", "max") else arithmetic.minimum
            while self._peek() == ",":
                self._take()
                result = pick(result, self.sum())
        self.expect(")")
        return result
