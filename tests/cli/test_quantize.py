"""graphopt quantize, and compare --all-tensors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.conftest import Invoke

METRIC = """
import numpy as np

DATA = np.load({path!r})

def accuracy(run):
    scores = next(iter(run({{"image": DATA["image"][100:]}}).values()))
    return (scores.argmax(-1) == DATA["label"][100:]).mean()

def never(run):
    accuracy.calls = getattr(accuracy, "calls", 0) + 1
    return 1.0 if accuracy.calls == 1 else 0.0
"""


@pytest.fixture
def work(tmp_path: Path, fixtures: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes((fixtures / "digits_resnet.onnx").read_bytes())
    image = np.load(fixtures / "digits_test.npz")["image"][:48]
    np.savez(tmp_path / "calib.npz", image=image)
    script = METRIC.format(path=str(fixtures / "digits_test.npz"))
    (tmp_path / "metric.py").write_text(script)
    return tmp_path


def test_a_model_is_quantized_and_described(work: Path, invoke: Invoke) -> None:
    done = invoke(
        "quantize", work / "model.onnx", "--calib", work / "calib.npz", "--no-only-if-faster",
        "--threads", "1", "--report", work / "report.json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "groups in integers for ort-cpu, mse over 42 samples" in done.out
    assert "SQNR" in done.out
    assert "x as fast" in done.out
    written = onnx.load(work / "model.int8.onnx")
    assert any(node.op_type == "DequantizeLinear" for node in written.graph.node)
    report = json.loads((work / "report.json").read_text())
    assert report["samples"] == 42
    assert report["checked_on"] == 6
    assert {group["precision"] for group in report["groups"]} <= {"int8", "uint8", "float"}


def test_json_is_one_object(work: Path, invoke: Invoke) -> None:
    done = invoke(
        "quantize", work / "model.onnx", work / "out.onnx", "--calib", work / "calib.npz",
        "--no-only-if-faster", "--no-measure", "--threads", "1", "--json",
        "--metric", f"{work / 'metric.py'}:accuracy", "--max-drop", "2%",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["ok"] is True
    assert done.json["metric_after"] >= done.json["metric_before"] * 0.98
    assert len(done.json["curve"]) == 1
    assert done.json["output"] == str(work / "out.onnx")


def test_an_accuracy_that_is_not_reached_is_code_4(work: Path, invoke: Invoke) -> None:
    done = invoke(
        "quantize", work / "model.onnx", work / "out.onnx", "--calib", work / "calib.npz",
        "--no-only-if-faster", "--no-measure", "--threads", "1",
        "--metric", f"{work / 'metric.py'}:never", "--max-drop", "0.5",
    )  # fmt: skip
    done.fails_with(4, "no mixture keeps", "nothing was written", "--force")
    assert not (work / "out.onnx").exists()


def test_without_data_it_says_what_to_do(work: Path, invoke: Invoke) -> None:
    invoke("quantize", work / "model.onnx").fails_with(2, "--calib", ".npz", "--dynamic")
    invoke("quantize", work / "model.onnx", "--calib", work / "absent.npz").fails_with(
        2, "--calib", "does not exist"
    )
    invoke(
        "quantize", work / "model.onnx", "--dynamic", "--weight-only"
    ).fails_with(2, "give one")  # fmt: skip
    invoke(
        "quantize", work / "model.onnx", "--calib", "seeded", "--max-drop", "much"
    ).fails_with(2, "'much' is not understood")  # fmt: skip


def test_made_up_data_is_warned_about(work: Path, invoke: Invoke) -> None:
    done = invoke(
        "quantize", work / "model.onnx", "--calib", "seeded", "--no-only-if-faster",
        "--no-measure", "--threads", "1",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "made-up inputs" in done.out


def test_a_config_file_can_say_it(work: Path, invoke: Invoke) -> None:
    flags = ("--calib", "d.npz", "--smoothquant", "--max-drop", "1%", "--nodes-to-exclude", "a.*")
    first = invoke("quantize", "in.onnx", *flags, "--print-config")
    assert 'max-drop = "1%"' in first.out
    assert "smoothquant = 0.5" in first.out
    (work / "graphopt.toml").write_text(first.out)
    again = invoke("quantize", "in.onnx", "--config", work / "graphopt.toml", "--print-config")
    assert again.out == first.out


def test_all_tensors_are_compared(work: Path, invoke: Invoke) -> None:
    invoke(
        "quantize", work / "model.onnx", work / "out.onnx", "--calib", work / "calib.npz",
        "--no-only-if-faster", "--no-measure", "--threads", "1",
    )  # fmt: skip
    compared = (work / "model.onnx", work / "out.onnx", "--inputs", work / "calib.npz")
    done = invoke("compare", *compared, "--all-tensors", "--least-sqnr", "35")
    assert done.code == 4
    assert done.out.startswith("first bad layer: ")
    assert " BAD " in done.out or "\nBAD " in done.out
    lenient = invoke("compare", *compared, "--all-tensors", "--least-sqnr", "5")
    assert lenient.out.startswith("no tensor is below 5 dB")
    as_json = invoke("compare", *compared, "--all-tensors", "--json")
    assert as_json.json["ok"] is False
    assert len(as_json.json["tensors"]["compared"]) > 10
    assert "tensors" not in invoke("compare", *compared, "--json").json
