"""Equalization computes the same, and what it says it does to the weights."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt.graph import clone, constant_array, ir, verify
from graphopt.quantization.repair.equalization import equalize_channels
from graphopt.quantization.repair.linear_layer import linear_layer
from graphopt.rewrite import Journal
from graphopt.rewrite.journal import site_of
from graphopt.runtime import Session
from graphopt.shapes import infer_shapes
from tests.quantization.small_models import model, normal
from tests.zoo_models import batches

SPREAD = np.geomspace(0.01, 10, 8)

CHAINS = {
    "depthwise triple": (
        """(float[N,8,9,9] x) => (float[N,3,5,5] y) {
            a = Conv (x, w, b)
            r = LeakyRelu <alpha: float = 0.1> (a)
            c = Conv <group: int = 8, pads: ints = [1,1,1,1], strides: ints = [2,2]> (r, d, e)
            s = Relu (c)
            y = Conv (s, v)
        }""",
        {"w": (8, 8, 1, 1), "b": (8,), "d": (8, 1, 3, 3), "e": (8,), "v": (3, 8, 1, 1)},
        3,
    ),
    "groups": (
        """(float[N,8,9,9] x) => (float[N,6,7,7] y) {
            a = Conv <group: int = 2> (x, w, b)
            r = Relu (a)
            m = MaxPool <kernel_shape: ints = [3,3]> (r)
            y = Conv <group: int = 2> (m, v)
        }""",
        {"w": (8, 4, 1, 1), "b": (8,), "v": (6, 4, 1, 1)},
        2,
    ),
    "transposed": (
        """(float[N,8,5,5] x) => (float[N,4,11,11] y) {
            a = ConvTranspose <group: int = 2, strides: ints = [2,2]> (x, w, b)
            r = Relu (a)
            y = ConvTranspose <group: int = 2> (r, v)
        }""",
        {"w": (8, 4, 3, 3), "b": (8,), "v": (8, 2, 1, 1)},
        2,
    ),
    "pooled to matrices": (
        """(float[N,8,5,5] x) => (float[N,5] y) {
            a = Conv (x, w)
            p = GlobalAveragePool (a)
            f = Flatten (p)
            g = Gemm <alpha: float = 0.5, transB: int = 1> (f, u, c)
            h = Add (g, k)
            r = Relu (h)
            y = MatMul (r, v)
        }""",
        {"w": (8, 8, 3, 3), "u": (8, 8), "c": (8,), "k": (8,), "v": (8, 5)},
        3,
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_same_is_computed_from_equal_ranges(name: str) -> None:
    body, weights, layers = CHAINS[name]
    original = model(body, weights)
    for node in original.graph:  # channels that differ by a factor of a thousand
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            layer = linear_layer(node)
            factors = np.resize(SPREAD, layer.outputs)
            scaled = layer.scaled_outputs(factors).astype(np.float32)
            layer.weight_value.const_value = ir.tensor(scaled, name=layer.weight_value.name)
    changed = clone(original)
    journal = Journal("equalize-channels")
    equalize_channels(changed, journal)
    assert not verify(changed)
    assert len(journal.rewrites) == layers - 1

    (shape,) = [value.shape for value in original.graph.inputs]
    for feed in normal((2, *map(int, list(shape)[1:])), 3):  # type: ignore[arg-type]
        expected = Session(original).run(feed)["y"]
        actual = Session(changed).run(feed)["y"]
        assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
    nodes = [
        node
        for node in changed.graph
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    ]
    for first, second in itertools.pairwise(nodes):
        before, after = linear_layer(first).output_range(), linear_layer(second).input_range()
        np.testing.assert_allclose(before, after, rtol=0.01)


def test_a_dead_channel_and_a_channel_nobody_reads_are_left_alone() -> None:
    original = model(
        "(float[N,3] x) => (float[N,2] y) { a = MatMul (x, w) y = MatMul (a, v) }",
        {"w": np.diag([0.0, 4.0, 1.0]), "v": np.array([[1.0, 1], [0, 0], [4, 1]])},
    )
    equalize_channels(original, Journal("x"))
    first = constant_array(next(iter(original.graph)).inputs[1])
    assert first is not None
    np.testing.assert_allclose(np.diag(first), [0.0, 4.0, 2.0], rtol=1e-3)


def test_a_site_that_is_not_permitted_stays_as_it_is() -> None:
    body, weights, _ = CHAINS["depthwise triple"]
    original = model(body, weights)
    first = next(iter(original.graph))
    changed = clone(original)
    journal = Journal("x", skip=frozenset({site_of(first)}))
    equalize_channels(changed, journal)
    assert len(journal.rewrites) == 1
    feed = normal((1, 8, 9, 9), 1)[0]
    expected, actual = Session(original).run(feed)["y"], Session(changed).run(feed)["y"]
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["cifar_resnet20", "lprnet", "mlperf_vww_mbv1"])
def test_zoo_models_compute_the_same(zoo: Path, name: str) -> None:
    original = graphopt.optimize(graphopt.load(zoo / "models" / f"{name}.onnx")).model
    infer_shapes(original)
    changed = clone(original)
    journal = Journal("x")
    equalize_channels(changed, journal)
    assert len(journal.rewrites) >= 9
    feed, _ = next(batches(zoo, name, 1))
    (expected,) = Session(original).run(feed).values()
    (actual,) = Session(changed).run(feed).values()
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
