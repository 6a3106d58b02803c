"""float32 -> half, with the fewest Casts and nothing that half cannot hold.

    x -> Conv(W) -> Resize(scales) -> y     ->     x -> Cast -> Conv(half W) -> Resize -> Cast -> y

What goes is chosen by a minimum cut (see graphopt.precision): matrix products and what holds
weights go wherever they may; the rest goes where that takes the fewest Casts. Constants are
rounded once, and kept in float32 as well where somebody reads them so. A Cast is shared by all
who read its result, in subgraphs too.

It does not hold, and is declined with the reason, for what the operator set gives no half type
(scales of Resize, QuantizeLinear before opset 19), for constants that leave the range or vanish,
for values that were measured or are bound to leave it, for positions beyond 2048, angles
beyond 16, for operators between DequantizeLinear and QuantizeLinear, and for bodies of
functions. Masks of -1e9 on their way to a Softmax are clamped.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.plugin import Journal, Pass, Promise, ir, option


@dataclass(frozen=True)
class ConvertHalf(Pass):
    """Convert to float16 or bfloat16 what is safe in it, with the fewest Casts."""

    name = "convert-half"
    promise = Promise.LOSSY

    type: str = option("fp16", "fp16 or bf16")
    keep_io_types: bool = option(True, "leave float32 inputs and outputs of the model float32")
    provider: str = option("any", "whose kernels to go by: any, cpu, cuda or tensorrt")
    op_block_list: str = option("", "op types to leave in float32: Exp|Softmax")
    node_block_list: str = option("", "a regular expression for names of nodes, or of outputs")
    ranges: str = option("", "a JSON file of measured ranges")

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Plan and convert; shapes must have been inferred."""
        from graphopt.plugin import (
            Blocked,
            HalfRequest,
            Measurements,
            convert_to_half,
            format_named,
        )

        request = HalfRequest(
            format_named(self.type),
            self.keep_io_types,
            self.provider,
            Blocked(
                tuple(filter(None, self.op_block_list.split("|"))),
                tuple(filter(None, [self.node_block_list])),
            ),
            Measurements.read(self.ranges) if self.ranges else None,
        )
        convert_to_half(model, request, journal)
