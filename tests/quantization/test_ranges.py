"""Files of ranges, and the ways to choose one."""

import math

import numpy as np
import pytest

from graphopt.errors import OutputError, UsageError
from graphopt.graph import clone, from_text, ir
from graphopt.quantization.clipping import METHODS, choose_range, extremes
from graphopt.quantization.ranges import Range, Ranges, digest_of
from graphopt.runtime import TensorStatistics

MODEL = '<ir_version: 9, opset_import: ["" : 18]> g (float[N] x) => (float[N] y) { y = Sin(x) }'


def seen(feeds):
    statistics = TensorStatistics("t")
    statistics.keep_histograms(256)
    for values in feeds:
        values = np.asarray(values, np.float32)
        statistics.add(values)
        statistics.histogram.add(values)
    return statistics


def normal(count=32, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(1000) * scale for _ in range(count)]


def test_ranges_survive_a_file(tmp_path):
    ranges = Ranges({"a": Range(-0.1, 1 / 3), "b": Range(0.0, 0.0)}, "mse", 7, "digest")
    ranges.save(tmp_path / "ranges.json")
    again = Ranges.load(tmp_path / "ranges.json")
    assert again == ranges
    assert again["a"].maximum == 1 / 3
    assert list(tmp_path.iterdir()) == [tmp_path / "ranges.json"]
    with pytest.raises(OutputError, match="cannot write"):
        ranges.save(tmp_path / "absent" / "ranges.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no file of ranges"),
        ("[]", "no file of ranges"),
        ('{"format": "x"}', "another version"),
        (
            (
                '{"format": "graphopt ranges 1", "method": "mse", "samples": 1, "model": "",'
                ' "tensors": {"a": [1, 0]}}'
            ),
            "'a' is not finite and ascending",
        ),
        (
            (
                '{"format": "graphopt ranges 1", "method": "mse", "samples": 1, "model": "",'
                ' "tensors": {"a": [NaN, 0]}}'
            ),
            "'a' is not finite and ascending",
        ),
    ],
)
def test_what_is_no_file_of_ranges(tmp_path, text, message):
    path = tmp_path / "ranges.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        Ranges.load(path)
    with pytest.raises(UsageError, match="cannot read"):
        Ranges.load(tmp_path / "absent.json")


def test_the_digest_is_that_of_the_content():
    model = from_text(MODEL)
    assert digest_of(model) == digest_of(clone(model))
    assert digest_of(model) != digest_of(from_text(MODEL.replace("Sin", "Cos")))
    weights = [np.ones(3, np.float32), np.ones(3, np.float32), np.zeros(3, np.float32)]
    digests = []
    for weight in weights:
        changed = clone(model)
        changed.graph.initializers.add(ir.Value(name="w", const_value=ir.tensor(weight, name="w")))
        digests.append(digest_of(changed))
    assert digests[0] == digests[1] != digests[2]


def test_minmax_and_moving_average():
    statistics = seen([[-1.0, 2.0], [-3.0, 8.0]])
    assert choose_range(statistics, "minmax") == Range(-3.0, 8.0)
    assert choose_range(statistics, "moving-average") == Range(-2.0, 5.0)
    with pytest.raises(UsageError, match="no method 'median'"):
        choose_range(statistics, "median")


def test_percentile_covers_that_share():
    values = np.concatenate(normal())
    found = choose_range(seen(normal()), "percentile", percentile=0.99)
    assert found.maximum == pytest.approx(np.quantile(values, 0.99), rel=0.01)
    assert found.minimum == pytest.approx(np.quantile(values, 0.01), rel=0.01)
    whole = choose_range(seen(normal()), "percentile", percentile=1.0)
    assert (whole.minimum, whole.maximum) == pytest.approx((values.min(), values.max()), rel=1e-6)


def fake_quantized(values, span, levels, symmetric):
    low, high = min(span.minimum, 0.0), max(span.maximum, 0.0)
    if symmetric:
        high = max(-low, high)
        low = -high
    step = (high - low) / (levels - 1)
    zero = round(-low / step)
    return (np.clip(np.round(values / step) + zero, 0, levels - 1) - zero) * step


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("levels", [64, 256])
@pytest.mark.parametrize("shape", ["normal", "relu", "laplace", "shifted"])
def test_mse_is_as_good_as_trying_every_clip(shape, levels, symmetric):
    rng = np.random.default_rng(3)
    values = {
        "normal": rng.standard_normal(32_000),
        "relu": np.maximum(rng.standard_normal(32_000), 0),
        "laplace": rng.laplace(size=32_000),
        "shifted": rng.laplace(size=32_000) + 3,
    }[shape]
    found = choose_range(seen(np.split(values, 32)), "mse", levels=levels, symmetric=symmetric)

    def error(span):
        return ((values - fake_quantized(values, span, levels, symmetric)) ** 2).mean()

    shares = np.linspace(0.05, 1, 60)
    ends = [Range(values.min() * a, values.max() * b) for a in shares for b in shares]
    best = min(error(span) for span in ends[:: 1 if shape == "laplace" else 7])
    assert error(found) <= 1.06 * best


def test_entropy_clips_a_long_tail_and_keeps_a_short_one():
    rng = np.random.default_rng(4)
    tail = np.concatenate([rng.standard_normal(100_000), np.linspace(5, 50, 30)])
    clipped = choose_range(seen(np.array_split(rng.permutation(tail), 20)), "entropy")
    assert 2.5 < clipped.maximum < 15
    assert -6 < clipped.minimum < -2.5
    uniform = choose_range(seen(np.split(rng.uniform(0, 1, 100_000), 20)), "entropy")
    assert uniform.maximum > 0.95
    assert uniform.minimum == 0


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
@pytest.mark.parametrize("scale", [30.0, 1e4, 1e7])
def test_one_broken_sample_ruins_nothing(method, scale):
    feeds = normal(50)
    clean = choose_range(seen(feeds), method)
    broken = choose_range(seen([*feeds[:20], feeds[20] * scale, *feeds[21:]]), method)
    assert extremes(seen(feeds))[1] == pytest.approx(max(f.max() for f in feeds))
    # At most twice the range: one bit lost.
    assert broken.maximum <= 1.25 * clean.maximum
    assert broken.minimum >= 1.25 * clean.minimum
    assert broken.maximum >= 0.7 * clean.maximum
    assert choose_range(seen([f * scale for f in feeds]), method).maximum == pytest.approx(
        clean.maximum * scale, rel=0.1
    )


@pytest.mark.parametrize("method", METHODS)
def test_what_every_feed_has_is_no_accident(method):
    rng = np.random.default_rng(5)
    feeds = [np.append(rng.standard_normal(1000), 40 + rng.random()) for _ in range(20)]
    statistics = seen(feeds)
    assert extremes(statistics)[1] == statistics.maximum


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "values", [[0.0] * 8, [3.0] * 8, [-2.0] * 8, [1e-40] * 8, [np.nan] * 8, [np.inf, 1.0]]
)
def test_ranges_of_strange_tensors_are_finite(method, values):
    found = choose_range(seen([values] * 5), method)
    assert math.isfinite(found.minimum)
    assert math.isfinite(found.maximum)
    assert found.minimum <= found.maximum
    finite = [value for value in values if math.isfinite(value)]
    if finite and abs(finite[0]) > 1:
        covered = min(found.minimum, 0.0) <= finite[0] * 0.95 <= max(found.maximum, 0.0)
        assert covered
