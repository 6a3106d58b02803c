"""Whole models: graphopt's MACs equal, to the integer, what torch and ONNX Runtime really multiply.

Two oracles that share nothing with graphopt: torch's operators, counted while a network runs
(recorded in ground_truth/ by tools/export_models.py), and the shapes of the kernels that ONNX
Runtime ran (executed_macs.py). Where both can be had they are compared with each other too.
"""

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphopt
from graphopt.graph import load
from graphopt.runtime import seeded_feeds
from tests.conftest import FIXTURES, ROOT, ZOO
from tests.cost.executed_macs import executed_macs
from tests.zoo_models import zoo_models

Sizes = dict[str, int]

GROUND_TRUTH = Path(__file__).parent / "ground_truth"
RECORD = json.loads((GROUND_TRUTH / "whole_models.json").read_text())["models"]
STORED = [name for name in RECORD if (GROUND_TRUTH / f"{name}.onnx.xz").is_file()]
NOT_STORED = [name for name in RECORD if name not in STORED]
ZOO_NAMES = [m.name for m in zoo_models(ZOO)] if (ZOO / "MANIFEST.json").is_file() else ["-"]
CROSS_CHECKED = [
    "bert_encoder",
    "einsum_mixer",
    "gpt_decoder",
    "gru_tagger",
    "lstm_tagger",
    "mobilenet_v2",
    "recommender",
    "speech_convolutions",
    "unet",
]
FIXTURE_NAMES = [
    "bn_conv",
    "bn_conv_grouped",
    "bn_conv_transpose",
    "bn_decoys",
    "bn_gemm",
    "bn_half",
    "bn_shared_weights",
    "conv_channel_arithmetic",
    "digits_mlp",
    "digits_mlp_dynamo",
    "digits_resnet",
    "digits_resnet_dynamo",
    "digits_transformer",
    "digits_transformer_dynamo",
    "opset9",
    "qdq_int8",
]
"""The fixtures that multiply anything and have no loop."""

ZOO_SIZES: dict[str, list[Sizes]] = {
    "chineseocr_dbnet": [
        {"shape_h": 64, "shape_w": 96},
        {"shape_h": 96, "shape_w": 64},
        {"shape_h": 128, "shape_w": 160},
    ],
    "silero_vad_16k_op15": [{"batch": batch, "sequence": 576} for batch in (1, 2, 3)],
    "stories260k": [{"N": 1, "T": 8}, {"N": 2, "T": 16}, {"N": 1, "T": 33}],
    "dncnn_s25": [
        {"N": 1, "H": 16, "W": 24},
        {"N": 2, "H": 9, "W": 13},
        {"N": 1, "H": 32, "W": 40},
    ],
}
"""What the free dims of a zoo model are set to; 1, 2 and 3 where nothing is said."""

SIZES_NEEDED = {
    "silero_vad_16k_op15": "which branches run, and so the ranks, depends on the sizes",
}
"""Zoo models that are not counted symbolically in full, and why."""


def stored(name: str) -> bytes:
    """A raw torch export, its weights zero."""
    return lzma.decompress((GROUND_TRUTH / f"{name}.onnx.xz").read_bytes())


def assert_agrees(
    model: bytes, expected: list[tuple[Sizes, int]], *, symbolic: bool = True
) -> None:
    """The total for given dims is what is expected, and so is the symbolic one, evaluated."""
    for sizes, macs in expected:
        cost = graphopt.estimate_cost(model, dims=sizes)
        assert not cost.uncounted
        assert cost.total.macs == macs, sizes
    if symbolic:
        cost = graphopt.estimate_cost(model)
        assert not cost.uncounted
        assert [cost.at(sizes).total.macs for sizes, _ in expected] == [m for _, m in expected]


def free_dims(model: onnx.ModelProto) -> list[str]:
    """The symbols in the shapes of the inputs."""
    dims = [dim for item in _inputs(model) for dim in item.type.tensor_type.shape.dim]
    return list(dict.fromkeys(dim.dim_param for dim in dims if dim.dim_param))


def zoo_feed(model: onnx.ModelProto, sizes: Sizes) -> dict[str, Any]:
    """Seeded inputs of a zoo model."""
    rng = np.random.default_rng(0)
    feed = {}
    for item in _inputs(model):
        kind = item.type.tensor_type
        shape = [sizes[dim.dim_param] if dim.dim_param else dim.dim_value for dim in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if item.name == "sr":
            feed[item.name] = np.array(16000, dtype)
        elif dtype.kind in "iu":
            feed[item.name] = rng.integers(0, 200, shape).astype(dtype)
        else:
            feed[item.name] = rng.standard_normal(shape).astype(dtype)
    return feed


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    initialized = {tensor.name for tensor in model.graph.initializer}
    return [item for item in model.graph.input if item.name not in initialized]


def test_mobilenet_v2() -> None:
    cost = graphopt.estimate_cost(stored("mobilenet_v2"))
    assert cost.total.macs == 300_774_272


@pytest.mark.parametrize("name", STORED)
def test_torch_export(name: str) -> None:
    settings = RECORD[name]["settings"]
    assert_agrees(stored(name), [(setting["dims"], setting["macs"]) for setting in settings])


@pytest.mark.parametrize("name", CROSS_CHECKED)
def test_oracles_agree(name: str, tmp_path: Path) -> None:
    model = onnx.load_from_string(stored(name))
    for setting in RECORD[name]["settings"]:
        feed = zoo_feed(model, setting["dims"])
        assert executed_macs(model, feed, tmp_path) == setting["macs"]


@pytest.mark.parametrize("name", ZOO_NAMES)
def test_zoo_model(name: str, zoo: Path, tmp_path: Path) -> None:
    path = next(model.path for model in zoo_models(zoo) if model.name == name)
    model = onnx.load(path)
    symbols = free_dims(model)
    same = [dict.fromkeys(symbols, size) for size in (1, 2, 3)] if symbols else [{}]
    expected = [
        (sizes, executed_macs(model, zoo_feed(model, sizes), tmp_path))
        for sizes in ZOO_SIZES.get(name, same)
    ]
    assert all(macs for _, macs in expected)
    assert_agrees(path.read_bytes(), expected, symbolic=name not in SIZES_NEEDED)


@pytest.mark.parametrize("name", FIXTURE_NAMES)
def test_fixture(name: str, tmp_path: Path) -> None:
    content = (FIXTURES / f"{name}.onnx").read_bytes()
    model = onnx.load_from_string(content)
    expected = []
    for feed in seeded_feeds(load(content), count=3, override_defaults=False):
        sizes = {
            dim.dim_param: int(feed[item.name].shape[axis])
            for item in _inputs(model)
            for axis, dim in enumerate(item.type.tensor_type.shape.dim)
            if dim.dim_param
        }
        expected.append((sizes, executed_macs(model, feed, tmp_path)))
    assert all(macs for _, macs in expected)
    assert_agrees(content, expected)


@pytest.mark.parametrize("name", [*NOT_STORED, "super_resolution"])
def test_torch_export_made_now(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is too large to be stored, and that the record is what torch counts."""
    for needed in ("torch", "torchvision", "onnxscript"):
        pytest.importorskip(needed, reason=f"{needed} makes and counts the networks")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import export_models
    from exported_models.torch_counts import ground_truth

    chosen = next(model for model in export_models.MODELS if model.name == name)
    inputs = [(sizes, export_models.example(chosen, sizes)) for sizes in chosen.settings()]
    assert ground_truth(export_models.build(chosen), inputs) == RECORD[name]
    path = tmp_path / f"{name}.onnx"
    export_models.export(chosen, path)
    settings = RECORD[name]["settings"]
    assert_agrees(path.read_bytes(), [(setting["dims"], setting["macs"]) for setting in settings])
