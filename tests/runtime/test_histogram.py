"""The histogram against numpy on all values at once."""

import numpy as np
import pytest

from graphopt.runtime import Histogram, Session, collect
from tests.runtime.test_collect import MODEL, feeds


def histogram_of(values, bins=256, pieces=1):
    histogram = Histogram(bins)
    for piece in np.array_split(values, pieces):
        histogram.add(piece)
    return histogram


@pytest.mark.parametrize("bins", [1, 16, 256])
@pytest.mark.parametrize("pieces", [1, 7, 100])
def test_counts_are_exact(bins, pieces):
    rng = np.random.default_rng(0)
    # The range grows from piece to piece, far beyond where it began, on both sides.
    values = (rng.standard_normal(5000) * np.logspace(-4, 3, 5000)).astype(np.float32)
    histogram = histogram_of(values, bins, pieces)
    low, high, counts = histogram.intervals()
    assert histogram.count == counts.sum() == values.size
    assert (low[0], high[-1]) == (values.min(), values.max())
    assert (high[1:] > high[:-1]).all()
    assert (low[1:] >= high[:-1]).all()
    for left, right, count in zip(low[1:-1], high[1:-1], counts[1:-1], strict=True):
        if left > 0:
            assert count == ((values >= left) & (values < right)).sum()
        elif right < 0:
            assert count == ((values > left) & (values <= right)).sum()
    # Bins are narrow beside what they hold, however far the largest value is.
    wide = (high - low) / np.maximum(np.minimum(abs(low), abs(high)), 1e-30)
    assert wide[counts > 0][low != 0].max(initial=0) <= 1 / bins + 1e-9


def test_only_what_is_nothing_beside_the_largest_counts_as_zero():
    histogram = histogram_of(np.array([1.0, 2.0**-38, 2.0**-41, -0.0, -(2.0**-50), 0.0]))
    assert histogram.zeros == 4
    assert histogram.positive.sum() == 2
    histogram.add(np.array([1e6]))
    assert histogram.zeros == 5  # 2^-38 is nothing beside it


@pytest.mark.parametrize("pieces", [3, 50])
def test_neither_order_nor_splits_matter(pieces):
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.standard_normal(999) * 1e-9, rng.standard_normal(999) * 50])
    whole = histogram_of(values)
    merged = Histogram()
    for part in np.array_split(rng.permutation(values), pieces):
        merged.merge(histogram_of(part))
    for other in (histogram_of(values[::-1], pieces=50), merged):
        assert (other.top, other.zeros) == (whole.top, whole.zeros)
        assert (other.minimum, other.maximum) == (whole.minimum, whole.maximum)
        np.testing.assert_array_equal(other.positive, whole.positive)
        np.testing.assert_array_equal(other.negative, whole.negative)
    with pytest.raises(ValueError, match="merged"):
        whole.merge(Histogram(16))


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-30, 1e30, 1e-44])
def test_values_that_are_all_the_same(value):
    histogram = histogram_of(np.full(10, value, np.float32))
    low, high, counts = histogram.intervals()
    assert counts.tolist() == [10]
    assert low[0] <= np.float32(value) <= high[0] or abs(value) < 1e-38
    assert histogram.quantile(0.5) == pytest.approx(value, rel=1e-6, abs=1e-38)


def test_quantiles():
    values = np.random.default_rng(2).standard_normal(100_000)
    histogram = histogram_of(values)
    for fraction in (0.001, 0.25, 0.5, 0.9999):
        expected = np.quantile(values, fraction)
        assert histogram.quantile(fraction) == pytest.approx(expected, rel=1 / 256, abs=1e-4)
    assert histogram.quantile(0) == np.float32(values.min())
    assert histogram.quantile(1) == np.float32(values.max())
    assert np.isnan(Histogram().quantile(0.5))


def test_what_is_not_finite_is_counted_apart():
    histogram = histogram_of(np.array([np.nan, np.inf, -np.inf, 2.0]))
    assert (histogram.left_out, histogram.count, histogram.maximum) == (3, 1, 2.0)
    only = histogram_of(np.array([np.nan]))
    assert (only.left_out, only.count) == (1, 0)


def test_bins_are_a_power_of_two():
    with pytest.raises(ValueError, match="power of two"):
        Histogram(100)


def test_of_the_collector():
    item = collect(MODEL, feeds(), ["y"], bins=256)["y"]
    session = Session(MODEL, outputs=["y"])
    values = np.stack([session.run(feed)["y"] for feed in feeds()])
    expected = histogram_of(values.reshape(-1))
    np.testing.assert_array_equal(item.histogram.positive, expected.positive)
    assert item.feed_maxima.count == 5
    assert item.feed_maxima.maximum == values.max()
    assert item.feed_minima.maximum == values.reshape(5, -1).min(axis=1).max()


def test_of_a_very_large_tensor_a_part_is_counted():
    x = np.random.default_rng(6).standard_normal((80_000, 4, 6, 5)).astype(np.float32)
    x[0, 1, 3, 2] = 50.0
    item = collect(MODEL, [{"x": x}], ["x"], bins=256)["x"]
    assert 500_000 <= item.histogram.count < 900_000
    assert item.histogram.maximum == 50.0
    assert item.count == x.size
    for fraction in (0.01, 0.5, 0.99):
        expected = np.quantile(x, fraction)
        assert item.histogram.quantile(fraction) == pytest.approx(expected, abs=0.01)
