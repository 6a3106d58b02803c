"""Put together once what is put together piece by piece.

    Concat(Concat(a, b), c)               ->  Concat(a, b, c)          along one axis
    Concat(all outputs of Split(x))       ->  x                        in order, along one axis

Declined where the inner Concat is used elsewhere: its data would be copied twice as before; and
beyond 64 pieces, since a list that grows by one for thousands of nodes would be written out in full
at each of them.
"""

from __future__ import annotations

from graphopt.plugin import Match, NotApplicable, Promise, RewritePass, Rewriter, ir, op
from graphopt_passes.operands import no_references, rank

_MOST_PIECES = 64


class MergeConcats(RewritePass):
    """Put together once what is put together piece by piece, or was just split."""

    name = "merge-concats"
    promise = Promise.EXACT
    patterns = (op("Concat"),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Take the inner pieces, or what was split."""
        root = match.root
        axis = _axis(root, root.outputs[0])
        whole = _split_source(root, axis)
        if whole is not None:
            rewriter.replace(root, whole)
            return
        pieces: list[ir.Value | None] = []
        merged: list[ir.Node] = []
        for value in root.inputs:
            inner = None if value is None else value.producer()
            if (
                value is None
                or inner is None
                or inner.op_type != "Concat"
                or inner.domain != ""
                or _axis(inner, root.outputs[0]) != axis
            ):
                pieces.append(value)
                continue
            if value.is_graph_output() or any(use.node is not root for use in value.uses()):
                raise NotApplicable(f"'{value.name}' is used elsewhere too")
            pieces += inner.inputs
            merged.append(inner)
        if not merged:
            return
        if len(pieces) > _MOST_PIECES:
            raise NotApplicable(f"there would be more than {_MOST_PIECES} pieces")
        rewriter.stand_for([root, *merged])
        rewriter.replace(root, rewriter.node("Concat", pieces, root.attributes.values()))


def _axis(node: ir.Node, result: ir.Value) -> int:
    """The axis from the front, of a Concat or Split of as many axes as `result`."""
    no_references(node)
    axis = node.attributes.get_int("axis", 0 if node.op_type == "Split" else 1)
    if axis >= 0:
        return axis
    known = rank(result)
    if known is None:
        raise NotApplicable(f"the rank of '{result.name}' is not known")
    return axis + known


def _split_source(concat: ir.Node, axis: int) -> ir.Value | None:
    """What a Split took apart, where `concat` puts all of it together again."""
    first = concat.inputs[0]
    split = None if first is None else first.producer()
    if split is None or split.op_type != "Split" or split.domain != "":
        return None
    if list(concat.inputs) != list(split.outputs) or _axis(split, concat.outputs[0]) != axis:
        return None
    return split.inputs[0]
