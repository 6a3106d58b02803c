"""The collector against numpy on everything at once."""

import itertools
import sys

import ml_dtypes
import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.graph import from_text
from graphopt.runtime import (
    MomentRequest,
    Patches,
    Session,
    collect,
    load_statistics,
    save_statistics,
)
from graphopt.runtime.moments import patch_rows

MODEL = from_text(
    '<ir_version: 9, opset_import: ["" : 18]> g (float[N, 4, 6, 5] x) => (float[N, 4, 6, 5] z)'
    " { a = Sin(x) y = Mul(x, a) h = Cast<to = 10>(y) z = Add(a, y) }"
)


def feeds(count=5, seed=0):
    rng = np.random.default_rng(seed)
    for index in range(count):
        x = rng.standard_normal((2, 4, 6, 5)).astype(np.float32) * (index + 1)
        yield {"x": x}


def everything(name, count=5, seed=0):
    session = Session(MODEL, outputs=["a", "y", "h"])
    values = [{**feed, **session.run(feed)}[name] for feed in feeds(count, seed)]
    return np.stack(values).astype(np.float64)


@pytest.mark.parametrize("name", ["x", "a", "y", "h", "z"])
@pytest.mark.parametrize("max_bytes", [1 << 30, 1])
def test_ranges_and_means(name, max_bytes):
    names = ["x", "a", "y", "h", "z"]
    axes = dict.fromkeys(names, 1)
    found = collect(MODEL, feeds(), names, channel_axes=axes, max_bytes=max_bytes)
    assert list(found) == names
    item, values = found[name], everything(name)
    assert item.feeds == 5
    assert item.count == values.size
    assert item.left_out == 0
    assert item.minimum == values.min()
    assert item.maximum == values.max()
    assert item.absolute_maximum == abs(values).max()
    assert item.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-12)
    assert item.variance == pytest.approx(values.var(), rel=1e-9)
    assert item.average_minimum == pytest.approx(values.min(axis=(1, 2, 3, 4)).mean())
    assert item.average_maximum == pytest.approx(values.max(axis=(1, 2, 3, 4)).mean())
    others = (0, 1, 3, 4)
    np.testing.assert_array_equal(item.channels.minimum, values.min(axis=others))
    np.testing.assert_array_equal(item.channels.maximum, values.max(axis=others))
    np.testing.assert_allclose(item.channels.mean, values.mean(axis=others), rtol=1e-9)
    np.testing.assert_allclose(item.channels.variance, values.var(axis=others), rtol=1e-9)


def test_groups_hold_no_more_than_allowed(monkeypatch):
    module = sys.modules["graphopt.runtime.tapping"]
    sessions = []

    class Watched(Session):
        def __init__(self, *arguments, **options):
            sessions.append(options["outputs"])
            super().__init__(*arguments, **options)

    monkeypatch.setattr(module, "Session", Watched)
    size = 2 * 4 * 6 * 5 * 4
    collect(MODEL, feeds(2), ["a", "y", "z"], max_bytes=2 * size)
    assert sessions[-2:] == [["a", "y"], ["z"]]


def test_each_feed_is_used_once_and_progress_is_told():
    taken, told = [], []

    def generate():
        for index, feed in enumerate(feeds(3)):
            taken.append(index)
            yield feed

    collect(MODEL, generate(), ["y"], progress=told.append)
    assert taken == [0, 1, 2]
    assert told == [1, 2, 3]


def test_values_that_are_not_finite_are_counted_apart():
    model = from_text(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[N] x) => (float[N] y) { y = Log(x) }'
    )
    data = [{"x": np.array([-1, 0, 1, np.e], np.float32)}, {"x": np.array([-1.0], np.float32)}]
    item = collect(model, data, ["y"], bins=64)["y"]
    assert (item.left_out, item.count, item.feeds) == (3, 2, 1)
    assert item.histogram.left_out == 3
    assert item.minimum == 0
    assert item.maximum == pytest.approx(1)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.int8, np.bool_])
def test_types_without_float32_range(dtype):
    kind = np.dtype(dtype).name
    model = from_text(
        f'<ir_version: 9, opset_import: ["" : 18]> g ({kind}[N] x) => ({kind}[N] y)'
        " { y = Identity(x) }"
    )
    x = np.full(100_000, 100).astype(dtype)
    item = collect(model, [{"x": x}], ["y"], bins=16)["y"]
    value = float(x[0])
    assert item.mean == value
    assert item.total == value * 100_000
    assert item.histogram.count == 100_000


def test_second_moment_along_an_axis():
    request = MomentRequest(axis=1)
    item = collect(MODEL, feeds(), ["y"], moments={"y": request})["y"]
    rows = np.moveaxis(everything("y"), 2, -1).reshape(-1, 4)
    np.testing.assert_allclose(item.moment.matrix, (rows.T @ rows)[None], rtol=1e-10)
    np.testing.assert_allclose(item.moment.sums, rows.sum(axis=0)[None], rtol=1e-10)
    assert item.moment.rows == len(rows)


GEOMETRIES = [
    Patches((3, 3)),
    Patches((3, 2), strides=(2, 1), pads=(1, 0, 1, 2)),
    Patches((2, 3), dilations=(3, 2), pads=(2, 2, 0, 1), groups=2),
    Patches((1, 1), strides=(2, 2), groups=4),
]


@pytest.mark.parametrize("patches", GEOMETRIES)
def test_patches_are_what_a_convolution_multiplies(patches):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 4, 6, 5)).astype(np.float32)
    weight = rng.standard_normal((8, 4 // patches.groups, *patches.kernel)).astype(np.float32)
    attributes = f"group = {patches.groups}, strides = {list(patches.strides or (1, 1))}, "
    attributes += f"dilations = {list(patches.dilations or (1, 1))}, "
    attributes += f"pads = {list(patches.pads or (0, 0, 0, 0))}"
    model = from_text(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[2, 4, 6, 5] x, '
        f"float{list(weight.shape)} w) => (y) {{ y = Conv<{attributes}>(x, w) }}"
    )
    expected = Session(model).run({"x": x, "w": weight})["y"]
    per_group = weight.reshape(patches.groups, 8 // patches.groups, -1)
    for sample, rows in enumerate(patch_rows(patches, x)):
        assert rows.dtype == np.float64
        result = np.einsum("gpd,god->gop", rows, per_group).reshape(expected[sample].shape)
        np.testing.assert_allclose(result, expected[sample], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patches", GEOMETRIES)
def test_second_moment_of_patches(patches, monkeypatch):
    import graphopt.runtime.moments as moments

    monkeypatch.setattr(moments, "_CHUNK_ELEMENTS", 1000)  # many pieces
    item = collect(MODEL, feeds(), ["y"], moments={"y": MomentRequest(patches=patches)})["y"]
    values = everything("y").reshape(-1, 4, 6, 5)
    rows = np.concatenate(list(patch_rows(patches, values)), axis=1)
    expected = np.stack([part.T @ part for part in rows])
    np.testing.assert_allclose(item.moment.matrix, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(item.moment.sums, rows.sum(axis=1), rtol=1e-9, atol=1e-9)
    assert item.moment.rows == rows.shape[1]


def test_moment_against_another_model():
    pruned = from_text(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[N, 4, 6, 5] x) => (float[N, 3, 6, 5] z)'
        " { b = Constant<value_ints = [0]>() e = Constant<value_ints = [3]>()"
        " c = Constant<value_ints = [1]>() s = Slice(x, b, e, c) z = Abs(s) }"
    )
    patches = Patches((3, 3), pads=(1, 1, 1, 1))
    request = MomentRequest(patches=patches, against="y")
    item = collect(pruned, feeds(), ["z"], moments={"z": request}, reference=MODEL)["z"]
    kept = np.abs(everything("x")[:, :, :3]).reshape(-1, 3, 6, 5)
    left = np.concatenate(list(patch_rows(patches, kept)), axis=1)[0]
    right = np.concatenate(list(patch_rows(patches, everything("y").reshape(-1, 4, 6, 5))), axis=1)[
        0
    ]
    assert item.moment.matrix.shape == (1, 27, 36)
    np.testing.assert_allclose(item.moment.matrix[0], left.T @ right, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(item.moment.reference_sums[0], right.sum(axis=0), atol=1e-6)
    # The same positions are drawn from both.
    drawn = MomentRequest(patches=patches, against="y", rows_per_feed=7, seed=5)
    some = collect(pruned, feeds(), ["z"], moments={"z": drawn}, reference=MODEL)["z"]
    own = MomentRequest(patches=patches, rows_per_feed=7, seed=5)
    square = collect(pruned, feeds(), ["z"], moments={"z": own})["z"]
    assert some.moment.rows == 5 * 7
    np.testing.assert_allclose(some.moment.sums, square.moment.sums)


def test_drawn_rows_depend_on_the_seed_alone():
    def moment(seed):
        request = MomentRequest(patches=Patches((3, 3)), rows_per_feed=4, seed=seed)
        return collect(MODEL, feeds(), ["y"], moments={"y": request})["y"].moment.matrix

    np.testing.assert_array_equal(moment(1), moment(1))
    assert not np.array_equal(moment(1), moment(2))


def test_statistics_merge_as_if_collected_together(tmp_path):
    options = {
        "bins": 128,
        "channel_axes": {"y": 1},
        "moments": {"y": MomentRequest(axis=1)},
    }
    together = collect(MODEL, [*feeds(3, 0), *feeds(4, 1)], ["y", "z"], **options)
    first = collect(MODEL, feeds(3, 0), ["y", "z"], **options)
    save_statistics(first, tmp_path / "statistics")
    resumed = load_statistics(tmp_path / "statistics")
    for name, item in collect(MODEL, feeds(4, 1), ["y", "z"], **options).items():
        resumed[name].merge(item)
        whole, merged = together[name], resumed[name]
        for key in ("feeds", "count", "left_out", "minimum", "maximum"):
            assert getattr(merged, key) == getattr(whole, key)
        for key in ("mean", "variance", "average_minimum", "average_maximum"):
            assert getattr(merged, key) == pytest.approx(getattr(whole, key), rel=1e-12)
        for part in ("histogram", "feed_minima", "feed_maxima"):
            one, other = getattr(merged, part), getattr(whole, part)
            assert (one.top, one.zeros, one.minimum) == (other.top, other.zeros, other.minimum)
            np.testing.assert_array_equal(one.positive, other.positive)
            np.testing.assert_array_equal(one.negative, other.negative)
    whole, merged = together["y"], resumed["y"]
    np.testing.assert_array_equal(merged.channels.minimum, whole.channels.minimum)
    np.testing.assert_allclose(merged.channels.variance, whole.channels.variance, rtol=1e-12)
    np.testing.assert_allclose(merged.moment.matrix, whole.moment.matrix, rtol=1e-12)
    assert merged.moment.rows == whole.moment.rows
    assert together["z"].channels is None
    assert together["z"].moment is None


def test_collecting_goes_on_where_it_stopped(tmp_path):
    options = {"bins": 64, "moments": {"y": MomentRequest(axis=1, rows_per_feed=3)}}
    together = collect(MODEL, feeds(5), ["y", "z"], **options)
    first = collect(MODEL, itertools.islice(feeds(5), 2), ["y", "z"], **options)
    save_statistics(first, tmp_path / "state", purpose="this")
    with pytest.raises(UsageError, match="delete it"):
        load_statistics(tmp_path / "state", purpose="that")
    known = load_statistics(tmp_path / "state", purpose="this")
    rest = itertools.islice(feeds(5), 2, None)
    resumed = collect(MODEL, rest, ["y", "z"], known=known, done=2, **options)
    assert resumed is known
    for name, item in together.items():
        assert resumed[name].total == item.total
        assert resumed[name].feeds == item.feeds
        np.testing.assert_array_equal(resumed[name].histogram.positive, item.histogram.positive)
    np.testing.assert_array_equal(resumed["y"].moment.matrix, together["y"].moment.matrix)


def test_files_that_hold_no_statistics(tmp_path):
    (tmp_path / "a").write_bytes(b"garbage")
    np.savez(tmp_path / "b.npz", x=np.ones(2))
    for name in ("a", "b.npz", "c"):
        with pytest.raises(UsageError, match="holds no statistics"):
            load_statistics(tmp_path / name)


def test_requests_that_do_not_fit():
    with pytest.raises(UsageError, match="no value 'nothing'"):
        collect(MODEL, feeds(1), ["nothing"])
    with pytest.raises(UsageError, match="not among"):
        collect(MODEL, feeds(1), ["y"], channel_axes={"z": 1})
    with pytest.raises(UsageError, match="no channel axis 4"):
        collect(MODEL, feeds(1), ["y"], channel_axes={"y": 4})
    with pytest.raises(UsageError, match="`reference`"):
        collect(MODEL, feeds(1), ["y"], moments={"y": MomentRequest(against="y")})
    strings = from_text(
        '<ir_version: 9, opset_import: ["" : 18]> g (string[N] x) => (string[N] y)'
        " { y = Identity(x) }"
    )
    with pytest.raises(UsageError, match="real numbers"):
        collect(strings, [{"x": np.array(["a"], object)}], ["y"])
