"""`graphopt distill`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from graphopt.pipeline.prune import prune
from tests.cli.conftest import Invoke


@pytest.fixture(scope="module")
def student(fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small residual network with half its channels."""
    target = tmp_path_factory.mktemp("distill") / "student.onnx"
    prune(fixtures / "digits_resnet.onnx", output=target, ratio=0.5, repair=False)
    return target


def test_without_torch_it_is_wrong_usage(
    student: Path, fixtures: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    teacher, data = fixtures / "digits_resnet.onnx", fixtures / "digits_test.npz"
    done = invoke("distill", student, "--teacher", teacher, "--data", data)
    assert done.code == 2
    assert "pip install 'graphopt[distill]'" in done.err
    assert not student.with_name("student.distilled.onnx").exists()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--teacher", "a.onnx@heavy"), "'heavy' is no weight"),
        (("--teacher", "a.onnx", "--data", "none.npz"), "none.npz"),
    ],
)
def test_wrong_usage_is_told_before_the_work(
    student: Path, fixtures: Path, invoke: Invoke, flags: tuple[str, ...], reason: str
) -> None:
    done = invoke("distill", student, "--data", fixtures / "digits_test.npz", *flags)
    assert done.code == 2
    assert reason in done.err


def test_the_table_says_which_epoch_was_kept(
    student: Path, fixtures: Path, tmp_path: Path, invoke: Invoke
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    teacher, data = fixtures / "digits_resnet.onnx", fixtures / "digits_test.npz"
    target = tmp_path / "out.onnx"
    flags = ("--epochs", "1", "--batch", "16", "--threads", "1")
    done = invoke("distill", student, target, "--teacher", f"{teacher}@2", "--data", data, *flags)
    assert done.code == 0
    assert target.exists()
    assert "kept" in done.out
    assert "held out" in done.out
    again = invoke("distill", student, target, "--teacher", teacher, "--data", data, *flags)
    assert again.code != 0
    assert "--force" in again.err
