"""Merging without data: exact where a filter is a positive multiple of another."""

import numpy as np

from graphopt.graph import clone, ir
from graphopt.pruning.coupling import find_groups
from graphopt.pruning.merging import merge
from graphopt.pruning.surgery import prune
from tests.pruning.test_importance_second_order import feeds_for, small_network
from tests.pruning.test_repair import changed, distance


def merged(model: ir.Model, kept, **options) -> tuple[float, float]:
    groups = find_groups(model)
    plain, helped = clone(model), clone(model)
    prune(plain, groups, kept)
    reasons = merge(helped, groups, kept, **options)
    assert reasons == {}
    prune(helped, groups, kept)
    feeds = feeds_for(4, seed=9)
    return distance(plain, model, feeds), distance(helped, model, feeds)


def test_a_multiple_of_another_filter_is_taken_over_exactly() -> None:
    model = small_network()
    for name in ("w", "b"):
        changed(model, name, lambda array: array.__setitem__(2, 3 * array[6]))
    plain, helped = merged(model, {"h": [0, 1, 3, 4, 5, 6, 7]}, ridge=1e-9)
    assert helped < 1e-4 < plain


def test_a_negative_multiple_is_not_taken_over() -> None:
    """relu(-h) is no multiple of relu(h): what would cancel is left out."""
    model = small_network()
    for name in ("w", "b"):
        changed(model, name, lambda array: array.__setitem__(2, -array[6]))
    plain, helped = merged(model, {"h": [0, 1, 3, 4, 5, 6, 7]}, ridge=1e-3)
    assert np.isclose(plain, helped, rtol=0.6)
