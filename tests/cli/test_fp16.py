"""`graphopt fp16`: flags, exit codes, what is written and what is not."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import pytest
from onnx import TensorProto

from graphopt.pipeline import half_trial
from tests.cli.conftest import Invoke


@pytest.fixture
def model(tmp_path: Path, fixtures: Path) -> Path:
    """A copy of a small trained CNN, in a folder of its own."""
    path = tmp_path / "net.onnx"
    path.write_bytes((fixtures / "digits_resnet.onnx").read_bytes())
    return path


def test_writes_beside_the_input_and_says_what_it_did(model: Path, invoke: Invoke) -> None:
    done = invoke("fp16", model)
    assert (done.code, done.err) == (0, "")
    result = onnx.load(model.with_name("net.fp16.onnx"))
    assert result.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    for text in ("in fp16", "Casts", "weights", "verified on 3 inputs", "loads and runs", "wrote"):
        assert text in done.out
    invoke("fp16", model).fails_with(1, "exists already", "--force")
    assert invoke("fp16", model, "--force", "-q").out == ""


def test_io_types_are_kept_on_request(model: Path, invoke: Invoke, tmp_path: Path) -> None:
    target = tmp_path / "kept.onnx"
    assert invoke("fp16", model, target, "--keep-io-types").code == 0
    graph = onnx.load(target).graph
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert sum(node.op_type == "Cast" for node in graph.node) == 2


def test_json_has_every_reason(model: Path, invoke: Invoke) -> None:
    done = invoke("fp16", model, "--dry-run", "--json", "--op-block-list", "Gemm,Relu")
    assert done.code == 0
    report = done.json
    assert report["ok"] is True
    assert report["check"]["status"] == "verified"
    assert "Relu is on the block list" in report["float32"].values()
    assert not model.with_name("net.fp16.onnx").exists()


def test_a_node_is_blocked_by_name(model: Path, invoke: Invoke) -> None:
    name = next(node for node in onnx.load(model).graph.node if node.op_type == "Conv").output[0]
    done = invoke("fp16", model, "-O0", "--dry-run", "--json", "--node-block-list", name)
    blocked = {"the node is on the block list"}
    assert [site for site, why in done.json["float32"].items() if {why} == blocked] == [
        next(site for site in done.json["float32"] if site.endswith(f"-> {name}"))
    ]
    bad = invoke("fp16", model, "--dry-run", "--node-block-list", "(")
    bad.fails_with(2, "no regular expression")


def test_bf16_and_storage_only(model: Path, invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("fp16", model, "--bf16", "--rtol", "0.1").code == 0
    assert model.with_name("net.bf16.onnx").exists()
    target = tmp_path / "stored.onnx"
    assert invoke("fp16", model, target, "--storage-only").code == 0
    assert target.stat().st_size < 0.6 * model.stat().st_size


def test_wrong_flags_cost_no_work(model: Path, invoke: Invoke, tmp_path: Path) -> None:
    invoke("fp16", model, "a.onnx", "-o", "b.onnx").fails_with(2, "given twice")
    invoke("fp16", model, "--report", "r.html").fails_with(2, "JSON")
    invoke("fp16", model, "--max-drop", "much").fails_with(2, "drop")
    invoke("fp16", model, "--calib", "none.npz").fails_with(2, "--calib 'none.npz'")
    invoke("fp16", tmp_path / "none.onnx").fails_with(3)


def test_a_tolerance_that_cannot_be_met_writes_nothing(
    model: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_trial, "find_culprits", lambda *_: None)
    invoke("fp16", model, "--rtol", "0").fails_with(4, "nothing was written")
    assert not model.with_name("net.fp16.onnx").exists()


def test_the_report_is_written(model: Path, invoke: Invoke, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert invoke("fp16", model, "--report", report).code == 0
    assert '"precision": "fp16"' in report.read_text()


def test_a_report_that_cannot_be_written_costs_no_work(
    model: Path, invoke: Invoke, tmp_path: Path
) -> None:
    invoke("fp16", model, "--report", tmp_path / "none" / "r.json").fails_with(1, "no folder")
    report = tmp_path / "there.json"
    report.write_text("{}")
    invoke("fp16", model, "--report", report).fails_with(1, "exists already", "--force")
    assert not model.with_name("net.fp16.onnx").exists()


def test_who_has_no_data_is_told_of_the_option_for_it(invoke: Invoke, tmp_path: Path) -> None:
    """The model runs on no input that can be made up: two inputs have to be of one size."""
    path = tmp_path / "fussy.onnx"
    onnx.save(
        onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
g (int64[1] n, float[m] x) => (float[k] y) <int64[2] shape = {123457, 3}> {
  y0 = Reshape(x, shape)
  y = ReduceSum<keepdims = 0>(y0, n)
}"""),
        path,
    )
    done = invoke("fp16", path)
    assert done.code == 0
    assert "--calib" in done.out
    assert "--input-data" not in done.out
