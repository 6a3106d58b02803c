"""Bias correction leaves no mean error, layer after layer, in bounded memory."""

import numpy as np

from graphopt.graph import clone, ir, verify
from graphopt.quantization.repair.bias_correction import correct_biases
from graphopt.quantization.repair.linear_layer import linear_layers
from graphopt.quantization.repair.rescaling import set_constant
from graphopt.quantization.repair.staged_run import StagedRun
from graphopt.runtime import Session
from tests.quantization.small_models import model, normal

NETWORK = model(
    """(float[N,4,8,8] x) => (float[N,5] y) {
        a = Conv <pads: ints = [1,1,1,1]> (x, w, b)
        r = Relu (a)
        c = Conv <group: int = 6, pads: ints = [1,1,1,1]> (r, d, e)
        s = Add (c, r)
        u = Relu (s)
        q = Conv (u, v)
        p = GlobalAveragePool (u)
        f = Flatten (p)
        y = Gemm <beta: float = 0.5> (f, g, h)
    }""",
    {
        "w": (6, 4, 3, 3),
        "b": (6,),
        "d": (6, 1, 3, 3),
        "e": (6,),
        "v": (2, 6, 1, 1),
        "g": (6, 5),
        "h": (5,),
    },
)
FEEDS = normal((2, 4, 8, 8), 12)


def floored(float_model: ir.Model) -> ir.Model:
    """A quantizer with a bias: weights rounded down to coarse steps."""
    changed = clone(float_model)
    for layer in list(linear_layers(changed.graph)):
        set_constant(layer.node, layer.weight_index, np.floor(layer.weight * 4) / 4)
    return changed


def mean_errors(changed: ir.Model, name: str, axis: int) -> np.ndarray:
    errors = []
    for feed in FEEDS:
        expected = Session(NETWORK, outputs=[name]).run(feed, [name])[name].astype(np.float64)
        actual = Session(changed, outputs=[name]).run(feed, [name])[name]
        errors.append(np.moveaxis(actual - expected, axis, -1).reshape(-1, actual.shape[axis]))
    return np.abs(np.concatenate(errors).mean(axis=0))


def test_every_layer_gets_its_mean_back_behind_corrected_layers() -> None:
    plain = floored(NETWORK)
    corrected = correct_biases(NETWORK, floored, FEEDS)
    assert not verify(corrected)
    repaired = floored(corrected)
    for name in ("a", "c", "y"):
        assert mean_errors(plain, name, 1).max() > 0.1
        assert mean_errors(repaired, name, 1).max() < 2e-5


def test_what_is_given_is_not_changed_and_weights_stay() -> None:
    before = {
        name: value.const_value.numpy().copy() for name, value in NETWORK.graph.initializers.items()
    }
    corrected = correct_biases(NETWORK, floored, FEEDS)
    for name, value in NETWORK.graph.initializers.items():
        np.testing.assert_array_equal(value.const_value.numpy(), before[name])
    for name in ("w", "d", "g", "v"):
        np.testing.assert_array_equal(
            corrected.graph.initializers[name].const_value.numpy(), before[name]
        )


def test_little_memory_means_fewer_feeds() -> None:
    steps = []
    corrected = correct_biases(
        NETWORK,
        floored,
        FEEDS,
        max_bytes=40_000,
        progress=lambda done, of: steps.append((done, of)),
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]
    for name in ("a", "c", "y"):
        assert (
            mean_errors(floored(corrected), name, 1).max()
            < 0.5 * mean_errors(floored(NETWORK), name, 1).max()
        )


def test_a_bias_behind_a_product_of_matrices_counts_on_request() -> None:
    network = model(
        "(float[N,3,4] x) => (float[N,3,2] y) { t = MatMul (x, w) y = Add (b, t) }",
        {"w": (4, 2), "b": (2,)},
    )
    feeds = [
        {"x": np.random.default_rng(seed).normal(1, 1, size=(2, 3, 4)).astype(np.float32)}
        for seed in range(4)
    ]
    untouched = correct_biases(network, floored, feeds)
    np.testing.assert_array_equal(
        untouched.graph.initializers["b"].const_value.numpy(),
        network.graph.initializers["b"].const_value.numpy(),
    )
    corrected = floored(correct_biases(network, floored, feeds, op_types=("MatMul",)))
    difference = sum(
        (Session(corrected).run(feed)["y"] - Session(network).run(feed)["y"]).mean(axis=(0, 1))
        for feed in feeds
    )
    np.testing.assert_allclose(difference, 0, atol=1e-5)


def test_a_staged_run_computes_what_one_run_does() -> None:
    original = model(
        """(float[2,3] x, bool c) => (float[2,3] y) {
            a = Relu (x)
            b = Add (a, x)
            d = If (c) <
                then_branch = g1 () => (float[2,3] t) { t = Mul (b, a) },
                else_branch = g2 () => (float[2,3] e) { e = Neg (x) }
            >
            y = Add (d, w)
        }""",
        {"w": (3,)},
    )
    feeds = [
        {
            "x": np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32),
            "c": np.array(bool(seed % 2)),
        }
        for seed in range(4)
    ]
    run = StagedRun(original, feeds)
    run.advance(["a"])
    run.advance(["d"])
    assert 0 < run.held_bytes <= 4 * 24  # of everything before only 'd' is still needed
    run.advance(["y"])
    for feed, found in zip(feeds, run.values("y"), strict=True):
        np.testing.assert_array_equal(found, Session(original).run(feed)["y"])
