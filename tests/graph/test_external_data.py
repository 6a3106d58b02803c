"""External data: confined to the folder, checked before it is read, mapped, never copied."""

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_models import external, linear, parse
from onnx import TensorProto, helper

from graphopt.errors import ModelError, OutputError, UnreadableModelError
from graphopt.graph import constant_array, ir, load, save, to_bytes, to_proto

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def folder(tmp_path):
    """A folder with weights.bin: 16 other bytes, then the weights of `linear()`."""
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "weights.bin").write_bytes(bytes(16) + WEIGHT.tobytes())
    return inside


def put(folder, location="weights.bin", **entries):
    path = folder / "model.onnx"
    entries.setdefault("offset", 16)
    entries.setdefault("length", 24)
    path.write_bytes(external(linear(), location, **entries).SerializeToString())
    return path


def weight_of(model):
    return constant_array(model.graph.initializers["w"])


def test_weights_are_mapped(folder):
    model = load(put(folder))
    assert isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor)
    np.testing.assert_array_equal(weight_of(model), WEIGHT)
    assert not weight_of(model).flags.writeable


def test_a_relative_path_from_another_folder(folder, monkeypatch):
    put(folder)
    monkeypatch.chdir(folder)
    model = load("model.onnx")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(weight_of(model), WEIGHT)


def test_a_hard_link_in_the_folder_is_in_the_folder(folder, tmp_path):
    os.link(folder / "weights.bin", tmp_path / "elsewhere.bin")
    np.testing.assert_array_equal(weight_of(load(put(folder))), WEIGHT)


def test_a_symlink_inside_the_folder(folder):
    (folder / "link.bin").symlink_to("weights.bin")
    np.testing.assert_array_equal(weight_of(load(put(folder, "link.bin"))), WEIGHT)


def test_the_whole_model_folder_may_be_a_symlink(folder, tmp_path):
    put(folder)
    (tmp_path / "alias").symlink_to(folder)
    np.testing.assert_array_equal(weight_of(load(tmp_path / "alias" / "model.onnx")), WEIGHT)


@pytest.mark.parametrize(
    ("location", "wanted"),
    [
        ("absent.bin", "there is no file"),
        ("", "names no file"),
        ("../outside.bin", "outside the model's folder"),
        ("sub/../../outside.bin", "outside the model's folder"),
        ("..\\outside.bin", "outside the model's folder"),
        ("/etc/passwd", "absolute path"),
        ("C:\\Windows\\win.ini", "absolute path"),
        ("link.bin", "leads out of the model's folder"),
        ("linked/outside.bin", "leads out of the model's folder"),
        ("loop.bin", "there is no file"),
        (".", "no regular file"),
        ("weights.bin/x", "there is no file"),
        ("we\0ird", "names no file"),
    ],
)
def test_places_that_are_refused(folder, tmp_path, location, wanted):
    (tmp_path / "outside.bin").write_bytes(bytes(64))
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop.bin").symlink_to(folder / "loop.bin")
    with pytest.raises(UnreadableModelError, match=wanted) as raised:
        load(put(folder, location))
    assert "'w'" in str(raised.value)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": 17},
        {"offset": 10**18},
        {"offset": -16},
        {"offset": "sixteen"},
        {"length": 23},
        {"length": 10**18},
        {"length": -24},
        {"length": "0x18"},
    ],
)
def test_ranges_that_are_refused(folder, entries):
    with pytest.raises(ModelError) as raised:
        load(put(folder, **entries))
    assert "\n" not in str(raised.value)


def test_without_a_folder_the_message_says_what_to_do(folder):
    contents = put(folder).read_bytes()
    for source in (contents, onnx.ModelProto.FromString(contents)):
        with pytest.raises(UnreadableModelError, match="give the path of the model file"):
            load(source)


def test_an_attribute_may_be_external(folder):
    proto = parse("g () => (float[2,3] y) { y = Constant <value = float[2,3] {0,0,0,0,0,0}> () }")
    tensor = proto.graph.node[0].attribute[0].t
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    tensor.external_data.add(key="offset", value="16")
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    model = load(folder / "model.onnx")
    np.testing.assert_array_equal(constant_array(model.graph.outputs[0]), WEIGHT)


@pytest.mark.parametrize(
    ("code", "size"),
    [
        (TensorProto.INT4, 3),
        (TensorProto.UINT4, 3),
        (TensorProto.BFLOAT16, 12),
        (TensorProto.BOOL, 6),
    ],
)
def test_other_types(folder, code, size):
    values = np.array([0, 1, 1, 0, 1, 0])
    tensor = helper.make_tensor("w", code, [2, 3], values)
    expected = onnx.numpy_helper.to_array(tensor)
    (folder / "weights.bin").write_bytes(ir.serde.deserialize_tensor(tensor).tobytes())
    proto = external(linear(), "weights.bin", length=size)
    proto.graph.initializer[0].data_type = code
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    np.testing.assert_array_equal(weight_of(load(folder / "model.onnx")), expected)


def test_the_data_file_is_the_one_that_was_checked(folder):
    """Replacing or removing the file after loading does not change the model."""
    model = load(put(folder))
    (folder / "other").write_bytes(bytes(40))
    (folder / "other").replace(folder / "weights.bin")
    np.testing.assert_array_equal(weight_of(model), WEIGHT)
    (folder / "weights.bin").unlink()
    assert onnx.numpy_helper.to_array(to_proto(model).graph.initializer[0])[1, 2] == 5


def open_files():
    return sum(1 for _ in Path("/dev/fd").iterdir())


def test_thousands_of_tensors_need_one_file_descriptor(folder):
    count = resource.getrlimit(resource.RLIMIT_NOFILE)[0] + 100 if os.name == "posix" else 2000
    count = min(count, 3000)
    (folder / "weights.bin").write_bytes(np.arange(count, dtype=np.float32).tobytes())
    proto = parse("g (float x) => (float y) { y = Neg (x) }")
    for index in range(count):
        tensor = proto.graph.initializer.add(name=f"w{index}", data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
        tensor.external_data.add(key="offset", value=str(4 * index))
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    before = open_files()
    model = load(folder / "model.onnx")
    values = [constant_array(value) for value in model.graph.initializers.values()]
    assert [float(value) for value in values] == list(range(count))
    assert open_files() <= before + 3


def test_more_files_than_may_be_open(folder, tmp_path):
    names = [f"w{index}" for index in range(400)]
    proto = parse("g (float[300] x) => (float[300] y) { y = Neg (x) }")
    for index, name in enumerate(names):
        (folder / name).write_bytes(np.full(300, index, np.float32).tobytes())
        tensor = proto.graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=[300])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=name)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 300, limit[1]))
    try:
        model = load(folder / "model.onnx")
        kept = [value.const_value.numpy()[0] for value in model.graph.initializers.values()]
        save(model, tmp_path / "copy.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    again = load(tmp_path / "copy.onnx").graph.initializers
    assert kept == [constant_array(again[name])[0] for name in names] == list(range(400))


def test_a_model_with_a_file_for_each_tensor(folder):
    proto = parse("g (float x) => (float y) { y = Neg (x) }")
    for index in range(300):
        (folder / f"w{index}").write_bytes(np.float32(index).tobytes())
        tensor = proto.graph.initializer.add(name=f"w{index}", data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"w{index}")
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    model = load(path)
    (folder / "w299").write_bytes(np.float32(0).tobytes() * 2)
    with pytest.raises(UnreadableModelError, match="changed after the model was loaded"):
        constant_array(model.graph.initializers["w299"])
    assert constant_array(model.graph.initializers["w298"]) == 298


SCRIPT = """
    import resource, sys
    from pathlib import Path
    import numpy as np, onnx
    from onnx import TensorProto, helper
    from graphopt.graph import load, save, constant_array

    folder = Path(sys.argv[1])
    rows, columns = 1 << 13, 1 << 13       # 256 MiB in each of two weights, 3 GiB apart
    with (folder / "big.data").open("wb") as file:
        file.truncate(5 << 30)
        file.seek(3 << 30)
        file.write(np.float32(1).tobytes())
    model = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)])
    model.graph.name = "big"
    for index in range(2):
        tensor = model.graph.initializer.add(name=f"w{index}", data_type=TensorProto.FLOAT)
        tensor.dims.extend([rows, columns])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "big.data"), ("offset", index * (3 << 30))):
            tensor.external_data.add(key=key, value=str(value))
    model.graph.input.append(helper.make_tensor_value_info("x", 1, ["N", columns]))
    model.graph.output.append(helper.make_tensor_value_info("y", 1, None))
    model.graph.node.add(op_type="MatMul", input=["w0", "x"], output=["h"])
    model.graph.node.add(op_type="Add", input=["h", "w1"], output=["y"])
    (folder / "big.onnx").write_bytes(model.SerializeToString())

    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaded = load(folder / "big.onnx")
    files = save(loaded, folder / "copy.onnx")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    again = load(folder / "copy.onnx")
    for model in (loaded, again):
        second = constant_array(model.graph.initializers["w1"])
        assert second[0, 0] == 1 and second[0, 1] == 0
    print(grown // 1024, files[1].stat().st_size)
"""


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="copies with sparse files in Linux")
def test_large_weights_pass_through_little_memory(tmp_path):
    if os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize < 1 << 30:
        pytest.skip("needs 1 GiB of free disk")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    grown, size = map(int, done.stdout.split())
    assert grown < 100
    assert size == 512 << 20


def test_more_than_protobuf_holds_is_not_put_into_bytes(tmp_path):
    with (tmp_path / "big.data").open("wb") as file:
        file.truncate(3 << 30)
    proto = external(linear(), "big.data")
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend([3 << 18, 1 << 10])
    (tmp_path / "big.onnx").write_bytes(proto.SerializeToString())
    model = load(tmp_path / "big.onnx")
    for write in (to_bytes, to_proto):
        with pytest.raises(OutputError, match=r"3\.0 GiB of tensors, protobuf allows 2 GiB"):
            write(model)
    with pytest.raises(OutputError, match="2 GiB"):
        save(model, tmp_path / "inline.onnx", external_data=False)
    assert not (tmp_path / "inline.onnx").exists()
