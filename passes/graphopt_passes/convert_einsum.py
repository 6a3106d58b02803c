"""Compute an Einsum by the operators that it stands for.

    ij->ji                 ->  Transpose(a)
    bij->jb                ->  Transpose(ReduceSum(a))
    bihd,bjhd->bhij        ->  MatMul(Transpose(a), Transpose(b))
    bij,j->bij             ->  Mul(a, b)
    bi,bi->b               ->  ReduceSum(Mul(a, b))

A product takes the operand whose letters the result has first as its left factor, and a Transpose
only where the letters of an operand or of the result do not stand as MatMul has them. Letters that
one operand alone has, beyond the one that MatMul takes, are a stack that the other is broadcast to.
An ellipsis is the axes that it stands for.

Declined where ranks are not known, for more than two operands, a letter twice in one operand (a
diagonal), a sum over one operand of two, sums over several letters or over an axis of which the
operands may have different sizes, a stack of vectors, stacks on both sides, and an outer product:
these need operators around the product that take as long as Einsum does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    opset_version,
    same_dim,
)
from graphopt_passes.operands import no_references, rank

_ELLIPSIS = "..."
_AXES_ARE_INPUT = 13


class ConvertEinsum(RewritePass):
    """Compute an Einsum by MatMul, Mul, ReduceSum and Transpose, which run faster."""

    name = "convert-einsum"
    promise = Promise.EQUIVALENT
    patterns = (op("Einsum"),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the operators, or say which part of the equation has none."""
        root = match.root
        no_references(root)
        labels, result = _parsed(root)
        build = _Operators(rewriter, opset_version(root, rewriter.model))
        operands = [
            _Labelled(value, letters)
            for value, letters in zip(root.inputs, labels, strict=True)
            if value is not None
        ]
        if len(operands) == 1:
            made = build.summed(operands[0], result)
        elif len(operands) == 2:
            made = build.product(operands[0], operands[1], result)
        else:
            raise NotApplicable("Einsum has more than two operands")
        rewriter.replace(root, build.arranged(made, result).value, "Einsum -> its operators")


def _parsed(node: ir.Node) -> tuple[list[str], str]:
    """The letters of each operand, and those of the result; an ellipsis has letters too."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(node.inputs):
        raise NotApplicable("the equation has not as many terms as there are operands")
    labels, most = [], 0
    for term, value in zip(terms, node.inputs, strict=True):
        if _ELLIPSIS in term:
            axes = None if value is None else rank(value)
            if axes is None:
                raise NotApplicable("the axes of an ellipsis are not known")
            hidden = axes - len(term) + len(_ELLIPSIS)
            most = max(most, hidden)
            term = term.replace(_ELLIPSIS, _hidden(hidden))
        if len(set(term)) < len(term):
            raise NotApplicable("a letter stands twice in one operand")
        labels.append(term)
    if arrow:
        return labels, right.replace(_ELLIPSIS, _hidden(most))
    letters = sorted({letter for letter in left if letter.isalpha()})
    once = [letter for letter in letters if left.count(letter) == 1]
    return labels, _hidden(most) + "".join(once)


def _hidden(count: int) -> str:
    """Letters for the axes of an ellipsis, which are aligned at their end."""
    return "".join(str(index) for index in reversed(range(count)))


@dataclass(frozen=True)
class _Labelled:
    """A value, and the letter of each of its axes."""

    value: ir.Value
    letters: str


class _Operators:
    """Makes the operators of one Einsum."""

    def __init__(self, rewriter: Rewriter, opset: int) -> None:
        self._rewriter = rewriter
        self._opset = opset

    def summed(self, operand: _Labelled, kept: str) -> _Labelled:
        """The sum over all letters that are not kept."""
        gone = [axis for axis, letter in enumerate(operand.letters) if letter not in kept]
        if not gone:
            return operand
        node = self._over("ReduceSum", operand.value, gone, keepdims=0)
        return _Labelled(node, "".join(x for x in operand.letters if x in kept))

    def product(self, first: _Labelled, second: _Labelled, result: str) -> _Labelled:
        """The sum of products of two operands over the letters that only they have."""
        both = [letter for letter in first.letters if letter in second.letters]
        summed = [letter for letter in both if letter not in result]
        alone = [_only(first, second), _only(second, first)]
        if any(letter not in result for letters in alone for letter in letters):
            raise NotApplicable("one operand alone is summed over")
        if all(alone) and not summed:
            raise NotApplicable("an outer product takes as long either way")
        if not any(alone) or not summed:
            return self._elementwise(first, second, result)
        if len(summed) > 1:
            raise NotApplicable("a sum over several axes takes as long either way")
        _check_sizes(first, second, summed[0])
        # MatMul gives the left operand's letter first.
        if all(alone) and _last(alone[0], result) > _last(alone[1], result):
            first, second, alone = second, first, alone[::-1]
        return self._matmul(first, second, alone, result, summed[0])

    def _elementwise(self, first: _Labelled, second: _Labelled, result: str) -> _Labelled:
        """Mul, and ReduceSum where letters are summed over."""
        full, other = first, second
        if len(other.letters) > len(full.letters):
            full, other = other, full
        if set(full.letters) <= set(result):
            full = self.arranged(full, result)
        other = self._spread(other, full.letters)
        node = self._rewriter.node("Mul", [full.value, other.value])
        return self.summed(_Labelled(node.outputs[0], full.letters), result)

    def _matmul(
        self, left: _Labelled, right: _Labelled, alone: Sequence[str], result: str, summed: str
    ) -> _Labelled:
        stack = "".join(x for x in result if x in left.letters and x in right.letters)
        if stack and not all(alone):
            raise NotApplicable("a stack of vectors")
        if min(len(letters) for letters in alone) > 1:
            raise NotApplicable("both operands have axes of their own in front")
        rows, columns = ("".join(x for x in result if x in letters) for letters in alone)
        left = self.arranged(left, rows[:-1] + stack + rows[-1:] + summed)
        right = self.arranged(right, columns[:-1] + stack + summed + columns[-1:])
        node = self._rewriter.node("MatMul", [left.value, right.value])
        letters = rows[:-1] + columns[:-1] + stack + rows[-1:] + columns[-1:]
        return _Labelled(node.outputs[0], letters)

    def arranged(self, operand: _Labelled, order: str) -> _Labelled:
        """The operand with its axes in the order of these letters."""
        if operand.letters == order:
            return operand
        order_of = [operand.letters.index(letter) for letter in order]
        node = self._rewriter.node("Transpose", [operand.value], {"perm": order_of})
        return _Labelled(node.outputs[0], order)

    def _spread(self, operand: _Labelled, order: str) -> _Labelled:
        """The operand as it broadcasts against axes with these letters."""
        operand = self.arranged(operand, "".join(x for x in order if x in operand.letters))
        own = order[order.index(operand.letters[0]) :] if operand.letters else ""
        missing = [axis for axis, letter in enumerate(own) if letter not in operand.letters]
        if not missing:
            return operand
        return _Labelled(self._over("Unsqueeze", operand.value, missing), own)

    def _over(self, op_type: str, value: ir.Value, axes: list[int], **more: int) -> ir.Value:
        if self._opset < _AXES_ARE_INPUT:
            return self._rewriter.node(op_type, [value], {"axes": axes, **more}).outputs[0]
        held = self._rewriter.initializer(np.array(axes, np.int64), "axes")
        return self._rewriter.node(op_type, [value, held], more).outputs[0]


def _only(operand: _Labelled, other: _Labelled) -> str:
    return "".join(letter for letter in operand.letters if letter not in other.letters)


def _last(letters: str, result: str) -> int:
    """Where the last of these letters stands in the result."""
    return max(result.index(letter) for letter in letters)


def _check_sizes(first: _Labelled, second: _Labelled, letter: str) -> None:
    """Refuse a sum in which an axis of size 1 may be repeated: MatMul does not broadcast it."""
    sizes = []
    for operand in (first, second):
        shape = known_shape(operand.value)
        if shape is None or len(shape) != len(operand.letters):
            raise NotApplicable("the shape of an operand is not known")
        sizes.append(shape[operand.letters.index(letter)])
    if not same_dim(*sizes):
        raise NotApplicable("the axis that is summed over may be of different sizes")
