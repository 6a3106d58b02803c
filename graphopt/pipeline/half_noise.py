"""How far a quantized model is from itself without the rounding of its activations.

    x -> QuantizeLinear -> DequantizeLinear -> y     ->     x -> Max, Min (the range) -> y

Half rounds by 2^-12; where a number lies that close to the border between two integers, it becomes
the other one, an error of 1/127 of the range at once. No half model of a quantized one is without
such errors, nor is the same model on other kernels. What counts is that they do not add up to more
than the integers' own noise, nor reach much further anywhere. That says something only where the
noise is far below the signal: where it is not, the model without rounding is another model.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.graph import clone, constant_tensor, ir
from graphopt.pipeline.half_check import HalfChecker
from graphopt.report import CheckReport, CheckStatus, OutputCheck

if TYPE_CHECKING:
    from graphopt.runtime import Feed, Session

NOISE_GROWTH = 1.5
"""How much larger, as a mean square, the noise of a quantized model may become: 1.8 dB."""
_PEAK_GROWTH = 2.0
"""How much larger its largest value may: one broken element of many hides in a mean."""
_MOST_NOISE = 0.1
"""Of the mean square of an output: zeros in its place would be 10 times as far off."""


def without_rounding(model: ir.Model) -> ir.Model | None:
    """A copy that quantizes no activations; None where none is found."""
    copied = clone(model)
    found = False
    for node in list(copied.graph):
        source = node.inputs[0] if node.inputs else None
        quantize = None if source is None else source.producer()
        if node.op_type != "DequantizeLinear" or quantize is None or node.domain != "":
            continue
        if quantize.op_type != "QuantizeLinear" or node.outputs[0].is_graph_output():
            continue
        bounds = _bounds(quantize)
        given = quantize.inputs[0]
        if bounds is None or given is None or not _same_parameters(quantize, node):
            continue
        if given.dtype not in (None, ir.DataType.FLOAT):  # it takes integers too
            continue
        found = True
        value = given
        for op_type, number in zip(("Max", "Min"), bounds, strict=True):
            held = ir.tensor(np.array(number, np.float32))
            limit = ir.Node("", "Constant", [], [ir.AttrTensor("value", held)], num_outputs=1)
            made = ir.Node("", op_type, [value, limit.outputs[0]], num_outputs=1)
            for new in (limit, made):
                new.outputs[0].name = f"{node.outputs[0].name}/{op_type}_{new.op_type}"
            copied.graph.insert_before(node, [limit, made])
            value = made.outputs[0]
        for use in tuple(node.outputs[0].uses()):
            use.node.replace_input_with(use.idx, value)
        copied.graph.remove(node, safe=True)
    return copied if found else None


def _same_parameters(quantize: ir.Node, dequantize: ir.Node) -> bool:
    for first, second in zip(quantize.inputs[1:], dequantize.inputs[1:], strict=False):
        one, two = constant_tensor(first), constant_tensor(second)
        if (one is None) != (two is None):
            return False
        if one is not None and two is not None and not np.array_equal(one.numpy(), two.numpy()):
            return False
    return True


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    """The numbers that a QuantizeLinear with one scale can hold."""
    scale = constant_tensor(node.inputs[1])
    if scale is None or scale.size != 1 or scale.dtype != ir.DataType.FLOAT:
        return None
    zero = constant_tensor(node.inputs[2]) if len(node.inputs) > 2 else None
    dtype = ir.DataType.UINT8 if zero is None else zero.dtype
    if zero is None and "output_dtype" in node.attributes:
        return None
    if dtype not in (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16):
        return None
    limits = np.iinfo(dtype.numpy())
    step = float(scale.numpy().item())
    offset = 0 if zero is None else int(zero.numpy().item())
    return (int(limits.min) - offset) * step, (int(limits.max) - offset) * step


@dataclass
class Distance:
    """How far an output is from the one without rounding: a sum of squares, and the largest."""

    squares: float = 0.0
    largest: float = 0.0

    def add(self, wanted: np.ndarray, given: Any) -> None:
        """Take in an output on one input; one of another shape is infinitely far."""
        if not isinstance(given, np.ndarray) or given.shape != wanted.shape:
            self.squares = self.largest = np.inf
            return
        off = np.abs(given - wanted.astype(np.float64))
        self.squares += float(np.square(off).sum())
        self.largest = float(np.maximum(self.largest, off.max(initial=0.0)))  # keeps a NaN


@dataclass
class Noise:
    """Distances to the model without rounding, by output, over all inputs."""

    of_zeros: defaultdict[str, Distance] = field(default_factory=lambda: defaultdict(Distance))
    of_original: defaultdict[str, Distance] = field(default_factory=lambda: defaultdict(Distance))
    of_candidate: defaultdict[str, Distance] = field(default_factory=lambda: defaultdict(Distance))

    def add(self, exact: dict[str, Any], expected: dict[str, Any], actual: dict[str, Any]) -> None:
        """Take in the outputs on one input: without rounding, the original's, a candidate's."""
        for name, wanted in exact.items():
            if not isinstance(wanted, np.ndarray) or wanted.dtype.kind != "f":
                continue
            self.of_zeros[name].add(wanted, np.zeros_like(wanted))
            self.of_original[name].add(wanted, expected.get(name))
            self.of_candidate[name].add(wanted, actual.get(name))

    def is_no_larger(self, name: str) -> bool:
        """Whether an output is about as near to the exact one as the original's is."""
        signal, before, after = (
            distances.get(name, Distance())
            for distances in (self.of_zeros, self.of_original, self.of_candidate)
        )
        return (
            np.isfinite(before.squares)
            and before.squares <= _MOST_NOISE * signal.squares
            and after.squares <= NOISE_GROWTH * before.squares
            and after.largest <= _PEAK_GROWTH * before.largest
        )


def half_checker(original: ir.Model, **options: Any) -> HalfChecker:
    """The checker for a model: one that knows of noise where its activations are quantized."""
    exact = without_rounding(original)
    if exact is None:
        return HalfChecker(original, **options)
    return QuantizedChecker(original, exact, **options)


class QuantizedChecker(HalfChecker):
    """Compares candidates with a model that quantizes its activations.

    What differs by more than the tolerance is right all the same where it is about as near to what
    the model gives without that rounding as the original is.
    """

    def __init__(self, original: ir.Model, exact: ir.Model, **options: Any) -> None:
        super().__init__(original, **options)
        self._exact = exact
        self._exact_outputs: list[dict[str, Any]] = []
        self._exact_session: Session | None = None
        self._noise = Noise()
        self._seen = 0

    def compare(self, candidate: ir.Model, *, stop_early: bool = False) -> CheckReport:
        """As of any checker; noise shows on all inputs together, so none is left out."""
        self._noise, self._seen = Noise(), 0
        report = super().compare(candidate, stop_early=False)
        wrong = [check for check in report.outputs if not check.ok]
        if not wrong or not all(self.is_noise(check.name) for check in wrong):
            return report
        if self._seen < report.inputs_tried:
            return report  # it fails on an input
        report.outputs = [replace(check, ok=True) for check in report.outputs]
        report.status = CheckStatus.VERIFIED
        names = ", ".join(check.name for check in wrong)
        report.reason = f"no more noise in {names} than its integers make"
        return report

    def is_noise(self, name: str) -> bool:
        """Whether what an output differed by, in the last comparison, is its integers' noise."""
        return self._noise.is_no_larger(name)

    def _merge(
        self,
        worst: dict[str, OutputCheck],
        expected: dict[str, Any],
        actual: dict[str, Any],
        feed: Feed,
        *position: int,
    ) -> None:
        if self._seen == len(self._exact_outputs):
            if self._exact_session is None:
                from graphopt.runtime import Session

                self._exact_session = Session(self._exact)
            self._exact_outputs.append(self._exact_session.run(feed))
        self._noise.add(self._exact_outputs[self._seen], expected, actual)
        self._seen += 1
        super()._merge(worst, expected, actual, feed, *position)
