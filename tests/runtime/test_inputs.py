"""Made-up inputs: valid where validity matters, different in kind, and seen to run."""

import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphopt.errors import RuntimeUnavailableError
from graphopt.graph import from_text, load
from graphopt.runtime import Session, runnable_feeds, seeded_feeds

HEADER = '<ir_version: 9, opset_import: ["" : 18]> '


def feeds_of(text, **options):
    return list(seeded_feeds(from_text(HEADER + text), **options))


def run_all(text, count=3):
    """Feeds that run, checked to be the plain seeded ones: nothing had to be searched."""
    model = from_text(HEADER + text)
    session = Session(model, threads=1)
    feeds = list(seeded_feeds(model, count=count))
    for feed in feeds:
        session.run(feed)
    return feeds


def test_floats_differ_in_kind_from_feed_to_feed():
    first, second, third = (
        feed["x"] for feed in feeds_of("g (float[64, 64] x) => (float[64, 64] y) { y = Relu(x) }")
    )
    assert first.dtype == np.float32
    assert abs(first.mean()) < 0.1
    assert 0.9 < first.std() < 1.1
    assert not (first == 0).any()
    assert second.std() > 3
    assert 0.05 < (second == 0).mean() < 0.2
    assert (third == 1).any()
    assert (third == -1).any()
    assert abs(third).max() > 50


def test_the_same_seed_gives_the_same_feeds():
    text = "g (float[N, 4] x, int64[N] i, bool[3] b) => (float[N, 4] y) { y = Relu(x) }"
    for left, right in zip(feeds_of(text), feeds_of(text), strict=True):
        for name, value in left.items():
            np.testing.assert_array_equal(value, right[name])
    other = feeds_of(text, seed=1)
    assert not np.array_equal(other[0]["x"], feeds_of(text)[0]["x"])


def test_an_input_gets_the_same_values_whatever_inputs_stand_beside_it():
    alone = feeds_of("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    among = feeds_of("g (float[3] a, float[2] x) => (float[2] y) { y = Relu(x) }")
    for left, right in zip(alone, among, strict=True):
        np.testing.assert_array_equal(left["x"], right["x"])


def test_symbols_of_one_name_have_one_size():
    feeds = feeds_of("g (float[N, T] x, float[N, 2] z) => (y) { y = Relu(x) }", count=5)
    assert [feed["x"].shape for feed in feeds] == [(n, n) for n in (1, 2, 3, 5, 7)]
    assert [feed["z"].shape for feed in feeds] == [(n, 2) for n in (1, 2, 3, 5, 7)]


def test_expressions_of_symbols_are_worked_out():
    proto = onnx.parser.parse_model(
        HEADER + "g (float[P] x, float[Q] z, float[O] w) => (float[P] y) { y = Relu(x) }"
    )
    for value, name in zip(proto.graph.input, ("past", "past + 1", "batch-é size"), strict=True):
        value.type.tensor_type.shape.dim[0].dim_param = name
    shapes = [[array.shape for array in feed.values()] for feed in seeded_feeds(load(proto))]
    assert shapes == [[(n,), (n + 1,), (n,)] for n in (1, 2, 3)]


@pytest.mark.parametrize(
    "body",
    [
        "y = Gather(table, i)",
        "c = Cast<to = 7>(i) y = Gather(table, c)",
        "a = Constant<value_ints = [-1]>() r = Reshape(i, a) y = Gather(table, r)",
        (
            "t = Constant<value = bool {1}>() y = If (t) <then_branch = b () => (z)"
            " { z = Gather(table, i) }, else_branch = e () => (q) { q = Gather(table, i) }>"
        ),
        "y = Embed(table, i)",
        "l = Cast<to = 7>(i) d = Constant<value_int = 3>() s = Sub(l, d) y = Gather(table, s)",
    ],
)
def test_indices_stay_within_what_they_index(body):
    function = '<domain: "f", opset_import: ["" : 18]> Embed (t, k) => (v) { v = Gather(t, k) }'
    header = '<ir_version: 9, opset_import: ["" : 18, "f" : 1]> '
    text = (
        header
        + "g (int32[N, 40] i) => (y) <float[5, 2] table = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}>"
        + "{ "
        + body.replace("Embed(", "f.Embed(")
        + " } "
        + function
    )
    proto = onnx.parser.parse_model(text)
    session_model = load(proto)
    session = Session(session_model)
    shift = 3 if "Sub" in body else 0
    for feed in seeded_feeds(session_model):
        session.run(feed)
        assert set(np.unique(feed["i"])) == set(range(shift, 5 + shift))


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2, 3, 4] x, int64[2] s) => (y) { y = Reshape(x, s) }",
        "g (float[2, 1, 4] x, int64[4] s) => (y) { y = Expand(x, s) }",
        "g (int64[2] s) => (y) { y = ConstantOfShape(s) }",
        "g (float[2, 3] x, int64[2] s) => (y) { y = Tile(x, s) }",
        "g (float[2, 3] x, int64[1] k) => (y, z) { y, z = TopK(x, k) }",
        "g (float[6, 2] x, int64[2] s) => (y, z) { y, z = Split(x, s) }",
        (
            "g (float[4, 4] x, int64[2] s, int64[2] e, int64[2] a, int64[2] t) => (y)"
            " { y = Slice(x, s, e, a, t) }"
        ),
        "g (float[2, 3] x, int64[4] p) => (y) { y = Pad(x, p) }",
        "g (float[1, 3, 1, 4] x, int64[2] a) => (y) { y = Squeeze(x, a) }",
        "g (float[3, 4] x, int64[2] a) => (y) { y = Unsqueeze(x, a) }",
        "g (float[3, 4] x, int64[1] a) => (y) { y = ReduceSum(x, a) }",
        "g (int64[5] x, int64 d, float[2] v) => (y) { y = OneHot(x, d, v) }",
        "g (int64 s, int64 l, int64 d) => (y) { y = Range(s, l, d) }",
        "g (float[3, 2] x, int32 a) => (y) { y = CumSum(x, a) }",
        "g (int64[4] x, int64[4] z) => (y) { y = Div(x, z) }",
        "g (int64[4] x, int64[4] z) => (y) { y = Mod(x, z) }",
        "g (float[2, 3] x, int64[2, 2] i, float[2] u) => (y) { y = ScatterND(x, i, u) }",
        (
            "g (float[2, 3] x, int64[2, 2] i, float[2, 2] u) => (y)"
            " { y = ScatterElements<axis = 1>(x, i, u) }"
        ),
        (
            "g (float[5, 2, 3] x, float[1, 16, 3] w, float[1, 16, 4] r, int32[2] n) => (y)"
            " { b = Constant<value_float = 0.0>() y = LSTM<hidden_size = 4>(x, w, r, , n) }"
        ),
        (
            "g (int64 m, bool c, float[2] x) => (y) { y = Loop (m, c, x)"
            " <body = b (int64 i, bool k, float[2] v) => (bool o, float[2] w)"
            " { o = Identity(k) w = Add(v, v) }> }"
        ),
        "g (float[1, 2, 3, 4] x, float[4] s) => (y) { y = Resize(x, , s) }",
        "g (float[1, 2, 3, 4] x, int64[4] s) => (y) { y = Resize(x, , , s) }",
        "g (uint8[2, 3] x, float s, uint8 z) => (y) { y = DequantizeLinear(x, s, z) }",
        (
            "g (float[2, 3] x, float[3] a, float[3] b, float[3] m, float[3] v) => (y)"
            " { y = BatchNormalization(x, a, b, m, v) }"
        ),
    ],
)
def test_inputs_that_operators_are_choosy_about(text):
    for feed in run_all(text):
        assert all(np.isfinite(value).all() for value in feed.values() if value.dtype != bool)


def test_constants_that_an_input_is_compared_with_occur():
    text = (
        "g (int64 rate) => (bool y) { a = Constant<value_int = 8000>()"
        " b = Constant<value_int = 16000>() p = Equal(rate, a) q = Equal(b, rate) y = Or(p, q) }"
    )
    assert {int(feed["rate"]) for feed in run_all(text)} == {8000, 16000}


def test_both_sides_of_a_branch_are_taken():
    text = (
        "g (bool c, float[2] x) => (float[2] y) { y = If (c) <then_branch = t () => (a)"
        " { a = Neg(x) }, else_branch = e () => (b) { b = Abs(x) }> }"
    )
    assert {bool(feed["c"]) for feed in run_all(text)} == {True, False}


def test_integers_that_are_only_computed_with_are_negative_and_large_too():
    (first, second, third) = run_all("g (int64[50] x) => (int64[50] y) { y = Mul(x, x) }")
    assert first["x"].min() >= 0
    assert second["x"].min() < 0
    assert third["x"].max() > 100


def test_integers_that_may_end_as_a_length_stay_small():
    feeds = run_all(
        "g (int64[1] x) => (float[N] y) { o = Constant<value_ints = [1]>() s = Add(x, o)"
        " d = Mul(s, s) y = ConstantOfShape(d) }"
    )
    assert all(feed["x"].min() >= 0 and feed["x"].max() <= 4 for feed in feeds)


def test_bytes_and_masks():
    (feed, *_) = feeds_of("g (uint8[100, 100] image) => (y) { y = Cast<to = 1>(image) }")
    assert feed["image"].min() == 0
    assert feed["image"].max() == 255
    masks = feeds_of("g (int64[4, 6] attention_mask) => (y) { y = Cast<to = 1>(attention_mask) }")
    assert (masks[0]["attention_mask"] == 1).all()
    for feed in masks[1:]:
        mask = feed["attention_mask"]
        assert set(np.unique(mask)) == {0, 1}
        assert (mask[:, 0] == 1).all()


def test_strings_sequences_and_optionals():
    (first, second, third) = feeds_of(
        "g (string[3] s, seq(float[2]) q, optional(float[2]) o) => (string[3] y)"
        " { y = Identity(s) }"
    )
    assert first["s"].dtype == object
    assert all(isinstance(text, str) for text in first["s"])
    assert [len(feed["q"]) for feed in (first, second, third)] == [2, 1, 3]
    assert first["q"][0].shape == (2,)
    assert first["o"].shape == (2,)
    assert second["o"] is None


def default_model(ir_version):
    proto = onnx.parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["" : 8]>'
        " g (float[3] x, float[3] w) => (float[3] y) <float[3] w = {1, 2, 3}> { y = Mul(x, w) }"
    )
    return load(proto)


def test_defaults_are_replaced_in_every_other_feed():
    model = default_model(4)
    feeds = list(seeded_feeds(model))
    assert ["w" in feed for feed in feeds] == [False, True, False]
    assert (feeds[1]["w"] > 0).all()
    assert not np.array_equal(feeds[1]["w"], [1, 2, 3])
    session = Session(model)
    for feed in feeds:
        np.testing.assert_allclose(
            session.run(feed)["y"], feed["x"] * feed.get("w", [1, 2, 3]), rtol=1e-6
        )
    assert all("w" not in feed for feed in seeded_feeds(model, override_defaults=False))


def test_weights_that_an_old_model_lists_as_inputs_are_no_defaults():
    assert all("w" not in feed for feed in seeded_feeds(default_model(3)))


def runnable(text, **options):
    model = from_text(HEADER + text)
    return runnable_feeds(model, Session(model, threads=1), **options)


def test_sizes_that_a_network_can_run_at_are_found():
    feeds = runnable(
        "g (float[N, 1, H, W] x) => (y) { a = MaxPool<kernel_shape = [20, 20]>(x)"
        " s = Constant<value_ints = [0, -1]>() y = Reshape(a, s) }"
    )
    shapes = [feed["x"].shape for feed in feeds]
    assert [shape[0] for shape in shapes] == [1, 2, 3]
    assert all(shape[2] >= 20 and shape[3] >= 20 for shape in shapes)
    assert len({shape[2] for shape in shapes}) > 1


def test_multiples_are_found():
    feeds = runnable(
        "g (float[N, T] x) => (y) { s = Constant<value_ints = [0, -1, 16]>() y = Reshape(x, s) }"
    )
    assert [feed["x"].shape[0] for feed in feeds] == [1, 2, 3]
    assert all(feed["x"].shape[1] % 16 == 0 for feed in feeds)


def test_dims_that_have_to_agree_though_their_names_differ():
    feeds = runnable("g (float[A, K] x, float[L, B] z) => (y) { y = MatMul(x, z) }")
    assert [feed["x"].shape for feed in feeds] == [(1, 1), (2, 2), (3, 3)]


def test_dims_that_have_to_differ():
    model = from_text(
        HEADER + "g (float[N, A] x, float[N, B] z) => (y) { s = Constant<value_ints = [4, 2]>()"
        " t = Constant<value_ints = [8, 2]>() v = ConstantOfShape(s) w = ConstantOfShape(t)"
        " a = MatMul(x, v) b = MatMul(z, w) y = Add(a, b) }"
    )
    feeds = runnable_feeds(model, Session(model, threads=1))
    shapes = [(feed["x"].shape, feed["z"].shape) for feed in feeds]
    assert shapes == [((n, 4), (n, 8)) for n in (1, 2, 3)]


def test_unknown_ranks_are_tried():
    proto = onnx.parser.parse_model(
        HEADER + "g (float[N] x, float[4, 3, 1, 1] w) => (y) { y = Conv(x, w) }"
    )
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    model = load(proto)
    session = Session(model)
    feeds = runnable_feeds(model, session)
    assert feeds
    for feed in feeds:
        session.run(feed)
    assert all(feed["x"].ndim == 4 for feed in feeds)


def test_a_model_that_runs_on_nothing_gives_no_feeds_and_ends():
    start = time.monotonic()
    feeds = runnable(
        "g (float[N, M, K] x) => (y) { s = Constant<value_ints = [7, 13, 17, 19]>()"
        " y = Reshape(x, s) }",
        seconds=2,
    )
    assert feeds == []
    assert time.monotonic() - start < 10


def test_outputs_that_are_all_nan_are_avoided():
    model = from_text(
        HEADER + "g (float[2, 2] x) => (y) { z = Constant<value_float = 0.0>()"
        " m = ReduceMin(x) s = Sqrt(m) y = Add(x, s) }"
    )
    session = Session(model)
    for feed in runnable_feeds(model, session):
        assert np.isfinite(session.run(feed)["y"]).any()


def test_an_input_beyond_all_bounds_is_refused_before_it_is_made():
    with pytest.raises(RuntimeUnavailableError, match="too large"):
        feeds_of("g (float[1000000, 1000000] x) => (y) { y = Relu(x) }")


def test_models_of_the_zoo_get_three_feeds(zoo):
    models = [path for path in (zoo / "models").glob("*.onnx") if path.stat().st_size < 2_000_000]
    assert len(models) >= 8
    for path in models:
        model = load(path)
        session = Session(model)
        feeds = runnable_feeds(model, session)
        assert len(feeds) == 3, path.name
        for feed in feeds:
            outputs = session.run(feed).values()
            assert all(np.isfinite(value).all() for value in outputs), path.name


def test_models_of_the_backend_suite_that_load_get_feeds():
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    ran = 0
    for path in (*data.glob("simple/*/model.onnx"), *data.glob("pytorch-operator/*/model.onnx")):
        proto = onnx.load(path)
        if proto.opset_import[0].version < 7:
            continue
        model = load(proto)
        try:
            session = Session(model, threads=1)
        except RuntimeUnavailableError:
            continue
        assert len(runnable_feeds(model, session)) == 3, path.parent.name
        ran += 1
    assert ran >= 15
