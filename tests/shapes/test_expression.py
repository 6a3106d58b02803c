"""The arithmetic on dims is exact, canonical, and readable by others."""

import random
from collections.abc import Callable

import pytest

from graphopt.graph import ir
from graphopt.shapes import arithmetic, evaluate_dim
from graphopt.shapes.arithmetic import substitute
from graphopt.shapes.dim_text import DimNames, parse
from graphopt.shapes.expression import Dim, Expression, symbol

NAMES = ("A", "B", "C")


def _truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a >= 0) == (b >= 0) else -1)


OPERATIONS: dict[Callable[[Dim, Dim], Dim], Callable[[int, int], int]] = {
    arithmetic.add: lambda a, b: a + b,
    arithmetic.subtract: lambda a, b: a - b,
    arithmetic.multiply: lambda a, b: a * b,
    arithmetic.maximum: max,
    arithmetic.minimum: min,
}
DIVISIONS: dict[Callable[[Dim, Dim], Dim], Callable[[int, int], int]] = {
    arithmetic.floor_divide: lambda a, b: a // b,
    arithmetic.ceil_divide: lambda a, b: -(-a // b),
    arithmetic.truncated_divide: _truncated,
    arithmetic.modulo: lambda a, b: a % b,
}


def _random_dim(source: random.Random, depth: int) -> tuple[Dim, Callable[[dict[str, int]], int]]:
    """An expression, and the same as a function in plain integers."""
    if depth == 0 or source.random() < 0.2:
        if source.random() < 0.4:
            number = source.randint(-4, 9)
            return number, lambda sizes: number
        name = source.choice(NAMES)
        return symbol(name), lambda sizes: sizes[name]
    left, left_value = _random_dim(source, depth - 1)
    if source.random() < 0.4:
        divide, plain_divide = source.choice(list(DIVISIONS.items()))
        divisor = source.randint(1, 6)
        return divide(left, divisor), lambda sizes: plain_divide(left_value(sizes), divisor)
    operation, plain = source.choice(list(OPERATIONS.items()))
    right, right_value = _random_dim(source, depth - 1)
    return operation(left, right), lambda sizes: plain(left_value(sizes), right_value(sizes))


def test_random_expressions_evaluate_to_what_integers_give() -> None:
    source = random.Random(1)
    known = 0
    for _ in range(1500):
        dim, value = _random_dim(source, 4)
        if dim is None:
            continue
        known += isinstance(dim, Expression)
        low, high = arithmetic.lower_bound(dim), arithmetic.upper_bound(dim)
        for _ in range(6):
            sizes = {name: source.choice((0, 1, 2, 3, 7, 10)) for name in NAMES}
            expected = value(sizes)
            assert substitute(dim, sizes) == expected, (str(dim), sizes)
            assert low is None or low <= expected
            assert high is None or high >= expected
            if arithmetic.is_non_negative(dim):
                assert expected >= 0, (str(dim), sizes)
    assert known > 500


def test_comparisons_hold_for_every_size() -> None:
    source = random.Random(2)
    decided = 0
    for _ in range(1500):
        a, a_value = _random_dim(source, 3)
        b, b_value = _random_dim(source, 3)
        order, at_least = arithmetic.compare(a, b), arithmetic.at_least(a, b)
        decided += order is not None
        for _ in range(6):
            sizes = {name: source.choice((0, 1, 2, 3, 7, 10)) for name in NAMES}
            left, right = a_value(sizes), b_value(sizes)
            if order is not None:
                assert (left > right) - (left < right) == order, (str(a), str(b), sizes)
            assert not at_least or left >= right, (str(a), str(b), sizes)
    assert decided > 200


def test_texts_are_read_back_and_mean_the_same_to_onnx_ir() -> None:
    source = random.Random(3)
    symbols = {name: symbol(name) for name in NAMES}
    compared = 0
    for _ in range(600):
        dim, value = _random_dim(source, 3)
        if not isinstance(dim, Expression):
            continue
        assert parse(dim.text, symbols.get) == dim
        sizes = {name: source.randint(1, 9) for name in NAMES}
        assert evaluate_dim(ir.SymbolicDim(dim.text), sizes) == value(sizes)
        if compared < 80:
            compared += 1
            assert ir.SymbolicDim(dim.text).evaluate(sizes) == value(sizes), dim.text
    assert compared == 80


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (arithmetic.add(arithmetic.multiply(symbol("N"), 2), -1), "2*N - 1"),
        (arithmetic.add(symbol("N"), symbol("N")), "2*N"),
        (arithmetic.multiply(symbol("S"), symbol("B")), "B*S"),
        (arithmetic.subtract(5, symbol("N")), "5 - N"),
        (arithmetic.negate(symbol("N")), "-N"),
        (arithmetic.multiply(symbol("N"), symbol("N")), "N**2"),
        (arithmetic.floor_divide(arithmetic.add(symbol("N"), -1), 2), "floor((N + 1)/2) - 1"),
        (arithmetic.floor_divide(arithmetic.multiply(symbol("N"), 6), 4), "N + floor(N/2)"),
        (
            arithmetic.floor_divide(arithmetic.floor_divide(symbol("N"), 2), 3),
            "floor(N/6)",
        ),
        (arithmetic.maximum(0, arithmetic.add(symbol("N"), -1)), "Max(0, N - 1)"),
        (arithmetic.maximum(0, symbol("N")), "N"),
        (arithmetic.minimum(symbol("N"), arithmetic.floor_divide(symbol("N"), 2)), "floor(N/2)"),
    ],
)
def test_canonical_text(dim: Dim, text: str) -> None:
    assert str(dim) == text


def test_the_same_quantity_prints_the_same_however_it_was_made() -> None:
    n, m = symbol("N"), symbol("M")
    one = arithmetic.multiply(arithmetic.add(n, m), arithmetic.add(n, m))
    two = arithmetic.add(
        arithmetic.add(arithmetic.multiply(m, m), arithmetic.multiply(n, n)),
        arithmetic.product([n, 2, m]),
    )
    assert one == two
    assert str(one) == str(two)
    half = arithmetic.floor_divide(n, 2)
    assert str(arithmetic.subtract(n, half)) == str(arithmetic.ceil_divide(n, 2))
    pooled = arithmetic.add(arithmetic.floor_divide(arithmetic.add(n, -1), 2), 1)
    assert str(pooled) == str(arithmetic.ceil_divide(n, 2)) == "floor((N + 1)/2)"
    remainder = arithmetic.subtract(n, arithmetic.multiply(8, arithmetic.floor_divide(n, 8)))
    assert str(remainder) == str(arithmetic.modulo(n, 8)) == "N - 8*floor(N/8)"


def test_exact_division() -> None:
    n, m = symbol("N"), symbol("M")
    whole = arithmetic.product([n, m, 12])
    assert arithmetic.divide_exactly(whole, arithmetic.multiply(m, 4)) == arithmetic.multiply(n, 3)
    assert arithmetic.divide_exactly(whole, arithmetic.multiply(m, 5)) is None
    assert arithmetic.divide_exactly(n, m) is None
    mixed = arithmetic.multiply(arithmetic.add(n, 2), arithmetic.add(m, 3))
    assert arithmetic.divide_exactly(mixed, arithmetic.add(n, 2)) == arithmetic.add(m, 3)


def test_growth_is_bounded() -> None:
    dim: Dim = 1
    for index in range(200):
        dim = arithmetic.multiply(dim, arithmetic.add(symbol(f"N{index}"), 1))
        if dim is None:
            break
    assert dim is None
    nested: Dim = symbol("N")
    for _ in range(50):
        nested = arithmetic.floor_divide(arithmetic.multiply(nested, 3), 2)
        nested = arithmetic.maximum(nested, arithmetic.subtract(7, nested))
        if nested is None:
            break
    assert nested is None


def test_zero_sized_dims_are_possible() -> None:
    assert str(arithmetic.maximum(1, symbol("N"))) == "Max(1, N)"
    assert arithmetic.compare(symbol("N"), 0) is None
    assert arithmetic.floor_divide(1, symbol("N")) is None


@pytest.mark.parametrize(
    "name",
    ["batch-size", "N/2", "E", "1x", "past + 1", "é", "2*N", "_x_a", "a.b", "floor", "日本", "N N"],
)
def test_any_text_may_be_a_name(name: str) -> None:
    names = DimNames()
    other = names.declare("N")
    dim = names.declare(name)
    assert names.to_ir(dim) == ir.SymbolicDim(name)
    assert names.to_dim(ir.SymbolicDim(name)) == dim
    doubled = arithmetic.add(arithmetic.multiply(dim, 2), other)
    written = names.to_ir(doubled)
    assert names.to_dim(written) == doubled
    assert evaluate_dim(written, {name: 5, "N": 100}) == 110


def test_a_name_that_reads_like_an_expression_is_not_it() -> None:
    names = DimNames()
    n = names.declare("N")
    twice = names.declare("2*N")
    expression_twice = arithmetic.multiply(n, 2)
    assert twice != expression_twice
    assert names.to_ir(twice) != names.to_ir(expression_twice)
    assert names.to_dim(names.to_ir(expression_twice)) == expression_twice


@pytest.mark.parametrize(
    "text",
    ["", "N +", "(N", "N)", "N / 2", "N ** M", "x" * 2000, "(" * 500, "M + 1", "__import__(1)"],
)
def test_what_is_no_expression_is_unknown(text: str) -> None:
    names = DimNames()
    names.declare("N")
    assert names.to_dim(ir.SymbolicDim(text)) is None


def test_a_minimum_with_one_tells_only_what_is_above_zero():
    n, m = symbol("N"), symbol("M")
    once_more = arithmetic.add(arithmetic.minimum(1, n), n)
    assert arithmetic.minimum(1, once_more) == arithmetic.minimum(1, n)
    # What is left of an axis with its first element put ahead of it again, without one element.
    assert arithmetic.subtract(once_more, arithmetic.minimum(once_more, 1)) == n
    assert str(arithmetic.minimum(1, arithmetic.multiply(2, n))) == "Min(1, N)"
    assert str(arithmetic.minimum(1, arithmetic.subtract(n, m))) == "Min(1, N - M)"
    generator = random.Random(5)
    parts: list[Dim] = [n, m, arithmetic.minimum(1, n), arithmetic.multiply(n, m), 1, 2]
    for _ in range(500):
        dim: Dim = 0
        for _ in range(generator.randint(1, 4)):
            term = arithmetic.multiply(generator.choice([1, 2, -1]), generator.choice(parts))
            dim = arithmetic.add(dim, term)
        least = arithmetic.minimum(1, dim)
        for sizes in ({"N": a, "M": b} for a in range(3) for b in range(3)):
            whole = substitute(dim, sizes)
            assert isinstance(whole, int)
            assert substitute(least, sizes) == min(1, whole)
