"""Let a reduction keep, or drop, its axes itself.

    Unsqueeze(ReduceMean(x, axes, keepdims=0), axes)   ->  ReduceMean(x, axes, keepdims=1)
    Squeeze(ReduceMean(x, axes, keepdims=1), axes)     ->  ReduceMean(x, axes, keepdims=0)

and so for every reduction, ArgMax and ArgMin. Declined where the axes are not the same ones, or
not constant, and where the reduction is used elsewhere.
"""

from __future__ import annotations

import numpy as np

from graphopt.plugin import Match, NotApplicable, Promise, RewritePass, Rewriter, ir, op
from graphopt_passes.operands import given, integers, no_references, rank
from graphopt_passes.reduced_axes import REDUCTIONS, keeps_dims

_KINDS = (*REDUCTIONS, "ArgMax", "ArgMin")


class FuseReduceUnsqueeze(RewritePass):
    """Let a reduction keep, or drop, its axes itself."""

    name = "fuse-reduce-unsqueeze"
    promise = Promise.EXACT
    patterns = (op(("Unsqueeze", "Squeeze"), op(_KINDS, label="reduction")),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the reduction anew, with the other keepdims."""
        root, reduction = match.root, match.node("reduction")
        no_references(root)
        no_references(reduction)
        keeps = root.op_type == "Unsqueeze"
        if keeps_dims(reduction) == keeps:
            return
        data = reduction.inputs[0]
        axes = None if data is None else rank(data)
        if axes is None:
            raise NotApplicable("the rank of what is reduced is not known")
        taken = _taken(reduction, axes)
        changed = [axis % axes for axis in integers(root, "axes", 1) or []]
        if taken != sorted(changed):
            raise NotApplicable(f"{root.op_type} takes other axes than {reduction.op_type}")
        attributes: dict[str, object] = {**reduction.attributes, "keepdims": int(keeps)}
        made = rewriter.node(reduction.op_type, reduction.inputs, attributes)
        rewriter.stand_for([root, reduction])
        rewriter.replace(root, made)


def _taken(reduction: ir.Node, axes: int) -> list[int]:
    """The axes that are reduced, in order."""
    if reduction.op_type.startswith("Arg"):
        return [int(np.mod(reduction.attributes.get_int("axis", 0), axes))]
    named = integers(reduction, "axes", 1)
    if not named:
        if given(reduction, 1) is not None or _is_noop(reduction):
            raise NotApplicable("the reduction takes all axes, or none")
        return list(range(axes))
    return sorted(axis % axes for axis in named)


def _is_noop(reduction: ir.Node) -> bool:
    held = reduction.attributes.get("noop_with_empty_axes")
    return held is not None and held.as_int() != 0
