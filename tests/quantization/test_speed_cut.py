"""The minimum cut gives the cheapest choice of all, whatever the costs."""

import itertools
import random

import pytest

from graphopt.quantization.group_cut import (
    Border,
    Costs,
    cheapest_float_groups,
    total_seconds,
)


def drawn(seed: int) -> Costs:
    """Seven groups in a row and a few borders at random, in microseconds."""
    random_numbers = random.Random(seed)
    groups = [f"g{i}" for i in range(7)]

    def time() -> float:
        return random_numbers.randrange(1, 60) * 1e-6

    borders = []
    for index in range(8):
        readers = tuple(g for g in groups[index:] if random_numbers.random() < 0.35)
        writer = groups[index - 1] if index and random_numbers.random() < 0.8 else ""
        others = random_numbers.randrange(2)
        borders.append(Border(f"t{index}", writer, readers, others, time() / 2, time() / 2))
    return Costs({g: time() for g in groups}, {g: time() for g in groups}, borders)


@pytest.mark.parametrize("seed", range(25))
def test_no_choice_is_cheaper(seed: int) -> None:
    costs = drawn(seed)
    groups = list(costs.as_float)
    every = [
        frozenset(chosen)
        for count in range(len(groups) + 1)
        for chosen in itertools.combinations(groups, count)
    ]
    best = min(total_seconds(costs, choice) for choice in every)
    found = cheapest_float_groups(costs)
    assert total_seconds(costs, found) == pytest.approx(best, rel=1e-9)
    # Of equally cheap choices, the one with most groups in integers.
    equals = [c for c in every if total_seconds(costs, c) == pytest.approx(best, rel=1e-9)]
    assert found == min(equals, key=len)


@pytest.mark.parametrize("seed", range(8))
def test_groups_that_have_to_stay_float_do_and_the_rest_is_cheapest(seed: int) -> None:
    costs = drawn(seed)
    groups = list(costs.as_float)
    held = frozenset(groups[1::3])
    allowed = [
        held | frozenset(chosen)
        for count in range(len(groups) + 1)
        for chosen in itertools.combinations(groups, count)
    ]
    best = min(total_seconds(costs, choice) for choice in allowed)
    found = cheapest_float_groups(costs, always_float=held)
    assert held <= found
    assert total_seconds(costs, found) == pytest.approx(best, rel=1e-9)


def test_a_tensor_becomes_integers_once_but_float_for_every_reader() -> None:
    readers = ("a", "b", "c")
    free = Costs(
        dict.fromkeys(readers, 2e-6),
        dict.fromkeys(readers, 0.0),
        [Border("x", "", readers, 0, 5e-6, 0.0)],
    )
    assert cheapest_float_groups(free) == frozenset()  # 5 once for the three, against 6
    written = Costs(
        {"w": 5e-6, **dict.fromkeys(readers, 0.0)},
        {"w": 0.0, **dict.fromkeys(readers, 10e-6)},
        [Border("x", "w", readers, 0, 0.0, 2e-6)],
    )
    assert cheapest_float_groups(written) == {"w", *readers}  # 2 for each of the three, against 5
    assert cheapest_float_groups(written, border_weight=0.5) == set(readers)
