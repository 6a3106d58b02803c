"""Fold a per-channel factor and offset into the linear operator that feeds it.

    BN(Conv(x, W, b))      ->  Conv(x, W*k, (b - mean)*k + B),  k = scale / sqrt(var + epsilon)
    BN(Gemm(x, W, C))      ->  Gemm(x, W*k, (beta*C - mean)*k + B)
    BN(MatMul(x, W))       ->  Gemm(x, W*k, B - mean*k)                 for x of rank 2
    Conv(x, W, b) * c      ->  Conv(x, W*c, b*c)            and the same for / c
    Conv(x, W, b) + c      ->  Conv(x, W, b + c)            and the same for - c and c - Conv
    BN(Concat(Conv(x, ..), Conv(y, ..)))  ->  Concat(BN(Conv(x, ..)), BN(Conv(y, ..))), each folded

ConvTranspose goes like Conv, and Gemm like Conv in the last two. There is one factor per output
channel: axis 0 of Conv's weight, axis 1 within each group of ConvTranspose's, the columns of
Gemm's. All is computed in float64 and rounded once to the weight's type. A weight that others
use too is not changed; the new operator gets one of its own.

It does not hold, and is declined, where a value of the linear operator is used elsewhere, where
channels are put together of anything but such operators, where
a parameter is not a constant (it may be overridden, or comes from DequantizeLinear and the
quantization would change), where BatchNormalization is in training mode, has spatial=0 or
var + epsilon <= 0, where `c` varies along another axis than the channels (`[W]` broadcasts along
the width, also where W equals the number of channels) or raises the rank, and where the result
leaves the range of the weight's type.
"""

from __future__ import annotations

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant,
    ir,
    op,
)
from graphopt_passes.affine import Affine, batchnorm_affine, elementwise_affine
from graphopt_passes.fuse_conv_batchnorm.linear import channel_count, fold_affine
from graphopt_passes.parameters import parameter

_ONNX = ("", "ai.onnx")
_LINEAR = ("Conv", "ConvTranspose", "Gemm")
_SCALED = op(_LINEAR, label="linear")


class FuseConvBatchnorm(RewritePass):
    """Fold BatchNormalization and per-channel Mul, Add, Sub, Div into Conv, Gemm or MatMul."""

    name = "fuse-conv-batchnorm"
    promise = Promise.EQUIVALENT
    patterns = (
        op("BatchNormalization", op((*_LINEAR, "MatMul"), label="linear")),
        op("BatchNormalization", op("Concat", label="concat")),
        op(("Mul", "Add"), _SCALED, constant("constant"), commutative=True),
        op(("Sub", "Div"), _SCALED, constant("constant")),
        op("Sub", constant("constant"), _SCALED),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the linear operator anew, with the root's factor and offset in its parameters."""
        if "concat" in match.nodes:
            affine = batchnorm_affine(match.root)
            rewriter.replace(match.root, _fold_pieces(match.node("concat"), affine, rewriter))
            return
        linear = match.node("linear")
        if match.root.op_type == "BatchNormalization":
            affine = batchnorm_affine(match.root)
        else:
            affine = elementwise_affine(match.root, linear, match.value("constant"))
        rewriter.replace(match.root, fold_affine(linear, affine, rewriter))


def _fold_pieces(concat: ir.Node, affine: Affine, rewriter: Rewriter) -> ir.Node:
    """A Concat of linear operators, each with its channels' share of the factors and offsets.

    Raises:
        NotApplicable: one of them cannot take its share, or others read it too.
    """
    pieces = [_piece(value, concat) for value in concat.inputs]
    counts = [channel_count(piece) for piece in pieces]
    rank = parameter(pieces[0].inputs[1], f"{pieces[0].op_type} weight").ndim  # the output's too
    if concat.attributes.get_int("axis", 1) % rank != 1:
        raise NotApplicable("it is not channels that are put together")
    if sum(counts) != len(affine.factor):
        raise NotApplicable(f"there are {len(affine.factor)} factors for {sum(counts)} channels")
    ends = np.cumsum(counts)[:-1]
    shares = zip(np.split(affine.factor, ends), np.split(affine.offset, ends), strict=True)
    folded = [
        fold_affine(piece, Affine(*share), rewriter).outputs[0]
        for piece, share in zip(pieces, shares, strict=True)
    ]
    return rewriter.node("Concat", folded, concat.attributes.values())


def _piece(value: ir.Value | None, concat: ir.Node) -> ir.Node:
    """The linear operator whose output only `concat` reads.

    Raises:
        NotApplicable: there is none.
    """
    node = None if value is None else value.producer()
    if value is None or node is None or node.domain not in _ONNX or node.op_type not in _LINEAR:
        raise NotApplicable("what is put together is not all made by linear operators")
    if len(value.uses()) > 1 or value.is_graph_output() or node.graph is not concat.graph:
        raise NotApplicable(f"{node.op_type} output '{value.name}' has another consumer")
    return node
