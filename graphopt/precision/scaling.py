"""Moves a scale ahead of a sum that overflows without it.

    ReduceSum(x) * c     ->  ReduceSum(x * c)         the mean of squares: c = 1 / n
    MatMul(q, k) * c     ->  MatMul(q * c, k)         attention logits: c = 1 / sqrt(d)
    and the same for / d with c = 1 / d

Exact but for the rounding of x * c, and no Cast is needed. Done only where the sum was measured
to leave the range, its product with the scale was not, and nobody else reads the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from graphopt.graph import constant_tensor, ir
from graphopt.precision.evidence import Measured, Measurements
from graphopt.precision.formats import HalfFormat
from graphopt.rewrite import Journal, Rewriter

_LINEAR = frozenset({"MatMul", "ReduceSum"})


@dataclass(frozen=True)
class _Place:
    linear: ir.Node
    scale: ir.Node
    factor: float


def move_scales(
    model: ir.Model, measurements: Measurements, half: HalfFormat
) -> tuple[Measurements, list[str]]:
    """Rewrite `model` in place where it helps.

    Returns:
        The measurements, with those of the new values, and the names of the sums concerned.
    """
    ranges = dict(measurements.by_name)
    limit = half.largest / measurements.margin
    rewriter = Rewriter(model, Journal("convert-half"))
    moved = []
    for node in list(model.graph):
        place = _place(node, ranges, limit)
        if place is None:
            continue
        source = place.linear.inputs[0]
        if source is None or source.name not in ranges:
            continue
        moved.append(place.linear.outputs[0].name or "")
        made = _rewrite(place, source, rewriter)
        known = ranges[source.name or ""]
        ends = sorted((known.minimum * place.factor, known.maximum * place.factor))
        ranges[made] = Measured(ends[0], ends[1])
    return replace(measurements, by_name=ranges), moved


def _place(node: ir.Node, ranges: Mapping[str, Measured], limit: float) -> _Place | None:
    if node.op_type not in ("Mul", "Div") or node.domain != "":
        return None
    for index in (0, 1) if node.op_type == "Mul" else (0,):
        value, other = node.inputs[index], node.inputs[1 - index]
        held = constant_tensor(other)
        linear = None if value is None else value.producer()
        if value is None or held is None or held.size != 1 or len(held.shape) or linear is None:
            continue
        if linear.op_type not in _LINEAR or linear.graph is not node.graph:
            continue
        number = float(held.numpy().item())
        if held.dtype != ir.DataType.FLOAT or number == 0:
            continue
        factor = 1 / number if node.op_type == "Div" else number
        before, after = ranges.get(value.name or ""), ranges.get(node.outputs[0].name or "")
        if before is None or after is None or abs(factor) >= 1:
            continue
        alone = len(list(value.uses())) == 1 and not value.is_graph_output()
        if alone and before.magnitude > limit >= after.magnitude:
            return _Place(linear, node, factor)
    return None


def _rewrite(place: _Place, source: ir.Value, rewriter: Rewriter) -> str:
    """Put the product ahead of the sum; the name of what it gives."""
    rewriter.begin(place.scale)
    rewriter.stand_for([place.linear, place.scale])
    constant = rewriter.initializer(
        np.array(place.factor, np.float32), f"{place.scale.outputs[0].name}_scale"
    )
    scaled = rewriter.node("Mul", [source, constant])
    scaled.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    scaled.outputs[0].shape = None if source.shape is None else source.shape.copy()
    linear = rewriter.node(
        place.linear.op_type,
        [scaled.outputs[0], *place.linear.inputs[1:]],
        list(place.linear.attributes.values()),
    )
    rewriter.replace(place.scale, linear)
    return scaled.outputs[0].name or ""
