"""Share out between consecutive layers what the channels of their weights differ in.

    W2 f(W1 x + b1)  ->  (W2 s) f(W1 x / s + b1 / s),   s_i = sqrt(max|W1[i,:]| / max|W2[:,i]|)

f is what commutes with a positive factor per channel: Relu, LeakyRelu, PRelu, pooling, Transpose.
It makes no model faster; it prepares one whose weights are to share a scale (per-tensor int8).

Declined where the tensor between the layers is an output or is added to another (a residual
chain), or goes through what does not commute (Clip, Sigmoid, Concat, ...).
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.plugin import Journal, Pass, Promise, ir, option


@dataclass(frozen=True)
class EqualizeChannels(Pass):
    """Equalize the weights of consecutive linear layers, channel by channel."""

    name = "equalize-channels"
    promise = Promise.EQUIVALENT

    sweeps: int = option(20, "at most so many times over all pairs of layers")

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Find the factors of all pairs together, then apply them."""
        from graphopt.plugin import equalize_channels

        equalize_channels(model, journal, sweeps=self.sweeps)
