"""Hold weights in blocks of 4 or 8 bits; activations stay float.

    MatMul(x, W)    ->  MatMulNBits(x, W_q, s, z)
    MatMul(x, W)    ->  MatMul(x, DequantizeLinear(W_q, s, z))          with standard=true
    Gather(E, ids)  ->  GatherBlockQuantized(E_q, ids, s, z)

For decoders, which read every weight for each token. The first and the third are ONNX Runtime's
own operators.

Declined where the weight is no constant float32 matrix on the right, or small; where a table is
used as something else too; and with standard=true below opset 21.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.plugin import Journal, Pass, Promise, ir, option


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Hold the weights of MatMul, Gemm and Gather in blocks of 4 or 8 bits."""

    name = "quantize-weights"
    promise = Promise.LOSSY

    bits: int = option(4, "4 or 8")
    block_size: int = option(32, "how many inputs share a scale: 16, 32, 64, 128")
    symmetric: bool = option(True, "whether zero points are left out")
    standard: bool = option(False, "write standard ONNX instead of ONNX Runtime's operators")
    embeddings: bool = option(True, "quantize tables that Gather reads too")
    minimum_elements: int = option(4096, "leave weights with fewer elements as they are")

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Replace each node in its place, rounding to nearest."""
        from graphopt.plugin import BlockFormat, quantize_weights

        quantize_weights(
            model,
            journal,
            BlockFormat(self.bits, self.block_size, self.symmetric),
            form="dequantize" if self.standard else "matmulnbits",
            minimum_elements=self.minimum_elements,
            embeddings=self.embeddings,
        )
