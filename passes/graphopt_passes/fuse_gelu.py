"""Compute Gelu in one operator, from opset 20 on; below, in the order that runtimes fuse.

    x * 0.5 * (1 + erf(x / sqrt(2)))                               ->  Gelu(x)
    x * 0.5 * (1 + tanh(sqrt(2/pi) * (x + 0.044715*x^3)))          ->  Gelu(x, approximate=tanh)

in whatever order the three factors are multiplied, the division as a product too, the cube as a
power or as products. Below opset 20

    x * (0.5 * (1 + erf(x / sqrt(2))))                 ->  x * (1 + erf(x / sqrt(2))) * 0.5

which ONNX Runtime fuses by itself, as it does not the left side, the way torch.export writes it.
Declined there for the other spellings, and in half precision, where twice a large x overflows.
"""

from __future__ import annotations

import math

from graphopt.plugin import (
    Match,
    NotApplicable,
    Pattern,
    Promise,
    RewritePass,
    Rewriter,
    constant,
    ir,
    one_of,
    op,
    opset_version,
    variable,
)
from graphopt_passes.operands import is_number, keep_rank

_X = variable("x")


def _number(number: float) -> Pattern:
    return constant(where=is_number(number))


def _times(left: Pattern, right: Pattern) -> Pattern:
    return op("Mul", left, right, commutative=True)


def _products(step: Pattern) -> tuple[Pattern, ...]:
    """The three factors in each order; each a root of its own."""
    half = _number(0.5)
    return (
        _times(_times(_X, step), half),
        _times(_times(_X, half), step),
        _times(_X, op("Mul", step, constant("half", is_number(0.5)), commutative=True)),
    )


_ERROR = op("Erf", one_of(op("Div", _X, _number(math.sqrt(2))), _times(_X, _number(0.5**0.5))))
_CUBE = one_of(
    op("Pow", _X, _number(3)),
    _times(op("Mul", _X, _X), _X),
)
_TANH = op(
    "Tanh",
    _times(
        op(
            "Add",
            _X,
            one_of(
                _times(_CUBE, _number(0.044715)),
                _times(_times(_times(_X, _number(0.044715)), _X), _X),
            ),
            commutative=True,
        ),
        _number(math.sqrt(2 / math.pi)),
    ),
)


class FuseGelu(RewritePass):
    """Compute Gelu in one operator, from opset 20 on; below, in the order that runtimes fuse."""

    name = "fuse-gelu"
    promise = Promise.EQUIVALENT
    patterns = tuple(
        product
        for label, function in (("erf", _ERROR), ("tanh", _TANH))
        for product in _products(op("Add", function, _number(1), commutative=True, label=label))
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the Gelu, or put the factors in order; or say that the opset has none."""
        data = match.value("x")
        if opset_version(match.root, rewriter.model) < 20:
            if "half" not in match.values or "erf" not in match.nodes:
                raise NotApplicable("Gelu comes with opset 20")
            if data.dtype == ir.DataType.FLOAT16:
                raise NotApplicable("twice a large number overflows in half precision")
            product = rewriter.node("Mul", [data, match.node("erf").outputs[0]])
            half = rewriter.node("Mul", [product.outputs[0], match.value("half")])
            rewriter.replace(match.root, half)
            return
        keep_rank(data, match.root)
        attributes = {"approximate": "tanh"} if "tanh" in match.nodes else {}
        rewriter.replace(match.root, rewriter.node("Gelu", [data], attributes))
