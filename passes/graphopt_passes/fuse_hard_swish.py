"""Compute HardSwish in one operator, from opset 14 on.

    x * clip(x + 3, 0, 6) / 6                        ->  HardSwish(x)
    x * HardSigmoid(x, alpha=1/6, beta=1/2)          ->  HardSwish(x)

in whatever order the factors are multiplied, the division as a product with 1/6 too. Declined
below opset 14.
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
    one_of,
    op,
    opset_version,
    variable,
)
from graphopt_passes.operands import is_number, keep_rank

_X = variable("x")


def _number(number: float) -> Pattern:
    return constant(where=is_number(number))


def _sixth(pattern: Pattern) -> tuple[Pattern, Pattern]:
    return (
        op("Div", pattern, _number(6)),
        op("Mul", pattern, _number(1 / 6), commutative=True),
    )


_SHIFTED = op("Add", _X, _number(3), commutative=True)
_CLIPPED = one_of(
    op("Clip", _SHIFTED, _number(0), _number(6)),
    op("Min", op("Max", _SHIFTED, _number(0), commutative=True), _number(6), commutative=True),
    op("Min", op("Relu", _SHIFTED), _number(6), commutative=True),
)
_HARD_SIGMOID = op(
    "HardSigmoid",
    _X,
    attributes={
        "alpha": lambda alpha: alpha is not None and math.isclose(alpha, 1 / 6, rel_tol=1e-5),
        "beta": lambda beta: beta is None or beta == 0.5,
    },
)


class FuseHardSwish(RewritePass):
    """Compute HardSwish in one operator, from opset 14 on."""

    name = "fuse-hard-swish"
    promise = Promise.EQUIVALENT
    patterns = (
        *_sixth(op("Mul", _X, _CLIPPED, commutative=True)),
        op("Mul", _X, one_of(*_sixth(_CLIPPED), _HARD_SIGMOID), commutative=True),
        *(op("Mul", sixth, _CLIPPED, commutative=True) for sixth in _sixth(_X)),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the HardSwish, or say that the opset has none."""
        if opset_version(match.root, rewriter.model) < 14:
            raise NotApplicable("HardSwish comes with opset 14")
        data = match.value("x")
        keep_rank(data, match.root)
        rewriter.replace(match.root, rewriter.node("HardSwish", [data]))
