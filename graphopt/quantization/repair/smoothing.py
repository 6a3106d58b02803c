"""SmoothQuant: what makes an activation hard to quantize is moved into the weights behind it.

    X / s,  W * s,   s_j = max|X_j|^a / max|W_j|^(1-a)

(Xiao et al., 2023), for every channel j of a tensor X that linear operators read. 1/s goes into
what makes X: the scale and bias of a LayerNormalization or BatchNormalization, a Mul by a
constant, or a linear operator; all consumers of X (queries, keys, values) share one s. The model
computes the same. The strength a says how much is moved: 0.5 for half, in the logarithm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from graphopt.graph import ir
from graphopt.quantization.repair.rescaling import Rescaling, rescalings
from graphopt.rewrite import Journal, NotApplicable
from graphopt.rewrite.journal import site_of
from graphopt.runtime import Feed, TensorStatistics, collect

_LARGEST_FACTOR = 2.0**10
"""A channel that was hardly seen must not blow up the weights behind it."""


def smooth_activations(
    model: ir.Model,
    feeds: Iterable[Feed],
    journal: Journal,
    *,
    strength: float = 0.5,
    op_types: Sequence[str] = ("MatMul", "Gemm"),
    threads: int = 0,
) -> None:
    """Smooth the inputs of linear operators of the main graph, in place.

    When: on the prepared float model, before calibration; the feeds are read once. Each change
    is recorded at the site of the node that takes 1/s.

    Args:
        model: the model, with shapes inferred.
        feeds: calibration data.
        journal: asked before each change, told after it.
        strength: a, between 0 (nothing of the activations' spread is moved) and 1 (all).
        op_types: smooth what one of these reads; ("Conv",) for convolutions.
        threads: threads of the runs.
    """
    found = _candidates(model.graph, op_types, journal)
    axes = {name: item.tensors[name] for item in found for name in _read_by_consumers(item)}
    statistics = collect(model, feeds, list(axes), channel_axes=axes, threads=threads)
    for item in found:
        site = site_of(item.root)
        factors = _factors(item, statistics, strength)
        if float(factors.max() / factors.min()) == 1.0:
            journal.decline(site, "no channel of it was seen to differ from the others")
        elif journal.permits(site):
            item.apply(factors)
            names = ", ".join(f"'{node.outputs[0].name}'" for node in item.consumers)
            journal.record(site, f"{item.channels} channels smoothed for {names}")


def _candidates(graph: ir.Graph, op_types: Sequence[str], journal: Journal) -> list[Rescaling]:
    candidates = []
    for root, found in rescalings(graph):
        if isinstance(found, NotApplicable):
            journal.decline(site_of(root), str(found))
        elif any(node.op_type in op_types for node in found.consumers):
            candidates.append(found)
    return candidates


def _read_by_consumers(found: Rescaling) -> list[str]:
    names = [layer.data.name or "" for layer in found.layers()]
    return list(dict.fromkeys(names))


def _factors(
    found: Rescaling, statistics: Mapping[str, TensorStatistics], strength: float
) -> np.ndarray:
    seen = np.zeros(found.channels)
    for name in _read_by_consumers(found):
        channels = statistics[name].channels
        if channels is not None:
            largest = np.maximum(np.abs(channels.minimum), np.abs(channels.maximum))
            seen = np.maximum(seen, np.where(np.isfinite(largest), largest, 0.0))
    weights = np.zeros(found.channels)
    for layer in found.layers():
        weights = np.maximum(weights, layer.input_range())
    alive = (seen > 0) & (weights > 0)
    if not alive.any():
        return np.ones(found.channels)
    wanted = np.where(alive, seen, 1.0) ** strength / np.where(alive, weights, 1.0) ** (
        1 - strength
    )
    # Only the differences between channels matter; about their mean the numbers stay in range.
    middle = np.exp(np.log(wanted[alive]).mean())
    wanted = np.clip(wanted / middle, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    return np.where(alive, wanted, 1.0)
