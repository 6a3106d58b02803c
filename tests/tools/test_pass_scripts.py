"""tools/new_pass.py writes a pass that passes everything; tools/list_passes.py lists it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the two scripts read and write, in a folder of its own."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "passes", tmp_path / "passes", ignore=ignored)
    for name in ("pyproject.toml", "tools/new_pass.py", "tools/list_passes.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "tests").mkdir()
    conftest = 'pytest_plugins = ["graphopt.testing.pytest_plugin"]\n'
    (tmp_path / "tests" / "conftest.py").write_text(conftest)
    return tmp_path


def python(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the copy, whose passes come before the installed ones."""
    paths = [str(checkout / "passes"), str(ROOT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MYPYPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_new_pass_runs_and_is_tested_and_listed(checkout: Path) -> None:
    made = python(checkout, "tools/new_pass.py", "cancel-double-negation")
    assert made.returncode == 0, made.stderr
    registry = (checkout / "passes" / "graphopt_passes" / "__init__.py").read_text()
    assert "cancel_double_negation import CancelDoubleNegation" in registry
    assert "    CancelDoubleNegation,\n" in registry

    stale = python(checkout, "tools/list_passes.py", "--check")
    assert stale.returncode == 1
    assert "out of date" in stale.stderr
    assert python(checkout, "tools/list_passes.py").returncode == 0
    assert "## cancel-double-negation" in (checkout / "passes" / "README.md").read_text()
    assert python(checkout, "tools/list_passes.py", "--check").returncode == 0

    tested = python(checkout, "-m", "pytest", "-p", "no:cacheprovider", "tests")
    assert tested.returncode == 0, tested.stdout
    assert "1 passed" in tested.stdout
    again = python(checkout, "tools/new_pass.py", "cancel-double-negation")
    assert again.returncode == 2
    assert "already" in again.stderr


def test_a_new_pass_is_clean(checkout: Path) -> None:
    pytest.importorskip("mypy", reason="the linters are not installed: install [dev]")
    longest = "fold-" + "a" * 31
    for name in ("cancel-double-negation", longest):
        made = python(checkout, "tools/new_pass.py", name)
        assert made.returncode == 0, made.stderr
    module = "passes/graphopt_passes/cancel_double_negation.py"
    for command in (
        ("ruff", "check", "--config", f"src = ['.', '{ROOT}']", "passes"),
        ("ruff", "format", "--check", "passes"),
        ("mypy", module),
    ):
        done = python(checkout, "-m", *command)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Fuse-Things", "must be lower-case words"),
        ("fuse_things", "must be lower-case words"),
        ("fuse", "must be lower-case words"),
        ("things-fuse", "must begin with a verb"),
        ("fuse-" + "x" * 40, "is longer than"),
        ("fuse-conv-batchnorm", "already"),
        ("eliminate-dead-nodes", "already"),
    ],
)
def test_a_bad_name_is_refused(checkout: Path, name: str, problem: str) -> None:
    before = sorted(checkout.rglob("*"))
    done = python(checkout, "tools/new_pass.py", name)
    assert done.returncode == 2
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(checkout.rglob("*")) == before


def test_the_catalogue_is_up_to_date() -> None:
    done = python(ROOT, "tools/list_passes.py", "--check")
    assert done.returncode == 0, done.stderr
