"""The flags of `graphopt optimize` that make pre-processing a part of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from graphopt.cli.preprocessing import read_normalization
from graphopt.errors import UsageError
from tests.cli.conftest import Invoke

IMAGENET = ("--normalize", "mean=0.5", "--normalize", "std=0.25", "--normalize", "scale=1/255")
PHOTO = (*IMAGENET, "--input-layout", "nhwc", "--input-dtype", "uint8")


@pytest.fixture
def model(tmp_path: Path, fixtures: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes((fixtures / "digits_resnet.onnx").read_bytes())
    return path


def test_a_model_that_takes_photos(model: Path, invoke: Invoke) -> None:
    done = invoke("optimize", model, *PHOTO)
    assert (done.code, done.err) == (0, "")
    for text in ("UINT8[batch,8,8,1]", "normalized", "verified on 3 inputs"):
        assert text in done.out
    assert "x as fast" in done.out
    (value,) = onnx.load(model.with_name("net.opt.onnx")).graph.input
    assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_json_says_what_became_of_the_input(model: Path, invoke: Invoke) -> None:
    done = invoke("optimize", model, *PHOTO, "--no-measure", "--json", "--dry-run")
    (entry,) = done.json["interface"]
    assert entry["side"] == "input"
    assert entry["after"] == "UINT8[batch,8,8,1]"
    plain = invoke("optimize", model, "--no-measure", "--json", "--dry-run")
    assert plain.json["interface"] == []


def test_bisect_takes_the_flags_of_the_run_that_failed(
    model: Path, tmp_path: Path, invoke: Invoke
) -> None:
    folder = tmp_path / "repro"
    flags = (*PHOTO, "--target-opset", "18")
    assert invoke("bisect", model, *flags, "-o", folder).code == 0
    wrong = ("--passes", "tests.cli.wrong_passes:scale_weight")
    done = invoke("bisect", model, *flags, *wrong, "-o", folder)
    assert done.code == 4
    assert "culprit: scale-weight" in done.out
    assert np.load(folder / "inputs.npz")["image"].dtype == np.uint8
    before = onnx.load(folder / "before.onnx")
    assert before.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert before.opset_import[0].version == 18
    models = (folder / "before.onnx", folder / "after.onnx")
    assert invoke("compare", *models, "--inputs", folder / "inputs.npz").code == 4


def test_a_config_file_can_say_it_too(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    done = invoke("optimize", model, *PHOTO, "--image-input", "image", "--print-config")
    assert 'normalize = ["mean=0.5", "std=0.25", "scale=1/255"]' in done.out
    config = tmp_path / "graphopt.toml"
    config.write_text(done.out)
    done = invoke("optimize", model, "--config", config, "--no-measure", "--json", "--dry-run")
    assert done.json["interface"][0]["after"] == "UINT8[batch,8,8,1]"


def test_a_likely_mistake_is_a_warning(model: Path, invoke: Invoke) -> None:
    flags = ("--normalize", "mean=0.5", "--input-dtype", "uint8", "--no-measure", "--dry-run")
    assert "warning: the mean is at most 1" in invoke("optimize", model, *flags).out


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--normalize", "0.5"), "malformed; write mean="),
        (("--normalize", "mean=a"), "'a' is no number"),
        (("--normalize", "scale=1/0"), "'1/0' is no number"),
        (("--normalize", "mean=1", "--normalize", "mean=2"), "'mean' twice"),
        (("--normalize", "mu=1"), "mean, std, scale; 'mu' was given"),
        (("--normalize", "std=0"), "cannot be 0"),
        (("--normalize", "mean=1,2,3"), "it has 1 channels on axis 1, and 3 numbers"),
        (("--input-dtype", "int8"), "uint8"),
        (("--input-layout", "nwhc"), "nhwc"),
        (("--image-input", "image"), "not what is done to them"),
        (("--input-dtype", "uint8", "--image-input", "imag"), "Did you mean 'image'"),
    ],
)
def test_wrong_usage(flags: tuple[str, ...], reason: str, model: Path, invoke: Invoke) -> None:
    invoke("optimize", model, *flags).fails_with(2, reason)
    assert [path.name for path in model.parent.iterdir()] == ["net.onnx"]


def test_numbers_and_fractions() -> None:
    assert read_normalization([]) is None
    assert read_normalization(["mean = 1, 2/4,-3e0", "scale=1/255"]) == {
        "mean": [1.0, 0.5, -3.0],
        "scale": [1 / 255],
    }
    with pytest.raises(UsageError):
        read_normalization(["mean=1,,2"])
