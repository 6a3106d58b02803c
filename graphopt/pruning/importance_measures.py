"""Importance from the weights alone, beside the magnitudes: geometric median and norm scale.

    geometric median:  score(u) = sum over units v of |w_u - w_v|     (near all others: replaceable)
    norm scale:        score(u) = |scale_u| of the BatchNormalization that gives the channel

Each producer's scores are relative to their mean, and the producers of a group are summed.
"""

from __future__ import annotations

import numpy as np

from graphopt.graph import constant_array, ir
from graphopt.pruning.groups import CouplingGroup, Groups
from graphopt.pruning.linear_layers import Layer, layers_of


def geometric_median_scores(model: ir.Model, groups: Groups) -> dict[str, np.ndarray]:
    """For each prunable group's name the scores [channels]; zeros where no producer is a layer."""
    layers, _ = layers_of(model.graph)
    return {group.name: _distances(group, layers) for group in groups.prunable}


def norm_scale_scores(original: ir.Model, groups: Groups) -> dict[str, np.ndarray]:
    """For each prunable group's name the scores [channels]; zeros where no norm gives a producer.

    Args:
        original: the model with its norms, some of which preparation has since folded into the
            layers that the groups name.
        groups: of `find_groups`.
    """
    scales: dict[str | None, np.ndarray] = {}
    for node in original.graph:
        if node.op_type == "BatchNormalization" and node.domain in ("", "ai.onnx"):
            scale = constant_array(node.inputs[1])
            if scale is not None:
                scales[node.outputs[0].name] = np.abs(scale.astype(np.float64))
    found: dict[str, np.ndarray] = {}
    for group in groups.prunable:
        total = np.zeros(group.channels)
        for member in group.producers:
            scale = scales.get(member.node)
            if scale is not None and member.indices.max() < len(scale):
                total += _relative(scale[member.indices].mean(axis=1))
        found[group.name] = total
    return found


def _distances(group: CouplingGroup, layers: dict[str, Layer]) -> np.ndarray:
    total = np.zeros(group.channels)
    for member in group.producers:
        layer = layers.get(member.node)
        if layer is None:
            continue
        rows = layer.matrix().transpose(0, 2, 1).reshape(layer.outputs, -1)
        filters = rows[member.indices].reshape(group.channels, -1)
        gram = filters @ filters.T
        length = np.diag(gram)
        squared = np.maximum(length[:, None] + length[None, :] - 2 * gram, 0.0)
        total += _relative(np.sqrt(squared).sum(axis=1))
    return total


def _relative(scores: np.ndarray) -> np.ndarray:
    mean = float(scores.mean())
    return np.asarray(scores / mean) if mean > 0 else scores
