"""Two convolutions fitted together: right derivatives, exact where it can be, never worse."""

import math

import numpy as np
import pytest

from graphopt.graph import clone, constant_array, ir
from graphopt.pruning.coupling import find_groups
from graphopt.pruning.linear_layers import layers_of
from graphopt.pruning.pair_fit import (
    FEWEST_SAMPLES,
    Pair,
    _Columns,
    _Problem,
    fit_pair,
    pairs_of,
    samples_for,
)
from graphopt.pruning.repair import repair
from graphopt.pruning.repair_targets import aims_of
from graphopt.pruning.surgery import kept_indices, prune
from graphopt.runtime import Feed, Patches, Session
from tests.pruning.pruning_models import model

SIZES = "float[N, 3, 10, 9] x"
BODY = """
    h = Conv<pads = [1, 1, 1, 1], strides = [2, 1]>(x, w, b)
    r = Relu(h)
    z = Conv<pads = [0, 1, 1, 0], dilations = [1, 2]>(r, v, c)
    y = Relu(z)
"""
RESIDUAL = """
    h = Conv<pads = [1, 1, 1, 1]>(x, w, b)
    r = Relu(h)
    z = Conv<pads = [1, 1, 1, 1]>(r, v, c)
    s = Add(x, z)
    y = Relu(s)
"""


def network(body: str = BODY, hidden: int = 8, outputs: int = 4, seed: int = 0) -> ir.Model:
    random = np.random.default_rng(seed)
    shapes = {"w": (hidden, 3, 3, 3), "b": (hidden,), "v": (outputs, hidden, 3, 3), "c": (outputs,)}
    weights = {
        name: (0.3 * random.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()
    }
    return model(SIZES, "float[N, M, H, W] y", body, weights)


def images(count: int = 48, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 10, 9)).astype(np.float32)


def pair_in(network: ir.Model) -> Pair:
    layers, _ = layers_of(network.graph)
    return pairs_of(layers, aims_of(network.graph, layers))["z"]


def value_of(network: ir.Model, name: str, x: np.ndarray) -> np.ndarray:
    found = Session(network, outputs=[name]).run({"x": x}, [name])[name]
    assert isinstance(found, np.ndarray)
    return found


def test_its_forward_pass_is_that_of_the_runtime() -> None:
    small, x = network(hidden=5), images()
    z = value_of(small, "z", x)
    problem = _Problem(pair_in(small), x, z, None, 0.0, math.inf)
    assert problem.error(problem.start()) < 1e-10


def test_columns_and_their_adjoint_agree() -> None:
    """<columns of x, r> = <x, r taken back>, with strides, dilations and uneven pads."""
    random = np.random.default_rng(0)
    columns = _Columns(Patches((3, 2), (2, 1), (0, 1, 2, 3), (1, 2)), (4, 9, 7, 5))
    x = random.normal(size=(4, 9, 7, 5)).astype(np.float32)
    there = columns.of(x)
    rows = random.normal(size=there.shape).astype(np.float32)
    assert float((there * rows).sum()) == pytest.approx(float((x * columns.back(rows)).sum()), 1e-4)


def test_a_step_goes_down_the_slope_of_the_error() -> None:
    """Against differences: the direction is down, and the error falls by much."""
    small, x = network(hidden=5), images()
    target = value_of(network(seed=3), "z", x)
    problem = _Problem(pair_in(small), x, target, None, -math.inf, math.inf)
    start = problem.start()
    # Damped out of proportion, a step is the gradient divided by the damping and the scale.
    step = problem.step(start, 1e12)
    step /= np.linalg.norm(step)
    size = 1e-3
    slope = (problem.error(start + size * step) - problem.error(start - size * step)) / (2 * size)
    assert slope < 0
    single = problem.error(start) - problem.error(start + problem.step(start, 1e-3))
    assert single > 0.2 * problem.error(start)


@pytest.mark.parametrize("hidden", [5, 8])
def test_the_pair_comes_to_what_another_network_gives(hidden: int) -> None:
    """With as many channels exactly, from somewhere near; with fewer, closer."""
    original, x = network(), images()
    small = clone(original)
    if hidden < 8:
        small = network(hidden=hidden)
    else:
        weight = small.graph.initializers["w"]
        noise = 0.05 * np.random.default_rng(2).normal(size=(8, 3, 3, 3))
        near = np.asarray(constant_array(weight)) + noise
        weight.const_value = ir.tensor(near.astype(np.float32))
    before, after = fit_pair(pair_in(small), x, value_of(original, "z", x), None, low=0.0)
    assert after < (0.02 if hidden == 8 else 0.8) * before
    fresh = images(seed=7)
    expected, found = (value_of(each, "y", fresh) for each in (original, small))
    assert float(np.square(found - expected).mean() / expected.var()) < 1.5 * after + 1e-3


def test_where_nothing_is_to_be_gained_nothing_changes() -> None:
    small, x = network(hidden=5), images()
    target = value_of(small, "z", x)
    before, after = fit_pair(pair_in(small), x, target, None, low=0.0)
    assert after <= before < 1e-9
    np.testing.assert_allclose(value_of(small, "z", x), target, atol=1e-5)


def test_repair_fits_the_layers_of_a_block_together() -> None:
    """Better on other data than one after the other."""
    original = network(RESIDUAL, outputs=3)
    groups = find_groups(original)
    kept = {next(g.name for g in groups.prunable if g.channels == 8): [0, 2, 3, 6]}
    feeds: list[Feed] = [{"x": images(8, seed=number)} for number in range(30)]
    indices = kept_indices(groups, kept)

    def repaired(*, together: bool, monkeypatch: pytest.MonkeyPatch) -> ir.Model:
        pruned = clone(original)
        prune(pruned, groups, kept)
        with monkeypatch.context() as patch:
            if not together:
                patch.setattr("graphopt.pruning.repair.pairs_of", lambda *_: {})
            repair(pruned, original, feeds, indices)
        return pruned

    with pytest.MonkeyPatch.context() as patch:
        apart = repaired(together=False, monkeypatch=patch)
        joined = repaired(together=True, monkeypatch=patch)
    fresh = images(100, seed=99)
    expected = value_of(original, "y", fresh)
    errors = [
        float(np.square(value_of(each, "y", fresh) - expected).mean()) for each in (apart, joined)
    ]
    assert errors[1] < 0.9 * errors[0]


def test_what_is_read_behind_a_repaired_pair_is_that_of_the_new_numbers() -> None:
    """A second block is fitted to what the first one gives after its fit."""
    body = (
        RESIDUAL
        + """
        h2 = Conv<pads = [1, 1, 1, 1]>(y, w2, b2)
        r2 = Relu(h2)
        z2 = Conv<pads = [1, 1, 1, 1]>(r2, v2, c2)
        s2 = Add(y, z2)
        y2 = Relu(s2)
    """
    )
    random = np.random.default_rng(4)
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "v": (3, 8, 3, 3), "c": (3,)}
    weights = {
        f"{name}{end}": (0.3 * random.normal(size=shape)).astype(np.float32)
        for end in ("", "2")
        for name, shape in shapes.items()
    }
    original = model(SIZES, "float[N, M, H, W] y2", body, weights)
    groups = find_groups(original)
    kept = {group.name: [0, 2, 3, 6] for group in groups.prunable if group.channels == 8}
    assert len(kept) == 2
    pruned = clone(original)
    prune(pruned, groups, kept)
    feeds: list[Feed] = [{"x": images(8, seed=number)} for number in range(30)]
    report = repair(pruned, original, feeds, kept_indices(groups, kept))
    fresh = images(100, seed=99)
    expected, found = (value_of(each, "y2", fresh) for each in (original, pruned))
    error = float(np.square(found - expected).mean() / expected.var(axis=(0, 2, 3)).mean())
    assert error == pytest.approx(report.refitted["z2"][1], rel=0.25)
    assert report.refitted["z2"][1] < report.refitted["z2"][0]


def test_branches_that_read_one_tensor_are_fitted_each() -> None:
    body = """
        h = Conv(x, w, b)
        r = Relu(h)
        z = Conv<pads = [1, 1, 1, 1]>(r, v, c)
        h2 = Conv(x, w2, b2)
        r2 = Relu(h2)
        z2 = Conv<pads = [1, 1, 1, 1]>(r2, v2, c2)
        y = Concat<axis = 1>(z, z2)
    """
    shapes = {"w": (8, 3, 1, 1), "b": (8,), "v": (3, 8, 3, 3), "c": (3,)}
    weights = {f"{name}{end}": shape for end in ("", "2") for name, shape in shapes.items()}
    original = model(SIZES, "float[N, M, H, W] y", body, weights)
    groups = find_groups(original)
    kept = {group.name: [0, 2, 3, 6] for group in groups.prunable if group.channels == 8}
    pruned = clone(original)
    prune(pruned, groups, kept)
    alone = {name: constant_array(pruned.graph.initializers[name]) for name in ("w", "w2")}
    feeds: list[Feed] = [{"x": images(8, seed=number)} for number in range(30)]
    repair(pruned, original, feeds, kept_indices(groups, kept))
    for name, before in alone.items():
        # The first layers read what they did: only together with the second ones they change.
        assert not np.array_equal(constant_array(pruned.graph.initializers[name]), before)


def test_half_precision_has_its_error_in_double() -> None:
    """Squares of a few thousand numbers of float16 are over its range."""
    x, target = images(), 30 * value_of(network(), "z", images())
    errors = [
        fit_pair(pair_in(network(hidden=5)), x, target.astype(kind), None)
        for kind in (np.float32, np.float16)
    ]
    assert errors[1] == pytest.approx(errors[0], rel=1e-2)


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace("Relu(h)", "Sigmoid(h)"),
        BODY.replace("y = Relu(z)", "y = Relu(z)\n    also = Relu(r)"),
        BODY.replace("Conv<pads = [0, 1, 1, 0], dil", 'Conv<auto_pad = "SAME_UPPER", dil'),
    ],
    ids=["no clipping", "read elsewhere", "pads by size"],
)
def test_what_is_no_pair(body: str) -> None:
    graph = network(body).graph
    layers, _ = layers_of(graph)
    assert set(layers) == {"h", "z"}
    assert pairs_of(layers, aims_of(graph, layers)) == {}


def test_enough_samples_for_the_columns_within_the_memory() -> None:
    pair = pair_in(network())
    assert samples_for(pair, 10, 10) > samples_for(pair, 1000, 1000) >= 96
    assert samples_for(pair, 1 << 20, 1 << 20) < FEWEST_SAMPLES
    # A stride leaves few positions behind the second layer; the first has its columns all the same.
    assert samples_for(pair, 1 << 20, 16) < FEWEST_SAMPLES


@pytest.mark.parametrize(("width", "positions"), [(64, 3136), (512, 49), (512, 3136)])
def test_a_pair_that_takes_too_long_is_not_fitted(width: int, positions: int) -> None:
    """Hours for the last convolutions of VGG-16, of which few rows could be held."""
    pair = pair_in(network(hidden=width, outputs=width))
    count = samples_for(pair, positions, positions)
    assert (count >= FEWEST_SAMPLES) == (width == 64)
    assert count * positions * 9 * width * width <= 5e9


def test_few_samples_leave_the_layers_fitted_one_by_one() -> None:
    original = network(RESIDUAL, outputs=3)
    groups = find_groups(original)
    kept = {next(g.name for g in groups.prunable if g.channels == 8): [0, 2, 3, 6]}
    pruned = clone(original)
    prune(pruned, groups, kept)
    first = np.asarray(constant_array(pruned.graph.initializers["w"])).copy()
    report = repair(pruned, original, [{"x": images(3)}], kept_indices(groups, kept))
    assert set(report.refitted) == {"z"}
    assert np.array_equal(np.asarray(constant_array(pruned.graph.initializers["w"])), first)
