"""Reduce before the data is transposed where the axes that are left keep their order.

    ReduceMean(Transpose(x, perm=0,2,3,1), axes=[1,2], keepdims=0)  ->  ReduceMean(x, axes=[2,3])

That is global pooling as exporters from NHWC write it. Declined where the axes that are left
stand in another order before the transpose, and where the axes are not constant.
"""

from __future__ import annotations

import numpy as np

from graphopt.plugin import (
    Match,
    Promise,
    RewritePass,
    Rewriter,
    ir,
    op,
    variable,
)
from graphopt_passes.reduced_axes import REDUCTIONS, axes_before


class HoistReductions(RewritePass):
    """Reduce before the data is transposed where the axes that are left keep their order."""

    name = "hoist-reductions"
    promise = Promise.EQUIVALENT
    patterns = (
        op(
            REDUCTIONS,
            op(
                "Transpose",
                variable("x"),
                label="transpose",
                shared=True,
                attributes={"perm": lambda perm: perm is not None},
            ),
            attributes={"keepdims": 0},
        ),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Reduce the axes as they were named before."""
        node = match.root
        order = tuple(match.node("transpose").attributes.get_ints("perm", ()))
        axes = axes_before(node, order)
        inputs: list[ir.Value | None] = [match.value("x"), *node.inputs[1:]]
        attributes = dict(node.attributes)
        if "axes" in attributes:
            attributes["axes"] = ir.AttrInt64s("axes", axes)
        elif len(inputs) > 1 and inputs[1] is not None:
            inputs[1] = rewriter.initializer(np.array(axes, np.int64), "reduced_axes")
        rewriter.replace(node, rewriter.node(node.op_type, inputs, attributes.values()))
