"""Every operator has a rule, and every rule has an operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from graphopt.cost import Operator, Tensor, UnknownShapeError
from graphopt.cost.rules import rules
from graphopt.graph import ir
from tests.zoo_models import zoo_models

# Counted by their bodies and trip counts, not by a rule.
CONTROL_FLOW = frozenset(("", name) for name in ("If", "Loop", "Scan", "SequenceMap"))
MICROSOFT = "com.microsoft"
# A search with a decoder inside, as often as it takes.
SEARCHES = frozenset(
    (MICROSOFT, name) for name in ("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch")
)
QUANTIZED = ("cifar_resnet20", "mlperf_vww_mbv1", "fastestdet", "ultraface_rfb320", "mnist_vit")
INFERENCE = ("", "ai.onnx.ml")


def _onnx_operators() -> set[tuple[str, str]]:
    """All that ONNX has or had, of whatever version."""
    schemas = onnx.defs.get_all_schemas_with_history()
    return {(schema.domain, schema.name) for schema in schemas}


def _runtime() -> object:
    return pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")


def _runtime_operators() -> set[tuple[str, str]]:
    return {(schema.domain, schema.name) for schema in _runtime().get_all_operator_schema()}  # type: ignore[attr-defined]


def test_every_operator_of_onnx_has_a_rule() -> None:
    wanted = {key for key in _onnx_operators() if key[0] in INFERENCE} - CONTROL_FLOW
    assert len(wanted) > 200
    assert wanted - rules().keys() == set()


def test_control_flow_has_no_rule() -> None:
    assert not CONTROL_FLOW & rules().keys()


def test_every_operator_that_onnx_runtime_has_a_cpu_kernel_for_has_a_rule() -> None:
    kernels = {
        (kernel.domain, kernel.op_name)
        for kernel in _runtime().get_all_opkernel_def()  # type: ignore[attr-defined]
        if kernel.provider == "CPUExecutionProvider"
    }
    assert len(kernels) > 200
    assert kernels - rules().keys() - CONTROL_FLOW - SEARCHES == set()


def test_no_rule_is_for_an_operator_that_exists_nowhere() -> None:
    assert rules().keys() - _onnx_operators() - _runtime_operators() == set()


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
def test_every_operator_that_the_optimizer_emits_has_a_rule(
    zoo: Path, tmp_path: Path, quantized: bool
) -> None:
    emitted: set[tuple[str, str]] = set()
    for model in zoo_models(zoo):
        if quantized and model.name not in QUANTIZED:
            continue
        path = _quantized(model.path, tmp_path) if quantized else model.path
        emitted |= _optimized(path, tmp_path / "optimized.onnx")
    assert any(domain == MICROSOFT for domain, _ in emitted)
    assert emitted - rules().keys() - CONTROL_FLOW == set()


def _optimized(path: Path, target: Path) -> set[tuple[str, str]]:
    """The operators of the model as ONNX Runtime will run it, bodies included."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = ir.load(target).graph
    return {("" if n.domain == "ai.onnx" else n.domain, n.op_type) for n in graph.all_nodes()}


def _quantized(path: Path, folder: Path) -> Path:
    """An int8 QDQ version, calibrated on noise."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    model = onnx.load(path)
    made = {tensor.name for tensor in model.graph.initializer}
    random = np.random.default_rng(0)
    feed = {}
    for value in model.graph.input:
        if value.name not in made:
            described = value.type.tensor_type
            shape = [dim.dim_value or 1 for dim in described.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(described.elem_type)
            feed[value.name] = random.uniform(0, 1, shape).astype(dtype)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = iter([feed])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    target = folder / f"int8_{path.name}"
    # A scale per channel came with opset 13.
    per_channel = all(entry.version >= 13 for entry in model.opset_import if not entry.domain)
    quantize_static(path, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel)
    return target


def test_a_rule_says_which_shape_it_misses() -> None:
    """No rule guesses: with nothing known it says so, or needs nothing."""
    for (domain, op_type), rule in rules().items():
        values = [ir.Value(name=f"x{index}") for index in range(9)]
        node = ir.Node(domain, op_type, values, num_outputs=1)
        unknown = [Tensor(value.name or "", None, None) for value in values]
        try:
            work = rule.count(Operator(node, 23, unknown, unknown[:1]))
        except UnknownShapeError:
            continue
        assert (work.macs, work.elementwise, work.transcendentals) == (0, 0, 0), op_type
