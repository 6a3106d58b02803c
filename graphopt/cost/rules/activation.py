"""What activations cost per element: the one table of them.

The operators of these names are counted by it, and so are activations that others carry inside:
fused convolutions, fused matrix products, recurrent cells, mixtures of experts. Each formula is
that of the operator as ONNX defines it. Both sides of a choice are computed; choosing itself is
no arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

from graphopt.cost.operator import UnknownShapeError
from graphopt.cost.quantity import Number


class PerElement(NamedTuple):
    """What a function does to each element.

    Attributes:
        elementwise: arithmetic operations.
        transcendentals: evaluations of exp, log, tanh, erf.
    """

    elementwise: int
    transcendentals: int

    def with_steps(self, steps: int) -> PerElement:
        """The same with so many arithmetic operations more."""
        return PerElement(self.elementwise + steps, self.transcendentals)

    def times(self, size: Number) -> tuple[Number, Number]:
        """Elementwise operations and transcendentals of so many elements."""
        return self.elementwise * size, self.transcendentals * size


_NOTHING = PerElement(0, 0)
_PER_ELEMENT = {
    "Relu": PerElement(1, 0),  # max(x, 0)
    "LeakyRelu": PerElement(2, 0),  # x < 0, alpha * x
    "ThresholdedRelu": PerElement(1, 0),  # x > alpha
    "Clip": PerElement(2, 0),  # min(max(x, low), high)
    "Affine": PerElement(2, 0),  # alpha * x + beta
    "Softsign": PerElement(3, 0),  # x / (1 + |x|)
    "HardSigmoid": PerElement(4, 0),  # max(0, min(1, alpha * x + beta))
    "HardSwish": PerElement(5, 0),  # x * HardSigmoid(x)
    "Tanh": PerElement(0, 1),  # tanh(x)
    "ScaledTanh": PerElement(2, 1),  # alpha * tanh(beta * x)
    "Sigmoid": PerElement(3, 1),  # 1 / (1 + exp(-x))
    "Silu": PerElement(4, 1),  # x * Sigmoid(x)
    "Swish": PerElement(5, 1),  # x * Sigmoid(alpha * x)
    "QuickGelu": PerElement(5, 1),  # x * Sigmoid(alpha * x)
    "ScaledSiLU": PerElement(5, 1),  # Silu(alpha * x)
    "Elu": PerElement(3, 1),  # x < 0, alpha * (exp(x) - 1)
    "Selu": PerElement(4, 1),  # gamma * (x > 0, alpha * exp(x) - alpha)
    "Celu": PerElement(6, 1),  # max(0, x) + min(0, alpha * (exp(x / alpha) - 1))
    "Softplus": PerElement(1, 2),  # log(exp(x) + 1)
    "ParametricSoftplus": PerElement(3, 2),  # alpha * log(exp(beta * x) + 1)
    "Mish": PerElement(2, 3),  # x * tanh(Softplus(x))
    "Gelu": PerElement(4, 1),  # 0.5 * x * (1 + erf(x / sqrt(2)))
    "FastGelu": PerElement(8, 1),  # 0.5 * x * (1 + tanh(c * (x + 0.044715 * x * x * x)))
}
# Attributes spell them in any case, and have names of their own for doing nothing.
_BY_SPELLING = {name.lower(): cost for name, cost in _PER_ELEMENT.items()} | dict.fromkeys(
    ("", "none", "identity"), _NOTHING
)


def activation(name: str) -> PerElement:
    """The cost of one element of the activation `name`, in any case; none where it is empty.

    Raises:
        UnknownShapeError: nothing is known of that activation.
    """
    found = _BY_SPELLING.get(name.lower())
    if found is None:
        raise UnknownShapeError(f"nothing is known of the activation '{name}'")
    return found


SIGMOID = activation("Sigmoid")
"""Of one element; gates and scores have it inside without naming it."""
