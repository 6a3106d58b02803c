"""`graphopt compare`, `inspect`, `passes` and `bisect`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.cli.conftest import Invoke


@pytest.fixture
def pair(tmp_path: Path, fixtures: Path) -> tuple[Path, Path]:
    """A model, and one that differs from it in one weight."""
    first, second = fixtures / "digits_mlp.onnx", tmp_path / "other.onnx"
    model = onnx.load(first)
    floats = (tensor for tensor in model.graph.initializer if tensor.data_type == 1)
    weight = next(floats)
    changed = onnx.numpy_helper.to_array(weight) * 1.5 + 1
    weight.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.float32), weight.name))
    onnx.save(model, second)
    return first, second


def test_compare_says_same_and_different(pair: tuple[Path, Path], invoke: Invoke) -> None:
    first, second = pair
    same = invoke("compare", first, first)
    assert same.code == 0
    assert "verified on 3 inputs" in same.out
    different = invoke("compare", first, second)
    assert different.code == 4
    assert "DIFFERENT" in different.out
    assert different.err == ""


def test_compare_in_json(pair: tuple[Path, Path], invoke: Invoke) -> None:
    first, second = pair
    assert invoke("compare", first, first, "--json").json["ok"] is True
    data = invoke("compare", first, second, "--json").json
    assert data["ok"] is False
    assert data["outputs"][0]["ok"] is False
    assert data["outputs"][0]["relative_error"] > 1e-4


def test_the_tolerance_decides(pair: tuple[Path, Path], invoke: Invoke) -> None:
    assert invoke("compare", *pair, "--rtol", "1e9").code == 0


def test_compare_reads_inputs(pair: tuple[Path, Path], invoke: Invoke) -> None:
    data = pair[1].with_name("data.npz")
    np.savez(data, image=np.ones((5, 1, 8, 8), np.float32))
    done = invoke("compare", pair[0], pair[0], "--inputs", data, "--json")
    assert done.json["inputs_tried"] == 5
    fewer = invoke("compare", pair[0], pair[0], "--inputs", data, "--check-n", "2", "--json")
    assert fewer.json["inputs_tried"] == 2
    np.savez(data, image=np.ones((5, 1, 8), np.float32))
    invoke("compare", pair[0], pair[0], "--inputs", data).fails_with(2, "has 3 dims")
    np.savez(data, picture=np.ones((5, 1, 8, 8), np.float32))
    invoke("compare", pair[0], pair[0], "--inputs", data).fails_with(2, "'image'", "'picture'")


def test_compare_of_other_interfaces(fixtures: Path, invoke: Invoke) -> None:
    done = invoke("compare", fixtures / "digits_mlp.onnx", fixtures / "bn_conv.onnx")
    assert done.code == 4
    assert "interface" in done.out


def test_inspect_shows_what_a_model_holds(fixtures: Path, invoke: Invoke) -> None:
    done = invoke("inspect", fixtures / "digits_resnet.onnx")
    assert done.code == 0
    for text in ("image", "batch x 1 x 8 x 8", "Conv", "parameters", "valid"):
        assert text in done.out
    data = invoke("inspect", fixtures / "functions.onnx", "--json").json
    assert data["opsets"][""] >= 7
    assert data["functions"][0]["name"].startswith("local::")
    assert data["problems"] == []


def test_inspect_shows_every_problem_and_exits_3(tmp_path: Path, invoke: Invoke) -> None:
    out = onnx.helper.make_tensor_value_info("y", 1, [2])
    nodes = [
        onnx.helper.make_node("Relu", ["nowhere"], ["y"], name="first\x1b[31m"),
        onnx.helper.make_node("Relu", ["y"], ["y"], name="second"),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [], [out])
    opset = [onnx.helper.make_opsetid("", 17)]
    path = tmp_path / "broken.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    done = invoke("inspect", path)
    assert done.code == 3
    assert "nowhere" in done.out
    assert "\x1b" not in done.out
    data = invoke("inspect", path, "--json").json
    assert data["ok"] is False
    assert len(data["problems"]) >= 2
    invoke("optimize", path).fails_with(3, "invalid")


def test_passes_are_listed_and_shown(invoke: Invoke) -> None:
    listed = invoke("passes", "list")
    assert listed.code == 0
    assert "fuse-conv-batchnorm" in listed.out
    names = [entry["name"] for entry in invoke("passes", "list", "--json").json["passes"]]
    assert names == sorted(names)
    shown = invoke("passes", "show", "fold-constants")
    assert "limit" in shown.out
    assert invoke("passes", "show", "fold-constants", "--json").json["promise"] == "exact"
    invoke("passes", "show", "fold-constant").fails_with(2, "did you mean 'fold-constants'?")


def test_every_pass_can_be_tried_on_the_traps(invoke: Invoke) -> None:
    done = invoke("passes", "test", "eliminate-identities")
    assert done.code == 0
    assert "traps avoided" in done.out
    wrong = invoke("passes", "test", "tests.cli.wrong_passes:scale_weight", "--json")
    assert wrong.code == 4
    assert any(not trap["ok"] for trap in wrong.json["traps"])


def test_bisect_finds_nothing_where_nothing_is_wrong(
    tmp_path: Path, fixtures: Path, invoke: Invoke
) -> None:
    done = invoke("bisect", fixtures / "digits_mlp.onnx", "-o", tmp_path / "repro")
    assert done.code == 0
    assert "nothing is wrong" in done.out
    assert not (tmp_path / "repro").exists()


def test_bisect_writes_a_reproduction(tmp_path: Path, fixtures: Path, invoke: Invoke) -> None:
    folder = tmp_path / "repro"
    passes = "eliminate-identities,tests.cli.wrong_passes:scale_weight,eliminate-dead-nodes"
    call = ("bisect", fixtures / "digits_resnet.onnx", "--passes", passes, "-o", folder)
    done = invoke(*call)
    assert done.code == 4
    assert "culprit: scale-weight" in done.out
    names = {"before.onnx", "after.onnx", "inputs.npz", "REPORT.txt"}
    assert {path.name for path in folder.iterdir()} == names
    assert "scale-weight" in (folder / "REPORT.txt").read_text()
    models = (folder / "before.onnx", folder / "after.onnx")
    assert invoke("compare", *models, "--inputs", folder / "inputs.npz").code == 4
    invoke(*call).fails_with(1, "exists already")
    assert invoke(*call, "--force", "--json").json["culprit"]["pass"] == "scale-weight"


def test_bisect_writes_inputs_of_any_name(tmp_path: Path, invoke: Invoke) -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        named (float[N, 2] file, float[N, 2] allow_pickle) => (float[N, 2] y)
        <float[2] w = {1, 2}>
        {
            a = Mul (file, w)
            y = Add (a, allow_pickle)
        }
    """
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    folder = tmp_path / "repro"
    wrong = ("--passes", "tests.cli.wrong_passes:scale_weight")
    assert invoke("bisect", tmp_path / "model.onnx", *wrong, "-o", folder).code == 4
    models = (folder / "before.onnx", folder / "after.onnx")
    assert invoke("compare", *models, "--inputs", folder / "inputs.npz").code == 4
