"""quantize from data to file, on the trained digits models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphopt
from graphopt.errors import EquivalenceError, OutputError, UsageError
from graphopt.graph import from_text, ir
from graphopt.pipeline.quantization.choosing import Choice
from graphopt.pipeline.quantization.data import CalibrationData
from graphopt.pipeline.quantization.search import search
from graphopt.quantization.stopwatch import Race
from graphopt.runtime import Session


@pytest.fixture(scope="module")
def digits(fixtures: Path) -> dict[str, np.ndarray]:
    with np.load(fixtures / "digits_test.npz") as data:
        return dict(data)


@pytest.fixture(scope="module")
def resnet(fixtures: Path) -> Path:
    return fixtures / "digits_resnet.onnx"


def calibration(digits: dict[str, np.ndarray], count: int = 64) -> dict[str, np.ndarray]:
    return {"image": digits["image"][:count]}


def quantized(resnet: Path, digits: dict[str, np.ndarray], **options: Any) -> Any:
    plain = {"rounding": "nearest", "bias_correction": False, "only_if_faster": False}
    options = {**plain, "threads": 1, **options}
    return graphopt.quantize(resnet, calibration=calibration(digits), **options)


def accuracy(model: ir.Model, digits: dict[str, np.ndarray]) -> float:
    """On what never calibrated."""
    images, labels = digits["image"][64:], digits["label"][64:]
    scores = next(iter(Session(model, threads=1).run({"image": images}).values()))
    return float((scores.argmax(-1) == labels).mean())


def test_the_result_is_integers_and_as_good(
    resnet: Path, digits: dict[str, np.ndarray], tmp_path: Path
) -> None:
    before = resnet.read_bytes()
    result = quantized(resnet, digits, output=tmp_path / "int8.onnx", measure=True)
    report = result.report
    assert result.ok
    assert resnet.read_bytes() == before
    proto = onnx.load(result.model)
    onnx.checker.check_model(proto, full_check=True)
    kinds = [node.op_type for node in proto.graph.node]
    assert "QuantizeLinear" in kinds
    assert "BatchNormalization" not in kinds
    weights = {item.data_type for item in proto.graph.initializer if len(item.dims) == 4}
    assert weights == {onnx.TensorProto.INT8}
    assert report.after.file_bytes < 0.5 * report.before.file_bytes
    assert report.sqnr > 25
    assert (report.checked_on, report.disjoint, report.samples) == (8, True, 56)
    assert report.latency_after is not None
    model = graphopt.load(result.model)
    assert accuracy(model, digits) >= accuracy(graphopt.load(resnet), digits) - 0.01
    for group in report.groups:
        assert (group.precision == "float") == bool(group.reason)
        assert group.sqnr is None or group.sqnr > 15
    assert json.loads(report.to_json())["kind"] == "static"


def test_the_same_request_gives_the_same_bytes(
    resnet: Path, digits: dict[str, np.ndarray], tmp_path: Path
) -> None:
    options = {"rounding": "second-order", "bias_correction": True, "equalize": True}
    for name in ("a.onnx", "b.onnx"):
        quantized(resnet, digits, output=tmp_path / name, **options)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_repairs_are_told_and_do_no_harm(resnet: Path, digits: dict[str, np.ndarray]) -> None:
    plain = quantized(resnet, digits)
    repaired = quantized(resnet, digits, rounding="second-order", bias_correction=True)
    assert len(repaired.report.repairs) == 2
    assert repaired.report.sqnr > plain.report.sqnr


def test_ranges_are_saved_and_used_again(
    resnet: Path, digits: dict[str, np.ndarray], tmp_path: Path
) -> None:
    ranges = tmp_path / "ranges.json"
    first = quantized(resnet, digits, save_ranges=ranges, spare_outsized=False)
    again = graphopt.quantize(
        resnet,
        ranges=ranges,
        only_if_faster=False,
        spare_outsized=False,
        rounding="nearest",
        bias_correction=False,
        threads=1,
    )
    assert ir.to_proto(first.model) == ir.to_proto(again.model)
    assert any("made-up" in warning for warning in again.report.warnings)
    with pytest.raises(UsageError, match="has no range for"):
        graphopt.quantize(resnet.with_name("digits_mlp.onnx"), ranges=ranges)


def test_excluded_nodes_stay_float(resnet: Path, digits: dict[str, np.ndarray]) -> None:
    every = quantized(resnet, digits, op_types_to_quantize=["Conv"])
    types = {group.op_type for group in every.report.groups}
    assert types == {"Conv"}
    name = every.report.groups[0].name
    less = quantized(resnet, digits, nodes_to_exclude=[name.replace("/", "[/]")])
    assert name in less.report.declined
    assert name not in {group.name for group in less.report.groups}
    with pytest.raises(UsageError, match="no node is named like"):
        quantized(resnet, digits, nodes_to_exclude=["Conv_"])
    with pytest.raises(UsageError, match="no regular expression"):
        quantized(resnet, digits, nodes_to_exclude=["("])


def test_a_budget_is_kept_by_giving_groups_up(resnet: Path, digits: dict[str, np.ndarray]) -> None:
    plain = quantized(resnet, digits, spare_outsized=False)
    wanted = plain.report.sqnr + 4
    result = quantized(resnet, digits, spare_outsized=False, least_sqnr=wanted)
    report = result.report
    assert report.metric_after >= wanted
    assert 2 <= len(report.curve) <= 12
    assert [item.allowed for item in report.curve] == sorted(i.allowed for i in report.curve)
    given_up = [group for group in report.groups if "given up" in group.reason]
    assert 0 < len(given_up) < len(report.groups)
    assert all(group.noise is not None for group in given_up)


def test_what_loses_the_last_race_is_taken_back(
    resnet: Path, digits: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watch:
        """The first model runs in a second, the others in two."""

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def race(self, models: Any, threads: int, rounds: int) -> Race:
            return Race(threads, {name: (1.0 + bool(n),) for n, name in enumerate(models)})

    monkeypatch.setattr("graphopt.pipeline.quantization.proof.RunningStopwatch", Watch)
    monkeypatch.setattr(
        "graphopt.pipeline.quantization.job.faster_groups", lambda *_: Choice(winner="int8")
    )
    result = quantized(resnet, digits, only_if_faster=None, spare_outsized=False)
    report = result.report
    assert report.kind == "float"
    assert {group.precision for group in report.groups} == {"float"}
    assert any("takes 2.00 times as long" in warning for warning in report.warnings)
    assert not any(node.op_type == "QuantizeLinear" for node in result.model.graph)
    kept = quantized(resnet, digits, measure=True, spare_outsized=False)
    assert kept.report.kind == "static"
    assert any("takes 2.00 times as long" in warning for warning in kept.report.warnings)


def test_noise_is_never_given_back_unasked(
    resnet: Path, digits: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphopt.pipeline.quantization.choosing.LEAST_SQNR", 200.0)
    report = quantized(resnet, digits, spare_outsized=False).report
    assert report.kind == "float"
    assert any("below 200 dB" in warning for warning in report.warnings)
    wanted = quantized(resnet, digits, spare_outsized=False, least_sqnr=20).report
    assert wanted.kind == "static"


def test_a_search_measures_seldom(resnet: Path, digits: dict[str, np.ndarray]) -> None:
    images = digits["image"][64:96]
    seen: list[np.ndarray] = []

    def closeness(run: Any) -> float:
        seen.append(next(iter(run({"image": images}).values())))
        return float(1 - np.square(seen[-1] - seen[0]).sum() / np.square(seen[0]).sum())

    plain = quantized(resnet, digits, metric=closeness, spare_outsized=False)
    drop = f"{(1 - plain.report.metric_after) * 50:.6f}%"  # half of what it is
    seen.clear()
    result = quantized(
        resnet, digits, metric=closeness, max_drop=drop, bias_correction=True, spare_outsized=False
    )
    assert result.ok
    assert len(result.report.curve) >= 2
    assert len(seen) <= 12  # the original and the result are among them
    assert 1 - result.report.metric_after <= 0.5 * (1 - plain.report.metric_after) + 1e-6


def test_a_budget_that_nothing_keeps(
    resnet: Path, digits: dict[str, np.ndarray], tmp_path: Path
) -> None:
    seen: list[np.ndarray] = []

    def metric(run: Any) -> float:
        (scores,) = run({"image": digits["image"][:8]}).values()
        seen.append(scores)
        return float(np.array_equal(scores, seen[0]))

    output = tmp_path / "out.onnx"
    with pytest.raises(EquivalenceError, match="no mixture keeps metric within 0 of"):
        quantized(resnet, digits, metric=metric, max_drop="0", output=output)
    assert not output.exists()
    forced = quantized(resnet, digits, metric=metric, max_drop="0", output=output, force=True)
    assert not forced.ok
    assert output.exists()


def test_a_broken_sample_ruins_nothing(resnet: Path, digits: dict[str, np.ndarray]) -> None:
    images = digits["image"][:64].copy()
    images[5] *= 1e4
    result = graphopt.quantize(
        resnet, calibration={"image": images}, only_if_faster=False, threads=1
    )
    assert (result.report.sqnr or 0) > 25
    assert any("far outside" in warning for warning in result.report.warnings)


def test_what_is_asked_wrongly(resnet: Path, digits: dict[str, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs data"):
        graphopt.quantize(resnet)
    with pytest.raises(UsageError, match="no option 'percentil'"):
        quantized(resnet, digits, percentil=0.9)
    with pytest.raises(UsageError, match="no backend 'cpu'; it is one of ort-cpu"):
        quantized(resnet, digits, backend="cpu")
    with pytest.raises(UsageError, match="does not run here"):
        quantized(resnet, digits, backend="tensorrt", only_if_faster=True)
    with pytest.raises(UsageError, match="holds no sample"):
        graphopt.quantize(resnet, calibration=[], only_if_faster=False)
    with pytest.raises(OutputError, match="is a folder"):
        quantized(resnet, digits, output=tmp_path)


@pytest.mark.parametrize("backend", ["tensorrt", "openvino"])
@pytest.mark.parametrize("options", [{}, {"max_drop": "2%"}, {"metric": "agreement"}])
def test_a_backend_that_is_not_here_is_quantized_for_and_judged_on_the_cpu(
    backend: str,
    options: dict[str, Any],
    resnet: Path,
    digits: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("graphopt.runtime.has_provider", lambda provider: provider == "cpu")
    result = quantized(resnet, digits, backend=backend, only_if_faster=None, **options)
    assert (result.report.sqnr or 0) > 15
    assert any("judged on the CPU" in warning for warning in result.report.warnings)


def test_a_drop_is_judged_on_all_that_was_held_out(
    resnet: Path, digits: dict[str, np.ndarray]
) -> None:
    many = {"image": np.concatenate([digits["image"]] * 2)[:320]}
    plain = {"rounding": "nearest", "bias_correction": False, "only_if_faster": False, "threads": 1}
    found = graphopt.quantize(resnet, calibration=many, max_drop="5%", metric="agreement", **plain)
    assert found.report.checked_on == 40
    assert graphopt.quantize(resnet, calibration=many, **plain).report.checked_on == 32


def test_every_eighth_sample_is_held_out() -> None:
    model = from_text(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[1] x) => (float[1] y) { y = Sin(x) }'
    )

    def numbers(feeds: Any) -> list[int]:
        return [int(feed["x"][0]) for feed in feeds]

    source = {"x": np.arange(20, dtype=np.float32)[:, None]}
    data = CalibrationData(model, source)
    assert numbers(data.check) == [7, 15]
    assert numbers(data.calibration) == [n for n in range(20) if n not in (7, 15)]
    assert numbers(data.calibration) == numbers(data.calibration)
    fewer = CalibrationData(model, source, count=10, check_count=1)
    assert (numbers(fewer.check), len(numbers(fewer.calibration))) == ([7], 9)
    few = CalibrationData(model, source, count=5)
    assert (numbers(few.check), numbers(few.calibration), few.disjoint) == ([4], [0, 1, 2, 3], True)
    one = CalibrationData(model, source, count=1)
    assert (numbers(one.check), numbers(one.calibration), one.disjoint) == ([0], [0], False)
    test = CalibrationData(model, source, test={"x": np.full((3, 1), 99, np.float32)})
    assert (numbers(test.check), len(numbers(test.calibration))) == ([99] * 3, 20)
    once = CalibrationData(model, ({"x": row} for row in source["x"]))
    assert numbers(once.check) == [7, 15]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 64, 500, 2000])
@pytest.mark.parametrize("needed", [0, 1, 2, 7, 40, 499, 10_000])
def test_the_search_gives_up_as_few_as_it_must(count: int, needed: int) -> None:
    order = [f"g{number}" for number in range(count)]
    calls = []

    def measure(given_up: Any) -> float:
        assert list(given_up) == order[: len(given_up)]
        calls.append(len(given_up))
        return float(len(given_up))

    found = search(
        order, dict.fromkeys(order, 2.0), measure, lambda value: value >= needed, first=0.0
    )
    assert len(found.evaluations) == len(calls) + 1 <= 12
    if needed >= count and needed:
        assert found.given_up is None
        return
    assert found.given_up is not None
    assert len(found.given_up) >= needed
    if count <= 500:
        assert len(found.given_up) == needed
    assert [item.float_groups for item in found.evaluations] == sorted({0, *calls})
    for item in found.evaluations:
        assert item.gain == pytest.approx(1 - item.float_groups / count)


def test_weights_that_are_inputs_keep_their_numbers() -> None:
    # As PyTorch's exporter once listed them: no default that a caller would override. The
    # depthwise Conv asks for a repair, which runs the model that they are no inputs of any more.
    model = from_text(
        '<ir_version: 4, opset_import: ["" : 9], producer_name: "pytorch", '
        'producer_version: "1.1"> g (float[1,16,8,8] x, float[16,16,1,1] v, float[16,1,3,3] w) '
        "=> (float[1,16,6,6] y) { a = Conv(x, v) b = Relu(a) y = Conv<group = 16>(b, w) }"
    )
    random = np.random.default_rng(0)
    for value in model.graph.inputs[1:]:
        shape = tuple(size for size in value.shape or () if isinstance(size, int))
        value.const_value = ir.tensor(random.standard_normal(shape).astype(np.float32))
        model.graph.initializers.add(value)
    result = graphopt.quantize(model, calibration="seeded", only_if_faster=False)
    assert "QuantizeLinear" in {node.op_type for node in result.model.graph}
