"""Quantities against plain integers at random sizes, and their normal form."""

from __future__ import annotations

import random

import pytest

from graphopt.cost.quantity import (
    Number,
    Quantity,
    at_least,
    evaluated,
    free,
    largest,
    maximum,
    minimum,
    product,
    total,
)

NAMES = ("batch", "seq", "past + 1")
BATCH, SEQ = free("batch"), free("seq")


def random_pair(draw: random.Random, depth: int, sizes: dict[str, int]) -> tuple[Number, int]:
    """An expression and, computed apart from it, its value at `sizes`."""
    if depth == 0:
        if draw.random() < 0.4:
            constant = draw.choice([0, 1, 2, 3, 2**40])
            return constant, constant
        name = draw.choice(NAMES)
        return free(name), sizes[name]
    a, x = random_pair(draw, depth - 1, sizes)
    b, y = random_pair(draw, depth - 1, sizes)
    match draw.randrange(7):
        case 0:
            return a + b, x + y
        case 1:
            return a * b, x * y
        case 2:
            return maximum(a, b), max(x, y)
        case 3:
            return minimum(a, b), min(x, y)
        case 4:
            divisor = draw.randrange(1, 9)
            return a // divisor, x // divisor
        case 5:
            return total([a, b, a, 7]), x + y + x + 7
        case _:
            return product([a, b, 3]), x * y * 3


@pytest.mark.parametrize("seed", range(200))
def test_evaluation_agrees_with_integers(seed: int) -> None:
    draw = random.Random(seed)
    sizes = {name: draw.choice([0, 1, 2, 7, 128]) for name in NAMES}
    number, expected = random_pair(draw, draw.randrange(1, 4), sizes)
    assert evaluated(number, sizes) == expected
    # One dim after the other gives the same.
    step = number
    for name, size in sizes.items():
        step = evaluated(step, {name: size})
    assert step == expected


def test_equal_polynomials_are_equal_and_print_equal() -> None:
    left = (BATCH + 1) * (SEQ + 2)
    right = 2 + SEQ + BATCH * 2 + SEQ * BATCH
    assert left == right
    assert hash(left) == hash(right)
    assert str(left) == str(right) == "batch*seq + 2*batch + seq + 2"


def test_what_depends_on_no_dim_is_an_int() -> None:
    assert (BATCH + 3) - BATCH == 3
    assert isinstance(BATCH * 0, int)
    assert (BATCH * 6) // 3 == BATCH * 2
    assert BATCH // BATCH == 1


def test_coefficients_have_no_bound() -> None:
    number = product([BATCH, 10**12, 10**12])
    assert str(number) == f"{10**24}*batch"


def test_extremes_drop_what_cannot_win() -> None:
    assert maximum(BATCH, BATCH + SEQ) == BATCH + SEQ
    assert minimum(BATCH, BATCH + SEQ) == BATCH
    assert str(maximum(BATCH, SEQ)) == "Max(batch, seq)"
    assert maximum(maximum(BATCH, SEQ), BATCH) == maximum(BATCH, SEQ)
    assert at_least(BATCH * 2, BATCH)
    assert not at_least(BATCH, SEQ)


def test_any_text_can_name_a_dim() -> None:
    odd = free("past + 1") * 2
    assert isinstance(odd, Quantity)
    assert odd.symbols == ("past + 1",)
    assert odd.at({"past + 1": 4}) == 8
    assert str(odd) == "2*'past + 1'"
    assert str(free("boxes[0]") * 4) == "4*boxes[0]"


def test_what_needs_one_number_says_so() -> None:
    for use in (int, float, lambda q: q < 3, lambda q: q / 2, lambda q: sorted([q, SEQ])):
        with pytest.raises(TypeError, match="evaluate it first"):
            use(BATCH)
    assert f"{BATCH * 2:,}" == "2*batch"
    assert BATCH**2 == BATCH * BATCH


def test_the_largest_of_many_is_the_largest() -> None:
    draw = random.Random(5)
    for count in (1, 3, 40, 300):
        numbers = [
            free(f"n{draw.randrange(80)}") * draw.randrange(9) + draw.randrange(9)
            for _ in range(count)
        ]
        sizes = {f"n{index}": draw.randrange(20) for index in range(80)}
        assert evaluated(largest(numbers), sizes) == max(evaluated(n, sizes) for n in numbers)
