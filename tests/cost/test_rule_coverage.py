"""Every operator has a rule, and every rule has an operator."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphopt.cost import Operator, Rule, Tensor, UnknownShapeError
from graphopt.cost.rules import rules
from graphopt.graph import ir
from tests.cost import (
    test_contraction_rules,
    test_detection_rules,
    test_elementwise_rules,
    test_learned_rules,
    test_movement_rules,
    test_normalization_rules,
    test_reduction_rules,
    test_transform_rules,
)
from tests.cost.one_node import MICROSOFT, ML
from tests.zoo_models import zoo_models

# Counted by their bodies and trip counts, not by a rule.
CONTROL_FLOW = frozenset(("", name) for name in ("If", "Loop", "Scan", "SequenceMap"))
INFERENCE = ("", ML, "ai.onnx.preview")
QUANTIZED = ("cifar_resnet20", "mlperf_vww_mbv1", "fastestdet", "ultraface_rfb320", "mnist_vit")
BLOCKED = "com.microsoft.nchwc"
CASES = (
    *test_contraction_rules.CASES,
    *test_detection_rules.ROIS,
    *test_detection_rules.SEARCHES,
    *test_elementwise_rules.UNARY,
    *test_elementwise_rules.BINARY,
    *test_elementwise_rules.DROPPED,
    *test_elementwise_rules.FUSED,
    *test_learned_rules.MODELS,
    *test_normalization_rules.NORMALIZATIONS,
    *test_reduction_rules.REDUCTIONS,
    *test_reduction_rules.LOSSES,
    *test_reduction_rules.POOLS,
    *test_transform_rules.ARITHMETIC,
    *(case for case, _ in test_movement_rules.MOVES),
)


def _listed(domain: str, reasons: dict[str, str]) -> dict[tuple[str, str], str]:
    return {(domain, name): reason for names, reason in reasons.items() for name in names.split()}


# Operators of com.microsoft with a CPU kernel that are honestly without a rule, and why.
WITHOUT_RULE = _listed(
    MICROSOFT,
    {
        "BeamSearch GreedySearch Sampling WhisperBeamSearch": "a search with a decoder inside",
        "BranchwiseRMSNorm EngramGate HyperConnectionPreMix HyperConnectionPostMix": "one new "
        "family of models, which no public exporter writes",
        "NGramHashMapping VarlenNGramHashMapping": "of the same family",
        "GatedDeltaNet GatherPacked MoEGroupRouter VarlenCausalConvWithState": "new in 1.32, for a "
        "family of decoders, and made by no public exporter yet",
        "AttnLSTM WordConvEmbedding": "made by no exporter",
        "MatMulFpQ4": "weights in a blob of its own, that MatMulNBits made obsolete",
        "MaxpoolWithMask": "for internal use by its own words; its mask ends windows early",
        "SparseAttention": "which blocks are seen is data",
        "SparseToDenseMatMul": "how many elements are stored is in no shape",
    },
)
# Rules that no case names, and why.
WITHOUT_CASE = {
    **_listed(
        "",
        {
            "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform "
            "RandomUniformLike": "no two implementations draw the same numbers",
            "MelWeightMatrix": "an upper bound: outside of its triangles nothing is computed",
            "SequenceAt SequenceConstruct SequenceInsert SplitToSequence "
            "ConcatFromSequence": "moves tensors in and out of a sequence, computes nothing",
        },
    ),
}
# Operators that cannot be run alone here, and those whose rule, function for function, they have:
# the blocked layout is as wide as the machine's registers; one has kernels on ARM only; one was
# in ONNX for two opsets and then became Slice.
SAME_RULE = {
    (BLOCKED, "Conv"): (MICROSOFT, "FusedConv"),
    (BLOCKED, "MaxPool"): ("", "MaxPool"),
    (BLOCKED, "AveragePool"): ("", "AveragePool"),
    (BLOCKED, "GlobalMaxPool"): ("", "GlobalMaxPool"),
    (BLOCKED, "GlobalAveragePool"): ("", "GlobalAveragePool"),
    (BLOCKED, "Upsample"): ("", "Upsample"),
    (MICROSOFT, "NhwcFusedConv"): (MICROSOFT, "FusedConv"),
    ("", "DynamicSlice"): ("", "Slice"),
}


def _onnx_operators() -> set[tuple[str, str]]:
    """All that ONNX has or had, of whatever version."""
    schemas = onnx.defs.get_all_schemas_with_history()
    return {(schema.domain, schema.name) for schema in schemas}


def _runtime() -> Any:
    """What ONNX Runtime knows of its own operators and kernels."""
    return importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")


def _runtime_operators() -> set[tuple[str, str]]:
    return {(schema.domain, schema.name) for schema in _runtime().get_all_operator_schema()}


def test_every_operator_of_onnx_has_a_rule() -> None:
    wanted = {key for key in _onnx_operators() if key[0] in INFERENCE} - CONTROL_FLOW
    assert len(wanted) > 200
    assert wanted - rules().keys() == set()


def test_control_flow_has_no_rule() -> None:
    assert not CONTROL_FLOW & rules().keys()


def test_every_operator_that_onnx_runtime_has_a_cpu_kernel_for_has_a_rule() -> None:
    kernels = {
        (kernel.domain, kernel.op_name)
        for kernel in _runtime().get_all_opkernel_def()
        if kernel.provider == "CPUExecutionProvider"
    }
    assert len(kernels) > 200
    assert kernels - rules().keys() - CONTROL_FLOW - WITHOUT_RULE.keys() == set()
    assert not WITHOUT_RULE.keys() & rules().keys()


def _is_fixed(rule: Rule) -> bool:
    """Whether it is the same for every node: a view or a move, which has no arithmetic."""
    try:
        work = rule.count(None)
    except AttributeError:
        return False
    return (work.macs, work.elementwise, work.transcendentals) == (0, 0, 0)


def test_every_rule_with_arithmetic_is_held_against_a_loop() -> None:
    named = {(case.domain, case.op_type) for case in CASES}
    counting = {key for key, rule in rules().items() if not _is_fixed(rule)}
    assert len(counting) > 200
    assert counting - named - WITHOUT_CASE.keys() - SAME_RULE.keys() == set()
    assert not named & (WITHOUT_CASE.keys() | SAME_RULE.keys())
    assert (WITHOUT_CASE.keys() | SAME_RULE.keys()) <= counting


def test_a_case_without_a_loop_computes_nothing() -> None:
    """So that a rule with arithmetic cannot pass for a move; those say themselves that it is 0."""
    loopless = {str(case) for case in CASES if case.loop is None}
    assert loopless == {str(case) for case, _ in test_movement_rules.MOVES}


@pytest.mark.parametrize(("key", "tested"), SAME_RULE.items(), ids=str)
def test_what_cannot_run_alone_has_the_rule_of_what_can(
    key: tuple[str, str], tested: tuple[str, str]
) -> None:
    assert rules()[key].count is rules()[tested].count
    assert tested in {(case.domain, case.op_type) for case in CASES}


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

    class Reader(CalibrationDataReader):
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
