"""The fixtures are as recorded, are small, and keep their measured accuracy when optimized."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnxruntime
import pytest

from tests.conftest import FIXTURES, ROOT
from tests.generate import interface_changes

RECORD = json.loads((FIXTURES / "DIGESTS.json").read_text())
DIGITS = sorted(name for name, entry in RECORD["trained"].items() if "accuracy" in entry)
MODELS = sorted(path.name for path in FIXTURES.glob("*.onnx"))


def _logits(content: bytes, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": images})[0])


def test_fixtures_are_as_recorded() -> None:
    command = [sys.executable, str(ROOT / "tools" / "make_fixtures.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", MODELS)
def test_fixture_is_small_and_optimizes(name: str) -> None:
    import graphopt

    path = FIXTURES / name
    assert path.stat().st_size < 1_000_000
    model = onnx.load(path)
    result = graphopt.optimize(model)
    assert result.ok
    onnx.checker.check_model(result.model)
    assert interface_changes(model, result.model) == []


@pytest.mark.parametrize("name", DIGITS)
def test_digits_accuracy_is_as_recorded_and_kept(name: str, fixtures: Path) -> None:
    import graphopt

    data = np.load(fixtures / "digits_test.npz")
    model = onnx.load(fixtures / name)
    before = _logits(model.SerializeToString(), data["image"])
    optimized = graphopt.optimize(model, check="off").model
    after = _logits(optimized.SerializeToString(), data["image"])
    accuracy = float((before.argmax(1) == data["label"]).mean())
    assert accuracy == pytest.approx(RECORD["trained"][name]["accuracy"], abs=0.003)
    assert accuracy > 0.9
    assert np.array_equal(before.argmax(1), after.argmax(1))
    assert float(np.abs(before - after).max()) <= 1e-4 * float(np.abs(before).max())
