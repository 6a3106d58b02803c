"""What `graphopt` does before it does anything: imports, help, hostile surroundings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import graphopt
from tests.cli.conftest import Invoke
from tests.conftest import FIXTURES

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "networkx", "rich", "sympy")


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize(
    "statement",
    [
        "import graphopt",
        "from graphopt.cli import commands; commands(['--help'], standalone_mode=False)",
        "from graphopt.cli import commands; commands(['optimize', '-h'], standalone_mode=False)",
        "from graphopt.cli import commands; commands(['passes', '-h'], standalone_mode=False)",
    ],
)
def test_nothing_heavy_is_imported_for_help(statement: str) -> None:
    done = python("-c", f"{statement}\nimport sys; print(*sys.modules, file=sys.stderr)")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.split())
    assert "graphopt" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_onnx_is_not_imported_for_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "a.opt.onnx").touch()
    script = (
        "import sys; from graphopt.cli import commands; from graphopt.cli.invocation import run\n"
        f"code = run(commands, ['optimize', {str(tmp_path / 'a.onnx')!r}])\n"
        "print(code, 'onnx' in sys.modules)"
    )
    assert python("-c", script).stdout == "1 False\n"


def test_every_public_name_is_there() -> None:
    for name in graphopt.__all__:
        assert getattr(graphopt, name) is not None
    assert set(graphopt.__all__) <= set(dir(graphopt))
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        _ = graphopt.optimise  # type: ignore[attr-defined]


def test_the_public_errors_are_the_whole_tree() -> None:
    kinds = [graphopt.GraphoptError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    own = {kind.__name__ for kind in kinds if kind.__module__ == "graphopt.errors"}
    assert own <= set(graphopt.__all__)


def test_python_m_graphopt(fixtures: Path) -> None:
    done = python("-m", "graphopt", "--version")
    assert done.stdout == f"graphopt {graphopt.__version__}\n"
    nothing = python("-m", "graphopt")
    assert nothing.returncode == 2
    assert "Commands:" in nothing.stderr


def test_no_encoding_of_the_terminal_is_a_reason_to_fail(tmp_path: Path, fixtures: Path) -> None:
    model = tmp_path / "netz-é.onnx"
    model.write_bytes((fixtures / "digits_mlp.onnx").read_bytes())
    done = python(
        "-m", "graphopt", "optimize", str(model), "--dry-run", "--no-measure",
        PYTHONIOENCODING="ascii", COLUMNS="30",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout


def test_a_reader_that_goes_away_is_no_traceback(fixtures: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "graphopt", "inspect", str(fixtures / "digits_mlp.onnx")],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_full_disk_is_one_line(fixtures: Path, flags: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "graphopt", "inspect", fixtures / "strings.onnx", *flags],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the system says: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
@pytest.mark.parametrize("flags", [["--json"], ["-q", "--json"]])
def test_progress_goes_to_a_terminal_on_stderr_alone(fixtures: Path, flags: list[str]) -> None:
    ours, theirs = os.openpty()
    model = str(fixtures / "digits_mlp.onnx")
    passes = "tests.cli.wrong_passes:linger"
    done = subprocess.run(
        [sys.executable, "-m", "graphopt", "optimize", model, "--dry-run", "--no-measure",
         "--passes", passes, *flags],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=ROOT,
        check=True,
    )  # fmt: skip
    os.write(theirs, b"END")
    told = b""
    while not told.endswith(b"END"):
        told += os.read(ours, 65536)
    os.close(ours)
    os.close(theirs)
    assert json.loads(done.stdout)["ok"] is True
    assert (b"linger" in told) is ("-q" not in flags)


def test_unknown_commands_are_one_line(invoke: Invoke) -> None:
    invoke("optimise").fails_with(2, "optimize")
    invoke("optimize").fails_with(2, "IN.onnx", "--help")


def test_names_cannot_command_the_terminal(tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "evil\x1b[2J\nname.onnx"
    done = invoke("optimize", path)
    done.fails_with(3)
    assert "\x1b" not in done.err


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"<html>", b"\x08\x07\x12"])
def test_what_is_no_model_is_exit_code_3(tmp_path: Path, invoke: Invoke, content: bytes) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(content)
    for command in ("optimize", "inspect", "bisect"):
        done = invoke(command, path)
        assert done.code == 3, (command, done)
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_cannot_be_written(tmp_path: Path, fixtures: Path, invoke: Invoke) -> None:
    model = fixtures / "digits_mlp.onnx"
    invoke("optimize", model, tmp_path / "no" / "out.onnx").fails_with(1, "does not exist")
    invoke("optimize", model, tmp_path).fails_with(1, "is a folder")
    invoke("optimize", ".").fails_with(3, "is a folder")
    invoke("optimize", model, tmp_path, "--force").fails_with(1, "is a folder")
    invoke("optimize", tmp_path, "-o", tmp_path / "a.onnx").fails_with(3)
    invoke("optimize", model, "/dev/null", "--force").fails_with(1, "is a device")
    invoke("optimize", "").fails_with(2, "is empty")
    assert list(tmp_path.iterdir()) == []


def test_json_stays_pure_whatever_a_pass_prints(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "import os\ndef shout(model):\n    print('in python')\n    os.write(1, b'below python')\n"
    )
    model = FIXTURES / "digits_mlp.onnx"
    done = subprocess.run(
        f"'{sys.executable}' -m graphopt optimize '{model}' out.onnx --json"
        " --passes loud:shout --no-measure",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True
    assert "in python" in done.stderr
    assert "below python" in done.stderr


def test_a_closed_stdout_is_no_failure(tmp_path: Path) -> None:
    model = FIXTURES / "digits_mlp.onnx"
    target = tmp_path / "out.onnx"
    command = f"'{sys.executable}' -m graphopt optimize '{model}' '{target}' --no-measure >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert target.exists()
