"""Cross-layer equalization: what the weights' channels differ in is shared out between layers.

    W1[i,:] / s_i,  b1_i / s_i,  W2[:,i] * s_i,   s_i = sqrt(r1_i / r2_i)

with r1_i the largest magnitude in the weight of output i of the first layer and r2_i the largest
that the next layers multiply channel i with (Nagel et al., Data-Free Quantization, 2019). Then
r1_i = r2_i: no channel wastes the range of a scale that it shares with others. A layer between
two others is in two pairs; going over all pairs again and again converges to the solution for
the whole chain, so depthwise triples need no formula of their own. A tensor with several
consumers has one s for all, from the largest r2_i. The model computes the same.

It is what a weight with one scale for the whole tensor needs. Per-channel weights lose little
without it; then the channels of the activations count, see `smoothing`.
"""

from __future__ import annotations

import numpy as np

from graphopt.graph import ir
from graphopt.quantization.repair.linear_layer import LINEAR_OPERATORS, linear_layer
from graphopt.quantization.repair.rescaling import Rescaling, rescalings
from graphopt.rewrite import Journal, NotApplicable
from graphopt.rewrite.journal import site_of

_LARGEST_FACTOR = 2.0**10
"""Beyond it a channel is as good as dead, and its bias would set the range of the activation."""


def equalize_channels(
    model: ir.Model, journal: Journal, *, sweeps: int = 20, tolerance: float = 1e-3
) -> None:
    """Equalize the weights of consecutive linear layers of the main graph, in place.

    When: on the prepared float model (BatchNormalization folded), before calibration, since the
    ranges of the tensors between the layers change. It needs no data. Each change is recorded
    at the first layer's site; where a tensor cannot be rescaled the journal says why.

    Args:
        model: the model, with shapes inferred.
        journal: asked before each change, told after it.
        sweeps: at most so many times over all pairs.
        tolerance: enough when no factor of a sweep differs from 1 by more.
    """
    pairs = _pairs(model.graph, journal)
    weights = {
        id(node): linear_layer(node).weight
        for found in pairs
        for node in (found.root, *found.consumers)
    }
    totals = [np.ones(found.channels) for found in pairs]
    for _ in range(sweeps):
        largest = 0.0
        for number, found in enumerate(pairs):
            factors = _factors(found, weights)
            factors = np.clip(
                factors, 1 / _LARGEST_FACTOR / totals[number], _LARGEST_FACTOR / totals[number]
            )
            largest = max(largest, float(np.abs(np.log(factors)).max(initial=0)))
            totals[number] *= factors
            _rescale(found, weights, factors)
        if largest <= tolerance:
            break
    for found, factors in zip(pairs, totals, strict=True):
        site = site_of(found.root)
        spread = float(factors.max() / factors.min())
        if spread <= 1 + tolerance:
            journal.decline(site, "the channels are equal already")
        elif journal.permits(site):
            found.apply(factors)
            names = ", ".join(f"'{node.outputs[0].name}'" for node in found.consumers)
            journal.record(site, f"{found.channels} channels equalized with {names}")


def _pairs(graph: ir.Graph, journal: Journal) -> list[Rescaling]:
    pairs = []
    for root, found in rescalings(graph):
        if root.op_type not in LINEAR_OPERATORS:
            continue
        if isinstance(found, NotApplicable):
            journal.decline(site_of(root), str(found))
        else:
            pairs.append(found)
    return pairs


def _factors(found: Rescaling, weights: dict[int, np.ndarray]) -> np.ndarray:
    first = linear_layer(found.root).with_weight(weights[id(found.root)]).output_range()
    second = np.zeros(found.channels)
    for layer in found.layers():
        current = layer.with_weight(weights[id(layer.node)])
        second = np.maximum(second, current.input_range())
    alive = (first > 0) & (second > 0)
    ratio = np.divide(first, second, out=np.ones(found.channels), where=alive)
    return np.asarray(np.sqrt(ratio))


def _rescale(found: Rescaling, weights: dict[int, np.ndarray], factors: np.ndarray) -> None:
    root = linear_layer(found.root).with_weight(weights[id(found.root)])
    weights[id(found.root)] = root.scaled_outputs(1 / factors)
    for layer in found.layers():
        current = layer.with_weight(weights[id(layer.node)])
        weights[id(layer.node)] = current.scaled_inputs(factors)
