"""prune-blocks: the least harmful block first, until the budget is met, never beyond it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt.errors import EquivalenceError, UsageError
from graphopt.graph import ir, load, verify
from graphopt.runtime import Session
from tests.pruning.pruning_models import model
from tests.zoo_models import batches, zoo_models

RANDOM = np.random.default_rng(3)


def drawn(*shape: int, scale: float = 0.3) -> np.ndarray:
    return RANDOM.normal(0, scale, shape).astype(np.float32)


def network() -> ir.Model:
    """Four blocks: one that matters, two without effect (the second larger), a linear one."""
    text, weights, last = [], {}, "x"
    for number, (width, effect) in enumerate(((20, 1.0), (20, 0.0), (40, 0.0), (20, None))):
        names = {"w": f"w{number}", "v": f"v{number}"}
        weights[names["w"]] = drawn(8, width)
        weights[names["v"]] = drawn(width, 8) * (0.3 if effect is None else effect)
        activation = "Identity" if effect is None else "Relu"
        text += [
            f"a{number} = MatMul({last}, {names['w']})",
            f"r{number} = {activation}(a{number})",
            f"f{number} = MatMul(r{number}, {names['v']})",
            f"s{number} = Add({last}, f{number})",
        ]
        last = f"s{number}"
    weights["head"] = drawn(8, 10)
    text.append(f"y = MatMul({last}, head)")
    return model("float[N, 8] x", "float[N, 10] y", "\n".join(text), weights)


DATA = {"x": drawn(400, 8, scale=1.0)}


def replaced(found: graphopt.PruneBlocksResult) -> list[tuple[str, str]]:
    return [(step.name, step.kind) for step in found.report.replaced]


def test_takes_what_harms_least_for_what_it_saves() -> None:
    original = network()
    found = graphopt.prune_blocks(original, calibration=DATA, count=2)
    # Both are without effect, and so is the linear one; the rest is a matter of MACs saved.
    assert replaced(found) in (
        [("s2", "constant"), ("s1", "constant")],
        [("s1", "constant"), ("s2", "constant")],
    )
    assert isinstance(found.model, ir.Model)
    assert verify(found.model) == []
    feed = {"x": DATA["x"][:7]}
    expected, actual = Session(original).run(feed)["y"], Session(found.model).run(feed)["y"]
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())
    report = found.report
    assert report.blocks == 4
    assert report.macs == (1680.0, 720.0)
    assert report.metric == ("agreement", 1.0, 1.0)
    assert report.held_out == 50
    assert report.verified == "given"


def test_the_counts_are_those_of_the_result() -> None:
    for count in (1, 2, 3, 4):
        found = graphopt.prune_blocks(network(), calibration=DATA, count=count)
        cost = graphopt.estimate_cost(found.model, dims={"N": 1})
        assert found.report.macs[1] == cost.total.macs == found.report.replaced[-1].macs
        assert found.report.parameters[1] == cost.total.parameters
        assert len(found.report.replaced) == count


def test_replaces_until_the_macs_are_met() -> None:
    found = graphopt.prune_blocks(network(), calibration=DATA, target_macs="60%")
    before, after = found.report.macs
    assert after <= 0.6 * before
    steps = found.report.replaced
    assert all(step.macs > 0.6 * before for step in steps[:-1])
    absolute = graphopt.prune_blocks(network(), calibration=DATA, target_macs=0.6 * before)
    assert replaced(absolute) == replaced(found)


def test_stops_before_the_block_that_falls_too_far() -> None:
    found = graphopt.prune_blocks(network(), calibration=DATA, max_drop="0")
    assert {name for name, _ in replaced(found)} == {"s1", "s2", "s3"}
    assert found.report.metric == ("agreement", 1.0, 1.0)
    everything = graphopt.prune_blocks(network(), calibration=DATA, max_drop="100%")
    assert len(everything.report.replaced) == 4
    with pytest.raises(EquivalenceError, match="3 blocks can be replaced, and one more falls"):
        graphopt.prune_blocks(network(), calibration=DATA, count=4, max_drop="0")


def test_a_metric_of_ones_own_decides() -> None:
    calls = []

    def metric(run) -> float:
        calls.append(run({"x": DATA["x"][:5]})["y"].shape)
        return 1.0 if len(calls) < 4 else 0.0

    found = graphopt.prune_blocks(network(), calibration=DATA, max_drop="0", metric=metric)
    # The first call measures the original.
    assert len(found.report.replaced) == 2
    assert set(calls) == {(5, 10)}
    assert found.report.held_out is None


def test_what_saves_nothing_stays() -> None:
    small = model(
        "float[N, 8] x",
        "float[N, 8] y",
        "f = Relu(x)\ns = Add(x, f)\ny = MatMul(s, w)",
        {"w": (8, 8)},
    )
    with pytest.raises(EquivalenceError, match=r"only 0 .* 's' is none: what stands for f\(x\)"):
        graphopt.prune_blocks(small, calibration=DATA, count=1)
    found = graphopt.prune_blocks(small, calibration=DATA, max_drop="1%", metric=lambda run: 1.0)
    assert found.report.replaced == ()
    assert found.report.declined == {"s": "what stands for f(x) costs as much"}


def test_where_nothing_has_to_go_nothing_is_said_against_a_block() -> None:
    found = graphopt.prune_blocks(network(), calibration=DATA, target_macs="100%")
    assert found.report.replaced == ()
    assert found.report.declined == {}


def test_what_does_not_run_here_stands_for_nothing() -> None:
    """ONNX Runtime has no convolution of doubles on CPUs, only products."""
    doubles = model(
        "double[N, 6, 5, 5] x",
        "double[N, 6, 5, 5] y",
        "t = Transpose<perm = [0, 2, 3, 1]>(x)\na = MatMul(t, w)\nb = Relu(a)\ng = MatMul(b, v)\n"
        "f = Transpose<perm = [0, 3, 1, 2]>(g)\ny = Add(x, f)",
        {"w": drawn(6, 40).astype(np.float64), "v": drawn(40, 6).astype(np.float64)},
    )
    found = graphopt.prune_blocks(
        doubles, calibration={"x": RANDOM.normal(size=(64, 6, 5, 5))}, count=1
    )
    assert replaced(found) == [("y", "constant")]


def test_a_budget_that_cannot_be_met_is_refused() -> None:
    with pytest.raises(EquivalenceError, match="only 4 residual blocks"):
        graphopt.prune_blocks(network(), calibration=DATA, count=5)
    with pytest.raises(EquivalenceError, match=r"which leaves \d+% of the MACs"):
        graphopt.prune_blocks(network(), calibration=DATA, target_macs="1%")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({}, "say how much to prune"),
        ({"count": 0}, "at least 1"),
        ({"count": 1, "target_macs": "50%"}, "give one"),
        ({"target_macs": "much"}, "--target-macs 'much' is not understood"),
        ({"max_drop": "1%", "metric": "sqnr"}, "a metric that the original has a figure in"),
        ({"count": 1, "calibration": None}, "--calib"),
    ],
)
def test_wrong_use_is_refused(options, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        graphopt.prune_blocks(network(), **{"calibration": DATA, **options})


def test_a_trained_transformer_keeps_its_interface(fixtures: Path) -> None:
    original = load(fixtures / "digits_transformer.onnx")
    images = np.load(fixtures / "digits_test.npz")["image"]
    found = graphopt.prune_blocks(original, calibration={"image": images[:120]}, count=1)
    assert found.report.metric is not None
    assert found.report.metric[2] > 0.7
    for count in (1, 5):
        feed = {"image": images[-count:]}
        shape = Session(original).run(feed)["logits"].shape
        assert Session(found.model).run(feed)["logits"].shape == shape


def test_one_block_of_a_deep_network_is_hardly_missed(zoo: Path) -> None:
    path = next(item.path for item in zoo_models(zoo) if item.name == "cifar_resnet20")
    parts = list(batches(zoo, "cifar_resnet20", 500))
    images = np.concatenate([feed["input"] for feed, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])[200:]
    # Judged on images that nothing was fitted to.
    found = graphopt.prune_blocks(path, calibration={"input": images[:200]}, count=1)
    feed = {"input": images[200:]}
    assert found.report.blocks == 7
    assert len(found.report.declined) == 2
    assert 0.85 < found.report.macs[1] / found.report.macs[0] < 0.95
    outputs = [next(iter(Session(each).run(feed).values())) for each in (load(path), found.model)]
    before, after = [(each.argmax(1) == labels).mean() for each in outputs]
    assert after > before - 0.08
