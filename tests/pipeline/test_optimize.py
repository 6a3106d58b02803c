"""optimize gives back the kind it was given, keeps the argument, and is repeatable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnxruntime
import pytest

import graphopt
from graphopt.errors import InvalidModelError, OutputError, ShapeError, UsageError
from graphopt.graph import ir, load, to_bytes
from graphopt.report import CheckStatus, PassStatus
from tests.pipeline import models


def test_each_kind_comes_back_as_it_was_given(tmp_path: Path) -> None:
    proto = models.chain()
    path = tmp_path / "in.onnx"
    onnx.save(proto, path)
    assert isinstance(graphopt.optimize(proto).model, onnx.ModelProto)
    assert isinstance(graphopt.optimize(proto.SerializeToString()).model, bytes)
    assert isinstance(graphopt.optimize(load(proto)).model, ir.Model)
    assert isinstance(graphopt.optimize(path).model, ir.Model)
    target = tmp_path / "out.onnx"
    assert graphopt.optimize(str(path), output=target).model == target
    assert models.nodes(onnx.load(target)) == ["Relu", "Neg", "Abs", "Tanh"]


def test_the_argument_is_not_changed(fixtures: Path) -> None:
    proto = onnx.load(fixtures / "digits_resnet.onnx")
    before = proto.SerializeToString(deterministic=True)
    graphopt.optimize(proto)
    assert proto.SerializeToString(deterministic=True) == before
    model = load(proto)
    text = to_bytes(model)
    graphopt.optimize(model)
    assert to_bytes(model) == text


@pytest.mark.parametrize("name", ["digits_resnet", "digits_transformer", "functions", "loop"])
def test_the_same_run_gives_the_same_bytes(fixtures: Path, name: str) -> None:
    source = (fixtures / f"{name}.onnx").read_bytes()
    first = graphopt.optimize(source, check="off").model
    assert graphopt.optimize(source, check="off").model == first
    again = graphopt.optimize(first, check="off")
    assert all(entry.status is PassStatus.UNCHANGED for entry in again.report.passes)


def test_new_nodes_tell_where_they_come_from(fixtures: Path) -> None:
    result = graphopt.optimize(onnx.load(fixtures / "bn_conv.onnx"))
    conv = next(node for node in result.model.graph.node if node.op_type == "Conv")
    metadata = {entry.key: entry.value for entry in conv.metadata_props}
    assert metadata["graphopt.pass"] == "fuse-conv-batchnorm"
    originals = {
        node.name or f"{node.op_type}:{node.output[0]}"
        for node in onnx.load(fixtures / "bn_conv.onnx").graph.node
    }
    assert set(metadata["graphopt.from"].split(", ")) <= originals
    assert len(metadata["graphopt.from"].split(", ")) == 2


def test_inferred_types_do_not_swell_the_file(fixtures: Path) -> None:
    before = onnx.load(fixtures / "digits_transformer.onnx")
    after = graphopt.optimize(before).model
    assert {value.name for value in after.graph.value_info} <= {
        value.name for value in before.graph.value_info
    }
    assert after.ByteSize() < before.ByteSize()


def test_dims_given_by_the_user_are_frozen_and_folded() -> None:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        m (float[N, 3, 4] x) => (float[N, M] y)
        <int64 zero = {0}, int64[1] minus = {-1}> {
            shape = Shape (x)
            n = Gather <axis = 0> (shape, zero)
            axes = Constant <value_ints = [0]> ()
            rows = Unsqueeze (n, axes)
            target = Concat <axis = 0> (rows, minus)
            y = Reshape (x, target)
        }
        """
    )
    result = graphopt.optimize(proto, dims={"N": 5})
    (node,) = result.model.graph.node
    assert node.op_type == "Reshape"
    shape = result.model.graph.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [5, 3, 4]
    assert result.report.check.input_shapes == [{"x": "5x3x4"}] * 3
    free = graphopt.optimize(proto)
    assert models.nodes(free.model) == ["Reshape"]
    session = onnxruntime.InferenceSession(free.model.SerializeToString())
    for batch in (1, 4, 7):
        (y,) = session.run(None, {"x": np.zeros((batch, 3, 4), np.float32)})
        assert y.shape == (batch, 12)


def test_shapes_that_contradict_the_model_are_refused() -> None:
    with pytest.raises(ShapeError, match="x"):
        graphopt.optimize(models.chain(), input_shapes={"x": [2, 5]})
    with pytest.raises((ShapeError, UsageError), match=r"did you mean .x.|no input"):
        graphopt.optimize(models.chain(), input_shapes={"xx": [2, 4]})


def test_the_report_is_plain_json_and_names_every_rewrite() -> None:
    result = graphopt.optimize(models.chain(), passes=[models.RemoveIdentities()])
    data = json.loads(result.report.to_json())
    assert data["ok"] is True
    assert data["before"]["nodes"] == 7
    assert data["after"]["nodes"] == 4
    assert data["after"]["operators"] == {"Abs": 1, "Neg": 1, "Relu": 1, "Tanh": 1}
    (entry,) = data["passes"]
    assert len(entry["rewrites"]) == 3
    assert data["check"]["status"] == "verified"
    assert data["check"]["inputs_tried"] == 3


def test_check_off_claims_nothing() -> None:
    result = graphopt.optimize(models.chain(), check="off")
    assert result.report.check.status is CheckStatus.OFF
    assert result.ok


def test_skip_and_levels() -> None:
    kept = graphopt.optimize(models.chain(), skip=["eliminate-identities"])
    assert models.nodes(kept.model).count("Identity") == 3
    nothing = graphopt.optimize(models.chain(), level=0)
    assert models.nodes(nothing.model) == models.nodes(models.chain())
    assert nothing.report.check.status is CheckStatus.VERIFIED
    with pytest.raises(UsageError, match="no level 9"):
        graphopt.optimize(models.chain(), level=9)
    with pytest.raises(UsageError, match="did you mean"):
        graphopt.optimize(models.chain(), skip=["eliminate-identity"])


def test_an_existing_output_is_refused_before_the_work(tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"precious")
    seen: list[str] = []
    with pytest.raises(OutputError, match="exists already"):
        graphopt.optimize(models.chain(), output=target, progress=seen.append)
    assert target.read_bytes() == b"precious"
    assert seen == []
    graphopt.optimize(models.chain(), output=target, overwrite=True)
    assert models.nodes(onnx.load(target)) == ["Relu", "Neg", "Abs", "Tanh"]


def test_an_invalid_model_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    broken = models.chain()
    broken.graph.node[1].input[0] = "nowhere"
    with pytest.raises(InvalidModelError, match="nowhere"):
        graphopt.optimize(broken, output=tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


def test_compare_tells_where_two_models_differ() -> None:
    before, after = models.chain(), models.chain()
    assert graphopt.compare(before, after).status is CheckStatus.VERIFIED
    after.graph.node[5].op_type = "Neg"
    report = graphopt.compare(before, after)
    assert report.status is CheckStatus.FAILED
    assert {check.name: check.ok for check in report.outputs} == {"y": True, "z": False}
    renamed = models.chain()
    renamed.graph.output[0].name = renamed.graph.node[4].output[0] = "other"
    report = graphopt.compare(before, renamed)
    assert report.status is CheckStatus.FAILED
    assert "'y' became 'other'" in report.reason


def test_the_trained_fixture_keeps_its_accuracy(fixtures: Path) -> None:
    data = np.load(fixtures / "digits_test.npz")
    images = next(data[key] for key in data.files if data[key].ndim > 1)
    labels = next(data[key] for key in data.files if data[key].ndim == 1)
    before = onnx.load(fixtures / "digits_resnet.onnx")
    after = graphopt.optimize(before).model
    name = before.graph.input[0].name
    answers = [
        onnxruntime.InferenceSession(model.SerializeToString())
        .run(None, {name: images})[0]
        .argmax(1)
        for model in (before, after)
    ]
    np.testing.assert_array_equal(*answers)
    assert (answers[0] == labels).mean() > 0.95


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(UsageError, match="off, final, per-pass"):
        graphopt.optimize(models.chain(), check="per_pass")  # type: ignore[arg-type]


def test_passes_to_skip_may_stand_in_one_string() -> None:
    skip = "fuse-conv-batchnorm, eliminate-identities"
    result = graphopt.optimize(models.chain(), skip=skip, check="off")
    assert "eliminate-identities" not in {entry.name for entry in result.report.passes}


def test_a_missing_input_is_named_also_where_the_output_exists(tmp_path: Path) -> None:
    target = tmp_path / "there.onnx"
    target.touch()
    with pytest.raises(OutputError, match="exists already"):
        graphopt.optimize(tmp_path / "missing.onnx", output=target)


def test_the_latency_is_measured_without_a_check_too() -> None:
    report = graphopt.optimize(models.chain(), check="off", measure=True).report
    assert report.check.status is CheckStatus.OFF
    assert report.latency_before is not None
    assert report.before.macs is not None


def test_nothing_is_counted_where_nothing_is_measured() -> None:
    report = graphopt.optimize(models.chain(), check="off").report
    assert (report.before.macs, report.after.activation_bytes) == (None, None)
    assert report.before.nodes == 7


def test_functions_of_one_name_are_two_passes() -> None:
    def clean(model: ir.Model) -> None:
        pass

    def other(model: ir.Model) -> None:
        for node in [node for node in model.graph if node.op_type == "Identity"]:
            node.outputs[0].replace_all_uses_with(node.inputs[0])  # type: ignore[arg-type]
            model.graph.remove(node)

    other.__name__ = "clean"
    result = graphopt.optimize(models.chain(), passes=[clean, other, clean])
    assert models.nodes(result.model) == ["Relu", "Neg", "Abs", "Tanh"]
    assert [(entry.name, entry.status) for entry in result.report.passes] == [
        ("clean", PassStatus.UNCHANGED),
        ("clean-2", PassStatus.CHANGED),
    ]
    assert result.report.passes[0].rewrites == []


@pytest.mark.parametrize("tolerance", [float("nan"), float("inf"), -1.0])
def test_a_tolerance_that_lets_everything_pass_is_refused(tolerance: float) -> None:
    for name in ("rtol", "atol"):
        with pytest.raises(UsageError, match=name):
            graphopt.optimize(models.chain(), **{name: tolerance})
