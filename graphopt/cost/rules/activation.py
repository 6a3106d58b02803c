"""What one element of an activation costs that another operator carries inside.

Fused convolutions, fused matrix products and recurrent cells name their activation in an
attribute. The figures are those of the operator of the same name, as ONNX defines it:

    activation       per element                          elementwise  transcendentals
    Relu             max(x, 0)                            1            0
    LeakyRelu        compare, multiply                    2            0
    ThresholdedRelu  compare                              1            0
    Clip             max, min                             2            0
    Affine           alpha * x + beta                     2            0
    Softsign         x / (1 + |x|)                        3            0
    HardSigmoid      max(0, min(1, alpha * x + beta))     4            0
    HardSwish        x * HardSigmoid(x)                   5            0
    Tanh             tanh(x)                              0            1
    ScaledTanh       alpha * tanh(beta * x)               2            1
    Sigmoid          1 / (1 + exp(-x))                    3            1
    Silu, Swish      x * Sigmoid(x)                       4            1
    QuickGelu        x * Sigmoid(alpha * x)               5            1
    Elu              compare, alpha * (exp(x) - 1)        3            1
    Softplus         log(1 + exp(x))                      1            2
    Gelu             x * (1 + erf(x / sqrt(2))) / 2       4            1
    FastGelu         Gelu with a tanh of a cubic          8            1
"""

from __future__ import annotations

from typing import NamedTuple

from graphopt.cost.operator import UnknownShapeError


class PerElement(NamedTuple):
    """What a function does to each element.

    Attributes:
        elementwise: arithmetic operations.
        transcendentals: evaluations of exp, log, tanh, erf.
    """

    elementwise: int
    transcendentals: int


_PER_ELEMENT = {
    "": PerElement(0, 0),
    "none": PerElement(0, 0),
    "identity": PerElement(0, 0),
    "relu": PerElement(1, 0),
    "leakyrelu": PerElement(2, 0),
    "thresholdedrelu": PerElement(1, 0),
    "clip": PerElement(2, 0),
    "affine": PerElement(2, 0),
    "softsign": PerElement(3, 0),
    "hardsigmoid": PerElement(4, 0),
    "hardswish": PerElement(5, 0),
    "tanh": PerElement(0, 1),
    "scaledtanh": PerElement(2, 1),
    "sigmoid": PerElement(3, 1),
    "silu": PerElement(4, 1),
    "swish": PerElement(4, 1),
    "quickgelu": PerElement(5, 1),
    "elu": PerElement(3, 1),
    "softplus": PerElement(1, 2),
    "gelu": PerElement(4, 1),
    "fastgelu": PerElement(8, 1),
}


def activation(name: str) -> PerElement:
    """The cost of one element of the activation `name`, in any case; none where it is empty.

    Raises:
        UnknownShapeError: nothing is known of that activation.
    """
    found = _PER_ELEMENT.get(name.lower())
    if found is None:
        raise UnknownShapeError(f"nothing is known of the activation '{name}'")
    return found
