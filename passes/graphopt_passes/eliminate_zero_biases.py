"""Leave out what adds zero to a sum of products.

    MatMul(x, w) + 0                 ->  MatMul(x, w)               in either order, and - 0
    Conv(x, w, 0), Gemm(x, w, 0)     ->  Conv(x, w), Gemm(x, w)     and ConvTranspose

The numbers differ where the sum of products is -0.0 alone, which takes every product to be -0.0
(or too small for a float), so this is no exact rewrite. Declined where the zeros may
stretch the product, and for Gemm below opset 11, which needs its bias.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def _is_zero(value: ir.Value) -> bool:
    """Whether every element of a floating-point constant is zero."""
    tensor = constant_tensor(value)
    if tensor is None or not tensor.dtype.is_floating_point() or tensor.size == 0:
        return False
    array = constant_array(value)
    # Most constants differ from zero at the first element, and need not be read then.
    return array is not None and bool(array.flat[0] == 0) and not bool(array.any())


_PRODUCT = op(("MatMul", "Gemm", "Conv", "ConvTranspose"), label="product", shared=True)
_ZERO = constant("zero", where=_is_zero)


@dataclass(frozen=True)
class EliminateZeroBiases(RewritePass):
    """Leave out what adds zero to a matrix product or a convolution."""

    name = "eliminate-zero-biases"
    promise = Promise.EQUIVALENT
    patterns = (
        op("Add", _PRODUCT, _ZERO, commutative=True),
        op("Sub", _PRODUCT, _ZERO),
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
        product = match.node("product").outputs[0]
        _check_shape(zero, product)
        rewriter.replace(root, product)


def _check_shape(zero: ir.Value, product: ir.Value) -> None:
    dims, shape = known_shape(zero), known_shape(product)
    if dims is None or (shape is None and len(dims) > 0):
        raise NotApplicable(f"the shape of '{product.name}' is not known")
    if shape is None:
        return
    if len(dims) > len(shape):
        raise NotApplicable(f"'{zero.name}' raises the rank")
    for dim, own in zip(reversed(dims), reversed(shape), strict=False):
        if dim != 1 and not same_dim(dim, own):
            raise NotApplicable(f"'{zero.name}' may stretch the product")
