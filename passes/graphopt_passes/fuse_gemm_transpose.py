"""Let Gemm read its operands transposed, and give its result transposed.

    Gemm(Transpose(a), b, c)     ->  Gemm(a, b, c)       transA turned over
    Gemm(a, Transpose(b), c)     ->  Gemm(a, b, c)       transB turned over
    Transpose(Gemm(a, b, c))     ->  Gemm(b, a, c)       c: left out, or one number

(A B)' = B' A'. Declined where the Transpose, or the Gemm ahead of one, is used elsewhere, where
c has an axis to transpose, and where a weight b would become the left factor: runtimes pack right
ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant_tensor,
    ir,
    op,
    static_shape,
    variable,
)
from graphopt_passes.operands import given, no_references


def _swaps(perm: Sequence[int] | None) -> bool:
    """Whether a Transpose of two axes swaps them; without a permutation it does."""
    return perm is None or list(perm) == [1, 0]


_SWAPPED = {"perm": _swaps}


class FuseGemmTranspose(RewritePass):
    """Let Gemm read its operands transposed, and give its result transposed."""

    name = "fuse-gemm-transpose"
    promise = Promise.EQUIVALENT
    patterns = (
        op("Gemm", op("Transpose", variable("a"), attributes=_SWAPPED), variable("b")),
        op("Gemm", variable("a"), op("Transpose", variable("b"), attributes=_SWAPPED)),
        op(
            "Transpose",
            op("Gemm", variable("a"), variable("b"), label="gemm"),
            attributes=_SWAPPED,
        ),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the Gemm, or say why it cannot take the Transpose."""
        root = match.root
        gemm = match.nodes.get("gemm", root)
        no_references(gemm)
        a, b = match.value("a"), match.value("b")
        flags = [gemm.attributes.get_int(name, 0) != 0 for name in ("transA", "transB")]
        if gemm is root:
            flags = [
                flag != (value is not read)
                for flag, value, read in zip(flags, (a, b), root.inputs, strict=False)
            ]
        else:
            _check_result(gemm, b)
            a, b = b, a
            flags = [not flag for flag in reversed(flags)]
        attributes = {
            name: attribute
            for name, attribute in gemm.attributes.items()
            if name in ("alpha", "beta")
        }
        transposed = {
            name: 1 for name, flag in zip(("transA", "transB"), flags, strict=True) if flag
        }
        made = rewriter.node("Gemm", [a, b, *gemm.inputs[2:]], {**attributes, **transposed})
        rewriter.replace(root, made)


def _check_result(gemm: ir.Node, right: ir.Value) -> None:
    """Refuse a Gemm whose result cannot be computed the other way round."""
    c = given(gemm, 2)
    if c is not None:
        shape = static_shape(c)
        if shape is None or any(size != 1 for size in shape):
            raise NotApplicable(f"'{c.name}' would have to be transposed")
    if constant_tensor(right) is not None:
        raise NotApplicable("the weight would become the left factor")
