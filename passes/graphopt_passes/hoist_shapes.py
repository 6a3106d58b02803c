"""Ask for the shape of the data before it is transposed.

    Shape(Transpose(x, perm=p))              ->  Gather(Shape(x), p)
    Shape(Transpose(x, perm=p), start, end)  ->  Shape(x, start, end)   where p keeps these axes

A Transpose whose dims somebody asks for cannot be cancelled against the next. Declined where
something else reads the transposed data: it stays then, and nothing would be won.
"""

from __future__ import annotations

import numpy as np

from graphopt.plugin import Match, NotApplicable, Promise, RewritePass, Rewriter, op, variable
from graphopt_passes.operands import no_references


class HoistShapes(RewritePass):
    """Ask for the shape of the data before it is transposed."""

    name = "hoist-shapes"
    promise = Promise.EXACT
    patterns = (
        op(
            "Shape",
            op(
                "Transpose",
                variable("x"),
                label="transpose",
                shared=True,
                attributes={"perm": lambda perm: perm is not None},
            ),
        ),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Take the dims of the transposed data out of those of the data."""
        node, transpose = match.root, match.node("transpose")
        no_references(node)
        no_references(transpose)
        if transpose.outputs[0].is_graph_output() or any(
            usage.node.op_type not in ("Shape", "Transpose")
            for usage in transpose.outputs[0].uses()
        ):
            raise NotApplicable("something else reads the transposed data")
        order = list(transpose.attributes.get_ints("perm", ()))
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(order))
        asked = order[start:end]
        if not asked:
            raise NotApplicable("no dim is asked for")
        rewriter.stand_for([node])
        if asked == list(range(len(order)))[start:end]:
            rewriter.replace(node, rewriter.node("Shape", [match.value("x")], node.attributes))
            return
        places = rewriter.initializer(np.array(asked, np.int64), "transposed_axes")
        dims = rewriter.node("Shape", [match.value("x")])
        rewriter.replace(node, rewriter.node("Gather", [dims.outputs[0], places]))
