"""Smoothing computes the same and levels the channels."""

import numpy as np
import pytest

from graphopt.graph import clone, verify
from graphopt.quantization.repair.smoothing import smooth_activations
from graphopt.rewrite import Journal
from graphopt.runtime import Session, collect
from tests.quantization.small_models import model, normal

ATTENTION = model(
    """(float[N,4,16] x) => (float[N,4,6] q, float[N,4,6] k, float[N,4,6] v) {
        t = LayerNormalization (x, scale, shift)
        q = MatMul (t, wq)
        k = MatMul (t, wk)
        v = MatMul (t, wv)
    }""",
    {
        "scale": np.geomspace(0.05, 50, 16),
        "shift": (16,),
        "wq": (16, 6),
        "wk": (16, 6),
        "wv": (16, 6),
    },
)
FEEDS = [
    {"x": np.random.default_rng(seed).normal(size=(2, 4, 16)).astype(np.float32)}
    for seed in range(6)
]


def spread(changed: object) -> float:
    """The largest channel's range over the smallest one's."""
    found = collect(changed, FEEDS, ["t"], channel_axes={"t": -1})["t"].channels  # type: ignore[arg-type]
    assert found is not None
    largest = np.maximum(-found.minimum, found.maximum)
    return float(largest.max() / largest.min())


def test_queries_keys_and_values_share_the_factors() -> None:
    changed = clone(ATTENTION)
    journal = Journal("x")
    smooth_activations(changed, FEEDS, journal, strength=0.5)
    assert not verify(changed)
    assert [rewrite.detail for rewrite in journal.rewrites] == [
        "16 channels smoothed for 'q', 'k', 'v'"
    ]
    for feed in FEEDS:
        before, after = Session(ATTENTION).run(feed), Session(changed).run(feed)
        for name, expected in before.items():
            assert np.abs(after[name] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert spread(ATTENTION) > 200
    assert spread(changed) < 40


def test_the_strength_says_how_much_is_moved() -> None:
    all_of_it = clone(ATTENTION)
    smooth_activations(all_of_it, FEEDS, Journal("x"), strength=1.0)
    assert spread(all_of_it) == pytest.approx(1, rel=1e-4)


def test_convolutions_are_smoothed_on_request() -> None:
    original = model(
        """(float[N,4,6,6] x) => (float[N,3,4,4] y) {
            a = Conv (x, w, b)
            r = Relu (a)
            y = Conv (r, v)
        }""",
        {"w": (8, 4, 1, 1), "b": (8,), "v": (3, 8, 3, 3)},
    )
    feeds = normal((2, 4, 6, 6), 4)
    journal = Journal("x")
    smooth_activations(original, feeds, journal)
    assert not journal.rewrites
    changed = clone(original)
    smooth_activations(changed, feeds, journal, op_types=("Conv",))
    assert len(journal.rewrites) == 1
    expected, actual = Session(original).run(feeds[0])["y"], Session(changed).run(feeds[0])["y"]
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


def test_no_data_changes_nothing() -> None:
    journal = Journal("x")
    smooth_activations(clone(ATTENTION), [], journal)
    assert not journal.rewrites
    reasons = {decline.reason for decline in journal.declined}
    assert "no channel of it was seen to differ from the others" in reasons
