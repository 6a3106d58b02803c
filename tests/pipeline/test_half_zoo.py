"""graphopt fp16 on trained models: right on their data, no NaN, no more Casts than it takes.

tools/bench_fp16.py does the same on all data, beside other converters. The models are not part
of the project; without them every test here is skipped.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import pytest

from graphopt.graph import to_proto
from graphopt.pipeline.half import HalfOptions, convert_half
from graphopt.report import CheckStatus
from tests.zoo_models import batches, zoo_models

QUICK = {
    "mlperf_resnet8": 2,
    "silero_vad_16k_op15": 4,
    "mnist_vit": 2,
    "magika_v3_3": 2,
    "lprnet": 2,
}
"""Model -> Casts, with float32 inputs and outputs, of what converters of others make of it."""


@pytest.mark.parametrize("name", QUICK)
def test_zoo_models_convert(name: str, zoo: Path) -> None:
    pytest.importorskip("PIL", reason="the zoo's images are read with Pillow")
    path = next(model.path for model in zoo_models(zoo) if model.name == name)
    inputs = {value.name for value in onnx.load(path).graph.input}
    feeds = [
        {key: np.asarray(value) for key, value in feed.items() if key in inputs}
        for feed, _ in itertools.islice(batches(zoo, name, 2), 2)
    ]
    result = convert_half(path, HalfOptions(calibration=feeds, keep_io_types=True))
    report = result.report
    assert report.check.status is CheckStatus.VERIFIED
    assert report.runtime == "loads and runs"
    assert report.fallen_back == []
    onnx.checker.check_model(to_proto(result.model), full_check=True)
    assert report.casts_after <= report.casts_before + QUICK[name]
