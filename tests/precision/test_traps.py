"""What converters to half get wrong: here it is valid, right, and takes as few Casts as by hand."""

from __future__ import annotations

import onnx
import onnx.checker
import pytest

from graphopt.errors import UsageError
from graphopt.graph import all_nodes, ir, nested_graphs, to_proto
from graphopt.pipeline.half import HalfOptions, HalfResult, convert_half
from graphopt.pipeline.half_check import HalfChecker
from graphopt.precision import count_casts
from graphopt.report import CheckStatus
from graphopt.runtime import Session
from graphopt.shapes import infer_shapes
from tests.precision.traps import TRAPS, Trap

IDS = [trap.name for trap in TRAPS]


def run(trap: Trap, **options: object) -> HalfResult:
    # Level 0: the conversion itself is on trial, not what goes before it.
    given = {"level": 0, "calibration": [trap.feed], "keep_io_types": True, **options}
    return convert_half(trap.model(), HalfOptions(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize("trap", TRAPS, ids=IDS)
def test_the_result_is_valid_and_right(trap: Trap) -> None:
    result = run(trap)
    assert result.ok
    wanted = CheckStatus.VERIFIED if trap.loads else CheckStatus.NOT_VERIFIED
    assert result.report.check.status is wanted
    # No search was needed: what half cannot hold was known from the start.
    assert result.report.fallen_back == []
    onnx.checker.check_model(to_proto(result.model), full_check=True)
    if trap.loads:
        assert result.report.runtime == "loads and runs"
    if trap.loads and trap.agrees:
        checker = HalfChecker(trap.model(), input_data=[trap.feed])
        report = checker.compare(checker.exposed(result.model))
        assert report.status is CheckStatus.VERIFIED, report.reason


@pytest.mark.parametrize("trap", TRAPS, ids=IDS)
def test_it_takes_no_more_casts_than_by_hand(trap: Trap) -> None:
    assert count_casts(run(trap).model) <= trap.casts


def typed(trap: Trap) -> ir.Model:
    """The result, the types of inner values inferred from what it says itself."""
    model: ir.Model = run(trap).model
    infer_shapes(model)
    return model


@pytest.mark.parametrize("trap", TRAPS, ids=IDS)
def test_the_right_nodes_stay_float32(trap: Trap) -> None:
    model = typed(trap)
    seen: set[str] = set()
    for node in all_nodes(model):
        if node.op_type in trap.float32:
            kinds = {value.dtype for value in (*node.inputs, *node.outputs) if value is not None}
            assert ir.DataType.FLOAT16 not in kinds, node
            seen.add(node.op_type)
    assert seen == trap.float32


@pytest.mark.parametrize("trap", TRAPS, ids=IDS)
def test_matrix_products_are_half(trap: Trap) -> None:
    model = typed(trap)
    for node in all_nodes(model):
        if node.op_type in ("MatMul", "LSTM"):
            assert node.outputs[0].dtype == ir.DataType.FLOAT16


@pytest.mark.parametrize("trap", TRAPS, ids=IDS)
def test_inputs_and_outputs_may_go_too(trap: Trap) -> None:
    result = run(trap, keep_io_types=False)
    assert result.ok
    proto = to_proto(result.model)
    onnx.checker.check_model(proto, full_check=True)
    original = trap.model()
    assert [value.name for value in result.model.graph.inputs] == [
        value.name for value in original.graph.inputs
    ]
    assert [value.name for value in result.model.graph.outputs] == [
        value.name for value in original.graph.outputs
    ]
    # The ends are float32 only where all beside them is.
    assert count_casts(result.model) <= trap.casts


@pytest.mark.parametrize("trap", TRAPS, ids=IDS)
def test_without_data_it_is_valid_too(trap: Trap) -> None:
    result = convert_half(trap.model(), HalfOptions(level=0, check=False))
    onnx.checker.check_model(to_proto(result.model), full_check=True)
    if trap.loads:
        Session(result.model, threads=1)


@pytest.mark.parametrize("trap", TRAPS, ids=IDS)
def test_bfloat16_is_valid(trap: Trap) -> None:
    if trap.model().opset_imports[""] < 13:
        with pytest.raises(UsageError, match="bf16 needs opset 13"):
            run(trap, precision="bf16")
        return
    result = run(trap, precision="bf16", rtol=0.1)
    onnx.checker.check_model(to_proto(result.model), full_check=True)


def test_no_constant_is_kept_twice_without_need() -> None:
    for trap in TRAPS:
        model = run(trap).model
        for graph in nested_graphs(model.graph):
            for value in graph.initializers.values():
                assert value.uses() or value.is_graph_output(), (trap.name, value.name)


def test_conversion_is_reproducible() -> None:
    for trap in TRAPS[:8]:
        first, second = (to_proto(run(trap).model).SerializeToString() for _ in range(2))
        assert first == second


def test_the_caller_s_model_is_not_changed() -> None:
    for trap in TRAPS:
        model = trap.model()
        before = to_proto(model).SerializeToString(deterministic=True)
        convert_half(model, HalfOptions(level=0, check=False))
        assert to_proto(model).SerializeToString(deterministic=True) == before
