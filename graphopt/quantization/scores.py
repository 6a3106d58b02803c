"""Makes visible what integer outputs are read from, so that noise can be measured there.

A class number (ArgMax) either is the same or is not, and of a few samples it nearly always is: it
says little about how near the result is to the float model. The scores that it was chosen from say
it. The same holds for outputs that the model itself rounds to integers (QuantizeLinear).
"""

from __future__ import annotations

from graphopt.graph import clone, ir

_CHOOSING = ("ArgMax", "ArgMin", "TopK", "QuantizeLinear")
_MOVING = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")

SUFFIX = ":scores"
"""Appended to an integer output's name, it names the output that its scores become."""


def has_float_output(model: ir.Model) -> bool:
    """Whether any output holds floats."""
    return any(
        value.dtype is not None and value.dtype.is_floating_point() for value in model.graph.outputs
    )


def with_scores(model: ir.Model) -> ir.Model:
    """A copy with the scores behind integer outputs as further outputs.

    A model that has a float output is given back as it is: that is enough to measure.
    """
    if has_float_output(model):
        return model
    copy = clone(model)
    for output in tuple(copy.graph.outputs):
        scores = _scores(output)
        if scores is None or output.name is None:
            continue
        shown = ir.Value(name=output.name + SUFFIX, type=ir.TensorType(ir.DataType.FLOAT))
        copy.graph.append(ir.Node("", "Identity", [scores], outputs=[shown]))
        copy.graph.outputs.append(shown)
    return copy


def can_be_measured(model: ir.Model) -> bool:
    """Whether a signal-to-noise ratio can be had: of a float output, or of scores."""
    return has_float_output(with_scores(model))


def _scores(output: ir.Value) -> ir.Value | None:
    """The value that an integer output was chosen from or rounded from; None if there is none."""
    value, chosen = output, False
    while not chosen:
        node = value.producer()
        if node is None or node.op_type not in _CHOOSING + _MOVING:
            return None
        source = node.inputs[0]
        if source is None:
            return None
        chosen = node.op_type in _CHOOSING
        value = source
    known = value.dtype
    return value if known is None or known == ir.DataType.FLOAT else None
