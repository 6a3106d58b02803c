"""Let MatMul and Gemm multiply integers, the input's range measured in every run.

    X W  ->  MatMulInteger(X_q, W_q) * (s_x s_w),   X_q, s_x = DynamicQuantizeLinear(X)

Weights are int8 with a scale for each column. No calibration data is needed.

Declined where the weight is no constant matrix on the right, or is too small to pay for
measuring X, and below opset 11.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.plugin import Journal, Pass, Promise, ir, option


@dataclass(frozen=True)
class QuantizeDynamically(Pass):
    """Quantize MatMul and Gemm dynamically: int8 weights, no calibration."""

    name = "quantize-dynamically"
    promise = Promise.LOSSY

    minimum_elements: int = option(4096, "leave weights with fewer elements float")
    saturation_safe: bool = option(True, "no sum of two products saturates without VNNI")

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Replace each node in its place."""
        from graphopt.plugin import quantize_dynamically

        quantize_dynamically(
            model,
            journal,
            minimum_elements=self.minimum_elements,
            saturation_safe=self.saturation_safe,
        )
