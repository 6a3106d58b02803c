"""`graphopt optimize`: flags, exit codes, what is written and what is not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import onnx
import pytest

from graphopt.graph import load
from graphopt.pipeline import Result, optimization
from tests.cli.conftest import Invoke

QUICK = ("--no-measure",)


@pytest.fixture
def model(tmp_path: Path, fixtures: Path) -> Path:
    """A copy of a small trained CNN, in a folder of its own."""
    path = tmp_path / "net.onnx"
    path.write_bytes((fixtures / "digits_resnet.onnx").read_bytes())
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_writes_beside_the_input_and_says_what_it_did(model: Path, invoke: Invoke) -> None:
    untouched = digest(model)
    done = invoke("optimize", model, *QUICK)
    assert (done.code, done.err) == (0, "")
    result = model.with_name("net.opt.onnx")
    optimized = onnx.load(result)
    kinds = {node.op_type for node in optimized.graph.node}
    assert "BatchNormalization" not in kinds
    assert digest(model) == untouched
    assert sorted(path.name for path in model.parent.iterdir()) == ["net.onnx", "net.opt.onnx"]
    for text in ("fuse-conv-batchnorm", "BatchNormalization", "nodes", "verified on 3 inputs"):
        assert text in done.out
    assert f"wrote {result}" in done.out


def test_the_latency_is_measured_unless_the_check_is_off(model: Path, invoke: Invoke) -> None:
    done = invoke("optimize", model, "--dry-run")
    assert "x as fast" in done.out
    assert "\nMACs " in done.out
    unchecked = invoke("optimize", model, "--dry-run", "--check", "off")
    assert "x as fast" not in unchecked.out
    assert "\nMACs " not in unchecked.out
    assert "not verified: --check off" in unchecked.out


def test_the_default_output_is_not_overwritten_before_any_work(
    model: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.with_name("net.opt.onnx").write_text("precious")

    def never(*_: object, **__: object) -> Result:
        raise AssertionError("work was done")

    monkeypatch.setattr(optimization, "optimize", never)
    monkeypatch.setattr("graphopt.pipeline.optimize", never)
    invoke("optimize", model).fails_with(1, "net.opt.onnx' exists already", "--force")
    assert model.with_name("net.opt.onnx").read_text() == "precious"


def test_force_overwrites_the_output(model: Path, invoke: Invoke) -> None:
    target = model.with_name("net.opt.onnx")
    target.write_text("old")
    assert invoke("optimize", model, "--force", *QUICK).code == 0
    onnx.checker.check_model(str(target))


def test_the_input_is_replaced_only_by_force(model: Path, invoke: Invoke) -> None:
    before = digest(model)
    link = model.with_name("same.onnx")
    link.hardlink_to(model)
    for target in (model, link, model.parent / "." / "net.onnx"):
        invoke("optimize", model, "-o", target).fails_with(1, "is the input itself")
    assert digest(model) == before
    assert invoke("optimize", model, model, "--force", *QUICK).code == 0
    assert digest(model) != before


def test_dry_run_writes_nothing(model: Path, invoke: Invoke) -> None:
    report = model.with_name("report.json")
    done = invoke("optimize", model, "--dry-run", "--report", report, *QUICK)
    assert done.code == 0
    assert "dry run: nothing written" in done.out
    assert list(model.parent.iterdir()) == [model]


def test_json_is_one_object_and_nothing_else(model: Path, invoke: Invoke) -> None:
    done = invoke("optimize", model, "--json", *QUICK)
    assert done.err == ""
    data = done.json
    assert data["ok"] is True
    assert data["input"] == str(model)
    assert data["check"]["status"] == "verified"
    assert data["after"]["nodes"] < data["before"]["nodes"]
    assert {entry["name"] for entry in data["passes"]} >= {"fold-constants", "fuse-conv-batchnorm"}


def test_json_tells_errors_too(tmp_path: Path, invoke: Invoke) -> None:
    done = invoke("optimize", tmp_path / "absent.onnx", "--json")
    done.fails_with(3)
    assert done.json["ok"] is False
    assert done.json["exit_code"] == 3
    usage = invoke("optimize", tmp_path / "absent.onnx", "--json", "--rtoll", "1")
    usage.fails_with(2, "--rtol")
    assert usage.json["exit_code"] == 2


def test_the_report_holds_every_place(model: Path, invoke: Invoke) -> None:
    report = model.with_name("report.json")
    assert invoke("optimize", model, "-q", "--report", report, *QUICK).out == ""
    entries = {entry["name"]: entry for entry in json.loads(report.read_text())["passes"]}
    assert entries["fuse-conv-batchnorm"]["rewrites"][0]["site"].startswith("BatchNorm")
    again = invoke("optimize", model, "-o", model.with_name("b.onnx"), "--report", report)
    again.fails_with(1, "report.json' exists already")


def test_a_level_chooses_the_passes(model: Path, invoke: Invoke) -> None:
    names = {}
    for level in ("-O0", "-O1", "-O2", "-O3"):
        data = invoke("optimize", model, level, "--json", "--dry-run", *QUICK).json
        names[level] = [entry["name"] for entry in data["passes"]]
    assert names["-O0"] == []
    assert "fuse-conv-batchnorm" not in names["-O1"]
    assert "fuse-conv-batchnorm" in names["-O2"]
    spaced = invoke("optimize", model, "-O", "1", "--json", "--dry-run", *QUICK).json
    assert [entry["name"] for entry in spaced["passes"]] == names["-O1"]
    invoke("optimize", model, "-O4").fails_with(2, "-O")


def test_passes_and_skip_choose_too(model: Path, invoke: Invoke) -> None:
    data = invoke(
        "optimize", model, "--dry-run", "--json", *QUICK,
        "--passes", "eliminate-identities, fold-constants{limit=4KB} ,eliminate-dead-nodes",
        "--skip", "eliminate-identities",
    ).json  # fmt: skip
    named = [entry["name"] for entry in data["passes"]]
    assert named == ["fold-constants{limit=4096}", "eliminate-dead-nodes"]
    invoke("optimize", model, "--passes", "fold-constant").fails_with(2, "'fold-constants'")
    invoke("optimize", model, "--skip", "fuse-conv-batchnom").fails_with(2, "did you mean")
    invoke("optimize", model, "-O1", "--passes", "fold-constants").fails_with(2, "give one")


def test_raises_the_opset_if_asked(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    target = tmp_path / "new.onnx"
    present = load(model).opset_imports[""]
    done = invoke("optimize", model, target, "--target-opset", str(present + 1), *QUICK)
    assert done.code == 0
    assert load(target).opset_imports[""] == present + 1
    lower = invoke("optimize", model, target, "--target-opset", str(present - 1), "--force", *QUICK)
    lower.fails_with(2, "--target-opset", "would lower it")


def test_fold_limit_reaches_fold_constants(model: Path, invoke: Invoke) -> None:
    data = invoke("optimize", model, "--dry-run", "--json", "--fold-limit", "2KB", *QUICK).json
    assert "fold-constants{limit=2048}" in {entry["name"] for entry in data["passes"]}
    invoke("optimize", model, "--fold-limit", "big").fails_with(2, "--fold-limit", "1MB")
    both = ("--passes", "fold-constants{limit=1}", "--fold-limit", "2")
    invoke("optimize", model, *both).fails_with(2, "give one")
    invoke("optimize", model, "-O0", "--fold-limit", "2").fails_with(2, "fold-constants")


@pytest.mark.parametrize("size", ["", "half", "1.5GB", "5 apples"])
def test_a_limit_of_memory_is_a_size(model: Path, invoke: Invoke, size: str) -> None:
    invoke("optimize", model, "--max-memory", size).fails_with(2, "--max-memory", "no whole number")


def test_a_limit_of_memory_that_cannot_be_kept_is_refused(model: Path, invoke: Invoke) -> None:
    invoke("optimize", model, "--max-memory", "1MB").fails_with(2, "--max-memory 1MB is less than")
    assert not model.with_name("net.opt.onnx").exists()


def test_a_run_within_the_limit_of_memory_is_as_any(model: Path, invoke: Invoke) -> None:
    outcome = invoke("optimize", model, "--max-memory", "64GB", "--json")
    assert outcome.json["check"]["status"] == "verified"
    assert outcome.json["latency_before"] > 0
    assert outcome.json["warnings"] == []


def test_shapes_and_dims_are_fixed(model: Path, invoke: Invoke) -> None:
    for flags in (
        ("--input-shape", "image:2,1,8,8"),
        ("--overwrite-input-shape", "2,1,8,8"),
        ("--input-shapes", "image:[2, 1, 8, 8]"),
        ("--dim", "batch=2"),
    ):
        target = model.with_name("fixed.onnx")
        assert invoke("optimize", model, target, "--force", *flags, *QUICK).code == 0
        dims = onnx.load(target).graph.input[0].type.tensor_type.shape.dim
        assert [dim.dim_value for dim in dims] == [2, 1, 8, 8]


def test_an_input_name_may_hold_colons(tmp_path: Path, invoke: Invoke) -> None:
    name = "serving_default_input:0"
    shape = onnx.helper.make_tensor_value_info(name, 1, ["n", 3])
    out = onnx.helper.make_tensor_value_info("y", 1, ["n", 3])
    node = onnx.helper.make_node("Relu", [name], ["y"])
    graph = onnx.helper.make_graph([node], "g", [shape], [out])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "a.onnx")
    done = invoke("optimize", tmp_path / "a.onnx", "--input-shape", f"{name}:1,3", *QUICK)
    assert done.code == 0
    dims = onnx.load(tmp_path / "a.opt.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 3]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--input-shape", "image:1,1.5"), "is no dim"),
        (("--input-shape", "image:1,-1,8,8"), "negative"),
        (("--input-shape", "image:1,,8"), "is no dim"),
        (("--input-shape", ":1,2"), "names no input"),
        (("--input-shape", "image:1", "--input-shape", "image:2"), "two shapes"),
        (("--dim", "batch=1..32"), "ranges are not supported yet"),
        (("--dim", "batch"), "NAME=SIZE"),
        (("--dim", "batch=x"), "whole number"),
        (("--dim", "batch=1", "--dim", "batch=2"), "two sizes"),
        (("--rtol", "inf"), "finite"),
        (("--rtol", "nan"), "finite"),
        (("--atol", "-1"), "finite"),
        (("--check-n", "0"), "--check-n"),
        (("--check", "sometimes"), "per-pass"),
        (("--input-data", "nowhere.npz"), "does not exist"),
        (("--report", "out.html"), ".json"),
        (("--provider", "cuda"), "-O3"),
        (("--plan", "fast"), "No such option"),
        (("a.onnx", "-o", "b.onnx"), "twice"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(
    model: Path, invoke: Invoke, flags: tuple[str, ...], said: str
) -> None:
    invoke("optimize", model, *flags).fails_with(2, said)
    assert list(model.parent.iterdir()) == [model]


def test_a_bare_shape_needs_a_single_input(tmp_path: Path, invoke: Invoke) -> None:
    def info(name: str) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(name, 1, ["n"])

    node = onnx.helper.make_node("Add", ["left", "right"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [info("left"), info("right")], [info("y")])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "a.onnx")
    done = invoke("optimize", tmp_path / "a.onnx", "--input-shape", "4")
    done.fails_with(2, "names no input", "'left', 'right'")


def test_a_raising_pass_is_undone_and_strict_makes_it_exit_5(model: Path, invoke: Invoke) -> None:
    wrong = ("--passes", "tests.cli.wrong_passes:raise_always,eliminate-identities")
    done = invoke("optimize", model, *wrong, *QUICK)
    assert done.code == 0
    assert "raise-always was undone: it raised RuntimeError: first line" in done.out
    target = model.with_name("strict.onnx")
    invoke("optimize", model, target, *wrong, "--strict").fails_with(5, "raise-always", "undone")
    assert not target.exists()


def test_a_pass_that_moves_the_outputs_is_left_out(model: Path, invoke: Invoke) -> None:
    wrong = ("--passes", "tests.cli.wrong_passes:scale_weight")
    data = invoke("optimize", model, *wrong, "--json", *QUICK).json
    assert data["ok"] is False
    assert data["check"]["status"] == "verified"
    assert data["passes"][0]["problem"] is not None
    target = model.with_name("strict.onnx")
    invoke("optimize", model, target, *wrong, "--strict").fails_with(5, "scale-weight")
    assert not target.exists()


def test_ctrl_c_leaves_nothing_behind(model: Path, invoke: Invoke) -> None:
    done = invoke("optimize", model, "--passes", "tests.cli.wrong_passes:interrupt")
    # The empty line ends the one on which the terminal has echoed ^C.
    assert (done.code, done.err) == (130, "\nerror: interrupted\n")
    assert list(model.parent.iterdir()) == [model]


def test_a_defect_is_one_line_and_the_traceback_comes_with_vv(
    model: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Result:
        raise KeyError("some\nkey")

    monkeypatch.setattr("graphopt.pipeline.optimize", broken)
    invoke("optimize", model).fails_with(1, "unexpected KeyError", "report it", "-vv")
    shown = invoke("optimize", model, "-vv")
    assert shown.code == 1
    assert "Traceback" in shown.err
    assert 'raise KeyError("some' in shown.err


def test_v_says_what_was_declined_and_vv_every_rewrite(fixtures: Path, invoke: Invoke) -> None:
    decoys = fixtures / "bn_decoys.onnx"
    plain = invoke("optimize", decoys, "--dry-run", *QUICK)
    assert "declined by" not in plain.out
    spoken = invoke("optimize", decoys, "--dry-run", "-v", *QUICK)
    assert "declined by" in spoken.out
    resnet = fixtures / "digits_resnet.onnx"
    assert "changed by" not in invoke("optimize", resnet, "--dry-run", "-v", *QUICK).out
    assert "changed by" in invoke("optimize", resnet, "--dry-run", "-vv", *QUICK).out
