"""Finds mask constants (-1e9, float32's minimum) that may as well be the lowest half number.

    Softmax(scores + mask),  mask in {0, -1e9}      ->  mask in {0, -49152}
    Where(cond, scores, -3.4e38) into Softmax       ->  the same
    Clip(x, -1e9, 1e9)                              ->  the bounds of half itself

Sound where the number only has to be far below all others: where everything that the value
reaches, by way of additions, selections and movement, is a Softmax or the choice of a largest.
What is added to -1e9 in float32 is lost in it, so that a row with nothing but masks comes out
even. Of float16 that is true of scores below 16, half the gap between numbers at 3/4 of the
range; so that is what a mask is clamped to. Two masks that are added must not become -infinity,
since a row of it makes Softmax give NaN: those are clamped to half the range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from graphopt.graph import ir
from graphopt.precision.evidence import Evidence
from graphopt.precision.flow import Flow
from graphopt.precision.operators import MOVEMENT

_SELECTING = MOVEMENT | {"Concat", "Identity", "Max", "Min", "Pad", "Cast"}
_ENDS = frozenset({"ArgMax", "Softmax", "Hardmax"})
_LOW = 49152 / 65504
_NEAR_ONE = 1.0 + 1e-6


@dataclass(frozen=True)
class Masks:
    """Which constants may be clamped.

    Attributes:
        bounds: constant, or output of ConstantOfShape -> the magnitude to clamp it to.
    """

    bounds: Mapping[ir.Value, float] = field(default_factory=dict)


def find_masks(flow: Flow, evidence: Evidence) -> Masks:
    """Look at every constant beyond the range; tells `evidence` what they no longer reach."""
    largest = evidence.half.largest
    ends = _Ends()
    bounds: dict[ir.Value, float] = {}
    for tensor in flow.tensors:
        value = tensor.value
        producer = value.producer()
        filled = producer is not None and producer.op_type == "ConstantOfShape"
        if tensor.producer is not None and not filled:
            continue
        lowest, magnitude = _extremes(value, evidence, filled=filled)
        if magnitude <= largest:
            continue
        uses = [use for use in tensor.uses if use.cluster is not None]
        if uses and all(_is_limit(use.holder, use.index) for use in uses):
            bounds[value] = largest
        elif lowest < -largest and all(
            isinstance(use.holder, ir.Node) and _masks(use.holder, use.index, ends, evidence)
            for use in uses
        ):
            bounds[value] = _LOW * largest
            for use in uses:
                if isinstance(use.holder, ir.Node):
                    _raise_floors(use.holder.outputs, -largest, evidence)
            if filled:
                evidence.raise_floor(value, -largest)
    if _masks_meet(flow, evidence):
        bounds = {v: largest / 2 if b == _LOW * largest else b for v, b in bounds.items()}
    return Masks(bounds)


def _masks_meet(flow: Flow, evidence: Evidence) -> bool:
    """Whether one mask is added to another."""
    return any(
        node.op_type == "Add"
        and all(value is not None and evidence.is_floored(value) for value in node.inputs)
        for node in flow.by_node
    )


def _extremes(value: ir.Value, evidence: Evidence, *, filled: bool) -> tuple[float, float]:
    if filled:
        producer = value.producer()
        held = None if producer is None else producer.attributes.get("value")
        number = 0.0 if held is None else float(held.as_tensor().numpy().reshape(-1)[0])
        return number, abs(number)
    facts = evidence.constant(value)
    return (0.0, 0.0) if facts is None else (facts.lowest, facts.magnitude)


def _is_limit(holder: ir.Node | ir.Graph, index: int) -> bool:
    """Whether the constant limits values that cannot pass the range of half anyway."""
    return isinstance(holder, ir.Node) and (
        (holder.op_type == "Clip" and index > 0)
        or (holder.op_type in ("Max", "Min") and len(holder.inputs) == 2)
    )


def _masks(node: ir.Node, index: int, ends: _Ends, evidence: Evidence) -> bool:
    """Whether the constant only pushes values far down on their way to a Softmax."""
    if node.op_type == "Mul":
        other = node.inputs[1 - index]
        measured, bound = evidence.measured(other), evidence.bound(other)
        low = bound.low if measured is None else measured.minimum
        high = bound.high if measured is None else measured.maximum
        if not (low >= 0.0 and high <= _NEAR_ONE):
            return False
    elif node.op_type not in ("Add", "Where") and node.op_type not in _SELECTING:
        return False
    return all(ends.only_sinks(value) for value in node.outputs)


class _Ends:
    """Tells whether all that becomes of a value is that small numbers count for nothing."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, bool] = {}

    def only_sinks(self, value: ir.Value) -> bool:
        found = self._known.get(value)
        if found is None:
            self._known[value] = False  # on a cycle through a loop: do not know
            found = self._known[value] = self._look(value)
        return found

    def _look(self, value: ir.Value) -> bool:
        if value.is_graph_output():
            return False
        for use in value.uses():
            node = use.node
            if node.op_type in _ENDS or node.op_type in ("Shape", "Size"):
                continue
            passes = node.op_type in ("Add", "Where") or node.op_type in _SELECTING
            if node.op_type in MOVEMENT and use.idx > 0:
                passes = False
            if node.op_type == "Cast" and node.attributes.get_int("to", 0) not in (1, 10, 16):
                passes = False
            if not passes or not all(self.only_sinks(made) for made in node.outputs):
                return False
        return bool(value.uses())


def _raise_floors(values: Iterable[ir.Value], floor: float, evidence: Evidence) -> None:
    """Everything on the way to the Softmax is no lower than the masks are."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if evidence.is_floored(value):
            continue
        evidence.raise_floor(value, floor)
        for use in value.uses():
            node = use.node
            if node.op_type in ("Add", "Where", "Cast") or node.op_type in _SELECTING:
                waiting.extend(node.outputs)
