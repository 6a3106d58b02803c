"""The algebra of nodes that only move data: Reshape, Transpose, Squeeze, Unsqueeze, Flatten.

Every axis of a tensor is a product of factors, slowest first; an axis of size 1 has none. A
Reshape cuts the same row of factors into other axes (and splits a factor where a cut falls inside
it); a Transpose permutes the row. So any chain of such nodes is one permutation of factors:

    [1,48,44,44] -> [24,2,1936] -> (1,0,2) -> [2,1,24,44,44]      is      a b c -> b a c
                     a  b  c                                              with a=24, b=2, c=1936

and is carried out by at most Reshape, Transpose, Reshape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from graphopt.plugin import NotApplicable, Rewriter, ir, known_shape, same_dim
from graphopt_passes.operands import given, integers, no_references

Size = int | ir.SymbolicDim

MOVEMENTS = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")


@dataclass(eq=False, slots=True)
class Factor:
    """One factor of an axis; it may be split into smaller ones later."""

    size: Size
    parts: list[Factor] = field(default_factory=list)

    def leaves(self) -> list[Factor]:
        """What it was split into, or itself."""
        if not self.parts:
            return [self]
        return [leaf for part in self.parts for leaf in part.leaves()]


Axis = list[Factor]


def leaves(axis: Axis) -> Axis:
    """The factors of an axis as finely as they were split."""
    return [leaf for factor in axis for leaf in factor.leaves()]


def row(axes: Sequence[Axis]) -> Axis:
    """The factors of all axes, slowest first."""
    return [leaf for axis in axes for leaf in leaves(axis)]


def axes_of(value: ir.Value) -> list[Axis]:
    """One factor for each axis of `value`, none for an axis of size 1.

    Raises:
        NotApplicable: the rank is unknown, or an axis is empty.
    """
    shape = known_shape(value)
    if shape is None:
        raise NotApplicable(f"the rank of '{value.name}' is not known")
    if any(dim == 0 for dim in shape):
        raise NotApplicable(f"'{value.name}' is empty")
    return [[] if dim == 1 else [Factor(dim)] for dim in shape]


@dataclass(frozen=True)
class Movement:
    """A value, and how its factors stand in what is made from it.

    Attributes:
        source: the value that is moved.
        before: the axes of `source`.
        after: the axes of the result.
    """

    source: ir.Value
    before: list[Axis]
    after: list[Axis]


def chain_behind(node: ir.Node, longest: int = 12) -> list[ir.Node]:
    """The nodes that only move data, up to `node`; no value between is used elsewhere."""
    chain = [node]
    while len(chain) < longest:
        source = chain[-1].inputs[0] if chain[-1].inputs else None
        producer = None if source is None else source.producer()
        if (
            source is None
            or producer is None
            or not is_movement(producer)
            or producer.graph is not node.graph
            or source.is_graph_output()
            or len(source.uses()) != 1
        ):
            break
        chain.append(producer)
    chain.reverse()
    return chain


def is_movement(node: ir.Node) -> bool:
    """Whether the node only moves data."""
    return node.op_type in MOVEMENTS and node.domain in ("", "ai.onnx")


def follow(chain: Sequence[ir.Node]) -> tuple[Movement, int]:
    """What the longest end of the chain that can be followed does, and where that end begins.

    Raises:
        NotApplicable: not even the last node can be followed.
    """
    for start in range(len(chain)):
        source = chain[start].inputs[0]
        if source is None:
            continue
        try:
            before = axes_of(source)
            after = before
            for node in chain[start:]:
                after = _moved(node, after)
        except NotApplicable:
            if start == len(chain) - 1:
                raise
            continue
        return Movement(source, before, after), start
    raise NotApplicable("nothing can be followed")


def _moved(node: ir.Node, axes: list[Axis]) -> list[Axis]:
    no_references(node)
    match node.op_type:
        case "Transpose":
            order = node.attributes.get_ints("perm", ()) or range(len(axes))[::-1]
            return [axes[place] for place in order]
        case "Unsqueeze":
            added = integers(node, "axes", 1) or []
            rank = len(axes) + len(added)
            places = {place % rank for place in added}
            rest = iter(axes)
            return [[] if place in places else next(rest) for place in range(rank)]
        case "Squeeze" if given(node, 1) is not None or "axes" in node.attributes:
            removed = {place % len(axes) for place in integers(node, "axes", 1) or []}
            if any(axes[place] for place in removed):
                raise NotApplicable("an axis that Squeeze removes is not known to be 1")
            return [axis for place, axis in enumerate(axes) if place not in removed]
    shape = known_shape(node.outputs[0])
    if shape is None:
        raise NotApplicable(f"the shape of '{node.outputs[0].name}' is not known")
    return _recut(row(axes), list(shape))


def _recut(factors: Axis, target: list[Size]) -> list[Axis]:
    """The same row of factors, cut into axes of the sizes `target`."""
    if any(dim == 0 for dim in target):
        raise NotApplicable("a dim is 0")
    front, used = _cut(factors, target, forwards=True)
    rest, open_dims = used, target[len(front) :]
    back, rest = _cut(rest, open_dims, forwards=False)
    open_dims = open_dims[: len(open_dims) - len(back)]
    if not rest and all(dim == 1 for dim in open_dims):
        return [*front, *[[] for _ in open_dims], *back]
    # What is left on both sides is equal if nothing that was matched can be 0.
    matched = row([*front, *back])
    if not all(isinstance(factor.size, int) for factor in matched):
        raise NotApplicable("a dim that is not known may be 0")
    places = [place for place, dim in enumerate(open_dims) if dim != 1]
    middle: list[Axis] = [[] for _ in open_dims]
    if len(places) == 1:
        middle[places[0]] = rest
    elif len(rest) == 1 and places:
        rest[0].parts = [Factor(open_dims[place]) for place in places]
        for place, part in zip(places, rest[0].parts, strict=True):
            middle[place] = [part]
    else:
        raise NotApplicable("the dims of a reshape cannot be told apart")
    return [*front, *middle, *back]


def _cut(factors: Axis, target: list[Size], *, forwards: bool) -> tuple[list[Axis], Axis]:
    """As many axes from one end as certainly fit, and the factors that are left."""
    left = list(factors) if forwards else factors[::-1]
    cut: list[Axis] = []
    for dim in target if forwards else target[::-1]:
        taken = _take(left, dim, forwards=forwards)
        if taken is None:
            break
        cut.append(taken)
    if forwards:
        return cut, left
    return [axis[::-1] for axis in reversed(cut)], left[::-1]


def _take(left: Axis, dim: Size, *, forwards: bool) -> Axis | None:
    """Factors off the front of `left` that make `dim`; None, and `left` as it was, if none do."""
    if not isinstance(dim, int):
        return [left.pop(0)] if left and same_dim(left[0].size, dim) else None
    taken: Axis = []
    product, at = 1, 0
    while product < dim:
        size = left[at].size if at < len(left) else None
        if not isinstance(size, int):
            return None
        wanted, remainder = divmod(dim, product)
        if remainder:
            return None
        if wanted % size == 0:
            taken.append(left[at])
            product *= size
            at += 1
        elif size % wanted == 0:
            near, far = Factor(wanted), Factor(size // wanted)
            left[at].parts = [near, far] if forwards else [far, near]
            left[at : at + 1] = [near, far]
        else:
            return None
    del left[:at]
    return taken


@dataclass(frozen=True)
class Steps:
    """How a movement is carried out.

    Attributes:
        first: the axes to cut the source into; None where it stays as it is.
        order: the permutation after that; None for none.
        last: the axes to cut the result into; None where it stays as it is.
    """

    first: list[Axis] | None
    order: list[int] | None
    last: list[Axis] | None

    @property
    def count(self) -> int:
        """The number of nodes."""
        return sum(step is not None for step in (self.first, self.order, self.last))


def steps_for(movement: Movement) -> Steps:
    """The fewest nodes that carry out a movement."""
    before = [leaves(axis) for axis in movement.before]
    after = [leaves(axis) for axis in movement.after]
    if _same(row(before), row(after)):
        return Steps(None, None, None if _equal(before, after) else after)
    order = _order(before, after)
    if order is not None:
        return Steps(None, order, None)
    position = {id(factor): place for place, factor in enumerate(row(before))}
    target = {id(factor): place for place, factor in enumerate(row(after))}
    if all(_in_one_piece(axis, target) for axis in before):
        order = sorted(
            range(len(before)),
            key=lambda place: (target[id(before[place][0])] if before[place] else -1, place),
        )
        return Steps(None, order, after)
    if all(_in_one_piece(axis, position) for axis in after):
        order = sorted(
            range(len(after)),
            key=lambda place: (position[id(after[place][0])] if after[place] else -1, place),
        )
        view = [after[place] for place in order]
        return Steps(view, [order.index(place) for place in range(len(after))], None)
    blocks: list[Axis] = []
    for factor in row(before):
        last = blocks[-1][-1] if blocks else None
        if last is not None and target[id(factor)] == target[id(last)] + 1:
            blocks[-1].append(factor)
        else:
            blocks.append([factor])
    order = sorted(range(len(blocks)), key=lambda place: target[id(blocks[place][0])])
    return Steps(blocks, order, after)


def carry_out(movement: Movement, steps: Steps, rewriter: Rewriter) -> ir.Value:
    """Make the nodes; their last value, or the source where there is nothing to do.

    Raises:
        NotApplicable: a Reshape would need more than one dim that is not known.
    """
    value, axes = movement.source, [leaves(axis) for axis in movement.before]
    if steps.first is not None:
        value, axes = _reshape(value, axes, steps.first, rewriter), steps.first
    if steps.order is not None:
        axes = [axes[place] for place in steps.order]
        made = rewriter.node("Transpose", [value], {"perm": steps.order})
        value = _typed(made.outputs[0], value, axes)
    if steps.last is not None:
        value = _reshape(value, axes, steps.last, rewriter)
    return value


def _reshape(
    value: ir.Value, old: Sequence[Axis], new: Sequence[Axis], rewriter: Rewriter
) -> ir.Value:
    target: list[int] = []
    for place, axis in enumerate(new):
        size = _size(axis)
        if isinstance(size, int):
            target.append(size)
        elif place < len(old) and _same(old[place], axis):
            target.append(0)
        else:
            target.append(-1)
    if target.count(-1) > 1 or (-1 in target and 0 in target):
        raise NotApplicable("a Reshape would have more than one dim that is not known")
    shape = rewriter.initializer(np.array(target, np.int64), "movement_shape")
    return _typed(rewriter.node("Reshape", [value, shape]).outputs[0], value, new)


def _typed(made: ir.Value, source: ir.Value, axes: Sequence[Axis]) -> ir.Value:
    made.type = source.type
    made.shape = ir.Shape([_size(axis) for axis in axes])
    return made


def _size(axis: Axis) -> Size:
    sizes = [factor.size for factor in axis]
    if all(isinstance(size, int) for size in sizes):
        return math.prod(size for size in sizes if isinstance(size, int))
    return sizes[0] if len(sizes) == 1 else ir.SymbolicDim(None)


def _same(one: Axis, other: Axis) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _equal(before: Sequence[Axis], after: Sequence[Axis]) -> bool:
    return len(before) == len(after) and all(map(_same, before, after))


def _order(before: Sequence[Axis], after: Sequence[Axis]) -> list[int] | None:
    """The permutation that makes `after` of `before`, if one does."""
    if len(before) != len(after):
        return None
    units = iter([place for place, axis in enumerate(before) if not axis])
    places = {id(axis[0]): place for place, axis in enumerate(before) if axis}
    order: list[int] = []
    for axis in after:
        place = places.get(id(axis[0])) if axis else next(units, None)
        if place is None or not _same(before[place], axis):
            return None
        order.append(place)
    return order


def _in_one_piece(axis: Axis, position: dict[int, int]) -> bool:
    """Whether the factors stand side by side, in order, in the row that `position` describes."""
    return all(position[id(second)] == position[id(first)] + 1 for first, second in pairwise(axis))
