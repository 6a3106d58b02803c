"""Reading data: every kind of source, sample by sample, checked against the model."""

import ml_dtypes
import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.graph import from_text
from graphopt.runtime import Session, read_feeds

HEADER = '<ir_version: 9, opset_import: ["" : 18]> '


@pytest.fixture
def model():
    return from_text(
        HEADER + "g (float[N, 2] x, int64[N] i, float s) => (float[N, 2] y) { y = Mul(x, s) }"
    )


@pytest.fixture
def single():
    return from_text(HEADER + "g (float[N, 2] x) => (float[N, 2] y) { y = Neg(x) }")


def samples(count=4):
    return {
        "x": np.arange(2 * count, dtype=np.float32).reshape(count, 2),
        "i": np.arange(count),
        "s": np.arange(count, dtype=np.float32),
    }


def check(feeds, arrays):
    feeds = list(feeds)
    assert len(feeds) == len(arrays["x"])
    for index, feed in enumerate(feeds):
        np.testing.assert_array_equal(feed["x"], arrays["x"][index : index + 1])
        np.testing.assert_array_equal(feed["i"], arrays["i"][index : index + 1])
        np.testing.assert_array_equal(feed["s"], arrays["s"][index])
        assert feed["s"].shape == ()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_gives_one_feed_per_sample(tmp_path, model, save):
    save(tmp_path / "d.npz", **samples())
    reader = read_feeds(tmp_path / "d.npz", model=model)
    check(reader, samples())
    check(reader, samples())  # and again
    check(read_feeds(str(tmp_path / "d.npz"), model=model), samples())
    check(read_feeds(samples(), model=model), samples())


def test_samples_are_streamed_out_of_the_archive(tmp_path, single):
    np.savez(tmp_path / "d.npz", x=np.ones((4, 2), np.float32))
    data = (tmp_path / "d.npz").read_bytes()
    feeds = iter(read_feeds(tmp_path / "d.npz", model=single))
    assert next(feeds)["x"].tolist() == [[1, 1]]
    reads = []
    original = np.lib.format.read_array
    np.lib.format.read_array = lambda *a, **k: reads.append(a) or original(*a, **k)
    try:
        assert len(list(read_feeds(tmp_path / "d.npz", model=single))) == 4
    finally:
        np.lib.format.read_array = original
    assert reads == []
    assert (tmp_path / "d.npz").read_bytes() == data


def test_fortran_order_is_read_right(tmp_path, single):
    x = np.asfortranarray(np.arange(8, dtype=np.float32).reshape(4, 2))
    np.savez(tmp_path / "d.npz", x=x)
    np.save(tmp_path / "d.npy", x)
    for name in ("d.npz", "d.npy"):
        feeds = list(read_feeds(tmp_path / name, model=single))
        np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in feeds]), x)


def test_a_fixed_batch_is_filled_and_the_rest_dropped(tmp_path):
    batched = from_text(HEADER + "g (float[3, 2] x) => (float[3, 2] y) { y = Neg(x) }")
    x = np.arange(14, dtype=np.float32).reshape(7, 2)
    np.savez(tmp_path / "d.npz", x=x)
    feeds = list(read_feeds(tmp_path / "d.npz", model=batched))
    assert [feed["x"].tolist() for feed in feeds] == [x[:3].tolist(), x[3:6].tolist()]
    with pytest.raises(UsageError, match="one whole batch"):
        list(read_feeds({"x": x[:2]}, model=batched))


def test_a_folder_of_files_in_the_order_of_their_names(tmp_path, single):
    np.savez(tmp_path / "b.npz", x=np.full((2, 2), 2, np.float32))
    np.savez(tmp_path / "a.npz", x=np.full((1, 2), 1, np.float32))
    np.save(tmp_path / "c.npy", np.full((1, 2), 3, np.float32))
    (tmp_path / "notes.txt").write_text("not data")
    feeds = list(read_feeds(tmp_path, model=single))
    assert [feed["x"][0, 0] for feed in feeds] == [1, 2, 2, 3]
    for feed in feeds:
        Session(single).run(feed)


def test_a_single_array_goes_to_a_single_input(tmp_path, single, model):
    np.savez(tmp_path / "d.npz", arr_0=np.ones((2, 2), np.float32))
    assert [list(feed) for feed in read_feeds(tmp_path / "d.npz", model=single)] == [["x"]] * 2
    assert len(list(read_feeds(np.ones((3, 2), np.float32), model=single))) == 3
    with pytest.raises(UsageError, match="one array"):
        list(read_feeds(np.ones((3, 2), np.float32), model=model))


def test_functions_by_name(tmp_path, monkeypatch, single):
    (tmp_path / "my_data.py").write_text(
        "import numpy as np\n"
        "def feeds():\n"
        "    for n in range(3):\n"
        "        yield {'x': np.full((1, 2), n, np.float32)}, 'label'\n"
        "def many(path): ...\n"
        "ready = [np.zeros((1, 2), np.float32)]\n"
    )
    (tmp_path / "broken.py").write_text("import no_such_thing\n")
    monkeypatch.chdir(tmp_path)
    for name in ("my_data:feeds", f"{tmp_path / 'my_data.py'}:feeds"):
        reader = read_feeds(name, model=single)
        for _ in range(2):
            assert [feed["x"][0, 0] for feed in reader] == [0, 1, 2]
    assert len(list(read_feeds("my_data:ready", model=single))) == 1
    for name, words in (
        ("my_data:other", "has no other"),
        ("no_module:feeds", "No module named 'no_module'"),
        ("broken:feeds", "no_such_thing"),
        ("nowhere.npz", "no file or folder"),
        ("my_data:many", r"failed: many\(\) missing 1 required"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            list(read_feeds(name, model=single))
        assert "\n" not in str(caught.value)


def test_iterables_of_feeds_and_of_pairs(single):
    feeds = [{"x": np.full((2, 2), n, np.float32)} for n in range(3)]
    reader = read_feeds(feeds, model=single)
    assert [feed["x"][0, 0] for feed in reader] == [0, 1, 2]
    assert [feed["x"][0, 0] for feed in reader] == [0, 1, 2]
    pairs = read_feeds([(feed, 1) for feed in feeds], model=single)
    assert [feed["x"].shape for feed in pairs] == [(2, 2)] * 3
    bare = read_feeds([feed["x"] for feed in feeds], model=single)
    assert [feed["x"].shape for feed in bare] == [(2, 2)] * 3
    once = read_feeds(iter(feeds), model=single)
    assert len(list(once)) == 3
    with pytest.raises(UsageError, match="only once"):
        list(once)


def test_generators_are_not_read_ahead(single):
    taken = []

    def generate():
        for n in range(100):
            taken.append(n)
            yield {"x": np.zeros((1, 2), np.float32)}

    reader = iter(read_feeds(generate, model=single))
    next(reader)
    assert taken == [0]


def test_names_are_checked(model):
    labelled = list(read_feeds(samples() | {"z": np.ones(4)}, model=model))
    assert all(set(feed) == {"x", "i", "s"} for feed in labelled)
    without = samples()
    del without["i"]
    with pytest.raises(UsageError, match="no values for the model's input 'i'"):
        list(read_feeds(without, model=model))
    with pytest.raises(UsageError, match="no values for the model's input 'q'"):
        list(read_feeds([{"x": np.ones(1)}], ["x", "q"]))


def test_inputs_with_a_default_may_be_left_out():
    import onnx

    from graphopt.graph import load

    model = load(
        onnx.parser.parse_model(
            HEADER
            + "g (float[N] x, float[1] w) => (float[N] y) <float[1] w = {2}> { y = Mul(x, w) }"
        )
    )
    (feed,) = read_feeds([{"x": np.ones(2, np.float32)}], model=model)
    assert list(feed) == ["x"]
    (feed,) = read_feeds([{"x": np.ones(2, np.float32), "w": np.ones(1)}], model=model)
    assert feed["w"].dtype == np.float32


def test_counts_have_to_agree(model):
    uneven = samples() | {"i": np.arange(3)}
    with pytest.raises(UsageError, match="'x' holds 4 feeds, 'i' holds 3"):
        list(read_feeds(uneven, model=model))


@pytest.mark.parametrize(
    ("given", "wanted", "result"),
    [
        (np.array([[1.5, 2]]), "float", np.float32),
        (np.array([[1, 2]]), "float", np.float32),
        (np.array([[1, 2]], np.uint8), "float", np.float32),
        (np.array([[1.5, 2]], np.float32), "float16", np.float16),
        (np.array([[1.5, 2]], np.float32), "bfloat16", ml_dtypes.bfloat16),
        (np.array([[1, 2]]), "int32", np.int32),
        (np.array([[1, 255]]), "uint8", np.uint8),
        (np.array([["a", "b"]]), "string", object),
    ],
)
def test_types_are_converted_where_nothing_is_lost(given, wanted, result):
    model = from_text(HEADER + f"g ({wanted}[1, 2] x) => ({wanted}[1, 2] y) {{ y = Identity(x) }}")
    (feed,) = read_feeds([{"x": given}], model=model)
    assert feed["x"].dtype == result
    assert feed["x"].tolist() == given.tolist()


@pytest.mark.parametrize(
    ("given", "wanted", "words"),
    [
        (np.array([[1.5, 2]]), "int64", "float64, the model asks for int64"),
        (np.array([[1, 256]]), "uint8", "outside the range"),
        (np.array([[-1, 2]]), "uint64", "outside the range"),
        (np.array([[2**63, 2]], np.uint64), "int64", "outside the range"),
        (np.array([["a", "b"]]), "float", "asks for float32"),
        (np.array([[1, 2]]), "string", "strings"),
        (np.ones((1, 3), np.float32), "float", r"shape \[1, 3\], the model asks for \[1, 2\]"),
        (np.ones(2, np.float32), "float", r"shape \[2\]"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(given, wanted, words):
    model = from_text(HEADER + f"g ({wanted}[1, 2] x) => ({wanted}[1, 2] y) {{ y = Identity(x) }}")
    with pytest.raises(UsageError, match=words) as caught:
        list(read_feeds([{"x": given}], model=model))
    assert "'x'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_types_beyond_numpy_survive_a_file(tmp_path):
    model = from_text(HEADER + "g (bfloat16[N] x) => (bfloat16[N] y) { y = Identity(x) }")
    np.savez(tmp_path / "d.npz", x=np.array([1.5, 2], ml_dtypes.bfloat16))
    feeds = list(read_feeds(tmp_path / "d.npz", model=model))
    assert [feed["x"].astype(float).tolist() for feed in feeds] == [[1.5], [2.0]]


def test_sequences_and_optionals_pass():
    model = from_text(
        HEADER + "g (seq(float[2]) q, optional(float[2]) o) => (int64 y) { y = SequenceLength(q) }"
    )
    feed = {"q": [np.ones(2, np.float32)], "o": None}
    (read,) = read_feeds([feed], model=model)
    assert Session(model).run(read)["y"] == 1


def test_files_that_are_no_data(tmp_path, single):
    (tmp_path / "bad.npz").write_bytes(b"garbage")
    (tmp_path / "bad.npy").write_bytes(b"garbage")
    (tmp_path / "data.csv").write_text("1,2")
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "objects.npz", x=np.array([{}, None], object))
    for name in ("bad.npz", "bad.npy", "data.csv", "empty", "objects.npz"):
        with pytest.raises(UsageError) as caught:
            list(read_feeds(tmp_path / name, model=single))
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_a_file_cut_short_is_reported(tmp_path, single):
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((100, 2), np.float32))
    data = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(UsageError, match="cannot be read"):
        list(read_feeds(tmp_path / "d.npz", model=single))


def test_without_a_model_samples_keep_their_axis(tmp_path):
    np.savez(tmp_path / "d.npz", a=np.arange(6).reshape(3, 2))
    feeds = list(read_feeds(tmp_path / "d.npz"))
    assert [feed["a"].tolist() for feed in feeds] == [[[0, 1]], [[2, 3]], [[4, 5]]]
