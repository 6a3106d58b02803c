"""Make a model compute in integers, by QuantizeLinear and DequantizeLinear around operators.

    y = Conv(x, W, b)  ->  y = DQ(Q(Conv(DQ(Q(x)), DQ(W_int8), DQ(b_int32))))
    Q(x) = clip(round(x / s) + z),   DQ(q) = (q - z) * s

Which operators, with which scales, is in a plan: `graphopt quantize` makes one from data and writes
it on request. Without a plan, ranges of the tensors are enough: everything that the backend
runs in integers, and whose ranges are known, is quantized. Relu and Clip become part of the
operator before them, operators that only move elements share the scale of their input, biases are
int32 with the scale s_x * s_W.

Declined where the backend has no integer kernel, a weight is not a constant, a type is not
float32, the range of a tensor is not known or not finite, its neighbours are quantized
already, and in bodies of If, Loop, Scan and functions, which calibration does not reach.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.plugin import Journal, Pass, Promise, ir, option


@dataclass(frozen=True)
class InsertQdq(Pass):
    """Quantize to int8 by QuantizeLinear and DequantizeLinear, as a plan or ranges say."""

    name = "insert-qdq"
    promise = Promise.LOSSY

    plan: str = option("", "a plan in JSON, from `graphopt quantize`")
    ranges: str = option("", "without a plan: ranges in JSON, or `tensor:minimum:maximum;...`")
    backend: str = option("ort-cpu", "without a plan: what is to run the model")
    saturation_safe: bool | None = option(
        None, "no sum of two products beyond int16; none: if this processor needs it"
    )

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Read or make the plan, and insert it."""
        from graphopt.plugin import insert_qdq, plan_of_ranges, read_plan

        if self.plan:
            plan = read_plan(self.plan)
        else:
            plan = plan_of_ranges(
                model, self.ranges, self.backend, saturation_safe=self.saturation_safe
            )
        insert_qdq(model, plan, journal)
