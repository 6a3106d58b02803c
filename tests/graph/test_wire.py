"""Large tensors stay in the model file, and go from there into the next one."""

from __future__ import annotations

import copy
import os
import pickle
import random
from pathlib import Path
from typing import cast

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphopt.errors import GraphoptError
from graphopt.graph import ir, load, save, to_bytes, to_proto
from graphopt.graph.external import EmbeddedTensor, MappedTensor
from graphopt.graph.wire import LARGE, without_contents
from graphopt.runtime import Session

SIDE = 600  # 1.4 MB, so that the file counts as large


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def held(model: ir.Model, name: str) -> ir.TensorProtocol:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor


def large_model() -> onnx.ModelProto:
    """Weights as initializers, as Constants, in a branch and in a function; one as floats."""
    spelled = helper.make_tensor("spelled", TensorProto.FLOAT, [SIDE], numbers(4, SIDE).tolist())
    documented = numpy_helper.from_array(numbers(5, 64, SIDE), "documented")
    documented.doc_string = "what it is"
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "inner"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, SIDE])],
        [numpy_helper.from_array(numbers(1, SIDE, SIDE), "inner")],
    )
    constant = numpy_helper.from_array(numbers(2, SIDE, SIDE))
    held = numpy_helper.from_array(numbers(3, SIDE, SIDE))
    function = helper.make_function(
        "own",
        "f",
        ["a"],
        ["b"],
        [
            helper.make_node("Constant", [], ["w"], value=held),
            helper.make_node("MatMul", ["a", "w"], ["b"]),
        ],
        [helper.make_opsetid("", 17)],
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("MatMul", ["x", "c"], ["y1"]),
        helper.make_node("If", ["p"], ["y2"], then_branch=branch, else_branch=branch),
        helper.make_node("f", ["x"], ["y3"], domain="own"),
        helper.make_node("Sum", ["y1", "y2", "y3"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["t"]),
        helper.make_node("Add", ["t", "spelled"], ["u"]),
        helper.make_node("Gather", ["documented", "i"], ["row"], axis=0),
        helper.make_node("Add", ["u", "row"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SIDE]),
            helper.make_tensor_value_info("p", TensorProto.BOOL, []),
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", SIDE])],
        [numpy_helper.from_array(numbers(0, SIDE, SIDE), "w"), spelled, documented],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    file.write_bytes(large_model().SerializeToString(deterministic=True))
    return file


def test_the_contents_stay_in_the_file_and_are_the_same(path: Path) -> None:
    model = load(path)
    assert isinstance(model.graph.initializers["w"].const_value, EmbeddedTensor)
    assert to_proto(model) == to_proto(load(path.read_bytes()))


def test_what_is_parsed_holds_none_of_them(path: Path) -> None:
    shorter = without_contents(memoryview(path.read_bytes()))
    assert shorter is not None
    spelled = 5 * SIDE  # not raw data: it stays
    assert len(shorter) < 3 * LARGE + spelled
    assert len(onnx.ModelProto.FromString(shorter).graph.node) == 9


def test_a_file_that_is_written_has_the_bytes_of_to_bytes(path: Path, tmp_path: Path) -> None:
    model = load(path)
    save(model, tmp_path / "again.onnx")
    written = (tmp_path / "again.onnx").read_bytes()
    assert written == to_bytes(load(path.read_bytes()))
    assert written == to_bytes(model)


def test_a_tensor_that_a_branch_shares_is_written_there_too(tmp_path: Path, path: Path) -> None:
    model = load(path)
    shared = model.graph.initializers["w"].const_value
    node = next(node for node in model.graph if node.op_type == "If")
    branch = node.attributes["then_branch"].as_graph()
    branch.initializers["inner"].const_value = shared
    save(model, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == to_bytes(model)


def test_it_runs(path: Path) -> None:
    feed = {"x": numbers(7, 2, SIDE), "p": np.array(True), "i": np.array(3)}
    one, two = Session(load(path)).run(feed), Session(load(path.read_bytes())).run(feed)
    assert np.array_equal(one["y"], two["y"])


def test_others_can_serialize_it(path: Path) -> None:
    proto = ir.to_proto(load(path))
    assert all(not tensor.external_data for tensor in proto.graph.initializer)
    held = next(tensor for tensor in proto.graph.initializer if tensor.name == "w")
    assert np.array_equal(numpy_helper.to_array(held), numbers(0, SIDE, SIDE))


def test_a_file_may_be_written_over_itself(path: Path) -> None:
    before = path.read_bytes()
    model = load(path)
    save(model, path, overwrite=True)
    assert to_proto(load(path)) == to_proto(load(before))
    assert np.array_equal(
        held(model, "w").numpy(),
        numbers(0, SIDE, SIDE),
    )


def test_a_link_to_a_file_elsewhere_is_followed(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "link.onnx").symlink_to(path)
    assert to_proto(load(folder / "link.onnx")) == to_proto(load(path))


def test_contents_of_another_size_are_told_as_ever(path: Path, tmp_path: Path) -> None:
    proto = large_model()
    proto.graph.initializer[0].dims[0] += 1
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(GraphoptError) as from_file:
        load(path)
    with pytest.raises(GraphoptError) as from_bytes:
        load(path.read_bytes())
    assert type(from_file.value) is type(from_bytes.value)
    assert str(from_file.value).partition(" is ")[2] == str(from_bytes.value).partition(" is ")[2]


def test_a_damaged_file_is_read_as_its_bytes_are(path: Path) -> None:
    """Either way the same model, or an error of the same kind."""
    whole = path.read_bytes()
    fields = [i for i in range(len(whole)) if i < 300 or i > len(whole) - 1500]
    draw = random.Random(0)
    for _ in range(150):
        damaged = bytearray(whole)
        if draw.random() < 0.2:
            damaged = damaged[: draw.randrange(1 << 20, len(damaged))]
        for _ in range(draw.randint(1, 3)):
            damaged[draw.choice(fields) % len(damaged)] = draw.randrange(256)
        path.write_bytes(damaged)
        results: list[object] = []
        for source in (path, bytes(damaged)):
            try:
                results.append(to_proto(load(source)))
            except GraphoptError as error:
                results.append(type(error))
        assert results[0] == results[1]


def test_a_forest_is_not_looked_through_number_by_number() -> None:
    """A model of a million small fields holds no tensors between them."""
    numbers_of_nodes = [5] * 400_000
    forest = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], nodes_treeids=numbers_of_nodes)
    words = helper.make_tensor("s", TensorProto.STRING, [400_000], [b"word"] * 400_000)
    graph = helper.make_graph([forest], "g", [], [], [words])
    whole = helper.make_model(graph).SerializeToString()
    view = _Counted(whole)
    assert without_contents(cast("memoryview", view)) is None
    assert view.reads < 1000


class _Counted:
    """Bytes that count how often one of them is read."""

    def __init__(self, contents: bytes) -> None:
        self._contents = contents
        self.reads = 0

    def __len__(self) -> int:
        return len(self._contents)

    def __getitem__(self, place: int | slice) -> int | bytes:
        self.reads += 1
        return self._contents[place]


def test_the_name_of_the_file_may_be_no_text(path: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff\xfe.onnx")
    path.rename(odd)
    assert isinstance(load(odd).graph.initializers["w"].const_value, EmbeddedTensor)


def test_a_tensor_that_names_the_file_as_its_data_is_an_external_one(path: Path) -> None:
    proto = onnx.ModelProto.FromString(path.read_bytes())
    tensor = proto.graph.initializer.add(name="own", data_type=TensorProto.UINT8, dims=[5000])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=path.name)
    path.write_bytes(proto.SerializeToString())
    model = load(path)
    assert isinstance(model.graph.initializers["own"].const_value, MappedTensor)
    assert isinstance(model.graph.initializers["w"].const_value, EmbeddedTensor)


def test_a_file_that_is_written_into_is_noticed(path: Path) -> None:
    model = load(path)
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    tensor.numpy()
    with path.open("r+b") as file:
        file.truncate(1 << 20)
    for use in (tensor.numpy, tensor.tobytes, lambda: to_bytes(model)):
        with pytest.raises(GraphoptError, match="changed after the model was loaded"):
            use()


def test_a_file_may_be_removed(path: Path) -> None:
    model = load(path)
    path.unlink()
    assert np.array_equal(held(model, "w").numpy(), numbers(0, SIDE, SIDE))


def test_a_model_can_be_copied_whole_and_pickled(path: Path) -> None:
    model = load(path)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert to_bytes(copied) == to_bytes(model)
    copied.graph.initializers["w"].name = "other"
    assert held(model, "w").name == "w"


def test_many_models_leave_room_for_other_files(path: Path) -> None:
    """The first ones are mapped, the others read."""
    models = [load(path) for _ in range(80)]
    mapped = [isinstance(held(model, "w"), EmbeddedTensor) for model in models]
    assert 0 < sum(mapped) <= 64
    assert to_bytes(models[0]) == to_bytes(models[-1])


@pytest.mark.parametrize("shift", range(4))
def test_tensors_of_any_type_at_any_byte(shift: int, tmp_path: Path) -> None:
    proto = large_model()
    for dtype in (np.int64, np.float64, np.float16, np.bool_, ml_dtypes.bfloat16):
        array = np.random.default_rng(0).integers(0, 2, 3000).astype(dtype)
        name = f"{np.dtype(dtype).name}{'x' * shift}"
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    file = tmp_path / "model.onnx"
    file.write_bytes(proto.SerializeToString())
    model = load(file)
    for tensor in proto.graph.initializer:
        assert np.array_equal(held(model, tensor.name).numpy(), numpy_helper.to_array(tensor))
    save(model, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == to_bytes(load(proto))
