"""`graphopt extract` and `graphopt bench`."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from graphopt.graph import load
from tests.cli.conftest import Invoke


@pytest.fixture
def model(fixtures: Path) -> Path:
    return fixtures / "digits_resnet.onnx"


def test_a_part_is_written_and_proved(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    graph = load(model).graph
    middle = next(n.outputs[0].name for n in graph if n.op_type == "GlobalAveragePool")
    first = tmp_path / "a.onnx"
    done = invoke("extract", model, first, "--outputs", middle, "--json")
    assert done.code == 0
    assert done.json["verified"] > 0
    assert list(done.json["outputs"]) == [middle]
    done = invoke("extract", model, tmp_path / "b.onnx", "--inputs", middle)
    assert done.code == 0
    assert "verified on" in done.out


def test_an_input_may_be_an_output_too(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    graph = load(model).graph
    taken, given = graph.inputs[0].name, graph.outputs[0].name
    done = invoke("extract", model, tmp_path / "a.onnx", "--outputs", f"{given},{taken}", "--json")
    assert done.code == 0
    assert done.json["verified"] > 0


def test_the_middle_of_every_fixture(fixtures: Path, tmp_path: Path, invoke: Invoke) -> None:
    cut = 0
    for path in sorted(fixtures.glob("*.onnx")):
        nodes = list(load(path).graph)
        name = nodes[len(nodes) // 2].outputs[0].name
        done = invoke("extract", path, tmp_path / path.name, "--outputs", name)
        assert done.code in (0, 2), f"{path.name}: {done.err}"
        cut += done.code == 0
    assert cut > 20


def test_extract_refuses_what_it_cannot_do(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    invoke("extract", model).fails_with(2, "--inputs, --outputs, or both")
    invoke("extract", model, "--outputs", "nothing").fails_with(2, "no tensor 'nothing'")
    there = tmp_path / "there.onnx"
    there.write_bytes(b"")
    invoke("extract", model, there, "--outputs", "logits").fails_with(1, "--force")


def test_bench_times_models_in_turn(model: Path, invoke: Invoke) -> None:
    done = invoke("bench", model, model, "--seconds", "0.1", "--threads", "1", "--json")
    assert done.code == 0
    rows = done.json["runs"]
    assert rows[0]["ratio"] == 1.0
    assert all(row["seconds"] > 0 for row in rows)
    done = invoke("bench", model, "--seconds", "0.05")
    assert "default" in done.out
    invoke("bench", model, "--threads", "many").fails_with(2, "no numbers")


def test_what_was_cut_apart_is_put_together(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    graph = load(model).graph
    middle = next(n.outputs[0].name for n in graph if n.op_type == "GlobalAveragePool")
    head, tail, whole = (tmp_path / f"{name}.onnx" for name in ("head", "tail", "whole"))
    invoke("extract", model, head, "--outputs", middle)
    invoke("extract", model, tail, "--inputs", middle)
    done = invoke("merge", head, tail, "-o", whole, "--json")
    assert done.code == 0
    assert done.json["verified"] == 3
    assert invoke("compare", model, whole).code == 0
    assert invoke("merge", head, tail, "-o", whole).code == 1  # it exists


def test_models_vote(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    other = model.with_name("digits_mlp.onnx")
    target = tmp_path / "vote.onnx"
    done = invoke("merge", model, other, "-o", target, "--mode", "vote", "--weights", "2,1")
    assert done.code == 0, done.err
    assert "verified on 3 inputs" in done.out


def test_names_that_are_mapped_may_hold_colons(tmp_path: Path, invoke: Invoke) -> None:
    files = []
    for source, target in (("x:0", "y:0"), ("data:0", "z:0")):
        graph = helper.make_graph(
            [helper.make_node("Neg", [source], [target])],
            "g",
            [helper.make_tensor_value_info(source, 1, [3])],
            [helper.make_tensor_value_info(target, 1, [3])],
        )
        opsets = [helper.make_opsetid("", 17)]
        files.append(tmp_path / f"{target[0]}.onnx")
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), files[-1])
    done = invoke("merge", *files, "-o", tmp_path / "o.onnx", "--map", "y:0:data:0", "--json")
    assert done.code == 0, done.err
    assert list(done.json["outputs"]) == ["z:0"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--map", "a"], "write OUTPUT:INPUT"),
        (["--map", "a:x", "--map", "b:x"], "gives the input 'x' two outputs"),
        (["--mode", "mean", "--weights", "a,b"], "are no numbers"),
    ],
)
def test_wrong_merges_are_told(
    options: list[str], reason: str, model: Path, tmp_path: Path, invoke: Invoke
) -> None:
    done = invoke("merge", model, model, "-o", tmp_path / "out.onnx", *options)
    assert done.code == 2
    assert reason in done.err
