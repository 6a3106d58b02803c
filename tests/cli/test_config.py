"""graphopt.toml and --print-config."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "graphopt.toml"


def test_print_config_round_trips(config: Path, tmp_path: Path, invoke: Invoke) -> None:
    output = tmp_path / 'a "quoted"\tname é.onnx'
    flags = (
        "-O1", "--skip", "fold-constants,eliminate-identities", "--fold-limit", "1MB",
        "--input-shape", "x:0:1,3", "--input-shape", "y:n,?", "--dim", "batch=4",
        "--check-n", "5", "--rtol", "1e-3", "--seed", "7", "--check", "per-pass", "--strict",
        "--no-measure", "--no-save-as-external-data", "-q", "-vv", "--force",
    )  # fmt: skip
    first = invoke("optimize", "in.onnx", output, *flags, "--print-config")
    assert first.code == 0
    values = tomllib.loads(first.out)["optimize"]
    assert values["output"] == str(output)
    assert values["input-shape"] == ["x:0:1,3", "y:n,?"]
    assert (values["level"], values["rtol"], values["strict"]) == (1, 0.001, True)
    assert (values["measure"], values["quiet"], values["verbose"]) == (False, True, 2)
    config.write_text(first.out, encoding="utf-8")
    again = invoke("optimize", "in.onnx", "--config", config, "--print-config")
    assert again.out == first.out


def test_print_config_does_no_work(tmp_path: Path, invoke: Invoke) -> None:
    done = invoke("optimize", tmp_path / "absent.onnx", "--print-config")
    assert (done.code, done.out) == (0, "[optimize]\n")
    assert list(tmp_path.iterdir()) == []


def test_a_flag_wins_over_the_config(config: Path, invoke: Invoke) -> None:
    config.write_text('[optimize]\npasses = ["fold-constants{limit=1,x=2}", "b"]\nstrict = true\n')
    read = ("optimize", "in.onnx", "--config", config, "--print-config")
    values = tomllib.loads(invoke(*read).out)["optimize"]
    assert values == {"passes": "fold-constants{limit=1,x=2},b", "strict": True}
    values = tomllib.loads(invoke(*read, "-O1", "--no-strict").out)["optimize"]
    assert values == {"level": 1, "strict": False}
    config.write_text("[optimize]\nlevel = 1\n")
    values = tomllib.loads(invoke(*read, "--passes", "c").out)["optimize"]
    assert values == {"passes": "c"}


def test_a_config_is_obeyed(config: Path, tmp_path: Path, fixtures: Path, invoke: Invoke) -> None:
    config.write_text(
        f"[optimize]\noutput = '{tmp_path / 'out.onnx'}'\njson = true\nmeasure = false\n"
        "passes = 'eliminate-identities'\ndim = 'batch=2'\n"
    )
    done = invoke("optimize", fixtures / "digits_resnet.onnx", "--config", config)
    assert [entry["name"] for entry in done.json["passes"]] == ["eliminate-identities"]
    assert (tmp_path / "out.onnx").is_file()


def test_no_config_is_read_unasked(
    config: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("[optimize]\nlevel = 0\n")
    monkeypatch.chdir(config.parent)
    assert invoke("optimize", "in.onnx", "--print-config").out == "[optimize]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[optimize]\nlevle = 1\n", "did you mean 'level'?"),
        ("[optimise]\nlevel = 1\n", "did you mean 'optimize'?"),
        ("optimize = 1\n", "must be a table"),
        ("[optimize]\nlevel = 'two'\n", "'two'"),
        ("[optimize]\nlevel = 9\n", "9"),
        ("[optimize]\nlevel = true\n", "cannot be True"),
        ("[optimize]\nstrict = 'yes'\n", "cannot be 'yes'"),
        ("[optimize]\ndim = [1]\n", "cannot be [1]"),
        ("[optimize]\nconfig = 'x'\n", "unknown key 'config'"),
        ("[optimize]\nlevel = 1\npasses = 'a'\n", "give one"),
        ("[optimize\n", "is not TOML"),
    ],
)
def test_a_wrong_config_is_one_line(config: Path, invoke: Invoke, text: str, said: str) -> None:
    config.write_text(text)
    invoke("optimize", "in.onnx", "--config", config, "--print-config").fails_with(2, said)


def test_an_unreadable_config_is_one_line(tmp_path: Path, invoke: Invoke) -> None:
    invoke("optimize", "in.onnx", "--config", tmp_path / "no.toml").fails_with(2, "cannot read")
    (tmp_path / "latin.toml").write_bytes(b"# \xff\n")
    invoke("optimize", "in.onnx", "--config", tmp_path / "latin.toml").fails_with(2, "not TOML")
