"""Add the bias in the matrix product itself.

    MatMul(x[M,K], w[K,N]) + b  ->  Gemm(x, w, b)                b: [N], [1,N], [M,1], [1] or []
    Gemm(x, w) + b              ->  Gemm(x, w, b)                beta = 1

Both operands have rank 2 for certain: Gemm takes no stacks of matrices. One is a weight: where
both are computed a runtime that packs weights gains nothing. Declined where the product is of
integers, where Gemm has a bias already, and where `b` raises the rank, stretches the product, or
is not known not to.
"""

from __future__ import annotations

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant_tensor,
    ir,
    known_shape,
    op,
    same_dim,
    variable,
)
from graphopt_passes.operands import given, no_references, rank

_FLOATING = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)


class FuseMatmulAdd(RewritePass):
    """Add the bias in the matrix product itself, as Gemm does."""

    name = "fuse-matmul-add"
    promise = Promise.EQUIVALENT
    patterns = (
        op(
            "Add",
            op(("MatMul", "Gemm"), variable("a"), variable("b"), label="product"),
            variable("bias"),
            commutative=True,
        ),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the Gemm, or say what about the operands does not fit it."""
        product, a, b, bias = (
            match.node("product"),
            match.value("a"),
            match.value("b"),
            match.value("bias"),
        )
        if product.outputs[0].dtype not in _FLOATING:
            raise NotApplicable("Gemm multiplies floats only")
        if product.op_type == "MatMul":
            if rank(a) != 2 or rank(b) != 2:
                raise NotApplicable("MatMul is not known to multiply two matrices")
            if all(constant_tensor(side) is None for side in (a, b)):
                raise NotApplicable("no operand of MatMul is a weight")
        elif given(product, 2) is not None:
            raise NotApplicable("Gemm has a bias already")
        _check_bias(bias, product.outputs[0])
        no_references(product)
        kept = [held for held in product.attributes.values() if held.name != "beta"]
        rewriter.replace(match.root, rewriter.node("Gemm", [a, b, bias], kept))


def _check_bias(bias: ir.Value, product: ir.Value) -> None:
    given_shape, shape = known_shape(bias), known_shape(product)
    if given_shape is None or shape is None:
        raise NotApplicable(f"the shape of '{bias.name}' is not known")
    if len(given_shape) > 2:
        raise NotApplicable(f"'{bias.name}' raises the rank")
    for dim, own in zip(reversed(given_shape), reversed(shape), strict=False):
        if dim != 1 and not same_dim(dim, own):
            raise NotApplicable(f"'{bias.name}' may stretch the product")
