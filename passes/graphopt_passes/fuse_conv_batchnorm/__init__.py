"""Fold a per-channel factor and offset into the linear operator that feeds it.

    BN(Conv(x, W, b))      ->  Conv(x, W*k, (b - mean)*k + B),  k = scale / sqrt(var + epsilon)
    BN(Gemm(x, W, C))      ->  Gemm(x, W*k, (beta*C - mean)*k + B)
    BN(MatMul(x, W))       ->  Gemm(x, W*k, B - mean*k)                 for x of rank 2
    Conv(x, W, b) * c      ->  Conv(x, W*c, b*c)            and the same for / c
    Conv(x, W, b) + c      ->  Conv(x, W, b + c)            and the same for - c and c - Conv

ConvTranspose goes like Conv, and Gemm like Conv in the last two. There is one factor per output
channel: axis 0 of Conv's weight, axis 1 within each group of ConvTranspose's, the columns of
Gemm's. All is computed in float64 and rounded once to the weight's type. A weight that others
use too is not changed; the new operator gets one of its own.

It does not hold, and is declined, where a value of the linear operator is used elsewhere, where
a parameter is not a constant (it may be overridden, or comes from DequantizeLinear and the
quantization would change), where BatchNormalization is in training mode, has spatial=0 or
var + epsilon <= 0, where `c` varies along another axis than the channels (`[W]` broadcasts along
the width, also where W equals the number of channels) or raises the rank, and where the result
leaves the range of the weight's type.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.plugin import (
    Match,
    Promise,
    RewritePass,
    Rewriter,
    constant,
    op,
)
from graphopt_passes.affine import batchnorm_affine, elementwise_affine
from graphopt_passes.fuse_conv_batchnorm.linear import fold_affine

_SCALED = op(("Conv", "ConvTranspose", "Gemm"), label="linear")


@dataclass(frozen=True)
class FuseConvBatchnorm(RewritePass):
    """Fold BatchNormalization and per-channel Mul, Add, Sub, Div into Conv, Gemm or MatMul."""

    name = "fuse-conv-batchnorm"
    promise = Promise.EQUIVALENT
    patterns = (
        op("BatchNormalization", op(("Conv", "ConvTranspose", "Gemm", "MatMul"), label="linear")),
        op(("Mul", "Add"), _SCALED, constant("constant"), commutative=True),
        op(("Sub", "Div"), _SCALED, constant("constant")),
        op("Sub", constant("constant"), _SCALED),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the linear operator anew, with the root's factor and offset in its parameters."""
        linear = match.node("linear")
        if match.root.op_type == "BatchNormalization":
            affine = batchnorm_affine(match.root)
        else:
            affine = elementwise_affine(match.root, linear, match.value("constant"))
        rewriter.replace(match.root, fold_affine(linear, affine, rewriter))
