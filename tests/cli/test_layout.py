"""`graphopt layout`."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import Invoke


@pytest.fixture
def model(tmp_path: Path, fixtures: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes((fixtures / "digits_resnet.onnx").read_bytes())
    return path


def input_dims(path: Path) -> list[str]:
    (value,) = onnx.load(path).graph.input
    return [dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim]


def test_the_result_lies_beside_the_input_and_the_summary_says_why(
    model: Path, invoke: Invoke
) -> None:
    before = input_dims(model)
    done = invoke("layout", model, "--to", "nhwc", "--io", "convert")
    assert (done.code, done.err) == (0, "")
    written = model.with_name("net.nhwc.onnx")
    assert input_dims(written) == [before[0], *before[2:], before[1]]
    for text in ("nchw at Conv", "as it is", "it has rank 2", "verified on 3 inputs", str(written)):
        assert text in done.out


def test_json_tells_all_of_it(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    report = tmp_path / "report.json"
    target = tmp_path / "out.onnx"
    done = invoke(
        "layout", model, target, "--to", "nhwc", "--io", "convert", "--json", "--report", report
    )
    changed = {entry["name"]: entry for entry in done.json["interface"]}
    assert [entry["side"] for entry in changed.values()] == ["input", "output"]
    assert sum(entry["after"] is not None for entry in changed.values()) == 1
    assert done.json["check"]["status"] == "verified"
    assert done.json["output"] == str(target.absolute())
    assert json.loads(report.read_text())["interface"] == done.json["interface"]


def test_keep_is_the_default(model: Path, invoke: Invoke) -> None:
    done = invoke("layout", model, "--to", "nhwc", "--json")
    assert done.json["interface"] == []
    assert input_dims(model.with_name("net.nhwc.onnx")) == input_dims(model)


def test_a_dry_run_writes_nothing(model: Path, invoke: Invoke) -> None:
    done = invoke("layout", model, "--to", "nhwc", "--io", "convert", "--dry-run")
    assert "dry run: nothing written" in done.out
    assert [path.name for path in model.parent.iterdir()] == ["net.onnx"]


def test_nothing_is_overwritten_without_force(model: Path, invoke: Invoke) -> None:
    there = model.with_name("net.nhwc.onnx")
    there.write_text("precious")
    arguments = ("layout", model, "--to", "nhwc")
    invoke(*arguments).fails_with(1, "net.nhwc.onnx' exists already", "--force")
    assert there.read_text() == "precious"
    invoke("layout", model, model, "--to", "nhwc").fails_with(1, "is the input itself")
    assert invoke(*arguments, "--force").code == 0
    onnx.checker.check_model(str(there))


def test_wrong_usage(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    invoke("layout", model).fails_with(2, "--to")
    invoke("layout", model, "--to", "nhwc", "--only", "x").fails_with(2, "interface is to be kept")
    both = ("layout", model, "a.onnx", "-o", "b.onnx", "--to", "nhwc")
    invoke(*both).fails_with(2, "given twice")
    named = ("layout", model, "--to", "nhwc", "--io", "convert", "--only", "nothing")
    invoke(*named).fails_with(2, "no input or output 'nothing'")
    broken = tmp_path / "broken.onnx"
    broken.write_text("no model")
    invoke("layout", broken, "--to", "nhwc").fails_with(3)


def test_nothing_to_convert(fixtures: Path, tmp_path: Path, invoke: Invoke) -> None:
    target = tmp_path / "out.onnx"
    done = invoke("layout", fixtures / "digits_mlp.onnx", target, "--to", "nhwc", "--io", "convert")
    done.fails_with(2, "no input or output is known to hold pictures")
    assert not target.exists()
