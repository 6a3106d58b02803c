"""Large tensors in a scratch file: the same contents, and no memory while nobody reads them."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphopt.graph import ir, load, outside, save, scratch, to_bytes
from graphopt.graph.external import EmbeddedTensor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="tensors stay in memory there")

LARGE = 1 << 19


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, ml_dtypes.bfloat16])
def test_the_contents_are_the_same(dtype: type) -> None:
    array = (np.arange(4 * LARGE).reshape(4, LARGE) % 7).astype(dtype)
    tensor = ir.tensor(array, name="w")
    assert isinstance(tensor, ir.Tensor)
    kept = outside(tensor)
    assert isinstance(kept, EmbeddedTensor)
    for _ in range(2):
        read = kept.numpy()
        np.testing.assert_array_equal(read, array)
        assert read.flags.aligned
        assert not read.flags.writeable
        kept.release()
    assert (kept.name, kept.dtype, list(kept.shape)) == ("w", tensor.dtype, [4, LARGE])
    assert kept.tobytes() == tensor.tobytes()


def test_an_array_in_another_order_is_written_in_rows() -> None:
    array = np.arange(4 * LARGE, dtype=np.float32).reshape(LARGE, 4).T
    kept = outside(ir.Tensor(array))
    assert isinstance(kept, EmbeddedTensor)
    np.testing.assert_array_equal(kept.numpy(), array)


def test_many_tensors_share_a_file_and_a_huge_one_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scratch, "_FILE_BYTES", 9 << 20)
    monkeypatch.setattr(scratch, "_current", None)
    made = []
    original = scratch._ScratchFile

    def make(size: int) -> scratch._ScratchFile:
        made.append(size)
        return original(size)

    monkeypatch.setattr(scratch, "_ScratchFile", make)
    arrays = [np.full(LARGE, i, np.float32) for i in range(4)]
    kept = [outside(ir.Tensor(array)) for array in arrays]
    assert made == [9 << 20]
    kept.append(outside(ir.Tensor(np.full(8 * LARGE, 4, np.float32))))
    assert made == [9 << 20, 16 << 20]
    for index, tensor in enumerate(kept):
        assert (tensor.numpy() == index).all()


def test_what_is_small_or_of_no_plain_type_stays() -> None:
    small = ir.Tensor(np.zeros(10, np.float32))
    packed = ir.Tensor(np.zeros(8 * LARGE, ml_dtypes.int4), ir.DataType.INT4)
    assert outside(small) is small
    assert outside(packed) is packed


def test_without_space_a_tensor_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch, "_current", None)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    tensor = ir.Tensor(np.zeros(LARGE, np.float32))
    assert outside(tensor) is tensor


def test_a_forked_process_writes_to_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_current", None)
    first = outside(ir.Tensor(np.full(LARGE, 1, np.float32)))
    can_read, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(can_read, 1)
        theirs = outside(ir.Tensor(np.full(LARGE, 2, np.float32)))
        os._exit(0 if (theirs.numpy() == 2).all() and (first.numpy() == 1).all() else 1)
    ours = outside(ir.Tensor(np.full(LARGE, 3, np.float32)))
    os.write(tell, b"x")
    assert os.waitpid(child, 0)[1] == 0
    assert (ours.numpy() == 3).all()


def test_a_model_is_saved_as_from_memory(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [2, 512])],
        [value("y", TensorProto.FLOAT, [2, 1024])],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    expected = load(helper.make_model(graph, opset_imports=opset, ir_version=8))
    model = load(expected)
    model.graph.initializers["w"].const_value = outside(ir.Tensor(weight, name="w"))
    assert to_bytes(model) == to_bytes(expected)
    for external in (False, True):
        target = tmp_path / f"{external}.onnx"
        save(model, target, external_data=external)
        written = numpy_helper.to_array(onnx.load(target).graph.initializer[0])
        np.testing.assert_array_equal(written, weight)
