"""A third party's distribution: installed, listed, run by name, and its own tests pass."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "tests" / "plugin" / "graphopt-relu6"
PASS = "convert-min-max-to-clip"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the plugin's project, so that nothing is written into the checkout."""
    target = tmp_path_factory.mktemp("plugin") / "project"
    ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache")
    shutil.copytree(PLUGIN, target, ignore=ignored)
    return target


@pytest.fixture(scope="module")
def site(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the plugin is installed in, as pip installs it."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    if importlib.util.find_spec("hatchling") is not None:
        command += ["--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--target", str(target), str(project)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def python(*arguments: str, site: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder` with the plugin installed, and this checkout of graphopt."""
    paths = [str(site), str(ROOT), str(ROOT / "passes")]
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_lists_and_shows_it(site: Path, tmp_path: Path) -> None:
    listed = python("-m", "graphopt", "passes", "list", "--json", site=site, folder=tmp_path)
    assert listed.returncode == 0, listed.stderr
    found = {entry["name"]: entry for entry in json.loads(listed.stdout)["passes"]}
    assert found[PASS]["distribution"] == "graphopt-relu6"
    assert found[PASS]["promise"] == "exact"
    assert [option["name"] for option in found[PASS]["options"]] == ["relu6_only"]
    assert found["fold-constants"]["distribution"] == "graphopt"


MODEL = """
import onnx.parser
model = onnx.parser.parse_model('''
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,4] x) => (float[N,4] y)
<float zero = {0}, float six = {6}>
{ t = Max (x, zero)  y = Min (t, six) }
''')
"""


def test_the_command_line_runs_it(site: Path, tmp_path: Path) -> None:
    exec(f"{MODEL}\nonnx.save(model, r'{tmp_path / 'model.onnx'}')", {})
    done = python(
        *("-m", "graphopt", "optimize", "model.onnx", "out.onnx", "--json"),
        *("--passes", f"{PASS}{{relu6_only=true}}"),
        site=site,
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (entry,) = report["passes"]
    assert entry["name"] == f"{PASS}{{relu6_only=true}}"
    assert entry["status"] == "changed"
    assert report["check"]["status"] == "verified"
    assert report["after"]["operators"] == {"Clip": 1}


def test_the_api_runs_it_by_name_and_by_class(site: Path, tmp_path: Path) -> None:
    code = f"""{MODEL}
import graphopt
from graphopt_relu6 import PASSES
for item in ("{PASS}", PASSES[0], PASSES[0](relu6_only=True)):
    optimized, ok = graphopt.optimize(model, passes=[item])
    assert ok
    assert [node.op_type for node in optimized.graph.node] == ["Clip"]
    (metadata,) = [entry for entry in optimized.graph.node[0].metadata_props
                   if entry.key == "graphopt.pass"]
    assert metadata.value == "{PASS}"
assert [node.op_type for node in model.graph.node] == ["Max", "Min"]
"""
    done = python("-c", code, site=site, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_its_own_tests_pass(site: Path, project: Path) -> None:
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", site=site, folder=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_its_own_tests_can_fail(site: Path, project: Path, tmp_path: Path) -> None:
    broken = tmp_path / "project"
    shutil.copytree(project, broken)
    case = broken / "tests" / "cases" / "relu6.onnxtxt"
    case.write_text(case.read_text("utf-8").replace("high =  {6}", "high =  {5}"), "utf-8")
    done = python("-m", "pytest", "-q", "tests/cases", site=site, folder=broken)
    assert done.returncode == 1
    assert "--- expected" in done.stdout
    assert "1 failed, 2 passed" in done.stdout


def fake_distribution(site: Path, name: str, entry: str, source: str) -> None:
    """An installed distribution of one module."""
    module = name.replace("-", "_")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[graphopt.passes]\n{name} = {entry}\n")
    (site / f"{module}.py").write_text(source)


def test_two_passes_of_one_name_are_an_error_that_names_both(site: Path, tmp_path: Path) -> None:
    both = tmp_path / "site"
    shutil.copytree(site, both)
    fake_distribution(
        both,
        "another-relu6",
        "another_relu6:PASSES",
        "import graphopt_relu6\n"
        "class Another(graphopt_relu6.ConvertMinMaxToClip):\n"
        "    '''Of the same name.'''\n"
        "PASSES = (Another,)\n",
    )
    done = python("-m", "graphopt", "passes", "list", site=both, folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert f"two passes are named '{PASS}'" in line
    assert "another_relu6.Another (another-relu6)" in line
    assert "ConvertMinMaxToClip (graphopt-relu6)" in line


def test_a_plugin_that_cannot_be_imported_is_one_line_and_the_rest_works(tmp_path: Path) -> None:
    alone = tmp_path / "site"
    alone.mkdir()
    fake_distribution(alone, "broken-plugin", "broken_plugin:PASSES", "import no_such_module\n")
    done = python("-m", "graphopt", "passes", "list", site=alone, folder=tmp_path)
    assert done.returncode == 0
    assert "fold-constants" in done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert "broken-plugin" in line
    assert "no_such_module" in line


CUSTOM = """
import onnx.parser
model = onnx.parser.parse_model('''
<ir_version: 8, opset_import: ["" : 17, "acme.relu6" : 1]>
agraph (float[N,4] x) => (float[N,4] y) { y = acme.relu6.Relu6 (x) }
''')
"""


def test_its_cost_rule_is_used_wherever_it_is_installed(site: Path, tmp_path: Path) -> None:
    script = (
        CUSTOM
        + "import sys, graphopt\n"
        + "cost = graphopt.estimate_cost(model)\n"
        + "assert not cost.uncounted, cost.notes\n"
        + "assert str(cost.total.flops) == '8*N', cost.total\n"
        + "assert 'onnxruntime' not in sys.modules and 'graphopt_passes' not in sys.modules\n"
    )
    done = python("-c", script, site=site, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_without_it_the_operator_is_reported(tmp_path: Path) -> None:
    script = CUSTOM + (
        "import graphopt\n"
        "assert 'no rule for acme.relu6.Relu6' in graphopt.estimate_cost(model).notes[0]\n"
    )
    done = python("-c", script, site=tmp_path, folder=tmp_path)
    assert done.returncode == 0, done.stderr
