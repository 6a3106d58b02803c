"""Decides which nodes of a model are constant, and evaluates those that numpy can.

The nodes left over, those that need the runtime, are `pending`: they are evaluated together
afterwards. bfloat16, for which runtimes have few kernels, is computed in float32 and rounded once:
where the constant part of the graph ends, or where the graph casts it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphopt.plugin import (
    Journal,
    NotApplicable,
    constant_array,
    constant_tensor,
    ir,
    nested_graphs,
    site_of,
    symbolic_value,
)

from .arithmetic_kernels import ARITHMETIC
from .eligibility import (
    check_foldable,
    check_runtime_operands,
    is_standard,
)
from .growth import Credits, planned_bytes
from .movement_kernels import MOVEMENT, Array, Kernel

_BFLOAT16 = ir.DataType.BFLOAT16
_SHAPE_TYPES = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)

_FAILURES = (ValueError, IndexError, TypeError, ArithmeticError)
"""What numpy raises for inputs that an operator does not take."""


class Plan:
    """What can be folded.

    Attributes:
        arrays: the values known so far, constants that were read included. A bfloat16 value
            may be held in float32: it is not rounded yet.
        folded: the nodes to fold, in an order in which inputs come first.
        pending: those of `folded` whose outputs only the runtime can compute.
    """

    def __init__(
        self, model: ir.Model, journal: Journal, limit: int, failed: Mapping[ir.Node, str]
    ) -> None:
        self.arrays: dict[ir.Value, Array] = {}
        self.folded: dict[ir.Node, None] = {}
        self.pending: dict[ir.Node, None] = {}
        self._model = model
        self._journal = journal
        self._credits = Credits(limit)
        self._failed = failed
        self._opset = _standard_opset(model.graph.opset_imports)
        for graph in nested_graphs(model.graph):
            self._visit_graph(graph, self._opset)
        for function in model.functions.values():
            for graph in nested_graphs(function.graph):
                self._visit_graph(graph, _standard_opset(function.opset_imports))

    def _visit_graph(self, graph: ir.Graph, opset: int) -> None:
        for node in graph:
            if node.op_type == "Constant" and node.domain == "":
                continue
            if opset == self._opset and self._fold_known(node):
                continue
            try:
                if self._is_constant_node(node):
                    self._fold(node, opset)
            except NotApplicable as refusal:
                self._journal.decline(site_of(node), str(refusal))

    def _fold_known(self, node: ir.Node) -> bool:
        """Fold a node whose results shape inference knows, whatever its inputs."""
        known: list[Array] = []
        for value in node.outputs:
            elements = symbolic_value(value)
            dtype = value.dtype
            if elements is None or dtype not in _SHAPE_TYPES:
                return False
            if not all(isinstance(item, int) for item in elements.flat):
                return False
            known.append(elements.astype(dtype.numpy()))
        if not known or not is_standard(node, self._model):
            return False
        if sum(array.nbytes for array in known) > self._credits.limit:
            return False
        self.arrays.update(zip(node.outputs, known, strict=True))
        self.folded[node] = None
        return True

    def _is_constant_node(self, node: ir.Node) -> bool:
        defaults = []
        for value in node.inputs:
            if value is None or self._is_constant(value):
                continue
            if not (value.is_initializer() and value.is_graph_input()):
                return False
            defaults.append(value.name)
        if defaults:
            raise NotApplicable(f"the caller can override '{defaults[0]}'")
        return bool(node.outputs)

    def _is_constant(self, value: ir.Value) -> bool:
        if value in self.arrays or value.producer() in self.pending:
            return True
        return constant_tensor(value) is not None

    def _fold(self, node: ir.Node, opset: int) -> None:
        if node in self._failed:
            raise NotApplicable(self._failed[node])
        if opset != self._opset:
            # Runtimes differ in which of the two they take for the body.
            raise NotApplicable(
                f"the function imports operator set {opset}, the model {self._opset}"
            )
        check_foldable(node, self._model, self._array)
        size = self._size(node)
        if size is None:
            raise NotApplicable("the size of its result is not known")
        growth = self._credits.growth(node, size, self._size_if_constant)
        if growth > self._credits.limit:
            raise NotApplicable(
                f"the result would add {growth:.0f} bytes, more than limit={self._credits.limit}"
            )
        results = self._compute(node)
        if results is None:
            check_runtime_operands(node, self._array)
            self.pending[node] = None
        else:
            self.arrays.update(zip(node.outputs, results, strict=False))
        self.folded[node] = None

    def _size_if_constant(self, node: ir.Node) -> int | None:
        """The bytes of the results of a node further on; None where it may not be folded."""
        if node in self._failed:
            return None
        if any(value is not None and not self._is_constant(value) for value in node.inputs):
            return None
        try:
            check_foldable(node, self._model, self._array)
            return self._size(node)
        except NotApplicable:
            return None

    def _size(self, node: ir.Node) -> int | None:
        inputs = self._input_arrays(node) if _kernel(node) is not None else None
        try:
            return planned_bytes(node, inputs)
        except _FAILURES as error:
            raise NotApplicable("it fails on its inputs") from error

    def _input_arrays(self, node: ir.Node) -> list[Array | None] | None:
        """The inputs, where all are known; None if one waits for the runtime."""
        arrays: list[Array | None] = []
        for value in node.inputs:
            array = None if value is None else self._array(value)
            if array is None and value is not None:
                return None
            arrays.append(array)
        return arrays

    def _array(self, value: ir.Value) -> Array | None:
        if value not in self.arrays:
            array = constant_array(value)
            if array is None or array.dtype == object:
                return None
            self.arrays[value] = array
        return self.arrays[value]

    def _compute(self, node: ir.Node) -> list[Array] | None:
        kernel = _kernel(node)
        inputs = self._input_arrays(node)
        if kernel is None or inputs is None:
            return None
        narrow = [
            i
            for i, value in enumerate(node.inputs)
            if value is not None and value.dtype == _BFLOAT16
        ]
        widen = node.op_type not in MOVEMENT
        for i in narrow:
            array, value = inputs[i], node.inputs[i]
            if array is None or value is None:
                continue
            if node.op_type == "Cast":
                inputs[i] = rounded(array, value)
            widen = widen or array.dtype == np.float32
        if widen:
            for i in narrow:
                array = inputs[i]
                inputs[i] = None if array is None else array.astype(np.float32)
        try:
            result = kernel(node, inputs)
        except _FAILURES as error:
            raise NotApplicable("it fails on its inputs") from error
        if result is None:
            return None
        results = result if isinstance(result, list) else [result]
        fits = len(results) == len(node.outputs) and all(map(_fits, results, node.outputs))
        return results if fits else None


def _standard_opset(imports: Mapping[str, int]) -> int:
    return imports.get("", imports.get("ai.onnx", 0))


def rounded(array: Array, value: ir.Value) -> Array:
    """The data of `value` in its own type: bfloat16 is rounded here, and only here."""
    if value.dtype == _BFLOAT16 and array.dtype == np.float32:
        with np.errstate(over="ignore"):
            return array.astype(value.dtype.numpy())
    return array


def _kernel(node: ir.Node) -> Kernel | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    return MOVEMENT.get(node.op_type) or ARITHMETIC.get(node.op_type)


def _fits(array: Array, value: ir.Value) -> bool:
    """Whether a computed array has the type that the value was inferred to have."""
    if value.dtype is None:
        return array.dtype.kind in "biu" or array.dtype == np.float64
    wanted = value.dtype.numpy()
    return bool(array.dtype == wanted or (value.dtype == _BFLOAT16 and array.dtype == np.float32))
