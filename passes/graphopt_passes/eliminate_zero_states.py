"""Leave out the first state of a recurrent layer where it is zero anyway.

    LSTM(x, w, r, b, lengths, zeros, zeros)   ->  LSTM(x, w, r, b, lengths)     and GRU, RNN

The operators begin with zeros where no state is given. Exporters make the zeros, of the size of the
batch, from the shape of the input; what nobody else reads of that goes too. Zero for certain are
constants of zeros, ConstantOfShape of zeros, and what only moves, copies or takes from those.
"""

from __future__ import annotations

from graphopt.plugin import (
    Match,
    Promise,
    RewritePass,
    Rewriter,
    constant_array,
    constant_tensor,
    ir,
    op,
)
from graphopt_passes.movement import MOVEMENTS
from graphopt_passes.operands import given

_LAYERS = ("RNN", "GRU", "LSTM")
_STATES = (5, 6)
_COPYING = (*MOVEMENTS, "Slice", "Gather", "Expand", "Tile", "Identity", "Split", "Cast")
_DEEPEST = 12


class EliminateZeroStates(RewritePass):
    """Leave out the first state of a recurrent layer where it is zero anyway."""

    name = "eliminate-zero-states"
    promise = Promise.EXACT
    patterns = (op(_LAYERS),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the layer anew without the states that are zero."""
        layer = match.root
        zero = [place for place in _STATES if _is_zero(given(layer, place))]
        if not zero:
            return
        inputs = [None if place in zero else value for place, value in enumerate(layer.inputs)]
        while inputs and inputs[-1] is None:
            inputs.pop()
        attributes = layer.attributes.values()
        made = rewriter.node(layer.op_type, inputs, attributes, outputs=len(layer.outputs))
        for old, new in zip(layer.outputs, made.outputs, strict=True):
            if old.name == "":  # an output that is omitted stays so
                new.name = ""
        rewriter.replace(layer, made)


def _is_zero(value: ir.Value | None, depth: int = 0) -> bool:
    """Whether all numbers of a value are zero in every run."""
    if value is None or depth > _DEEPEST:
        return False
    if constant_tensor(value) is not None:
        array = constant_array(value)
        return array is not None and array.dtype.kind != "O" and not array.any()
    producer = value.producer()
    if producer is None or producer.domain not in ("", "ai.onnx"):
        return False
    if producer.op_type == "ConstantOfShape":
        held = producer.attributes.get("value")
        return held is None or (not held.is_ref() and not held.as_tensor().numpy().any())
    return producer.op_type in _COPYING and _is_zero(given(producer, 0), depth + 1)
