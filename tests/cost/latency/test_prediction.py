"""Predictions from a profile made by hand, whose sums can be done by hand."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphopt.cost.latency import MachineProfile, measure, predict
from graphopt.cost.latency.machine import Ceilings, ClassFit, ThreadFit
from graphopt.cost.latency.regression import Parameters
from graphopt.errors import UsageError

_START = 2e-6
_PER_BYTE = 1e-9
_RUN = (3e-6, 5e-7)


def _machine() -> MachineProfile:
    """Tanh takes 2 us and 1 ns for each byte; nothing else is known."""
    targets = (0.0, 0.0, 0.0, 0.0)
    features = tuple((size, *[0.0] * 8) for size in (2.0, 6.0, 10.0, 14.0))
    # Of an elementwise class: start, bytes, elements, scales, runs, cold start, and far bytes.
    rates = (_START, _PER_BYTE, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    parameters = Parameters((1.0,) * 9, 0.3, 0.1, 0.05)
    tanh = ClassFit(rates, features, targets, (0.01,) * 4, (0, 1, 2, 3), parameters)
    ceilings = Ceilings(1e11, 4e11, 1e11, 1e10, 2e-7)
    fit = ThreadFit(ceilings, _RUN, 1e-6, 0.05, (0.5, 0.8), {"Tanh": tanh})
    return MachineProfile("here", "a processor", 2, "1.0", "cpu", {1: fit, 2: replace(fit)})


def _chain(*operators: str, size: int | str = 256) -> onnx.ModelProto:
    names = [f"x{index}" for index in range(len(operators) + 1)]
    nodes = [
        helper.make_node(op_type, [names[index]], [names[index + 1]], name=f"{op_type}_{index}")
        for index, op_type in enumerate(operators)
    ]
    shape = [1, size]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_sum_of_the_kernels_and_the_overheads_of_a_run() -> None:
    found = predict(_chain("Tanh", "Tanh", "Tanh"), _machine())
    each = _START + _PER_BYTE * 2 * 4 * 256
    assert [node.op_type for node in found.by_node] == ["Tanh"] * 3
    np.testing.assert_allclose([node.seconds for node in found.by_node], each, rtol=1e-9)
    # One input and one output of the graph.
    assert found.seconds == pytest.approx(3 * each + _RUN[0] + 2 * _RUN[1])
    assert sum(node.share for node in found.by_node) == pytest.approx(3 * each / found.seconds)
    assert found.notes == ()


def test_the_interval_widens_where_less_is_known() -> None:
    known = predict(_chain("Tanh", size=256), _machine())
    far = predict(_chain("Tanh", size=1 << 20), _machine())
    unknown = predict(_chain("Erf", size=256), _machine())
    for found in (known, far, unknown):
        assert found.low < found.seconds < found.high
    nodes = [found.by_node[0] for found in (known, far, unknown)]
    width = [np.log(node.high / node.low) for node in nodes]
    assert width[0] < width[1] < width[2]
    assert len(unknown.notes) == 1
    assert unknown.notes[0].startswith("Erf: 1 nodes of a class that was not calibrated")


def test_a_free_batch_is_one_and_other_free_dims_are_asked_for() -> None:
    with pytest.raises(UsageError, match="'wide' of input 'x0'"):
        predict(_chain("Tanh", size="wide"), _machine())
    sized = predict(_chain("Tanh", size="wide"), _machine(), dims={"wide": 256})
    assert sized.seconds == pytest.approx(predict(_chain("Tanh"), _machine()).seconds)


def test_threads_that_were_not_calibrated_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no fit for 3 threads \(it has: 1, 2\)"):
        predict(_chain("Tanh"), _machine(), threads=3)


def test_measured_beside_predicted() -> None:
    model = _chain("Tanh", "Erf", "Tanh", size=1 << 14)
    found = measure(model, profile=_machine(), seconds=0.1)
    assert [node.op_type for node in found.by_node] == ["Tanh", "Erf", "Tanh"]
    assert found.predicted is not None
    for node, guess in zip(found.by_node, found.predicted.by_node, strict=True):
        assert (node.name, node.predicted) == (guess.name, guess.seconds)
        assert node.seconds > 0
    assert found.quartiles[0] <= found.seconds <= found.quartiles[1]
    # The kernels take most of a run, and no more than a little beyond it.
    assert 0.3 < sum(node.share for node in found.by_node) < 1.25


def test_measured_without_a_profile() -> None:
    found = measure(_chain("Tanh"), seconds=0.05)
    assert found.predicted is None
    assert found.of_peak is None
    assert [(node.predicted, node.of_peak) for node in found.by_node] == [(None, None)]


def test_rows_are_what_pandas_takes() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(predict(_chain("Tanh", "Tanh"), _machine()).by_node)
    assert list(table.columns[:4]) == ["name", "op_type", "kind", "seconds"]
    assert len(table) == 2
