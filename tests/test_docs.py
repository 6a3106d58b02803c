"""The documentation's snippets run: files are written where it says, commands must succeed."""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest

import graphopt

ROOT = Path(__file__).resolve().parent.parent

FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """A fenced block: its language, the file that it is to stand in, its text."""

    language: str
    title: str | None
    text: str


def snippets(page: Path) -> Iterator[Snippet]:
    for found in FENCE.finditer(page.read_text(encoding="utf-8")):
        yield Snippet(found[1], found[2] or None, found[3])


IN_A_CHECKOUT = "in a checkout"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the scripts in tools/ read and write, in a folder of its own."""
    root = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("passes", "tools"):
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    (root / "tests").mkdir()
    (root / "tests" / "conftest.py").write_text(
        'pytest_plugins = ["graphopt.testing.pytest_plugin"]\n'
    )
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def run(command: list[str], folder: Path, first: Path | None = None) -> None:
    """Run in `folder`; pip puts what it installs into `folder/site`, and fetches nothing.

    What is in the folder `first` is imported before what is installed.
    """
    site = first or folder / "site"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(site),
        "PIP_TARGET": str(site),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # sic: any false value turns isolation off
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


def test_every_snippet_of_write_a_pass_runs(tmp_path: Path, checkout: Path) -> None:
    pytest.importorskip("hatchling", reason="the plugin is built with hatchling: install [dev]")
    count = 0
    for snippet in snippets(ROOT / "docs" / "write-a-pass.md"):
        count += 1
        if snippet.title == IN_A_CHECKOUT:
            command = ["bash", "-euo", "pipefail", "-c", snippet.text]
            run(command, checkout, first=checkout / "passes")
        elif snippet.title is not None:
            path = tmp_path / snippet.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(snippet.text, encoding="utf-8")
        elif snippet.language == "sh":
            run(["bash", "-euo", "pipefail", "-c", snippet.text], tmp_path)
        elif snippet.language == "python":
            run([sys.executable, "-c", snippet.text], tmp_path)
        else:
            pytest.fail(f"nobody runs this {snippet.language} snippet: {snippet.text}")
    assert count > 8


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    fixture = (ROOT / "fixtures" / "digits_resnet.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(fixture)
    texts = [item.text for item in snippets(ROOT / "README.md") if item.language == "python"]
    assert texts
    for text in texts:
        run([sys.executable, "-c", text], tmp_path)


def test_the_pages_link_to_what_exists() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "passes" / "README.md"]
    links = 0
    for page in pages:
        if not page.exists():
            continue
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                links += 1
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
    assert links > 3


def test_the_sessions_of_the_cost_pages_print_what_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("pandas", reason="the page shows pandas: install [dev]")
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testfile(str(ROOT / "docs" / "cost-library.md"), module_relative=False)
    assert tried > 15
    assert failed == 0


def test_the_rule_of_the_cost_page_is_one() -> None:
    (text,) = [
        s.text for s in snippets(ROOT / "docs" / "cost-library.md") if s.language == "python"
    ]
    names: dict[str, Any] = {}
    exec(compile(text, "cost-library.md", "exec"), names)
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>
    agraph (float[n, 64] x) => (float[n, 64] y) { y = com.acme.Rotate (x) }
    """)
    cost = graphopt.estimate_cost(model, rules=names["RULES"])
    assert str(cost.total.flops) == "192*n"


def test_the_commands_of_the_cost_page_run(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "fixtures", tmp_path / "fixtures")
    count = 0
    for snippet in snippets(ROOT / "docs" / "cost.md"):
        assert snippet.language == "sh"
        run(["bash", "-euo", "pipefail", "-c", snippet.text], tmp_path)
        count += 1
    assert count >= 2


def test_the_commands_of_the_quantize_page_run(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "fixtures", tmp_path / "fixtures")
    texts = [item.text for item in snippets(ROOT / "docs" / "quantize.md")]
    assert len(texts) == 3
    for text in texts:
        run(["bash", "-euo", "pipefail", "-c", text], tmp_path)
    assert (tmp_path / "int8.onnx").exists()
    assert (tmp_path / "checked.onnx").exists()


def test_the_commands_of_the_prune_page_run(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "fixtures", tmp_path / "fixtures")
    texts = [item.text for item in snippets(ROOT / "docs" / "prune.md")]
    assert len(texts) == 4
    for text in texts:
        run(["bash", "-euo", "pipefail", "-c", text], tmp_path)
    assert (tmp_path / "small.onnx").exists()
    assert (tmp_path / "quick.onnx").exists()
    assert (tmp_path / "shallow.onnx").exists()


def test_the_command_of_the_memory_page_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "fixtures", tmp_path / "fixtures")
    (command,) = snippets(ROOT / "docs" / "memory.md")
    run(["bash", "-euo", "pipefail", "-c", command.text], tmp_path)
    assert (tmp_path / "small.onnx").exists()


def test_the_commands_of_the_interface_page_run(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "fixtures", tmp_path / "fixtures")
    for item in snippets(ROOT / "docs" / "interface.md"):
        shell = ["bash", "-euo", "pipefail", "-c"]
        run([*(shell if item.language == "sh" else [sys.executable, "-c"]), item.text], tmp_path)
    made = sorted(path.name for path in tmp_path.glob("*.onnx"))
    assert made == ["bytes.onnx", "nhwc.onnx", "photo.onnx"]
