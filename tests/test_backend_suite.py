"""graphopt on every model of the ONNX backend test suite that ONNX Runtime can run."""

from collections import Counter

import numpy as np
import onnx
import pytest

from tests.backend_suite import KINDS, OLDEST_OPSET, Case, cases, judge

# Fewer than these would mean that the suite was not found, not that it became small.
LEAST_RUN = {
    "node": 1300,
    "simple": 12,
    "pytorch-converted": 70,
    "pytorch-operator": 30,
    "real": 9,
}


def _graphopt(model: onnx.ModelProto) -> onnx.ModelProto:
    import graphopt

    # The passes themselves are on trial, not the guard that would undo them.
    return graphopt.optimize(model, check="off").model


@pytest.mark.parametrize("kind", KINDS)
def test_backend_suite(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()
    failures = []
    for case in cases(kind):
        verdict = judge(case, _graphopt)
        counts[verdict.reference] += 1
        if verdict.failure:
            failures.append(f"{verdict.case} [{verdict.reference}]: {verdict.failure[:300]}")
    run = counts.total() - counts["none"] - counts["refused"]
    with capsys.disabled():
        print(
            f"\nbackend suite, {kind}: {counts.total()} models, {run} run by ONNX Runtime "
            f"({counts['suite']} held against the suite, {counts['original']} against ONNX "
            f"Runtime's own result, {counts['shapes']} random), {counts['refused']} refused as "
            f"older than opset {OLDEST_OPSET}, {len(failures)} failures"
        )
    assert run >= LEAST_RUN[kind]
    assert not failures, "\n".join(failures)


def _relu_case() -> Case:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[3] x) => (float[3] y) { y = Relu (x) }'
    )
    x = np.array([-1, 0, 2], np.float32)
    model = onnx.parser.parse_model(text)
    return Case("relu", model, [([x], [np.maximum(x, 0)])], 1e-3, 1e-7)


@pytest.mark.parametrize(
    ("op", "failure"), [("Relu", ""), ("Abs", "wrong: output 0"), ("Nonsense", "invalid: ")]
)
def test_judge_sees_a_wrong_result(op: str, failure: str) -> None:
    def optimize(model: onnx.ModelProto) -> onnx.ModelProto:
        wrong = onnx.ModelProto.FromString(model.SerializeToString())
        wrong.graph.node[0].op_type = op
        return wrong

    verdict = judge(_relu_case(), optimize)
    assert verdict.reference == "suite"
    assert verdict.failure.startswith(failure)
    assert bool(verdict.failure) == bool(failure)


def test_judge_falls_back_to_the_original_result() -> None:
    case = _relu_case()
    case.data_sets[0][1][0] = np.array([9, 9, 9], np.float32)
    assert judge(case, lambda model: model).reference == "original"
