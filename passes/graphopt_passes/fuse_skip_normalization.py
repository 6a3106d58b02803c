"""Add and normalize in ONNX Runtime's own operator, where no mean is taken away.

    s = x + skip;  s / sqrt(mean(s^2) + e) * g, or RMSNormalization(s, g)
        ->  y, _, _, s = com.microsoft.SkipSimplifiedLayerNormalization(x, skip, g)

The square is Pow(s, 2) or s*s, the division may be a product with the reciprocal. The sum may be
used elsewhere too. Declined where the two terms are not known to have one shape of rank 3, where
the mean is not taken over the last axis and kept, where `g` does not have its size, below opset 15
and in functions.
"""

from __future__ import annotations

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant,
    constant_tensor,
    ir,
    known_shape,
    op,
    same_shape,
    variable,
)
from graphopt_passes.contributed import DOMAIN, use_contributed
from graphopt_passes.norm_patterns import quotient, root_of_mean_square
from graphopt_passes.operands import integers, no_references, positive_number

_SUM = op("Add", variable("x"), variable("skip"), label="sum", shared=True)


class FuseSkipNormalization(RewritePass):
    """Add and normalize in ONNX Runtime's own operator, where no mean is taken away."""

    name = "fuse-skip-normalization"
    promise = Promise.EQUIVALENT
    patterns = (
        op(
            "Mul",
            quotient(_SUM, root_of_mean_square(_SUM, "mean")),
            constant("scale"),
            commutative=True,
        ),
        op("RMSNormalization", _SUM, constant("scale"), label="norm"),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the operator, or say what does not fit it."""
        added = match.node("sum")
        total, data, skip = added.outputs[0], match.value("x"), match.value("skip")
        if total.dtype != ir.DataType.FLOAT:
            raise NotApplicable("the numbers are not float32")
        shape = known_shape(total)
        if shape is None or len(shape) != 3:
            raise NotApplicable("the sum is not of rank 3")
        if not same_shape(data.shape, skip.shape):
            raise NotApplicable("the terms are not known to have one shape")
        size = known_shape(match.value("scale"))
        if size is None or list(size) != [shape[2]]:
            raise NotApplicable("the scale is not one number for each place of the last axis")
        attributes = {"epsilon": _epsilon(match)}
        inputs = [data, skip, _ahead(rewriter, match.value("scale"))]
        inner = set(match.matched)
        shared = total.is_graph_output() or any(use.node not in inner for use in total.uses())
        made = rewriter.node(
            "SkipSimplifiedLayerNormalization",
            inputs,
            attributes,
            domain=DOMAIN,
            outputs=4 if shared else 1,
        )
        for output in made.outputs:
            output.type, output.shape = total.type, ir.Shape(shape)
        use_contributed(rewriter, match.root)
        if shared:
            made.outputs[1].name = made.outputs[2].name = ""
            # Who else reads the sum may do so ahead of the norm: the operator stands where it was.
            rewriter.replace(added, made.outputs[3:])
        rewriter.replace(match.root, made.outputs[0])


def _ahead(rewriter: Rewriter, scale: ir.Value) -> ir.Value:
    """The scale, or a copy of what a Constant node may make too late for where the sum was."""
    tensor = None if scale.producer() is None else constant_tensor(scale)
    return scale if tensor is None else rewriter.initializer(tensor, scale.name or "scale")


def _epsilon(match: Match) -> float:
    """What is added to the mean of the squares, if that is taken over the last of three axes."""
    if "norm" in match.nodes:
        norm = match.node("norm")
        no_references(norm)
        if norm.attributes.get_int("axis", -1) not in (-1, 2):
            raise NotApplicable("the norm is not over the last axis alone")
        return norm.attributes.get_float("epsilon", 1e-5)
    mean = match.node("mean")
    if integers(mean, "axes", 1) not in ([-1], [2]) or not mean.attributes.get_int("keepdims", 1):
        raise NotApplicable("the mean is not taken over the last axis, and kept")
    return positive_number(match.value("epsilon"))
