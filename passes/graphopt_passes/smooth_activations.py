"""SmoothQuant: move what makes an activation hard to quantize into the weights behind it.

    X W  ->  (X / s) (s W),   s_j = max|X_j|^a / max|W_j|^(1-a)

1/s goes into the scale and bias of the LayerNormalization or BatchNormalization that makes X, or
into the linear operator or the Mul by a constant that does. It makes no model faster; it prepares
one for quantization.

Declined where no data is given, and where X is an output, is added to another tensor or goes
through what does not commute with a factor per channel.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.plugin import Journal, Pass, Promise, ir, option


@dataclass(frozen=True)
class SmoothActivations(Pass):
    """Move the spread of activations' channels into the weights (SmoothQuant)."""

    name = "smooth-activations"
    promise = Promise.EQUIVALENT

    data: str = option("", "calibration data: .npz, a folder, or module:function")
    strength: float = option(0.5, "how much of the spread is moved, between 0 and 1")
    convolutions: bool = option(False, "smooth what Conv reads too")

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Measure the channels, then rescale them."""
        from graphopt.plugin import read_feeds, smooth_activations

        if not self.data:
            journal.decline("model", "no calibration data is given")
            return
        op_types = ("MatMul", "Gemm", *(("Conv",) if self.convolutions else ()))
        feeds = read_feeds(self.data, model=model)
        smooth_activations(model, feeds, journal, strength=self.strength, op_types=op_types)
