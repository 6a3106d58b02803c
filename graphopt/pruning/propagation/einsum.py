"""Einsum: a letter is an axis, wherever it stands."""

from __future__ import annotations

from graphopt.pruning.groups import Role
from graphopt.pruning.propagation.place import NotUnderstood, Place
from graphopt.pruning.propagation.rule import Rule, standard


def _relate(place: Place) -> None:
    equation = place.text("equation", "").replace(" ", "")
    if "." in equation or "->" not in equation:
        raise NotUnderstood("has an equation with '...' or without '->'")
    left, result = equation.split("->")
    terms = left.split(",")
    tensors = [place.input(index) for index in range(len(terms))]
    y = place.output()
    axes: dict[str, int] = {}
    for term, tensor in zip((*terms, result), (*tensors, y), strict=True):
        if len(set(term)) != len(term) or len(term) != tensor.rank:
            raise NotUnderstood("takes a diagonal, or has shapes that do not fit together")
        for axis, letter in enumerate(term):
            if letter not in axes:
                axes[letter] = place.virtual(tensor.sizes[axis])
            if place.relations.sizes[axes[letter]] == 1 != tensor.sizes[axis]:
                raise NotUnderstood("stretches an axis of one index")
            place.tie_axis(tensor, axis, axes[letter])
    for index, term in enumerate(terms):
        for axis, letter in enumerate(term):
            place.weight(index, axis, Role.PRODUCER if letter in result else Role.CONSUMER)
    for letter in result:
        if sum(letter in term for term in terms) > 1:
            place.relations.preferred.add(axes[letter])


EINSUM_RULES = standard(("Einsum",), Rule(_relate))
