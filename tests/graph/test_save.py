"""save writes all or nothing, where it was told, the same bytes each time."""

import os
import stat

import numpy as np
import onnx
import pytest
from graph_models import linear, parse

from graphopt.errors import OutputError
from graphopt.graph import constant_array, ir, load, save, to_bytes, to_proto
from graphopt.graph import save as save_function

BIG = np.arange(2000, dtype=np.float32).reshape(2, 1000)


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_one_file(tmp_path):
    proto = linear()
    written = save(load(proto), tmp_path / "out.onnx")
    assert written == (tmp_path / "out.onnx",)
    assert written[0].read_bytes() == proto.SerializeToString(deterministic=True)
    assert files_in(tmp_path) == ["out.onnx"]


def test_the_mode_is_that_of_any_new_file(tmp_path):
    save(load(linear()), tmp_path / "out.onnx")
    (tmp_path / "plain").touch()
    assert (tmp_path / "out.onnx").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "out.onnx").chmod(0o640)
    save(load(linear()), tmp_path / "out.onnx", overwrite=True)
    assert stat.S_IMODE((tmp_path / "out.onnx").stat().st_mode) == 0o640


@pytest.mark.parametrize("external_data", [None, False, True])
def test_the_model_is_left_as_it_was(tmp_path, external_data):
    model = load(linear(BIG))
    value = model.graph.initializers["w"]
    before = (value.const_value, value.type, value.shape, to_bytes(model))
    save(model, tmp_path / "out.onnx", external_data=external_data)
    assert (value.const_value, value.type, value.shape, to_bytes(model)) == before


def test_external_data_when_asked(tmp_path):
    model = load(linear(BIG))
    written = save(model, tmp_path / "out.onnx", external_data=True)
    assert [path.name for path in written] == ["out.onnx", "out.onnx.data"]
    assert written[0].stat().st_size < 1000
    assert to_bytes(load(written[0])) == to_bytes(model)
    onnx.checker.check_model(str(written[0]), full_check=True)


def test_a_model_that_came_with_external_data_keeps_it(tmp_path):
    first = save(load(linear(BIG)), tmp_path / "a.onnx", external_data=True)
    second = save(load(first[0]), tmp_path / "b.onnx")
    assert len(second) == 2
    assert first[1].read_bytes() == second[1].read_bytes()
    assert len(save(load(first[0]), tmp_path / "c.onnx", external_data=False)) == 1
    assert to_bytes(load(tmp_path / "c.onnx")) == to_bytes(load(tmp_path / "b.onnx"))


def test_external_data_past_the_limit(tmp_path, monkeypatch):
    monkeypatch.setitem(save_function.__globals__, "MAXIMUM_BYTES", 5000)
    assert len(save(load(linear(BIG)), tmp_path / "big.onnx")) == 2
    assert len(save(load(linear()), tmp_path / "small.onnx")) == 1
    # Many small things can pass the limit too, and nothing can be done about it.
    nodes = " ".join(f"a{i + 1} = Neg (a{i})" for i in range(300))
    many = load(parse(f"g (float a0) => (float a300) {{ {nodes} }}"))
    with pytest.raises(OutputError, match="2 GiB"):
        save(many, tmp_path / "many.onnx")
    assert "many.onnx" not in files_in(tmp_path)


def test_tensors_are_placed_for_mapping_and_shared_ones_once(tmp_path):
    proto = linear(np.ones((2, 200_000), np.float32))
    for name in ("a", "b"):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(BIG, name))
    model = load(proto)
    values = model.graph.initializers
    values["b"].const_value = values["a"].const_value
    path = save(model, tmp_path / "out.onnx", external_data=True)[0]
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
    }
    assert places["a"] == places["b"]
    assert int(places["w"]["offset"]) % 4096 == 0
    assert int(places["a"]["offset"]) % 64 == 0
    loaded = load(path)
    for name in ("a", "b"):
        np.testing.assert_array_equal(constant_array(loaded.graph.initializers[name]), BIG)


def test_saving_over_its_own_mapped_data(tmp_path):
    path, data = save(load(linear(BIG)), tmp_path / "model.onnx", external_data=True)
    model = load(path)
    original = load(path)
    tensor = ir.tensor(BIG * 2, name="w")
    model.graph.initializers["w"].const_value = tensor
    written = save(model, path, external_data=True, overwrite=True)
    assert data not in written
    assert files_in(tmp_path) == sorted(file.name for file in written)
    np.testing.assert_array_equal(constant_array(load(path).graph.initializers["w"]), BIG * 2)
    np.testing.assert_array_equal(constant_array(original.graph.initializers["w"]), BIG)


def test_saving_unchanged_over_itself_changes_nothing(tmp_path):
    path, data = save(load(linear(BIG)), tmp_path / "model.onnx", external_data=True)
    before = (path.read_bytes(), data.read_bytes())
    for _ in range(2):
        assert save(load(path), path, overwrite=True) == (path, data)
        assert (path.read_bytes(), data.read_bytes()) == before
    assert len(files_in(tmp_path)) == 2


def test_a_data_file_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "out.onnx.data").write_bytes(b"someone else's")
    path, data = save(load(linear(BIG)), tmp_path / "out.onnx", external_data=True)
    assert (tmp_path / "out.onnx.data").read_bytes() == b"someone else's"
    assert data.name.startswith("out.onnx.")
    np.testing.assert_array_equal(constant_array(load(path).graph.initializers["w"]), BIG)


def test_the_data_of_a_file_with_large_tensors_of_its_own_is_removed(tmp_path):
    path, _ = save(load(linear(BIG)), tmp_path / "out.onnx", external_data=True)
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1024, 1024)), "own"))
    path.write_bytes(proto.SerializeToString())
    save(load(linear()), path, overwrite=True)
    assert files_in(tmp_path) == ["out.onnx"]


def test_an_empty_file_owns_no_data(tmp_path):
    (tmp_path / "out.onnx").touch()
    (tmp_path / "out.onnx.data").write_bytes(b"someone else's")
    save(load(linear()), tmp_path / "out.onnx", overwrite=True)
    assert files_in(tmp_path) == ["out.onnx", "out.onnx.data"]


def test_data_shared_by_another_model_is_left_alone(tmp_path):
    (tmp_path / "shared.bin").write_bytes(BIG.tobytes())
    proto = linear(BIG)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="shared.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    save(load(path), path, overwrite=True)
    assert "shared.bin" in files_in(tmp_path)


@pytest.mark.parametrize("step", ["replace", "write"])
def test_a_crash_leaves_the_old_pair_whole(tmp_path, monkeypatch, step):
    path, data = save(load(linear(BIG)), tmp_path / "model.onnx", external_data=True)
    before = (path.read_bytes(), data.read_bytes())
    model = load(path)
    model.graph.initializers["w"].const_value = ir.tensor(BIG * 2, name="w")

    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    if step == "write":
        monkeypatch.setattr(ir.Tensor, "tofile", fail)
    else:
        kept = type(path).replace

        def replace(self, target):
            return fail() if target == path else kept(self, target)

        monkeypatch.setattr(type(path), "replace", replace)
    with pytest.raises(OutputError, match="No space left on device"):
        save(model, path, external_data=True, overwrite=True)
    assert (path.read_bytes(), data.read_bytes()) == before
    assert files_in(tmp_path) == sorted([path.name, data.name])
    np.testing.assert_array_equal(constant_array(load(path).graph.initializers["w"]), BIG)


def test_places_that_are_refused(tmp_path):
    model = load(linear())
    taken = tmp_path / "taken.onnx"
    taken.write_bytes(b"precious")
    dangling = tmp_path / "dangling.onnx"
    dangling.symlink_to(tmp_path / "nowhere")
    for place, wanted in (
        (taken, "exists: choose another name, or ask to overwrite it"),
        (dangling, "exists"),
        (tmp_path, "is a folder"),
        (tmp_path / "absent" / "out.onnx", "there is no folder"),
        (taken / "out.onnx", "there is no folder"),
        (tmp_path / ("n" * 300), "cannot be written: File name too long"),
        (tmp_path / "nul\0byte", "null character"),
    ):
        with pytest.raises(OutputError, match=wanted) as raised:
            save(model, place)
        assert "\n" not in str(raised.value)
    assert taken.read_bytes() == b"precious"
    assert files_in(tmp_path) == ["dangling.onnx", "taken.onnx"]


def test_the_input_is_not_written_over_unless_asked(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(linear().SerializeToString())
    with pytest.raises(OutputError, match="exists"):
        save(load(path), path)
    save(load(path), path, overwrite=True)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            save(load(linear()), tmp_path / "out.onnx")
    finally:
        tmp_path.chmod(0o700)


def test_a_symlink_is_replaced_by_the_model(tmp_path):
    (tmp_path / "other").write_bytes(b"precious")
    (tmp_path / "out.onnx").symlink_to(tmp_path / "other")
    save(load(linear()), tmp_path / "out.onnx", overwrite=True)
    assert (tmp_path / "other").read_bytes() == b"precious"
    assert to_bytes(load(tmp_path / "out.onnx")) == to_bytes(load(linear()))


def test_bytes_are_deterministic_whatever_the_hash_seed(tmp_path):
    import subprocess
    import sys

    path = tmp_path / "model.onnx"
    proto = linear(BIG)
    for key in ("zebra", "ant", "bee"):
        proto.metadata_props.add(key=key, value=key)
    path.write_bytes(proto.SerializeToString())
    script = (
        "import sys, hashlib; from graphopt.graph import load, to_bytes;"
        "print(hashlib.sha256(to_bytes(load(sys.argv[1]))).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", script, str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_two_values_may_share_one_tensor_under_two_names():
    proto = linear()
    proto.graph.initializer.append(proto.graph.initializer[0])
    proto.graph.initializer[1].name = "v"
    model = load(proto)
    values = model.graph.initializers
    values["v"].const_value = values["w"].const_value
    assert [tensor.name for tensor in to_proto(model).graph.initializer] == ["w", "v"]
