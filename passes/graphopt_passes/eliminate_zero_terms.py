"""Leave out what adds zero where it makes no difference but to the sign of a zero.

    MatMul(x, w) + 0                 ->  MatMul(x, w)               in either order, and - 0
    Reshape(InstanceNormalization) + 0                              the same
    Softmax(x + 0)                   ->  Softmax(x)                 and others
    Conv(x, w, 0), Gemm(x, w, 0)     ->  Conv(x, w), Gemm(x, w)     and ConvTranspose

x + 0.0 differs from x for x = -0.0 alone. A sum of products is -0.0 only where every product is
(or is too small for a float), and Softmax, LayerNormalization, Exp and comparisons make the same
of both zeros. Elsewhere the difference could grow to that of two infinities, and the addition
stays. Declined where the zeros may stretch the other operand, and for Gemm below opset 11,
which needs its bias.
"""

from __future__ import annotations

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant,
    constant_array,
    constant_tensor,
    ir,
    known_shape,
    op,
    opset_version,
    same_dim,
    variable,
)
from graphopt_passes.movement import is_movement


def _is_zero(value: ir.Value) -> bool:
    """Whether every element of a floating-point constant is zero."""
    tensor = constant_tensor(value)
    if tensor is None or not tensor.dtype.is_floating_point() or tensor.size == 0:
        return False
    array = constant_array(value)
    # Most constants differ from zero at the first element, and need not be read then.
    return array is not None and bool(array.flat[0] == 0) and not bool(array.any())


_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
_SUMS = (*_PRODUCTS, "BatchNormalization", "GroupNormalization", "InstanceNormalization")
"""A normalization adds its offset B last: the sum is -0.0 only where B is too."""

_LONGEST = 6
"""Nodes that only move data between a sum and the zeros."""

_FORGETFUL = frozenset(
    {
        *_PRODUCTS,
        *("Cos", "Cosh", "Exp", "LayerNormalization", "LogSoftmax", "Sigmoid", "Softmax"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    }
)
"""Operators that compute the same from both zeros; of products as above."""

_ZERO = constant("zero", where=_is_zero)


class EliminateZeroTerms(RewritePass):
    """Leave out what adds zero to a matrix product or a convolution."""

    name = "eliminate-zero-terms"
    promise = Promise.EQUIVALENT
    patterns = (
        op("Add", variable("data"), _ZERO, commutative=True),
        op("Sub", variable("data"), _ZERO),
        op(("Conv", "ConvTranspose", "Gemm"), variable(), variable(), _ZERO),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Let the product stand for the sum, or for itself without a bias."""
        root, zero = match.root, match.value("zero")
        if root.op_type not in ("Add", "Sub"):
            if root.op_type == "Gemm" and opset_version(root, rewriter.model) < 11:
                raise NotApplicable("Gemm needs its bias before opset 11")
            kept = [held for held in root.attributes.values() if held.name != "beta"]
            rewriter.replace(root, rewriter.node(root.op_type, root.inputs[:2], kept))
            return
        data = match.value("data")
        if not _is_product(data) and not _is_forgotten(root.outputs[0]):
            raise NotApplicable("the sign of a zero may matter")
        _check_shape(zero, data)
        rewriter.replace(root, data)


def _is_product(value: ir.Value) -> bool:
    """Whether the value is a sum of products, or was normalized, and then at most moved."""
    producer = value.producer()
    for _ in range(_LONGEST):
        if producer is None or not is_movement(producer) or producer.inputs[0] is None:
            break
        producer = producer.inputs[0].producer()
    return producer is not None and producer.op_type in _SUMS and producer.domain == ""


def _is_forgotten(value: ir.Value) -> bool:
    """Whether all that read a value compute the same from both zeros."""
    users = value.uses()
    return not value.is_graph_output() and all(
        usage.node.op_type in _FORGETFUL and usage.node.domain == "" for usage in users
    )


def _check_shape(zero: ir.Value, data: ir.Value) -> None:
    dims, shape = known_shape(zero), known_shape(data)
    if dims is None or (shape is None and len(dims) > 0):
        raise NotApplicable(f"the shape of '{data.name}' is not known")
    if shape is None:
        return
    if len(dims) > len(shape):
        raise NotApplicable(f"'{zero.name}' raises the rank")
    for dim, own in zip(reversed(dims), reversed(shape), strict=False):
        if dim != 1 and not same_dim(dim, own):
            raise NotApplicable(f"'{zero.name}' may stretch the other operand")
