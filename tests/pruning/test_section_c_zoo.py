"""Every zoo model loses a quarter of its channels and runs, or says why nothing can go."""

from pathlib import Path

import pytest

from graphopt.pipeline.prune import prune
from tests.zoo_models import zoo_models

WHOLE = {"dtln_1": "graph input"}
"""Models of which nothing can be pruned, and a part of the reason."""

LEAST = 0.9


def test_every_model_of_the_zoo(zoo: Path) -> None:
    models = zoo_models(zoo)
    assert len(models) > 10
    for model in models:
        report = prune(model.path, ratio=0.25).report
        assert report.verified == "made up", model.name
        if model.name in WHOLE:
            assert not report.groups
            assert any(WHOLE[model.name] in reason for reason in report.frozen.values())
            continue
        assert report.parameters[1] < LEAST * report.parameters[0] or model.name in (
            "stories260k",
        ), model.name


@pytest.mark.parametrize("name", ["cifar_resnet20", "stories260k"])
def test_the_same_request_gives_the_same_bytes(zoo: Path, name: str, tmp_path: Path) -> None:
    path = next(model.path for model in zoo_models(zoo) if model.name == name)
    outputs = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for output in outputs:
        prune(path, ratio=0.5, importance="random", output=output)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
