"""Compute a size once, from whichever tensor has it first.

    Gather(Shape(x[N,7]), 0), ... Gather(Shape(y[N,S,3]), 0)    ->  the first one, for both
    Concat(N, 8, S), ... Concat(N, 8, S)                        ->  the first one, for both

Exporters ask the nearest tensor for its size, block by block. Two small integer tensors are the
same where inference found the same expressions in the dims of the model's inputs for all of
their elements, whatever nodes compute them. A dim that is not known is equal to no other. Values
of an enclosing graph are left to their own graph.
"""

from __future__ import annotations

from collections.abc import Hashable

from graphopt.plugin import (
    Journal,
    NotApplicable,
    Pass,
    Promise,
    Rewriter,
    all_graphs,
    ir,
    same_dim,
    site_of,
    symbolic_value,
)

_WHOLE = (ir.DataType.INT64, ir.DataType.INT32)


class MergeSizes(Pass):
    """Compute a size once, from whichever tensor has it first."""

    name = "merge-sizes"
    promise = Promise.EXACT

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Let the first value stand for those that are equal to it in every run."""
        rewriter = Rewriter(model, journal)
        for graph in list(all_graphs(model)):
            first: dict[Hashable, ir.Value] = {}
            for node in graph:
                key = _key(node)
                if key is None:
                    continue
                earlier = first.setdefault(key, node.outputs[0])
                site = site_of(node)
                if earlier is node.outputs[0] or not journal.permits(site):
                    continue
                rewriter.begin(node)
                try:
                    rewriter.replace(node, earlier, f"'{node.outputs[0].name}' is computed already")
                except NotApplicable as refusal:
                    journal.decline(site, str(refusal))


def _key(node: ir.Node) -> Hashable | None:
    """What equal sizes have in common; None for what is no size, or a constant one."""
    if len(node.outputs) != 1 or node.outputs[0].dtype not in _WHOLE:
        return None
    value = node.outputs[0]
    numbers = symbolic_value(value)
    if numbers is None:
        return None
    entries: list[Hashable] = []
    for number in numbers.reshape(-1):
        if isinstance(number, ir.SymbolicDim):
            if not same_dim(number, number):
                return None
            entries.append(("symbol", number.value))
        else:
            entries.append(int(number))
    if all(isinstance(entry, int) for entry in entries):
        return None
    return (value.dtype, numbers.shape, tuple(entries))
