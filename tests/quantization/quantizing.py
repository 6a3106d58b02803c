"""Small models quantized with ranges of their own data, and how far the result is off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from graphopt.graph import ir, to_proto, verify
from graphopt.quantization.backends import BACKENDS, Backend
from graphopt.quantization.insertion import quantized
from graphopt.quantization.placement import Placement, place
from graphopt.quantization.plan import Plan, make_plan
from graphopt.quantization.ranges import Range
from graphopt.runtime import Session
from graphopt.runtime.executed import executed_model
from graphopt.shapes import infer_shapes

ORT_CPU = BACKENDS["ort-cpu"]


def model_of(text: str, weights: Mapping[str, np.ndarray] | None = None) -> ir.Model:
    """A model from ONNX text, with further initializers, its shapes inferred."""
    header = "" if text.lstrip().startswith("<") else '<ir_version: 8, opset_import: ["" : 17]>'
    proto = onnx.parser.parse_model(header + text)
    for name, array in (weights or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    # The outputs are declared without a type, for brevity.
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))
    infer_shapes(model)
    return model


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def sqnr(expected: np.ndarray, actual: np.ndarray) -> float:
    """Signal to quantization noise, dB."""
    signal = np.square(expected, dtype=np.float64).sum()
    noise = np.square(expected.astype(np.float64) - actual).sum()
    return float(10 * np.log10(signal / noise)) if noise else np.inf


@dataclass
class Quantized:
    """A quantized model and all that led to it."""

    model: ir.Model
    placement: Placement
    plan: Plan
    result: ir.Model
    feed: Mapping[str, Any]
    optimized: bool = field(default=False)

    def outputs(self, *, optimized: bool) -> dict[str, np.ndarray]:
        return Session(self.result, threads=1, optimized=optimized).run(dict(self.feed))

    def sqnr(self, *, optimized: bool = False) -> float:
        """The least over all outputs."""
        expected = Session(self.model, threads=1).run(dict(self.feed))
        actual = self.outputs(optimized=optimized)
        return min(sqnr(value, actual[name]) for name, value in expected.items())

    def kernels(self) -> list[str]:
        return [node.op_type for node in executed_model(self.result, threads=1).graph]

    def ops(self) -> list[str]:
        return [node.op_type for node in self.result.graph]


def quantize(
    model: ir.Model,
    feed: Mapping[str, Any],
    *,
    backend: Backend = ORT_CPU,
    exclude: Sequence[str] = (),
    ranges: Mapping[str, Range] | None = None,
    **options: Any,
) -> Quantized:
    """Quantize with the ranges of one feed; checks that the result is a valid model."""
    placement = place(model, backend, nodes_to_exclude=exclude)
    names = list(placement.activations)
    inputs = {value.name for value in model.graph.inputs}
    session = Session(model, threads=1, outputs=[name for name in names if name not in inputs])
    values = {**session.run(dict(feed)), **feed}
    measured = {name: Range(float(values[name].min()), float(values[name].max())) for name in names}
    options.setdefault("saturation_safe", True)
    plan = make_plan(model, placement, {**measured, **(ranges or {})}, backend, **options)
    result = quantized(model, plan)
    assert verify(result) == []
    onnx.checker.check_model(to_proto(result), full_check=True)
    return Quantized(model, placement, plan, result, feed)


__all__ = [
    "ORT_CPU",
    "Quantized",
    "model_of",
    "normal",
    "quantize",
    "sqnr",
]
