"""Recurrent layers: T steps, a batch of B, I inputs, H hidden units, D directions.

    layer   MACs                               beyond them, per step, batch, direction and unit
    RNN     T * B * D * H * (I + H)            bias 1, activation
    GRU     T * B * D * 3 * H * (I + H)        biases 3, r * h 1, (1 - z) * h~ + z * h 4,
                                               2 activations f, 1 activation g
            with linear_before_reset           biases 4, r * (..) 1, its sum with W x 1, 4, ...
    LSTM    T * B * D * 4 * H * (I + H)        biases 4, c = f * c + i * g 3, h = o * tanh(c) 1,
                                               3 activations f, 1 activation g, 1 activation h;
                                               peepholes 3 products and 3 additions

W x and R h go into one sum, and the two biases of a gate are added up at load. The first step
counts like the others, also from a state of zeros. Bounding by `clip` takes 2 for each gate. A
forget gate that `input_forget` couples is 1 - i instead of an activation; its MACs count, as
its weights are there. Sequences count in full: `sequence_lens` is not known before the run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.quantity import Number, total
from graphopt.cost.rules.activation import PerElement, activation
from graphopt.cost.rules.formulas import is_given
from graphopt.cost.rules.quantization import dynamic_range_steps

_WHOLE = "every sequence counts in full length"


def rnn(node: Operator) -> Work:
    """`RNN`: X, W (D, H, I), R (D, H, H), B, sequence lengths, first state."""
    bias = int(node.has_input(3))
    return _layer(node, 1, ("Tanh",), lambda functions: _sum(functions, bias + _clip(node)))


def gru(node: Operator) -> Work:
    """`GRU`: X, W (D, 3H, I), R (D, 3H, H), B, sequence lengths, first state."""
    after = bool(node.integer("linear_before_reset", 0))
    bias = (3 + after) * node.has_input(3)
    return _layer(
        node,
        3,
        ("Sigmoid", "Tanh"),
        lambda functions: _sum(
            (functions[0], functions[0], functions[1]), bias + 1 + after + 4 + 3 * _clip(node)
        ),
    )


def lstm(node: Operator) -> Work:
    """`LSTM`: X, W (D, 4H, I), R (D, 4H, H), B, sequence lengths, both states, peepholes."""
    return _layer(node, 4, ("Sigmoid", "Tanh", "Tanh"), lambda functions: _cell(node, functions))


def dynamically_quantized_lstm(node: Operator) -> Work:
    """`DynamicQuantizeLSTM`: W (D, I, 4H) and R (D, H, 4H) in 8 bits.

    The input is quantized once for each direction and the state in every step, and their zero
    points taken off (1 per element); their scale times that of the weights is one product each.
    Each of the two products per gate is scaled (2), and the two are added (1).
    """
    steps, batch, width, directions, hidden = _sizes(node, hidden=1)
    work = _layer(
        node,
        4,
        ("Sigmoid", "Tanh", "Tanh"),
        lambda functions: _cell(node, functions, scaling=12),
        hidden=1,
    )
    inputs, state = steps * batch * width, batch * hidden
    quantizing = dynamic_range_steps(inputs) + inputs + (dynamic_range_steps(state) + state) * steps
    scales = node.input(8).size + node.input(10).size * steps
    return dataclasses.replace(
        work, elementwise=work.elementwise + directions * quantizing + scales
    )


def _cell(
    node: Operator, functions: Sequence[PerElement], scaling: int = 0
) -> tuple[Number, Number]:
    """One unit of an LSTM in one step: gates i, o, f by `functions[0]`, then cell and hidden."""
    f, g, h = functions
    coupled = bool(node.integer("input_forget", 0))
    gates = (f, f, PerElement(1, 0) if coupled else f)
    peepholes = 6 if node.has_input(7) else 0
    bias = 4 * node.has_input(3)
    return _sum((*gates, g, h), bias + peepholes + 4 + 4 * _clip(node) + scaling)


def _layer(
    node: Operator,
    gates: int,
    defaults: tuple[str, ...],
    unit: Callable[[Sequence[PerElement]], tuple[Number, Number]],
    *,
    hidden: int = 2,
    weights: bool = False,
) -> Work:
    """All steps of all directions; `unit` says what one unit does beyond the MACs.

    Args:
        node: the layer.
        gates: how many products of each kind a unit has.
        defaults: its activations in one direction, where the node names none.
        unit: from a direction's activations to elementwise operations and transcendentals.
        hidden: the axis of R that holds the hidden units.
        weights: whether the width of the input is that of W's rows and not of X.
    """
    steps, batch, width, directions, units = _sizes(node, hidden)
    if weights:
        width = node.input(1).dims[2]
    names = node.texts("activations") or defaults * directions
    elementwise: Number = 0
    transcendentals: Number = 0
    for direction in range(directions):
        first = direction * len(defaults)
        functions = [activation(name) for name in names[first : first + len(defaults)]]
        more, evaluations = unit(functions)
        elementwise, transcendentals = elementwise + more, transcendentals + evaluations
    runs = steps * batch * units
    return Work(
        macs=runs * directions * gates * (width + units),
        elementwise=runs * elementwise,
        transcendentals=runs * transcendentals,
        note=_WHOLE if node.has_input(4) else "",
    )


def _sizes(node: Operator, hidden: int = 2) -> tuple[Number, Number, Number, int, Number]:
    """Steps, batch, width of the input, directions and hidden units."""
    first, second, width = node.input().dims
    steps, batch = (second, first) if node.integer("layout", 0) else (first, second)
    directions = 2 if node.text("direction", "forward") == "bidirectional" else 1
    return steps, batch, width, directions, node.input(2).dims[hidden]


def _sum(functions: Sequence[PerElement], more: int) -> tuple[Number, Number]:
    return (
        total(function.elementwise for function in functions) + more,
        total(function.transcendentals for function in functions),
    )


def _clip(node: Operator) -> int:
    return 2 if is_given(node, "clip") else 0


RULES = (
    Rule("", "RNN", rnn),
    Rule("", "GRU", gru),
    Rule("", "LSTM", lstm),
    Rule("com.microsoft", "DynamicQuantizeLSTM", dynamically_quantized_lstm),
)
