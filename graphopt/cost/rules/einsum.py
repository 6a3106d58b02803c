"""Einsum, two operands at a time, in the order that takes the fewest multiply-accumulates.

    contracting two operands        the product of the sizes of all their indices, in MACs,
                                    also where nothing is summed over
    an index that only one operand
    has, and that the output lacks  summed beforehand: size in - size out additions
    an index twice in one operand   its diagonal: nothing is computed

With three operands or more the order decides: `ij,jk,kl->il` from the left takes
I*J*K + I*K*L, from the right J*K*L + I*J*L. The count is that of the cheapest tree, found by
trying them all; where sizes are free it is the `Min` over the trees. ONNX Runtime goes from left
to right, which is also the count for more operands than `_MOST`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from graphopt.cost.operator import Operator, Rule, UnknownShapeError, Work
from graphopt.cost.quantity import Number, maximum, minimum, product, total
from graphopt.cost.rules.formulas import combining

_MOST = 6
"""How many operands are tried in every order: 6 have 945 trees."""

Indices = frozenset[str]


def einsum(node: Operator) -> Work:
    """`Einsum`: any equation, with ellipses, repeated indices and an output left out."""
    shapes = [node.input(index).dims for index in range(len(node.inputs))]
    operands, output = _parsed(node.text("equation"), [len(shape) for shape in shapes])
    sizes = _sizes(operands, shapes)
    additions: list[Number] = []
    reduced: list[Indices] = []
    for position, (operand, shape) in enumerate(zip(operands, shapes, strict=True)):
        others = output.union(*operands[:position], *operands[position + 1 :])
        kept = others.intersection(operand)
        own = dict(zip(operand, shape, strict=True))
        additions.append(combining(_size(own, own), _size(kept, own)))
        reduced.append(kept)
    from_left = _in_order(reduced, output, sizes)
    if len(reduced) > _MOST:
        return Work(macs=from_left, elementwise=total(additions), note="from left to right")
    best = _cheapest(reduced, output, sizes)
    note = "" if best == from_left else f"from left to right it takes {from_left} MACs"
    return Work(macs=best, elementwise=total(additions), note=note)


def _parsed(equation: str, ranks: list[int]) -> tuple[list[list[str]], Indices]:
    """The indices of each operand, and those of the output.

    The dims that an ellipsis stands for are indices named after their distance from its end.

    Raises:
        UnknownShapeError: the equation does not fit the operands.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise UnknownShapeError(f"the equation '{equation}' is for {len(terms)} operands")
    operands = []
    for term, rank in zip(terms, ranks, strict=True):
        before, dots, after = term.partition("...")
        hidden = rank - len(before) - len(after)
        if hidden < 0 or (hidden > 0 and not dots):
            raise UnknownShapeError(f"the equation '{equation}' does not fit the operands' ranks")
        operands.append([*before, *(f"...{place}" for place in range(hidden, 0, -1)), *after])
    hidden_indices = {index for operand in operands for index in operand if len(index) > 1}
    if arrow:
        named = set(right.replace("...", ""))
        return operands, frozenset(named | (hidden_indices if "..." in right else set()))
    uses = Counter(index for operand in operands for index in operand)
    once = {index for index, count in uses.items() if count == 1}
    return operands, frozenset(once | hidden_indices)


def _sizes(operands: list[list[str]], dims: list[tuple[Number, ...]]) -> dict[str, Number]:
    """The size of each index; where one operand has 1, it is stretched to the others'."""
    sizes: dict[str, Number] = {}
    for indices, shape in zip(operands, dims, strict=True):
        for index, size in zip(indices, shape, strict=True):
            known = sizes.get(index, 1)
            if known == 1 or (isinstance(size, int) and size != 1):
                sizes[index] = size
            elif size != 1:
                # Equal, or one of them is 1 when it comes to it.
                sizes[index] = maximum(known, size)
    return sizes


def _size(indices: Collection[str], sizes: Mapping[str, Number]) -> Number:
    return product(sizes[index] for index in sorted(indices))


def _in_order(operands: list[Indices], output: Indices, sizes: Mapping[str, Number]) -> Number:
    """The MACs of contracting the operands from left to right."""
    macs: Number = 0
    held = operands[0]
    for position, operand in enumerate(operands[1:], start=1):
        joined = held | operand
        macs = macs + _size(joined, sizes)
        held = joined & output.union(*operands[position + 1 :])
    return macs


def _cheapest(operands: list[Indices], output: Indices, sizes: Mapping[str, Number]) -> Number:
    """The fewest MACs over all trees, by the best of each set of operands (a bit mask)."""
    everything = (1 << len(operands)) - 1
    best: dict[int, Number] = {1 << position: 0 for position in range(len(operands))}
    visible = {
        mask: _members(operands, mask) & output.union(_members(operands, everything ^ mask))
        for mask in range(1, everything + 1)
    }
    for mask in range(1, everything + 1):
        part = (mask - 1) & mask
        while part:
            rest = mask ^ part
            if part > rest:  # each split once
                joined = _size(visible[part] | visible[rest], sizes)
                macs = best[part] + best[rest] + joined
                best[mask] = minimum(best[mask], macs) if mask in best else macs
            part = (part - 1) & mask
    return best[everything]


def _members(operands: list[Indices], mask: int) -> Indices:
    """The indices of the operands in a set."""
    return frozenset().union(
        *(operand for position, operand in enumerate(operands) if mask >> position & 1)
    )


RULES = (Rule("", "Einsum", einsum),)
