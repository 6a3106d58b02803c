"""Allocation: meets the target, is best for separable costs, and keeps to floors and multiples."""

import itertools

import numpy as np
import pytest

from graphopt.pruning.allocation import allocation_path
from graphopt.pruning.importance import Ranking


def ranking(errors: list[float]) -> Ranking:
    return Ranking(np.arange(len(errors) - 1), np.asarray(errors))


def chain_cost(widths: dict[str, int], weights: dict[str, float]):
    names = list(widths)

    def cost(counts):
        sizes = [3.0, *(float(counts.get(name, widths[name])) for name in names), 10.0]
        factors = [weights.get(name, 1.0) for name in names] + [1.0]
        return sum(a * b * f for a, b, f in zip(sizes[:-1], sizes[1:], factors, strict=True))

    return cost


@pytest.mark.parametrize("share", [0.9, 0.66, 0.5, 0.4, 0.25])
def test_a_target_is_met_within_one_percent(share: float) -> None:
    random = np.random.default_rng(0)
    widths = {f"g{i}": int(width) for i, width in enumerate(random.integers(64, 256, size=8))}
    rankings = {
        name: ranking([0.0, *np.cumsum(np.sort(random.random(width) ** 3))])
        for name, width in widths.items()
    }
    cost = chain_cost(widths, {"g3": 4.0})
    path = allocation_path(rankings, cost)
    reached = cost(path.counts(share * cost({})))
    assert share * 0.99 <= reached / cost({}) <= share


def test_no_other_allocation_of_that_cost_has_less_error() -> None:
    random = np.random.default_rng(3)
    rankings = {
        name: ranking([0.0, *np.cumsum(np.sort(random.random(6)))]) for name in ("a", "b", "c")
    }
    price = {"a": 3.0, "b": 1.0, "c": 2.0}

    def cost(counts):
        return sum(price[name] * counts.get(name, 6) for name in price)

    def error(counts):
        return sum(rankings[name].errors[6 - counts.get(name, 6)] for name in price)

    path = allocation_path(rankings, cost)
    counts: dict[str, int] = {}
    for step in path.steps:
        counts[step.group] = step.count
        best = min(
            error(dict(zip("abc", sizes, strict=True)))
            for sizes in itertools.product(range(1, 7), repeat=3)
            if cost(dict(zip("abc", sizes, strict=True))) <= step.cost
        )
        assert error(counts) == pytest.approx(best)


def test_what_matters_less_at_the_output_goes_first() -> None:
    rankings = {name: ranking([0.0, 1.0, 2.0, 3.0, 4.0]) for name in ("a", "b")}

    def cost(counts):
        return sum(counts.get(name, 4) for name in rankings)

    path = allocation_path(rankings, cost, scales={"a": 1.0, "b": 0.1})
    assert path.counts(5.0) == {"b": 1}


def test_floors_and_multiples_are_kept() -> None:
    rankings = {name: ranking(np.arange(31.0).tolist()) for name in ("a", "b")}

    def cost(counts):
        return sum(counts.get(name, 30) for name in rankings)

    path = allocation_path(rankings, cost, floors={"a": 10}, steps={"a": 8, "b": 8})
    assert all(step.count % 8 == 0 for step in path.steps)
    assert path.counts(0.0) == {"a": 16, "b": 8}


def test_nothing_is_removed_where_the_target_is_met() -> None:
    path = allocation_path({"a": ranking([0.0, 1.0])}, lambda counts: 1.0)
    assert path.steps == ()
    assert path.counts(1.0) == {}
