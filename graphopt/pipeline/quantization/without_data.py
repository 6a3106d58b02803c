"""The two quantizations that need no ranges: dynamic, and of weights alone."""

from __future__ import annotations

from graphopt.graph import clone, ir
from graphopt.pipeline.quantization.options import Options
from graphopt.pipeline.quantization.report import GroupReport, QuantizeReport
from graphopt.quantization.dynamic import quantize_dynamically
from graphopt.quantization.weight_only import BlockFormat, quantize_weights
from graphopt.rewrite import Journal
from graphopt.shapes import infer_shapes


def dynamic_model(prepared: ir.Model, report: QuantizeReport | None = None) -> ir.Model | None:
    """The model whose matrix products measure their input as they run; None if it has none."""
    changed, journal = clone(prepared), Journal("quantize-dynamically")
    quantize_dynamically(changed, journal)
    return _finished(changed, journal, "int8", report)


def weight_only_model(
    prepared: ir.Model, options: Options, report: QuantizeReport
) -> ir.Model | None:
    """The model whose weights have few bits; None if none of them pays."""
    changed, journal = clone(prepared), Journal("quantize-weights")
    form = BlockFormat(options.bits, options.block_size)
    # ONNX Runtime's own operator is what its CPU provider has a kernel for.
    runtime = options.backend.startswith("ort-")
    quantize_weights(changed, journal, form, form="matmulnbits" if runtime else "dequantize")
    return _finished(changed, journal, f"int{options.bits} weights", report)


def _finished(
    model: ir.Model, journal: Journal, precision: str, report: QuantizeReport | None
) -> ir.Model | None:
    if report is not None:
        for done in journal.rewrites:
            kind, _, name = done.site.partition(" ")
            report.groups.append(GroupReport(name.rpartition("-> ")[2], kind, precision))
        for declined in journal.declined:
            report.declined[declined.site.rpartition("-> ")[2]] = declined.reason
    if not journal.rewrites:
        return None
    infer_shapes(model)
    return model
