"""merge: without data, let channels that stay stand in for those that go.

    w_j ~ sum over kept i of  s_ij w_i       s_j = (W_k W_k^T + ridge I)^-1 W_k w_j
    V_i <- V_i + sum over removed j of  s_ij V_j

w_j is the filter of unit j with its bias, over all producers of the group, and V_j what the
consumers multiply it with. It is exact where a filter is a combination of others and nothing but
linear operators lies between; behind a Relu only combinations with positive factors are, so those
alone are taken ("Leave-before-you-leave" and neuron merging are of this kind).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphopt.graph import ir
from graphopt.pruning.groups import CouplingGroup, Groups, Kept, check_kept
from graphopt.pruning.linear_layers import Layer, layers_of

RIDGE = 1e-2
"""Relative to the mean squared length of a filter: how much a combination must explain."""


def merge(model: ir.Model, groups: Groups, kept: Kept, *, ridge: float = RIDGE) -> dict[str, str]:
    """Add to the consumers of what stays what stands in for what will be removed.

    Args:
        model: the whole model, in which the groups were found; changed in place. Removing the
            units that are not in `kept` is left to the caller.
        groups: of `find_groups`.
        kept: for a group's name the units that stay.
        ridge: see `RIDGE`.

    Returns:
        For the name of each group that could not be merged the reason.
    """
    layers, _ = layers_of(model.graph)
    reasons: dict[str, str] = {}
    for name, units in check_kept(groups, kept).items():
        group = groups.named(name)
        filters = _filters(group, layers)
        if filters is None:
            reasons[name] = "a producer of the group is no layer with a constant weight"
            continue
        gone = np.setdiff1d(np.arange(group.channels), units)
        shares = _shares(filters[units], filters[gone], ridge)
        for member in group.consumers:
            layer = layers.get(member.node)
            if layer is None or member.axis != layer.input_axis:
                reasons[name] = f"'{member.node}' is no layer whose weight can be changed"
                continue
            matrix = layer.matrix()
            blocks = layer.columns_of(member.indices)
            moved = np.einsum("ji,gjko->giko", shares, matrix[:, blocks[gone]])
            # Units may share columns with none: each block is written once.
            matrix[:, blocks[units]] += moved
            layer.write(matrix, None)
            layers, _ = layers_of(model.graph)
    return reasons


def _filters(group: CouplingGroup, layers: Mapping[str, Layer]) -> np.ndarray | None:
    """[channels, numbers]: each unit's filters over all producers, with their biases."""
    parts = []
    for member in group.producers:
        layer = layers.get(member.node)
        if layer is None:
            return None
        rows = layer.matrix().transpose(0, 2, 1).reshape(layer.outputs, -1)
        rows = np.concatenate([rows, layer.bias_vector()[:, None]], axis=1)
        parts.append(rows[member.indices].reshape(group.channels, -1))
    return np.concatenate(parts, axis=1) if parts else None


def _shares(kept: np.ndarray, gone: np.ndarray, ridge: float) -> np.ndarray:
    """[gone, kept]: the combination of what stays that stands in for each unit that goes."""
    gram = kept @ kept.T
    level = max(float(np.trace(gram)) / len(gram), 1e-30)
    product = gone @ kept.T
    shares = np.linalg.solve(gram + ridge * level * np.eye(len(gram)), product.T).T
    for number, row in enumerate(shares):
        # Taking negative factors out, one refit at a time, until none is left.
        active = row > 0
        while active.any():
            inner = gram[np.ix_(active, active)]
            inner = inner + ridge * level * np.eye(len(inner))
            found = np.linalg.solve(inner, product[number, active])
            shares[number] = 0.0
            shares[number, active] = found
            if (found >= 0).all():
                break
            active[active] = found > 0
        else:
            shares[number] = 0.0
    return shares
