"""Which groups do harm, and in which order they are given up."""

import math

import numpy as np
import pytest

from graphopt.graph import from_text
from graphopt.quantization.sensitivity import giving_up_order, output_noise, outsized

HEAD = (
    '<ir_version: 9, opset_import: ["" : 18]> g (float[8] x) => (float[8] y, float[8] z, int64 n)'
)
SIZE = "n = Size(x) c = Constant<value_float = {c}>() d = Constant<value_float = {d}>()"


def model(c=0.0, d=0.0):
    body = SIZE.format(c=float(c), d=float(d))
    return from_text(f"{HEAD} {{ {body} y = Add(x, c) s = Add(x, x) z = Add(s, d) }}")


def test_noise_is_that_of_the_worst_output():
    changed = {
        "small": model(c=0.1),
        "large": model(d=1.0),
        "none": model(),
        "lost": model(d="nan"),
    }
    feeds = [{"x": np.ones(8, np.float32)}, {"x": np.full(8, 3, np.float32)}]
    told = []
    names = ["small", "large", "none"]
    found = output_noise(model(), changed.__getitem__, names, feeds, progress=told.append)
    assert found["small"] == pytest.approx(2 * 0.01 / 10, rel=1e-5)
    assert found["large"] == pytest.approx(2 * 1.0 / 40, rel=1e-5)
    assert found["none"] == 0
    assert list(found) == names
    assert told == [1, 2, 3]


def test_the_order_is_noise_for_what_is_gained():
    noise = {"a": 1.0, "b": 4.0, "c": 0.5, "d": 0.0, "e": 0.1}
    gain = {"a": 1.0, "b": 8.0, "c": 1.0, "d": 1.0, "e": -2.0}
    assert giving_up_order(noise, gain) == ["e", "a", "b", "c", "d"]
    assert giving_up_order(dict.fromkeys("xyz", 1.0), dict.fromkeys("xyz", 1.0)) == ["x", "y", "z"]


def test_the_order_is_the_best_for_every_budget():
    rng = np.random.default_rng(0)
    noise = {str(n): float(v) for n, v in enumerate(rng.exponential(size=10))}
    gain = dict.fromkeys(noise, 1.0)
    order = giving_up_order(noise, gain)
    for kept in range(10):
        left = sum(noise[name] for name in order[10 - kept :])
        assert left == pytest.approx(sum(sorted(noise.values())[:kept]))


def test_outsized_groups_are_few_and_cheap():
    def given_up(noise, gain):
        found = outsized(list(noise), lambda part: sum(noise[name] for name in part), gain)
        assert all(noise[name] == alone for name, alone in found.noise.items())
        return found.shares

    even = {str(n): 1.0 + n / 100 for n in range(20)}
    gain = dict.fromkeys([*even, "x", "y"], 1.0)
    assert given_up(even, gain) == {}
    assert list(given_up({**even, "x": 100.0}, gain)) == ["x"]
    assert list(given_up({"y": 1e4, **even, "x": 100.0}, gain)) == ["y", "x"]
    # Too dear: the group is half of all that there is to gain.
    assert given_up({**even, "x": 100.0}, {**gain, "x": 20.0}) == {}
    # Inaudible anyway.
    assert given_up({**{n: v * 1e-9 for n, v in even.items()}, "x": 1e-5}, gain) == {}
    # Of two groups one always has half.
    assert given_up({"x": 2.0, "y": 1.0}, gain) == {}
    assert given_up({**even, "x": math.inf}, gain) == {"x": 1.0}


@pytest.mark.parametrize("place", [0, 37, 99])
def test_a_loud_group_is_found_without_measuring_all(place):
    noise = {str(n): 1.0 for n in range(100)} | {str(place): 900.0}
    asked = []

    def noise_of(part):
        asked.append(part)
        return sum(noise[name] for name in part)

    assert list(outsized(list(noise), noise_of, dict.fromkeys(noise, 1.0)).shares) == [str(place)]
    assert len(asked) < 40
