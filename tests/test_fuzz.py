"""graphopt on 200 random graphs, and proof that the harness sees what a bad optimizer does."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from tests.generate import (
    Feed,
    InvalidGraph,
    check_model,
    newest_opset,
    random_model,
    save_failure,
    shrink,
)

SEEDS = range(200)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _op_types(graph: onnx.GraphProto) -> Counter[str]:
    found: Counter[str] = Counter()
    for node in graph.node:
        found[node.op_type] += 1
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += _op_types(attribute.g)
    return found


def _graphopt(model: onnx.ModelProto) -> onnx.ModelProto:
    import graphopt

    # The passes themselves are on trial, not the guard that would undo them.
    return graphopt.optimize(model, check="off").model


def test_graphopt_is_right_on_random_graphs() -> None:
    failures = []
    for seed in SEEDS:
        try:
            model, feeds = random_model(seed)
            failure = check_model(model, feeds, _graphopt)
        except InvalidGraph:
            continue  # counted by test_generator_makes_valid_and_varied_models
        if failure:
            failures.append(f"seed {seed}: {failure}")
    assert not failures, "run `python tools/fuzz.py --seeds N --keep DIR` for a repro:\n" + (
        "\n".join(failures)
    )


def test_generator_makes_valid_and_varied_models() -> None:
    ops: Counter[str] = Counter()
    opsets: set[int] = set()
    invalid = []
    for seed in SEEDS:
        try:
            model, feeds = random_model(seed)
            assert check_model(model, feeds, lambda given: given) is None
        except InvalidGraph as error:
            invalid.append(f"seed {seed}: {error}")
            continue
        ops += _op_types(model.graph)
        opsets.add(model.opset_import[0].version)
    assert len(invalid) <= 0.05 * len(SEEDS), "\n".join(invalid)
    standard = {op for op in ops if onnx.defs.has(op)}
    assert len(standard) >= 40, sorted(standard)
    assert {"If", "Loop", "Scan", "Conv", "BatchNormalization", "QuantizeLinear"} <= standard
    assert opsets == set(range(11, newest_opset() + 1))


def test_generator_is_deterministic() -> None:
    for seed in range(20):
        first, feeds = random_model(seed)
        second, again = random_model(seed)
        assert first.SerializeToString() == second.SerializeToString()
        for left, right in zip(feeds, again, strict=True):
            assert left.keys() == right.keys()
            assert all(np.array_equal(left[name], right[name]) for name in left)


def _raises(model: onnx.ModelProto) -> onnx.ModelProto:
    raise ZeroDivisionError("on purpose")


def _dangles(model: onnx.ModelProto) -> onnx.ModelProto:
    wrong = _copy(model)
    wrong.graph.node[-1].input[0] = "nobody"
    return wrong


def _computes_something_else(model: onnx.ModelProto) -> onnx.ModelProto:
    wrong = _copy(model)
    for node in wrong.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Abs"
    return wrong


def _renames_an_output(model: onnx.ModelProto) -> onnx.ModelProto:
    wrong = _copy(model)
    output = wrong.graph.output[0]
    wrong.graph.node.append(onnx.helper.make_node("Identity", [output.name], ["renamed"]))
    output.name = "renamed"
    return wrong


def _fixes_the_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    wrong = _copy(model)
    wrong.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    wrong.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    return wrong


def _drops_a_default(model: onnx.ModelProto) -> onnx.ModelProto:
    wrong = _copy(model)
    kept = [i for i in wrong.graph.input if i.name != "scale"]
    del wrong.graph.input[:]
    wrong.graph.input.extend(kept)
    return wrong


def _changes_its_argument(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.doc_string = "touched"
    return model


def _wrong_at_batch_3(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rows past the second become zero: right at batch 1 and 2."""
    wrong = _copy(model)
    graph = wrong.graph
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([2], np.int64), "two"))
    graph.node[-1].output[0] = "all_rows"
    graph.node.extend(
        onnx.parser.parse_graph(
            """g (float[N,4] all_rows, int64[1] two) => (float[N,4] y) {
            first = Constant <value_ints = [0]> ()
            end = Constant <value_ints = [100]> ()
            head = Slice (all_rows, first, two)
            tail = Slice (all_rows, two, end)
            nothing = Sub (tail, tail)
            y = Concat <axis = 0> (head, nothing)
        }"""
        ).node
    )
    return wrong


VICTIM = """<ir_version: 8, opset_import: ["" : 17]>
    victim (float[N,4] x, float[4] scale) => (float[N,4] y) <float[4] scale = {1.0,2.0,3.0,4.0}> {
        r = Relu (x)
        s = Mul (r, scale)
        t = Tanh (s)
        y = Add (t, x)
    }"""


@pytest.mark.parametrize(
    ("optimize", "kind"),
    [
        (_raises, "crash"),
        (_dangles, "invalid"),
        (_computes_something_else, "wrong"),
        (_renames_an_output, "interface"),
        (_fixes_the_batch, "interface"),
        (_drops_a_default, "interface"),
        (_changes_its_argument, "argument changed"),
        (_wrong_at_batch_3, "wrong: feed 2"),
    ],
)
def test_harness_catches_a_wrong_optimizer(
    optimize: Callable[[onnx.ModelProto], onnx.ModelProto], kind: str
) -> None:
    model = onnx.parser.parse_model(VICTIM)
    numbers = np.random.RandomState(0)
    feeds = [{"x": numbers.uniform(-1, 1, (n, 4)).astype(np.float32)} for n in (2, 1, 3)]
    assert check_model(model, feeds, lambda given: given) is None
    failure = check_model(model, feeds, optimize)
    assert failure is not None
    assert failure.startswith(kind)


def _turns_softmax_round(model: onnx.ModelProto) -> onnx.ModelProto:
    """Takes the last axis of every Softmax for its axis."""
    wrong = _copy(model)
    for node in wrong.graph.node:
        if node.op_type == "Softmax":
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("axis", -1))
    return wrong


def test_failure_is_found_and_shrunk_to_the_guilty_node(tmp_path: Path) -> None:
    found = None
    for seed in range(150):
        model, feeds = random_model(seed)
        failure = check_model(model, feeds, _turns_softmax_round)
        if failure and len(model.graph.node) > 15:
            found = (seed, model, feeds, failure)
            break
    assert found, "no seed in 0..150 shows the wrong Softmax"
    seed, model, feeds, failure = found

    def fails(candidate: onnx.ModelProto, fed: Sequence[Feed]) -> bool:
        onnx.checker.check_model(candidate, full_check=True)
        reason = check_model(candidate, fed, _turns_softmax_round)
        return reason is not None and reason.startswith("wrong")

    small, fed = shrink(model, feeds, fails)
    assert fails(small, fed)
    assert len(fed) == 1
    assert len(small.graph.output) == 1
    assert len(small.graph.node) <= 2
    assert "Softmax" in {node.op_type for node in small.graph.node}
    path = save_failure(tmp_path, f"seed{seed}", small, fed, failure)
    assert onnx.load(path) == small
    assert "Softmax" in path.with_suffix(".txt").read_text()
