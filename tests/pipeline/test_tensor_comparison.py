"""Two models compared tensor by tensor."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt.graph import from_text, ir
from graphopt.pipeline.tensor_comparison import compare_tensors, matching_tensors, tensors_of

HEAD = '<ir_version: 9, opset_import: ["" : 18]> g (float[N, 4] x) => (float[N, 4] y)'
FLOAT = from_text(f"{HEAD} {{ a = Sin(x) b = Neg(a) c = Relu(b) y = Exp(c) }}")


def feeds(count: int = 3) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((2, 4)).astype(np.float32)} for _ in range(count)]


def test_the_layer_that_goes_wrong_is_told() -> None:
    wrong = from_text(
        f"{HEAD} {{ a = Sin(x) w = Constant<value_float = 0.5>() n = Neg(a) b = Mul(n, w)"
        " c = Relu(b) y = Exp(c) }"
    )
    report = tensors_of(FLOAT, wrong, feeds())
    found = {item.name: item for item in report.tensors}
    assert list(found) == ["a", "b", "c", "y"]
    assert found["a"].sqnr == math.inf
    assert found["b"].sqnr == pytest.approx(20 * math.log10(2))
    assert report.first_bad is found["b"]
    assert found["b"].op_type == "Neg"
    assert found["c"].loss == 0
    values = np.sin(np.stack([feed["x"] for feed in feeds()]))
    assert found["b"].max_abs_error == pytest.approx(abs(values).max() / 2)
    assert report.unmatched == ()
    assert report.to_dict()["first_bad"] == "b"
    assert report.to_dict()["compared"][0]["sqnr"] is None
    assert tensors_of(FLOAT, wrong, feeds(), least=3.0).first_bad is None


def test_all_feeds_count(monkeypatch: pytest.MonkeyPatch) -> None:
    shifted = from_text(
        f"{HEAD} {{ one = Constant<value_float = 0.01>() s = Sin(x) a = Add(s, one) y = Exp(a) }}"
    )
    told: list[int] = []
    report = tensors_of(FLOAT, shifted, feeds(7), progress=told.append)
    signal = sum(float((np.sin(feed["x"]) ** 2).sum()) for feed in feeds(7))
    expected = 10 * math.log10(signal / (7 * 8 * 0.01**2))
    assert report.tensors[0].sqnr == pytest.approx(expected, abs=0.01)
    assert told == list(range(1, 8))
    assert report.unmatched == ("b", "c")


def test_names_that_a_pass_has_changed_are_followed_by_provenance() -> None:
    renamed = from_text(f"{HEAD} {{ p = Sin(x) q = Neg(p) c = Relu(q) y = Exp(c) }}")
    for node in renamed.graph:
        if node.op_type == "Neg":
            node.metadata_props["graphopt.from"] = "Sin:a, Neg:b"
    assert matching_tensors(FLOAT, renamed) == {"b": "q", "c": "c", "y": "y"}


def test_shapes_that_differ_are_no_number() -> None:
    other = from_text(
        f"{HEAD} {{ s = Sin(x) a = Transpose(s) b = Transpose(a) c = Relu(b) y = Exp(c) }}"
    )
    found = {item.name: item for item in tensors_of(FLOAT, other, feeds(1)).tensors}
    assert math.isnan(found["a"].sqnr)
    assert "[2, 4], and [4, 2]" in found["a"].reason


def qdq(model_text: str) -> ir.Model:
    return from_text(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[N, 4] x) => (float[N, 4] y)'
        f" {{ s = Constant<value_float = 0.0625>() z = Cast<to = 2>(zf) {model_text} }}".replace(
            "z = Cast<to = 2>(zf)", "zf = Constant<value_float = 0.0>() z = Cast<to = 2>(zf)"
        )
    )


def test_what_consumers_get_is_compared() -> None:
    # The Relu is gone: the integers have no negative values.
    quantized = qdq(
        "a = Sin(x) b = Neg(a) q = QuantizeLinear(b, s, z) d = DequantizeLinear(q, s, z) y = Exp(d)"
    )
    assert matching_tensors(FLOAT, quantized) == {"a": "a", "c": "d", "y": "y"}
    report = tensors_of(FLOAT, quantized, feeds())
    assert all(item.sqnr > 20 for item in report.tensors)


def test_float_against_optimized_half_and_int8(fixtures: Path, tmp_path: Path) -> None:
    source = fixtures / "digits_resnet.onnx"
    data = {"image": np.load(fixtures / "digits_test.npz")["image"][:16]}
    optimized = graphopt.optimize(source, output=tmp_path / "opt.onnx").model
    report = compare_tensors(source, optimized, input_data=data)
    assert len(report.tensors) > 10
    assert min(item.sqnr for item in report.tensors) > 100
    int8 = graphopt.quantize(
        source, calibration=data, output=tmp_path / "int8.onnx", only_if_faster=False
    ).model
    report = compare_tensors(source, int8, input_data=data)
    assert len(report.tensors) > 10
    assert 15 < min(item.sqnr for item in report.tensors) < 60
    assert any("Dequantize" in item.other or item.name != item.other for item in report.tensors)
