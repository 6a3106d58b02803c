"""`graphopt cost`."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

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
