"""Pre-processing that becomes part of the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.errors import EquivalenceError, UsageError
from graphopt.graph import ir, load, verify
from graphopt.graph.border import Affine, InputConversion
from graphopt.pipeline import preprocessing
from graphopt.report import CheckStatus, InterfaceChange
from graphopt.runtime import Session
from tests.pipeline.test_layout import changes, model, operators, shapes, weight
from tests.zoo_models import zoo_models

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = {"mean": MEAN, "std": STD, "scale": 1 / 255}
PHOTO = {"normalize": IMAGENET, "input_layout": "nhwc", "input_dtype": "uint8"}


def network(pads: str = "", opset: int = 17) -> ir.Model:
    """A convolution whose batch and size are free."""
    return model(
        f"g (float[N,3,H,W] x) => (float[N,4,1,1] y) <{weight('w', 4, 3, 3, 3)}, float[4] b = "
        f"{{1,2,3,4}}> {{ a = Conv {pads} (x, w, b) r = Relu (a) y = GlobalAveragePool (r) }}",
        opset,
    )


def photo(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def by_hand(image: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    """A photo [N,H,W,3] as networks trained on ImageNet want it: [N,3,H,W]."""
    scaled = image / np.float64(255)
    return ((scaled - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2).astype(dtype)


def assert_equal(given: ir.Model, result: graphopt.Result, image: np.ndarray) -> None:
    """Compare with doing it outside."""
    assert result.ok
    assert result.report.check.status is CheckStatus.VERIFIED
    assert verify(result.model) == []
    expected = Session(given).run({"x": by_hand(image)})
    found = Session(result.model).run({"x": image})
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, rtol=1e-5)


def test_all_of_it_goes_into_a_convolution_that_does_not_pad() -> None:
    net = network()
    result = graphopt.optimize(net, **PHOTO)
    kinds = operators(result.model)
    assert kinds == ["Transpose", "Cast", "Conv", "Relu", "GlobalAveragePool"]
    (given,) = result.model.graph.inputs
    assert (given.name, given.dtype, str(given.shape)) == ("x", ir.DataType.UINT8, "[N,H,W,3]")
    assert_equal(net, result, photo(2, 9, 7, 3))
    assert changes(result)["x"] == InterfaceChange(
        "input", "x", "FLOAT[N,3,H,W]", "UINT8[N,H,W,3]", "nchw at Conv 'a', normalized"
    )


@pytest.mark.parametrize("pads", ["<pads = [1,1,1,1]>", '<auto_pad = "SAME_UPPER">'])
def test_where_zeros_are_padded_the_mean_is_subtracted_first(pads: str) -> None:
    net = network(pads)
    result = graphopt.optimize(net, **PHOTO)
    assert operators(result.model)[:4] == ["Transpose", "Cast", "Sub", "Conv"]
    assert "Mul" not in operators(result.model)
    assert_equal(net, result, photo(2, 9, 7, 3))


def test_a_scale_alone_disappears_whatever_is_padded() -> None:
    net = network("<pads = [1,1,1,1]>")
    result = graphopt.optimize(net, normalize={"scale": 1 / 255})
    assert operators(result.model) == operators(net)
    x = np.float32(255) * np.random.default_rng(0).random((1, 3, 6, 6), np.float32)
    expected = Session(net).run({"x": x / 255})["y"]
    np.testing.assert_allclose(Session(result.model).run({"x": x})["y"], expected, rtol=1e-5)


@pytest.mark.parametrize("level", [0, 1])
def test_below_the_level_of_fusions_it_stays_written_out(level: int) -> None:
    net = network()
    result = graphopt.optimize(net, level=level, **PHOTO)
    assert operators(result.model)[:5] == ["Transpose", "Cast", "Sub", "Mul", "Conv"]
    assert_equal(net, result, photo(1, 5, 5, 3))


def test_what_else_reads_the_input_reads_it_normalized() -> None:
    net = model(
        f"g (float[N,3,H,W] x) => (float[N,3,H,W] y) <{weight('w', 3, 3, 1, 1)}> "
        "{ a = Conv (x, w) y = Add (a, x) }"
    )
    result = graphopt.optimize(net, **PHOTO)
    assert_equal(net, result, photo(2, 4, 5, 3))


def test_an_export_with_channels_last_folds_behind_its_own_transpose() -> None:
    net = model(
        f"g (float[N,H,W,3] x) => (float[N,4,1,1] y) <{weight('w', 4, 3, 3, 3)}> "
        "{ t = Transpose <perm = [0,3,1,2]> (x) a = Conv (t, w) y = GlobalAveragePool (a) }"
    )
    options = {"normalize": IMAGENET, "input_dtype": "uint8"}
    image = photo(2, 9, 7, 3)
    expected = Session(net).run({"x": by_hand(image).transpose(0, 2, 3, 1)})["y"]
    last = graphopt.optimize(net, **options)
    assert operators(last.model) == ["Transpose", "Cast", "Conv", "GlobalAveragePool"]
    found = Session(last.model).run({"x": image})["y"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    first = graphopt.optimize(net, input_layout="nchw", **options)
    assert operators(first.model) == ["Cast", "Conv", "GlobalAveragePool"]
    found = Session(first.model).run({"x": image.transpose(0, 3, 1, 2)})["y"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_channels_last_with_more_than_one_reader() -> None:
    net = model(
        f"g (float[N,H,W,3] x) => (float[N,4,1,1] y, float[N,H,W,3] z) <{weight('w', 4, 3, 1, 1)}>"
        "{ t = Transpose <perm = [0,3,1,2]> (x) a = Conv (t, w) y = GlobalAveragePool (a) "
        "  z = Neg (x) }"
    )
    result = graphopt.optimize(net, normalize=IMAGENET, input_dtype="uint8")
    image = photo(1, 4, 5, 3)
    found = Session(result.model).run({"x": image})
    expected = Session(net).run({"x": by_hand(image).transpose(0, 2, 3, 1)})
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_a_transpose_within_a_branch_stays_there() -> None:
    net = model(
        f"g (bool p, float[N,H,W,3] x) => (float[M,4,1,1] y) <{weight('w', 4, 3, 1, 1)}> {{ "
        "y = If (p) <then_branch = t () => (float[M,4,1,1] u) "
        "{ a = Transpose <perm = [0,3,1,2]> (x) c = Conv (a, w) u = GlobalAveragePool (c) }, "
        "else_branch = e () => (float[M,4,1,1] v) "
        "{ v = Constant <value = float[1,4,1,1] {1,2,3,4}> () }> }"
    )
    result = graphopt.optimize(net, normalize=IMAGENET, input_dtype="uint8")
    assert verify(result.model) == []
    assert result.report.check.status is CheckStatus.VERIFIED


def test_half_precision_is_fed_what_float_arithmetic_gives() -> None:
    net = model(
        "g (float16[N,3,4,4] x) => (float16[N,3,4,4] y, float16[N,3,1,1] z) "
        "{ y = Identity (x) z = GlobalMaxPool (x) }"
    )
    result = graphopt.optimize(net, **PHOTO)
    assert result.report.check.status is CheckStatus.VERIFIED
    image = photo(2, 4, 4, 3)
    found = Session(result.model).run({"x": image})["y"]
    np.testing.assert_allclose(found, by_hand(image, np.float16), rtol=1e-3, atol=1e-3)
    plain = graphopt.optimize(net, input_dtype="uint8")
    assert operators(plain.model).count("Cast") == 1


def test_a_quantized_weight_keeps_its_scale() -> None:
    net = model(
        "g (float[N,2,H,W] x) => (float[N,1,H,W] y) <int8[1,2,1,1] q = {3, -4}, "
        "float s = {0.1}, int8 z = {0}> { w = DequantizeLinear (q, s, z) y = Conv (x, w) }"
    )
    result = graphopt.optimize(net, normalize={"mean": [0.5, 0.4], "std": 0.2})
    kinds = operators(result.model)
    assert kinds.count("Sub") == kinds.count("Mul") == 1
    assert result.report.check.status is CheckStatus.VERIFIED


TWO = f"""
g (float[N,3,H,W] left, float[N,1,H,W] right, float[N,5] vector, int64[K] ids)
  => (float[N,2,H,W] y, float[N,5] v, int64[K] i)
<{weight("w", 2, 3, 1, 1)}, {weight("k", 2, 1, 1, 1)}>
{{ a = Conv (left, w) b = Conv (right, k) y = Add (a, b) v = Neg (vector) i = Neg (ids) }}
"""


def test_of_several_inputs_the_pictures_that_fit() -> None:
    result = graphopt.optimize(model(TWO), **PHOTO)
    told = changes(result)
    assert told["left"].after == "UINT8[N,H,W,3]"
    assert told["right"].reason == "it has 1 channels on axis 1, and 3 numbers were given"
    assert told["vector"].reason == "it has rank 2"
    assert told["ids"].after is None
    assert result.report.check.status is CheckStatus.VERIFIED
    both = graphopt.optimize(model(TWO), normalize={"scale": 1 / 255}, input_dtype="uint8")
    assert {change.name for change in both.report.interface if change.after} == {"left", "right"}


def test_named_inputs() -> None:
    grey = {"normalize": {"mean": 0.5, "std": 0.5, "scale": 1 / 255}, "input_dtype": "uint8"}
    one = graphopt.optimize(model(TWO), image_inputs="right", **grey)
    assert {change.name for change in one.report.interface if change.after} == {"right"}
    # Another normalization for another input: a second run.
    two = graphopt.optimize(one.model, **PHOTO)
    assert shapes(two.model)["left"] == "[N,H,W,3]"
    assert two.report.check.status is CheckStatus.VERIFIED


def test_a_named_input_need_not_be_read_by_a_convolution() -> None:
    net = model("g (float[N,3,4,4] x) => (float[N,48] y) { y = Flatten (x) }")
    with pytest.raises(UsageError, match="'x': no operator tells which axis holds channels"):
        graphopt.optimize(net, **PHOTO)
    result = graphopt.optimize(net, image_inputs=["x"], **PHOTO)
    assert changes(result)["x"].reason == "named, normalized"
    assert_equal(net, result, photo(2, 4, 4, 3))


def test_what_is_so_already_is_left() -> None:
    net = model(
        "g (uint8[N,8,8,3] x) => (float[N,3,1,1] y) { c = Cast <to = 1> (x) "
        "t = Transpose <perm = [0,3,1,2]> (c) y = GlobalMaxPool (t) }"
    )
    result = graphopt.optimize(net, input_layout="nhwc", input_dtype="uint8")
    assert changes(result)["x"].after is None
    assert changes(result)["x"].reason.startswith("already as asked")
    assert result.report.check.status is CheckStatus.VERIFIED


def test_signals() -> None:
    net = model(
        f"g (float[N,2,T] x) => (float[N,3,S] y) <{weight('w', 3, 2, 5)}> {{ y = Conv (x, w) }}"
    )
    result = graphopt.optimize(net, normalize={"mean": [1, 2], "std": 4}, input_layout="nhwc")
    assert operators(result.model) == ["Transpose", "Conv"]
    assert result.report.check.status is CheckStatus.VERIFIED


def test_a_free_number_of_channels() -> None:
    net = model(
        f"g (float[N,C,H,W] x) => (float[N,4,1,1] y) <{weight('w', 4, 3, 3, 3)}> "
        "{ a = Conv (x, w) y = GlobalAveragePool (a) }"
    )
    assert_equal(net, graphopt.optimize(net, **PHOTO), photo(1, 5, 5, 3))


def test_a_missing_scale_is_pointed_out() -> None:
    options = {**PHOTO, "normalize": {"mean": MEAN, "std": STD}}
    assert "scale=1/255" in graphopt.optimize(network(), **options).report.warnings[0]
    assert graphopt.optimize(network(), **PHOTO).report.warnings == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"normalize": {"average": 1}}, "mean, std, scale; 'average' was given"),
        ({"normalize": {}, "image_inputs": ["x"]}, "inputs are named, but not what is done"),
        ({"normalize": {"std": [1, 0, 1]}}, "std of a normalization cannot be 0"),
        ({"normalize": {"mean": float("nan")}}, "finite"),
        ({"normalize": {"mean": []}}, "finite"),
        ({"normalize": {"mean": "much"}}, "finite"),
        ({"normalize": {"mean": [1, 2], "std": [1, 2, 3]}}, "have 2 and 3 numbers"),
        ({"normalize": {"mean": [1, 2]}}, "'x': it has 3 channels on axis 1, and 2 numbers"),
        ({"normalize": {"mean": [1, 2]}, "image_inputs": ["x"]}, "'x' cannot be changed as asked"),
        ({"input_layout": "chwn"}, "no layout 'chwn'"),
        ({"input_dtype": "int4"}, "cannot be 'int4'"),
        ({"input_dtype": "uint8", "image_inputs": ["y"]}, "no input 'y'"),
    ],
)
def test_what_cannot_be_done_is_told(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        graphopt.optimize(network(), **options)


def test_integers_are_not_normalized() -> None:
    net = model(
        "g (uint8[N,3,8,8] x) => (uint8[N,3,1,1] y) { y = MaxPool <kernel_shape=[8,8]> (x) }"
    )
    with pytest.raises(UsageError, match="takes UINT8, and what is normalized is float"):
        graphopt.optimize(net, normalize={"mean": 1})


def test_the_opset_is_raised_behind_it() -> None:
    net = network(opset=11)
    result = graphopt.optimize(net, target_opset=17, **PHOTO)
    assert result.model.opset_imports[""] == 17
    assert_equal(net, result, photo(1, 6, 6, 3))


def test_real_inputs_are_those_of_the_result() -> None:
    data = [{"x": photo(1, 6, 6, 3, seed=seed)} for seed in range(2)]
    result = graphopt.optimize(network(), input_data=data, measure=True, **PHOTO)
    assert result.report.check.inputs_tried == 2
    assert result.report.latency_before is not None


def test_a_wrong_normalization_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(net: ir.Model, conversions: list[InputConversion]) -> ir.Model:
        (right,) = conversions
        assert right.affine is not None
        affine = replace(right.affine, mean=right.affine.mean[::-1])  # blue, green, red
        return convert(net, [InputConversion(right.name, right.order, right.dtype, affine)])

    convert = preprocessing.convert_border
    monkeypatch.setattr(preprocessing, "convert_border", wrong)
    target = tmp_path / "out.onnx"
    with pytest.raises(EquivalenceError, match="nothing was written"):
        graphopt.optimize(network(), output=target, **PHOTO)
    assert not target.exists()


def test_the_proof_does_not_take_its_numbers_from_the_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Affine, "center", property(lambda self: self.mean * self.scale))
    with pytest.raises(EquivalenceError, match="nothing was written"):
        graphopt.optimize(network(), **PHOTO)


def test_the_argument_is_not_changed() -> None:
    net = network()
    before = graphopt.graph.to_bytes(net)
    graphopt.optimize(net, **PHOTO)
    assert graphopt.graph.to_bytes(net) == before


# With what the first convolution leaves of the normalization.
ZOO_MODELS = {
    "mobilenetv2_tv_deq": ["Sub"],
    "lprnet": [],
    "ultraface_rfb320": ["Sub"],
    "fastestdet": ["Sub"],
    "cifar_resnet20": ["Sub"],
    "chineseocr_dbnet": ["Sub"],
}


@pytest.mark.parametrize("name", ZOO_MODELS)
def test_zoo_models_take_photos(zoo: Path, name: str) -> None:
    path = next(item.path for item in zoo_models(zoo) if item.name == name)
    given = load(path)
    plain = graphopt.optimize(path, check="off")
    result = graphopt.optimize(path, **PHOTO)
    assert result.report.check.status is CheckStatus.VERIFIED
    (value,) = [item for item in result.model.graph.inputs if not item.is_initializer()]
    dims = [dim if isinstance(dim, int) else 64 for dim in value.shape or ()]
    image = photo(1, *dims[1:])
    left = operators(result.model)
    for kind in operators(plain.model):
        left.remove(kind)
    assert sorted(left) == sorted(["Transpose", "Cast", *ZOO_MODELS[name]])
    expected = Session(given).run({value.name: by_hand(image)})
    found = Session(result.model).run({value.name: image})
    for output, numbers in expected.items():
        scale = max(float(np.abs(numbers).max()), 1e-6)
        np.testing.assert_allclose(found[output], numbers, atol=1e-4 * scale)
