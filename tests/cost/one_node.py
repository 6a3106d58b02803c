"""Models of one node, run and counted: the check of a rule against a loop.

A loop computes an operator and counts what it does. Its numbers are compared with what ONNX
Runtime gives for a model of that one node (or ONNX's reference, where ONNX Runtime has no
kernel), which proves that the loop is the operator; then what it counted is compared, to the
integer, with what the rule says.
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
from tests.cost.counted import counted, plain, tally

MICROSOFT, ML = "com.microsoft", "ai.onnx.ml"
_VERSIONS = {"": 21, MICROSOFT: 1, ML: 1, "ai.onnx.preview": 1}


@dataclass(frozen=True)
class Case:
    """One node, and the loop that does the same.

    Attributes:
        op_type: its op type.
        loop: gives the outputs to compare; None where only bytes are compared. It gets one array
            of `Counted` for each input.
        inputs: by position; None where one is left out.
        attributes: the node's.
        opset: the version of its domain; None for the usual one.
        domain: its domain.
        constants: positions of the inputs that are constants of the model; the loop gets them
            as plain numbers.
        outputs: how many the node has.
        label: tells it from others of the same op type.
        explicit: whether the loop gets the tally, plain numbers and the attributes instead.
        reference: whether ONNX's reference proves the loop, for want of a kernel.
        tolerance: absolute; 1 for quantized numbers, which may be rounded at a tie.
    """

    op_type: str
    loop: Callable[..., Any] | None
    inputs: Sequence[np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int | None = None
    domain: str = ""
    constants: tuple[int, ...] = ()
    outputs: int = 1
    label: str = ""
    explicit: bool = False
    reference: bool = False
    tolerance: float = 1e-4

    def __str__(self) -> str:
        return f"{self.op_type}-{self.label}" if self.label else self.op_type

    @property
    def version(self) -> int:
        return _VERSIONS[self.domain] if self.opset is None else self.opset

    def model(self) -> onnx.ModelProto:
        """The model of that one node, with its free inputs as graph inputs."""
        names = ["" if array is None else f"x{index}" for index, array in enumerate(self.inputs)]
        outputs = [f"y{index}" for index in range(self.outputs)]
        node = helper.make_node(
            self.op_type, names, outputs, domain=self.domain, name="node", **self.attributes
        )
        while node.input and not node.input[-1]:
            node.input.pop()
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
        imports = [helper.make_opsetid("", _VERSIONS[""] if self.domain else self.version)]
        if self.domain:
            imports.append(helper.make_opsetid(self.domain, self.version))
        return helper.make_model(graph, ir_version=10, opset_imports=imports)


def run(case: Case) -> tuple[onnx.ModelProto, list[Any]]:
    """The case's model with the shapes of its outputs filled in, and what the runtime gives."""
    model = case.model()
    feed = {
        f"x{index}": array
        for index, array in enumerate(case.inputs)
        if array is not None and index not in case.constants
    }
    if case.reference:
        from onnx.reference import ReferenceEvaluator

        found = ReferenceEvaluator(model).run(None, feed)
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
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
    assert case.loop is not None
    tally.clear()
    if case.explicit:
        outcome = case.loop(tally, *case.inputs, **case.attributes)
    else:
        outcome = case.loop(
            *(
                array if array is None or index in case.constants else counted(array)
                for index, array in enumerate(case.inputs)
            )
        )
    done = tally.counts
    for got, wanted in zip(
        outcome if isinstance(outcome, tuple) else (outcome,), expected, strict=False
    ):
        assert np.shape(got) == np.shape(wanted)
        np.testing.assert_allclose(plain(got), wanted.astype(float), rtol=2e-4, atol=case.tolerance)
    work = work_of(case, model, expected)
    assert (work.macs, work.elementwise, work.transcendentals) == done
    return work


# ONNX's inference has no rule for two of them; the outputs of the others depend on their data.
_WITHOUT_SHAPE = frozenset(
    ["GroupNormalization", "MeanVarianceNormalization", "Compress", "NonMaxSuppression", "Unique"]
)


def work_of(case: Case, model: onnx.ModelProto, results: Sequence[Any]) -> Work:
    """What the rule says: of the shapes that there are, and by way of `estimate_cost`.

    The latter only where ONNX can tell the output's shape; both have to say the same then.
    """
    node = next(iter(ir.from_proto(model).graph))
    known = [
        None if array is None else _tensor(array, constant=index in case.constants)
        for index, array in enumerate(case.inputs)
    ]
    given = [_tensor(array, constant=False) for array in results]
    work = rules()[case.domain, case.op_type].count(Operator(node, case.version, known, given))
    work = replace(
        work,
        reads=sum(a.nbytes for a in case.inputs if a is not None)
        if work.reads is None
        else work.reads,
        writes=sum(array.nbytes for array in results) if work.writes is None else work.writes,
    )
    if not case.domain and onnx.defs.has(case.op_type) and case.op_type not in _WITHOUT_SHAPE:
        (row,) = estimate_cost(model).by_node
        if not row.executions:  # of constants alone: done before the run
            return work
        assert row.counted, row.note
        found = (row.macs, row.flops - 2 * row.macs, row.transcendentals)
        assert found == (work.macs, work.elementwise, work.transcendentals)
        return replace(work, reads=row.bytes_read, writes=row.bytes_written)
    return work


def _tensor(array: np.ndarray, *, constant: bool) -> Tensor:
    """As the walk over a model would give it: whole numbers are known, where they are constant."""
    elements: tuple[int | None, ...] | None = None
    if constant and array.size <= 64 and array.dtype.kind in "iufb":
        numbers = [float(item) for item in array.flat]
        elements = tuple(int(number) if number.is_integer() else None for number in numbers)
    return Tensor("x", ir.DataType.from_numpy(array.dtype), array.shape, elements)
