"""`graphopt extract`, `graphopt merge` and `graphopt bench`."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphopt.graph import load
from tests.cli.conftest import Invoke


@pytest.fixture
def model(fixtures: Path) -> Path:
    return fixtures / "digits_resnet.onnx"


def test_extract_and_merge_give_back_the_whole(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    graph = load(model).graph
    middle = next(n.outputs[0].name for n in graph if n.op_type == "GlobalAveragePool")
    first, second, whole = (tmp_path / name for name in ("a.onnx", "b.onnx", "whole.onnx"))
    done = invoke("extract", model, first, "--outputs", middle, "--json")
    assert done.code == 0
    assert done.json["verified"] > 0
    assert list(done.json["outputs"]) == [middle]
    assert invoke("extract", model, second, "--inputs", middle).code == 0
    done = invoke("merge", first, second, "-o", whole)
    assert done.code == 0
    assert "verified on" in done.out
    assert invoke("compare", model, whole).code == 0


def test_extract_refuses_what_it_cannot_do(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    invoke("extract", model).fails_with(2, "--inputs, --outputs, or both")
    invoke("extract", model, "--outputs", "nothing").fails_with(2, "no tensor 'nothing'")
    there = tmp_path / "there.onnx"
    there.write_bytes(b"")
    invoke("extract", model, there, "--outputs", "logits").fails_with(1, "--force")


@pytest.mark.parametrize("mode", ["parallel", "mean", "vote"])
def test_merge_proves_every_mode(
    model: Path, fixtures: Path, tmp_path: Path, invoke: Invoke, mode: str
) -> None:
    target = tmp_path / "out.onnx"
    other = fixtures / "digits_mlp.onnx"
    done = invoke("merge", model, other, "-o", target, "--mode", mode, "--json")
    assert done.code == 0
    assert done.json["verified"] > 0
    assert len(done.json["outputs"]) == (2 if mode == "parallel" else 1)


def test_merge_refuses_what_it_cannot_do(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    target = tmp_path / "out.onnx"
    invoke("merge", model, "-o", target).fails_with(2, "two or more")
    invoke("merge", model, model, "-o", target, "--weights", "1,2").fails_with(2, "--mode mean")
    invoke("merge", model, model, "-o", target, "--map", "x").fails_with(2, "OUTPUT:INPUT")
    flags = ("--mode", "mean", "--weights", "1,x")
    invoke("merge", model, model, "-o", target, *flags).fails_with(2, "no numbers")
    assert not target.exists()


def test_bench_times_models_in_turn(model: Path, invoke: Invoke) -> None:
    done = invoke("bench", model, model, "--seconds", "0.1", "--threads", "1", "--json")
    assert done.code == 0
    rows = done.json["runs"]
    assert rows[0]["ratio"] == 1.0
    assert all(row["seconds"] > 0 for row in rows)
    done = invoke("bench", model, "--seconds", "0.05")
    assert "default" in done.out
    invoke("bench", model, "--threads", "many").fails_with(2, "no numbers")
