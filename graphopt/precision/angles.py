"""Tells which angles half precision holds too few digits of, and makes them smaller.

    sin(x) is off by |x| 2^-12 where x is half:  0.4% for 16, and nothing of it is left for 4096

What was measured tells little of an angle that grows with the input (a position, a time step):
sequences come longer than they were on the data, and made-up inputs say nothing of the size of
what a user feeds. So those stay float32, from where they come from.

An angle that Sin and Cos both read is brought down to one turn, where half holds it to 2^-9, so
that one Cast serves both:

    a -> Sin -> Cast, a -> Cos -> Cast     ->     Mod(a, 2 pi) -> Cast -> Sin, Cos

The float32 nearest to 2 pi is off by 2.8e-8 of itself, and so is what is left of an angle, for all
that is taken away: about as much as float32 rounds the angle itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from graphopt.graph import constant_tensor, ir
from graphopt.graph.walk import imported_version
from graphopt.precision.evidence import Evidence
from graphopt.precision.integers import IntegerValues
from graphopt.precision.operators import MOVEMENT
from graphopt.precision.slots import holds_float32
from graphopt.rewrite import Journal, Rewriter

_LARGEST = 16.0
_FIRST_FLOAT_MOD = 10
_LINEAR = frozenset(
    {"Add", "Cast", "Concat", "Div", "Einsum", "Gemm", "MatMul", "Mul", "Neg", "Sub", "Sum"}
)
"""What a position or a time step passes on its way to an angle, beside what moves it."""


@dataclass(frozen=True)
class Angle:
    """An angle that needs more digits than half has.

    Attributes:
        reach: how large it is, in words.
        values: the angle, and what it comes from, as far as that has to be float32 too.
    """

    reach: str
    values: tuple[ir.Value, ...]


def angle_beyond(value: ir.Value, evidence: Evidence, integers: IntegerValues) -> Angle | None:
    """What keeps an angle from being half; None if it is small on every input."""
    if evidence.bound(value).magnitude <= _LARGEST:
        return None
    sources = _Sources(evidence, integers)
    grows = sources.reached_from(value)
    known = evidence.magnitude(value)
    if known is None:
        reach = "of unknown size"
    elif known > _LARGEST:
        reach = f"up to {known:.3g}"
    elif grows:
        reach = "that grows with the input"
    else:
        return None
    return Angle(reach, (value, *(found for found in sources.on_the_way if found is not value)))


class _Sources:
    """Walks from an angle to what counts, or to an input whose size nobody knows."""

    def __init__(self, evidence: Evidence, integers: IntegerValues) -> None:
        measurements = evidence.measurements
        self._real = measurements is not None and not measurements.made_up
        self._integers = integers
        self._seen: dict[ir.Value, bool] = {}
        self.on_the_way: list[ir.Value] = []

    def reached_from(self, value: ir.Value) -> bool:
        """Whether a source is reached; notes the float32 values on the way."""
        if value in self._seen:
            return self._seen[value]
        self._seen[value] = False  # until it is known
        found = self._seen[value] = self._is_source(value) or self._passes(value)
        if found and holds_float32(value):
            self.on_the_way.append(value)
        return found

    def _is_source(self, value: ir.Value) -> bool:
        if constant_tensor(value) is not None or value.dtype == ir.DataType.BOOL:
            return False
        if self._integers.is_position(value):
            return True
        is_integer = value.dtype is not None and value.dtype.is_integer()
        return not self._real and (is_integer or value.is_graph_input())

    def _passes(self, value: ir.Value) -> bool:
        node = value.producer()
        if node is None or node.domain != "":
            return False
        if node.op_type in MOVEMENT:
            read = [node.inputs[0]]
        elif node.op_type in _LINEAR:
            read = list(node.inputs)
        else:
            return False
        # Every one is looked at: what comes from two sources has two ways.
        reached = [given for given in read if given is not None and self.reached_from(given)]
        return bool(reached)


def has_angles(model: ir.Model) -> bool:
    """Whether there is anything for `reduce_angles` to look at."""
    return any(node.op_type == "Sin" and node.domain == "" for node in model.graph)


def reduce_angles(model: ir.Model, evidence: Evidence) -> list[str]:
    """Bring angles down to one turn, in place, where Sin and Cos both read them.

    Args:
        model: the float32 model; types must have been inferred.
        evidence: what is known of its values.

    Returns:
        The names of the angles.
    """
    if imported_version(model.opset_imports, "") < _FIRST_FLOAT_MOD:
        return []
    integers = IntegerValues(model)
    rewriter = Rewriter(model, Journal("convert-half"))
    reduced = []
    for node in list(model.graph):
        if node.op_type != "Sin" or node.domain != "":
            continue
        angle = node.inputs[0]
        if angle is None or not holds_float32(angle) or constant_tensor(angle) is not None:
            continue
        readers = [use.node for use in angle.uses() if use.node.op_type in ("Cos", "Sin")]
        readers = [reader for reader in readers if reader.graph is model.graph]
        if {reader.op_type for reader in readers} != {"Cos", "Sin"}:
            continue
        if angle_beyond(angle, evidence, integers) is None:
            continue
        reduced.append(angle.name or "")
        _reduce(model.graph, angle, readers, rewriter)
    return reduced


def _reduce(graph: ir.Graph, angle: ir.Value, readers: list[ir.Node], rewriter: Rewriter) -> None:
    first = next(node for node in graph if node in readers)
    rewriter.begin(first)
    turn = rewriter.initializer(np.array(math.tau, np.float32), f"{angle.name}_turn")
    modulo = ir.Node("", "Mod", [angle, turn], [ir.AttrInt64("fmod", 1)], num_outputs=1)
    made = modulo.outputs[0]
    made.name = rewriter.unique_name(f"{angle.name}_reduced")
    made.type = ir.TensorType(ir.DataType.FLOAT)
    made.shape = None if angle.shape is None else angle.shape.copy()
    modulo.name = f"{made.name}_Mod"
    graph.insert_before(first, modulo)
    for reader in readers:
        reader.replace_input_with(0, made)
