"""Models of one node, run and counted: the check of a rule against a loop.

A loop computes an operator with `Counted` scalars. Its numbers are compared with what ONNX
Runtime gives for a model of that one node, which proves that the loop is the operator; then what
it counted is compared, to the integer, with what the rule says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from graphopt.cost import Operator, Tensor, Work, estimate_cost
from graphopt.cost.rules import rules
from graphopt.graph import ir
from tests.cost.counted import Tally, counted, plain


@dataclass(frozen=True)
class Case:
    """One node, and the loop that does the same.

    Attributes:
        op_type: its op type.
        loop: gets one array of `Counted` for each input, and gives the outputs to compare; None
            where only bytes are compared.
        inputs: by position; None where one is left out.
        attributes: the node's.
        opset: the version of its domain.
        domain: its domain.
        constants: positions of the inputs that are constants of the model; the loop gets them
            as plain numbers.
        outputs: how many the node has.
        label: tells it from others of the same op type.
    """

    op_type: str
    loop: Callable[..., Any] | None
    inputs: Sequence[np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 21
    domain: str = ""
    constants: tuple[int, ...] = ()
    outputs: int = 1
    label: str = ""

    def __str__(self) -> str:
        return f"{self.op_type}-{self.label}" if self.label else self.op_type

    def model(self) -> onnx.ModelProto:
        """The model of that one node, with its free inputs as graph inputs."""
        names = ["" if array is None else f"x{index}" for index, array in enumerate(self.inputs)]
        outputs = [f"y{index}" for index in range(self.outputs)]
        node = helper.make_node(
            self.op_type, names, outputs, domain=self.domain, name="node", **self.attributes
        )
        given = [(i, n, a) for i, (n, a) in enumerate(zip(names, self.inputs, strict=True)) if n]
        graph = helper.make_graph(
            [node],
            "one_node",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
                )
                for index, name, array in given
                if index not in self.constants
            ],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [onnx.numpy_helper.from_array(a, n) for i, n, a in given if i in self.constants],
        )
        imports = [helper.make_opsetid("", 21 if self.domain else self.opset)]
        if self.domain:
            imports.append(helper.make_opsetid(self.domain, self.opset))
        return helper.make_model(graph, ir_version=10, opset_imports=imports)


def run(case: Case) -> tuple[onnx.ModelProto, list[Any]]:
    """The case's model with the shapes of its outputs filled in, and what ONNX Runtime gives."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    model = case.model()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {
        f"x{index}": array
        for index, array in enumerate(case.inputs)
        if array is not None and index not in case.constants
    }
    found = session.run(None, feed)
    del model.graph.output[:]
    for index, array in enumerate(found):
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        model.graph.output.append(
            helper.make_tensor_value_info(f"y{index}", dtype, np.shape(array))
        )
    return model, found


def check(case: Case) -> Work:
    """Assert that the loop is the operator, and that the rule counts what the loop does."""
    model, expected = run(case)
    arguments = [
        array if array is None or index in case.constants else counted(array)
        for index, array in enumerate(case.inputs)
    ]
    Tally.clear()
    assert case.loop is not None
    outcome = case.loop(*arguments)
    tally = (Tally.macs, Tally.elementwise, Tally.transcendentals)
    for got, wanted in zip(
        outcome if isinstance(outcome, tuple) else (outcome,), expected, strict=False
    ):
        np.testing.assert_allclose(plain(got), wanted.astype(float), rtol=2e-4, atol=2e-5)
    work = work_of(case, model, expected)
    assert (work.macs, work.elementwise, work.transcendentals) == tally
    return work


# ONNX's inference has no rule for two of them; the third's output depends on its data.
_WITHOUT_SHAPE = frozenset(["GroupNormalization", "MeanVarianceNormalization", "Compress"])


def work_of(case: Case, model: onnx.ModelProto, results: Sequence[Any]) -> Work:
    """What the rule says: by way of `estimate_cost`, where ONNX can tell the output's shape."""
    if not case.domain and case.op_type not in _WITHOUT_SHAPE:
        (row,) = estimate_cost(model).by_node
        assert row.counted, row.note
        return Work(
            row.macs,
            row.flops - 2 * row.macs,
            row.transcendentals,
            row.bytes_read,
            row.bytes_written,
            row.note,
        )
    node = next(iter(ir.from_proto(model).graph))
    tensors = [
        [None if array is None else _tensor(array) for array in side]
        for side in (case.inputs, results)
    ]
    work = rules()[case.domain, case.op_type].count(Operator(node, case.opset, *tensors))
    read = sum(array.nbytes for array in case.inputs if array is not None)
    written = sum(array.nbytes for array in results)
    return replace(
        work,
        reads=read if work.reads is None else work.reads,
        writes=written if work.writes is None else work.writes,
    )


def _tensor(array: np.ndarray) -> Tensor:
    return Tensor("x", ir.DataType.from_numpy(array.dtype), array.shape)
