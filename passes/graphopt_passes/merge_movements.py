"""Move data once where a chain of nodes moves it again and again.

    Reshape(Reshape(x)), Squeeze(Flatten(x)) ...      ->  Reshape(x)
    Transpose(Transpose(x))                           ->  Transpose(x), or x
    Squeeze(Transpose(Unsqueeze(x)))                  ->  Transpose(x)
    Transpose(Reshape(Transpose(x)))                  ->  Transpose(Reshape(x)), or less
    Transpose(x[1,N,7], perm=1,0,2)                   ->  Reshape(x): only a dim of 1 moves

Any chain of Reshape, Transpose, Squeeze, Unsqueeze and Flatten is at most a Reshape, a Transpose
and a Reshape. It is replaced where the chain becomes shorter, or as long with fewer transposes.
Declined where a dim that must be known is not: a Reshape can leave one dim open, and none beside
one that may be 0. A value between that something else uses too ends the chain.
"""

from __future__ import annotations

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    ir,
    known_shape,
    op,
    same_dim,
)
from graphopt_passes.movement import MOVEMENTS, carry_out, chain_behind, follow, steps_for


class MergeMovements(RewritePass):
    """Move data once where a chain of Reshape, Transpose and the like moves it again."""

    name = "merge-movements"
    promise = Promise.EXACT
    patterns = (op(MOVEMENTS),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Replace the chain that ends here, if that makes it shorter."""
        chain = chain_behind(match.root)
        if len(chain) == 1 and match.root.op_type != "Transpose":
            return
        if not self._merge(chain, rewriter):
            _merge_reshapes(chain, rewriter)

    def _merge(self, chain: list[ir.Node], rewriter: Rewriter) -> bool:
        try:
            movement, start = follow(chain)
        except NotApplicable:
            if len(chain) == 1:
                raise
            return False
        old = chain[start:]
        steps = steps_for(movement)
        before = (len(old), sum(node.op_type == "Transpose" for node in old))
        if (steps.count, steps.order is not None) >= before:
            return False
        rewriter.stand_for(old[::-1])
        rewriter.replace(old[-1], carry_out(movement, steps, rewriter))
        return True


def _merge_reshapes(chain: list[ir.Node], rewriter: Rewriter) -> None:
    """Replace the nodes at the end that keep the order of the elements by one Reshape.

    Nothing need be known of the dims between: [6,4] to [4,6] has no common factors to follow.
    """
    start = len(chain)
    while start and chain[start - 1].op_type != "Transpose":
        start -= 1
    old = chain[start:]
    if len(old) < 2:
        return
    source, result = old[0].inputs[0], old[-1].outputs[0]
    shape = None if source is None else known_shape(source)
    target = known_shape(result)
    if source is None or shape is None or target is None:
        raise NotApplicable(f"the shape of '{result.name}' is not known")
    numbers: list[int] = []
    for place, dim in enumerate(target):
        if isinstance(dim, int):
            numbers.append(dim)
        else:
            numbers.append(0 if place < len(shape) and same_dim(shape[place], dim) else -1)
    if 0 in target:
        raise NotApplicable(f"'{result.name}' is empty")
    if numbers.count(-1) > 1 or (-1 in numbers and 0 in numbers):
        raise NotApplicable("a Reshape would have more than one dim that is not known")
    rewriter.stand_for(old[::-1])
    wanted = rewriter.initializer(np.array(numbers, np.int64), "movement_shape")
    rewriter.replace(old[-1], rewriter.node("Reshape", [source, wanted]))
