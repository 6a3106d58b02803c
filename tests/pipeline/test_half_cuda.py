"""Half precision where it computes: on a GPU. Skipped without a CUDA provider."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphopt.graph import load
from graphopt.pipeline.half import HalfOptions, convert_half
from graphopt.runtime import Session, time_interleaved


@pytest.fixture
def cuda() -> str:
    runtime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        pytest.skip("this build of ONNX Runtime has no CUDA provider")
    return "cuda"


@pytest.mark.parametrize("name", ["digits_resnet", "digits_transformer"])
def test_outputs_agree_on_cuda(name: str, fixtures: Path, cuda: str) -> None:
    image = np.load(fixtures / "digits_test.npz")["image"][:1]
    path = fixtures / f"{name}.onnx"
    result = convert_half(path, HalfOptions(provider=cuda, keep_io_types=True))
    (expected,) = Session(load(path)).run({"image": image}).values()
    (actual,) = Session(result.model, provider=cuda).run({"image": image}).values()
    assert np.isfinite(actual).all()
    assert np.abs(actual - expected).max() <= 1e-2 * np.abs(expected).max()


def test_latency_on_cuda_is_told(fixtures: Path, cuda: str) -> None:
    image = np.load(fixtures / "digits_test.npz")["image"][:1]
    path = fixtures / "digits_resnet.onnx"
    result = convert_half(path, HalfOptions(provider=cuda, keep_io_types=True))
    sessions = [
        Session(model, provider=cuda, optimized=True) for model in (load(path), result.model)
    ]
    before, after = time_interleaved(sessions, {"image": image})
    print(f"{before * 1e6:.0f} us -> {after * 1e6:.0f} us")
    assert after > 0
