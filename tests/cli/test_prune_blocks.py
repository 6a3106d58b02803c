"""`graphopt prune-blocks`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphopt.graph import load, verify
from tests.cli.conftest import Invoke


@pytest.fixture
def model(fixtures: Path, tmp_path: Path) -> Path:
    """A small residual network in a folder of its own."""
    path = tmp_path / "net.onnx"
    path.write_bytes((fixtures / "digits_resnet.onnx").read_bytes())
    return path


@pytest.fixture
def data(fixtures: Path) -> Path:
    """Images of digits."""
    return fixtures / "digits_test.npz"


def test_writes_beside_the_input(model: Path, data: Path, invoke: Invoke) -> None:
    flags = ("--count", "1", "--calib", data, "--calib-n", "64", "--no-measure")
    done = invoke("prune-blocks", model, *flags, "--json")
    assert done.code == 0
    report = done.json
    target = model.parent / "net.pruned.onnx"
    assert report["output"] == str(target)
    assert report["input"] == str(model)
    assert verify(load(target)) == []
    (step,) = report["replaced"]
    assert step["kind"] in ("constant", "linear")
    assert report["macs"][1] == step["macs"] < report["macs"][0]
    assert report["held_out"] == 8
    assert report["blocks"] == 2
    invoke("prune-blocks", model, *flags).fails_with(1, "exists already")


def test_says_what_was_replaced_and_why_not_more(
    model: Path, data: Path, tmp_path: Path, invoke: Invoke
) -> None:
    written = tmp_path / "report.json"
    flags = ("--calib", data, "--calib-n", "64", "--dry-run", "--report", written)
    done = invoke("prune-blocks", model, "--count", "1", *flags)
    assert done.code == 0
    assert "1 of 2 residual blocks are replaced" in done.out
    assert "1 other sums are no blocks; -v says why" in done.out
    assert "dry run: nothing written" in done.out
    assert json.loads(written.read_text())["latency"]
    more = invoke("prune-blocks", model, "--count", "1", *flags[:-2], "-v", "--no-measure")
    assert "is computed of the other" in " ".join(more.out.split())
    assert not (tmp_path / "net.pruned.onnx").exists()


def test_failures_have_their_codes(model: Path, data: Path, tmp_path: Path, invoke: Invoke) -> None:
    given = ("--calib", data, "--calib-n", "32", "--no-measure")
    invoke("prune-blocks", model, "--count", "1").fails_with(2, "--calib")
    invoke("prune-blocks", model, *given).fails_with(2, "say how much to prune")
    invoke("prune-blocks", model, "--count", "3", *given).fails_with(4, "only 2 residual blocks")
    missing = tmp_path / "missing.onnx"
    assert invoke("prune-blocks", missing, "--count", "1", *given).code == 3
    twice = ("a.onnx", "-o", "b.onnx", "--count", "1")
    invoke("prune-blocks", model, *twice, *given).fails_with(2, "given twice")
