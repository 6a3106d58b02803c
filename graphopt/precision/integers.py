"""Tells which float values hold integers by construction: positions, counts, sizes, indices.

    Cast(int -> float), Range, Floor, Ceil, Round, integral constants,
    and Add, Sub, Mul, sums, selections and movement of such.

A *position* is one whose size grows with the input: it comes from Shape, Range, CumSum, NonZero,
ArgMax or TopK. A mask that is cast from an integer input is an integer too, but no position.
"""

from __future__ import annotations

import numpy as np

from graphopt.graph import constant_tensor, ir, nested_graphs
from graphopt.graph.constants import constant_array
from graphopt.precision.operators import MOVEMENT, ROUNDING
from graphopt.precision.slots import holds_float32

_CLOSED = MOVEMENT | {
    "Abs",
    "Add",
    "Clip",
    "Concat",
    "CumSum",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Pad",
    "ReduceMax",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Sub",
    "Where",
}
_COUNTING = frozenset({"ArgMax", "ArgMin", "CumSum", "NonZero", "Range", "Shape", "Size"})
_FEW = 1 << 16


class IntegerValues:
    """The integer-valued floats of a model, from one walk over it."""

    def __init__(self, model: ir.Model) -> None:
        self._integral: dict[ir.Value, bool] = {}
        self._position: dict[ir.Value, bool] = {}
        for graph in nested_graphs(model.graph):
            for node in graph:
                self._read(node)

    def holds(self, value: ir.Value) -> bool:
        """Whether a float value holds integers only, in every run."""
        found = self._integral.get(value)
        if found is None:
            found = self._integral[value] = _is_integral_constant(value)
        return found

    def is_position(self, value: ir.Value) -> bool:
        """Whether a value counts something that grows with the input."""
        return self._position.get(value, False)

    def _read(self, node: ir.Node) -> None:
        if node.domain != "" or not node.outputs:
            return
        inputs = [value for value in node.inputs if value is not None]
        moved = inputs[:1] if node.op_type in MOVEMENT else inputs
        if node.op_type == "Where":
            moved = inputs[1:]
        if node.op_type == "TopK":
            self._position[node.outputs[-1]] = True
            moved = []
        position = node.op_type in _COUNTING or (
            (node.op_type in _CLOSED or node.op_type in ROUNDING or node.op_type == "Cast")
            and any(self.is_position(value) for value in moved)
        )
        # A position in an integer type counts as well: a Cast may follow.
        if position:
            for made in node.outputs:
                self._position[made] = True
        if not holds_float32(node.outputs[0]):
            return
        if node.op_type in ROUNDING or node.op_type == "Range":
            integral = node.op_type in ROUNDING or all(self.holds(value) for value in inputs)
        elif node.op_type == "Cast":
            source = inputs[0].dtype if inputs else None
            integral = source is not None and (
                source.is_integer() or source == ir.DataType.BOOL or self.holds(inputs[0])
            )
        else:
            integral = node.op_type in _CLOSED and bool(moved) and all(map(self.holds, moved))
        for made in node.outputs:
            self._integral[made] = integral


def _is_integral_constant(value: ir.Value) -> bool:
    if constant_tensor(value) is None:
        return False
    array = constant_array(value, _FEW)
    if array is None or array.dtype.kind not in "fiu":
        return False
    return bool(np.all(array == np.rint(array)))
