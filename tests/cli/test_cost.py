"""`graphopt cost`."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import onnx
import pytest

import graphopt
from tests.cli.conftest import Invoke


@pytest.fixture
def model(fixtures: Path) -> Path:
    """A small network with a free batch dim."""
    return fixtures / "digits_resnet.onnx"


def test_the_table_shows_rows_and_totals(model: Path, invoke: Invoke) -> None:
    done = invoke("cost", model, "--dim", "batch=2", "--top", "3")
    assert done.code == 0
    total = graphopt.estimate_cost(model, dims={"batch": 2}).total
    assert f"{total.macs:,}" in done.out
    assert f"{total.parameters:,}" in done.out
    assert "more (--top 0 shows all)" in done.out
    assert "free dims" not in done.out
    assert len([line for line in done.out.splitlines() if "Conv" in line]) >= 3


def test_free_dims_stay_symbols_and_the_table_says_which(model: Path, invoke: Invoke) -> None:
    done = invoke("cost", model)
    assert "at batch=1:" in done.out
    assert f"{graphopt.estimate_cost(model).total.macs}" in done.out
    assert f"{graphopt.estimate_cost(model, dims={'batch': 1}).total.macs:,}" in done.out
    assert "free dims: batch; --dim NAME=SIZE fixes one" in done.out


def test_modules_are_a_tree_in_the_order_in_which_they_run(fixtures: Path, invoke: Invoke) -> None:
    done = invoke("cost", fixtures / "digits_transformer.onnx", "--by", "module", "--top", "0")
    names = [line[:40].split("  ")[0] or line for line in done.out.splitlines()]
    cost = graphopt.estimate_cost(fixtures / "digits_transformer.onnx")
    indents = [len(line) - len(line.lstrip()) for line in done.out.splitlines()[2:]]
    depths = [group.name.count("/") + bool(group.name) for group in cost.by_module]
    assert sorted(indents[: len(depths)]) == sorted(2 * depth for depth in depths)
    assert "(model)" in names


@pytest.mark.parametrize("by", ["node", "type", "module"])
def test_csv_has_a_line_for_each_row(model: Path, invoke: Invoke, by: str) -> None:
    done = invoke("cost", model, "--dim", "batch=2", "--by", by, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    cost = graphopt.estimate_cost(model, dims={"batch": 2})
    expected = {"node": cost.by_node, "type": cost.by_type, "module": cost.by_module}[by]
    assert [row["name"] for row in rows] == [item.name for item in expected]
    assert [int(row["macs"]) for row in rows] == [item.macs for item in expected]


def test_json_is_what_the_library_gives(model: Path, invoke: Invoke) -> None:
    expected = json.loads(graphopt.estimate_cost(model).to_json())
    for flags in (["--json"], ["--format", "json"]):
        document = invoke("cost", model, *flags).json
        assert document["ok"] is True
        assert {key: document[key] for key in expected} == expected


def test_a_file_is_written_and_never_over_another_unasked(
    model: Path, invoke: Invoke, tmp_path: Path
) -> None:
    target = tmp_path / "cost.json"
    assert invoke("cost", model, "--format", "json", "-o", target).code == 0
    first = target.read_bytes()
    json.loads(first)
    invoke("cost", model, "--format", "json", "-o", target).fails_with(1, "exists", "--force")
    assert invoke("cost", model, "--format", "json", "-o", target, "--force").code == 0
    assert target.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["cost.json"]


def test_wrong_usage_is_one_line(model: Path, invoke: Invoke, tmp_path: Path) -> None:
    invoke("cost", model, "--by", "layer").fails_with(2, "--by")
    invoke("cost", model, model).fails_with(2, "--format html")
    invoke("cost", model, "-o", tmp_path / "x").fails_with(2, "--format")
    invoke("cost", model, "--dim", "bath=2").fails_with(3, "bath", "batch")
    invoke("cost", tmp_path / "none.onnx").fails_with(3, "none.onnx")


def test_counting_imports_neither_onnxruntime_nor_a_pass(model: Path) -> None:
    script = (
        "import sys, graphopt.cost, graphopt\n"
        f"graphopt.estimate_cost({str(model)!r}).to_json()\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in "
        "('onnxruntime', 'graphopt_passes', 'plotly', 'networkx', 'pandas', 'sympy', 'rich')]\n"
        "bad += [m for m in sys.modules if m.startswith(('graphopt.rewrite', 'graphopt.plugin'))]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_a_profile_the_user_is_told_to_calibrate(
    model: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    invoke("cost", model, "--device", "cpu").fails_with(2, "graphopt calibrate-machine")
    invoke("cost", model, "--device", "board").fails_with(2, "calibrate-machine --name board")
    missing = tmp_path / "none.json"
    invoke("cost", model, "--device", missing).fails_with(2, f"-o {missing}")


def test_measuring_shows_the_executed_nodes_and_the_arena(model: Path, invoke: Invoke) -> None:
    done = invoke("cost", model, "--measure", "--dim", "batch=2")
    assert done.code == 0, done.err
    assert "measured, 1 thread" in done.out
    assert "nchwc.Conv" in done.out
    assert "arena holds" in done.out
    document = invoke("cost", model, "--measure", "--dim", "batch=2", "--json").json
    assert document["measured"]["seconds"] > 0
    assert document["arena"]["peak_bytes"] > 0
    assert any("Conv" in node["op_type"] for node in document["measured"]["by_node"])


@pytest.mark.parametrize("figure", ["flops", "macs", "bytes", "params"])
def test_rows_are_ranked_by_what_is_asked_for(model: Path, invoke: Invoke, figure: str) -> None:
    cost = graphopt.estimate_cost(model, dims={"batch": 1})
    field = {
        "flops": lambda row: row.flops,
        "macs": lambda row: row.macs,
        "bytes": lambda row: row.bytes_read + row.bytes_written,
        "params": lambda row: row.parameters,
    }[figure]
    best = max(cost.by_type, key=field)
    done = invoke("cost", model, "--by", "type", "--sort", figure, "--dim", "batch=1")
    assert done.out.splitlines()[1].split()[0] == best.name


def test_csv_survives_odd_names(invoke: Invoke, tmp_path: Path) -> None:
    odd = 'a\rb"c,\u00e9'
    node = onnx.helper.make_node("Relu", ["x"], ["y"], name=odd)
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [2]) for name in "xy")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y])), tmp_path / "m")
    target = tmp_path / "rows.csv"
    assert invoke("cost", tmp_path / "m", "--format", "csv", "-o", target).code == 0
    with target.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["name"] == odd


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_written_into_and_not_replaced(
    model: Path, invoke: Invoke, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    done = invoke("cost", model, "--format", "json", "-o", pipe, "--force")
    reader.join(timeout=20)
    assert done.code == 0
    assert json.loads(found[0])["ok"] is True
    assert pipe.is_fifo()
