"""What kernels of ONNX Runtime ask the arena for beside their outputs, and give back at once.

Only those that weigh: convolutions outside the blocked layout, recurrent layers, Einsum, BiasGelu.
Found by running each kernel at several sizes and reading its profile: to the byte, except for
Einsum. What is not here counts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphopt.cost.schedule import CONTRIB
from graphopt.graph import ir

_FLOAT = 4
_CONVOLUTION_PIECE = 64 * 1024
"""Bytes for each thread into which a convolution unfolds a piece of its input."""


def scratch(node: ir.Node, threads: int) -> tuple[int, ...]:
    """The sizes of the pieces that are held together while the node runs, in bytes.

    Args:
        node: a node whose values have the shapes of the run.
        threads: threads within one operator.
    """
    if node.domain not in ("", "ai.onnx", CONTRIB):
        return ()
    inputs = [static_dims(value) for value in node.inputs]
    output = static_dims(node.outputs[0]) if node.outputs else None
    if len(inputs) < 2 or inputs[0] is None or inputs[1] is None:
        return ()
    data, weight = inputs[0], inputs[1]
    match node.op_type:
        case "Conv" | "FusedConv" if output is not None:
            return _convolution(node, weight, output, threads)
        case "ConvTranspose":
            # What becomes the output when it is folded.
            return (math.prod(weight[1:]) * math.prod(data[2:]) * _FLOAT,)
        case "LSTM" | "GRU" | "RNN" if node.attributes.get_int("layout", 0) == 0:
            return _recurrent(node, data)
        case "Einsum" if output is not None and None not in inputs:
            # Operands are copied into the order that a product of matrices needs, and so is the
            # product; how often depends on the equation. This is what most take.
            sizes = [
                math.prod(dims) * _FLOAT for dims in (*inputs, output, output) if dims is not None
            ]
            return tuple(sizes)
        case "BiasGelu" if output is not None:
            return (math.prod(output) * _FLOAT,)
    return ()


def static_dims(value: ir.Value | None) -> tuple[int, ...] | None:
    """The dims of a value, if all are known."""
    if value is None or value.shape is None:
        return None
    dims = tuple(dim for dim in value.shape if isinstance(dim, int))
    return dims if len(dims) == len(value.shape) else None


def _convolution(
    node: ir.Node, weight: Sequence[int], output: Sequence[int], threads: int
) -> tuple[int, ...]:
    """Room for the unfolded input.

    All of it where there are fewer places than filters, else a piece for each thread; none where
    the input need not be unfolded.
    """
    window = [*weight[2:], *(node.attributes.get_ints("strides") or ())]
    if set(window) == {1} and not any(node.attributes.get_ints("pads") or ()):
        return ()
    places = math.prod(output[2:])
    if weight[0] // (node.attributes.get_int("group", 1) or 1) > places:
        return (places * math.prod(weight[1:]) * _FLOAT,)
    return (_CONVOLUTION_PIECE * max(threads, 1),)


def _recurrent(node: ir.Node, data: Sequence[int]) -> tuple[int, ...]:
    """The gates of all steps, the states, the biases, and what the backward direction turns round.

    With L steps, batch B, input I, hidden H, in floats. LSTM: gates 4LBH, three states BH and two
    H, biases 4 times H. GRU: gates 3LBH, two states BH, biases 3 times BH (5 where the reset is
    applied last). RNN: LBH. Backward: LBI and LBH more. A state that nobody wants: BH for each
    direction.
    """
    steps, batch, inputs = data[:3]
    hidden = node.attributes.get_int("hidden_size", 0) or 0
    directions = 2 if node.attributes.get_string("direction", "forward") == "bidirectional" else 1
    backward = node.attributes.get_string("direction", "forward") != "forward"
    has_bias = len(node.inputs) > 3 and node.inputs[3] is not None
    wanted = [bool(value.name) for value in node.outputs] + [False] * 3
    state, sequence = batch * hidden, steps * batch * hidden
    lengths = batch
    if node.op_type == "RNN":
        floats = [sequence, *([] if wanted[0] else [sequence * directions])]
        return tuple(number * _FLOAT for number in floats)
    if node.op_type == "LSTM":
        each = [hidden] * 2 + [state] * 3 + [4 * sequence] + [hidden] * 4 * has_bias + [lengths]
        unwanted = wanted[1:3].count(False)
    else:
        last = bool(node.attributes.get_int("linear_before_reset", 0))
        biases = (3 + 2 * last) * has_bias
        each = [3 * sequence] + [state] * (2 + biases) + [lengths]
        unwanted = wanted[1:2].count(False)
    floats = [state * directions] * unwanted + each * directions
    if backward:
        floats += [steps * batch * inputs, sequence]
    return tuple(number * _FLOAT for number in floats)
