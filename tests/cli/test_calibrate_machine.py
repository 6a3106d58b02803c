"""`graphopt calibrate-machine`, with a calibration that takes no time."""

from pathlib import Path
from typing import Any

import pytest

from graphopt.cost import latency
from graphopt.cost.latency import load_profile
from tests.cli.conftest import Invoke
from tests.cost.latency.test_machine import _profile


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the calibration was asked for; profiles are kept in the test's folder."""
    seen: dict[str, Any] = {}

    def calibrate(**options: Any) -> latency.MachineProfile:
        options.pop("progress")("measuring", 0.5)
        seen.update(options)
        return _profile()

    monkeypatch.setattr(latency, "calibrate", calibrate)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return seen


def test_it_writes_a_named_profile(asked: dict[str, Any], invoke: Invoke) -> None:
    found = invoke("calibrate-machine", "--name", "board", "--threads", "1", "--threads", "4")
    assert found.code == 0
    assert asked == {"name": "board", "threads": (1, 4), "seconds": 60.0}
    assert "a processor" in found.out
    assert "board.json" in found.out.replace("\n", "")
    assert load_profile("board") == _profile()


def test_it_writes_where_it_is_told_and_speaks_json(
    asked: dict[str, Any], invoke: Invoke, tmp_path: Path
) -> None:
    path = tmp_path / "shipped.json"
    said = invoke("calibrate-machine", "-o", path, "--seconds", "20", "--json").json
    assert asked["seconds"] == 20
    assert said["ok"]
    assert said["path"] == str(path)
    assert said["threads"]["1"]["classes"] == 1
    assert said["threads"]["2"]["samples"] == 2
    assert load_profile(path) == _profile()


def test_a_name_that_is_a_path_is_refused(asked: dict[str, Any], invoke: Invoke) -> None:
    invoke("calibrate-machine", "--name", "a/b").fails_with(2, "'a/b' is no name")
    assert not asked
