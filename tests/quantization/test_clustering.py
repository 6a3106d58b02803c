"""Clustered weights are small, close, and one set of values."""

import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.graph import clone, to_bytes, verify
from graphopt.quantization.clustering import cluster_weights, codebook
from graphopt.rewrite import Journal
from graphopt.runtime import Session
from tests.quantization.small_models import model, sqnr


def test_the_file_is_a_quarter_and_the_output_close() -> None:
    original = model(
        "(float[N,64] x) => (float[N,32] y) { t = MatMul (x, w) r = Relu (t) y = MatMul (r, v) }",
        {"w": (64, 128), "v": (128, 32)},
    )
    changed = clone(original)
    journal = Journal("x")
    cluster_weights(changed, journal, minimum_elements=1000)
    assert not verify(changed)
    assert len(journal.rewrites) == 2
    assert len(to_bytes(changed)) < 0.32 * len(to_bytes(original))
    feed = {"x": np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)}
    expected = Session(original).run(feed)["y"]
    assert sqnr(expected, Session(changed).run(feed)["y"]) > 40


@pytest.mark.parametrize("clusters", [4, 16, 256])
def test_clusters_beat_even_steps(clusters: int) -> None:
    values = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    centres, index = codebook(values, clusters)
    assert len(centres) <= clusters
    even = np.linspace(values.min(), values.max(), clusters)
    nearest = even[np.abs(values[:, None] - even[None, :]).argmin(axis=1)]
    assert np.square(centres[index] - values).mean() < 0.75 * np.square(nearest - values).mean()
    best = np.abs(values[:100, None] - centres[None, :]).argmin(axis=1)
    np.testing.assert_array_equal(index[:100], best)


def test_few_values_are_kept_exactly() -> None:
    values = np.float32([[0.1, -3, 0.1], [7, -3, 7]])
    centres, index = codebook(values, 16)
    np.testing.assert_array_equal(centres[index], values)


@pytest.mark.parametrize("clusters", [1, 257])
def test_a_codebook_that_does_not_fit_a_byte_is_refused(clusters: int) -> None:
    original = model("(float[N,4] x) => (float[N,4] y) { y = MatMul (x, w) }", {"w": (4, 4)})
    with pytest.raises(UsageError, match="use 2 to 256"):
        cluster_weights(original, Journal("x"), clusters=clusters)
