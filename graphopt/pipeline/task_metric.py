"""How good a lossy result is at its task, and how much worse than the original it may be.

A metric is a number, higher is better. The user's own is a function of `run`, which takes a feed
and gives the outputs by name; it reads its own data and labels. Without one, the original is the
teacher:

    agreement = inputs on which result and original name the same class / all inputs
    SQNR      = 10 log10(sum y^2 / sum (y' - y)^2) in dB, of the worst output

Where all outputs are class numbers or rounded, SQNR is that of the scores behind them.

Models run as they are deployed here, with ONNX Runtime's optimizations on: an int8 model is then
computed in integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.errors import UsageError, reason_of
from graphopt.graph import ir
from graphopt.quantization.scores import with_scores

if TYPE_CHECKING:
    from graphopt.runtime import Feed

Run = Callable[[Any], dict[str, Any]]
"""Feed -> outputs by name."""

_KEPT_BYTES = 64 << 20
"""Outputs of the original up to this size together are computed once."""


@dataclass(frozen=True)
class TaskMetric:
    """A measure of models of one interface.

    Attributes:
        name: what to call it in a report.
        bounded: whether the original's own figure is finite, so that a drop from it means
            something. The SQNR of the original against itself is not.
    """

    name: str
    bounded: bool
    _measure: Callable[[Run], float]
    _provider: str = "cpu"
    _seen: Callable[[ir.Model], ir.Model] = lambda model: model

    def measure(self, model: ir.Model) -> float:
        """The figure of a model; higher is better.

        Raises:
            RuntimeUnavailableError: the model cannot be run here.
            UsageError: the user's function failed or gave no number.
        """
        from graphopt.runtime import Session

        session = Session(self._seen(model), optimized=True, provider=self._provider)
        return self._measure(session.run)


def read_metric(
    spec: str | Callable[[Run], float] | None,
    *,
    original: ir.Model,
    data: Iterable[Feed],
    provider: str = "cpu",
) -> TaskMetric:
    """The metric that a spec names.

    Args:
        spec: "agreement", "sqnr", `module:function`, a function of `run`, or None for agreement
            where the first output holds class scores ([batch, classes]) and SQNR elsewhere.
        original: the model that the built-in metrics compare with. It is not changed.
        data: the feeds of the built-in metrics, read anew for every measurement.
        provider: where the models run.

    Raises:
        UsageError: there is no such metric, or the original gives no class scores to agree on.
    """
    if callable(spec):
        return _own(spec, getattr(spec, "__name__", "metric"), provider)
    if spec is not None and ":" in spec:
        from graphopt.runtime.imported import imported

        function = imported(spec)
        if not callable(function):
            raise UsageError(f"the metric '{spec}' is no function")
        return _own(function, spec, provider)
    scores = _class_scores(original)
    chosen = spec or ("sqnr" if scores is None else "agreement")
    if chosen not in ("agreement", "sqnr"):
        raise UsageError(f"there is no metric '{spec}': use agreement, sqnr or module:function")
    if chosen == "agreement" and scores is None:
        raise UsageError(
            "agreement needs an output [batch, classes] with at least 2 classes; "
            "use sqnr or module:function"
        )
    if chosen == "sqnr":
        teacher = _Teacher(with_scores(original), data, provider)
        return TaskMetric("SQNR (dB)", False, teacher.sqnr, provider, with_scores)
    teacher = _Teacher(original, data, provider)
    return TaskMetric("agreement", True, lambda run: teacher.agreement(run, str(scores)), provider)


@dataclass(frozen=True)
class Drop:
    """How far a metric may fall.

    Attributes:
        amount: a share of the original's figure where `relative`, else the metric's own units.
    """

    amount: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Drop:
        """Read `1%` (of the original's figure) or `0.5` (in the metric's units).

        Raises:
            UsageError: it is neither, or negative.
        """
        number = text.strip().removesuffix("%")
        try:
            amount = float(number)
        except ValueError:
            amount = math.nan
        if not math.isfinite(amount) or amount < 0:
            raise UsageError(f"a drop of '{text}' is not understood; write 1% or 0.5")
        relative = text.strip().endswith("%")
        return cls(amount / 100 if relative else amount, relative)

    def allows(self, reference: float, value: float) -> bool:
        """Whether `value` is at most this much below `reference`; never if it is NaN."""
        allowed = self.amount * abs(reference) if self.relative else self.amount
        # A metric of n samples is a multiple of 1/n: rounding must not decide.
        return value >= reference - allowed - 1e-9 * max(1.0, abs(reference))

    def __str__(self) -> str:
        return f"{self.amount * 100:g}%" if self.relative else f"{self.amount:g}"


class _Teacher:
    """The original, run beside the model that is measured; small outputs are kept for the next."""

    def __init__(self, original: ir.Model, data: Iterable[Feed], provider: str) -> None:
        from graphopt.runtime import Session

        self._run = Session(original, optimized=True, provider=provider).run
        self._data = data
        self._kept: dict[int, dict[str, Any]] = {}
        self._kept_bytes = 0

    def _pairs(self) -> Iterable[tuple[Feed, dict[str, Any]]]:
        """The feeds, which come in the same order each time, and what the original gives."""
        for number, feed in enumerate(self._data):
            expected = self._kept.get(number)
            if expected is None:
                expected = self._run(feed)
                size = sum(getattr(value, "nbytes", _KEPT_BYTES) for value in expected.values())
                if self._kept_bytes + size <= _KEPT_BYTES:
                    self._kept[number] = expected
                    self._kept_bytes += size
            yield feed, expected

    def agreement(self, run: Run, name: str) -> float:
        """The share of rows whose largest entry is the same one."""
        same = rows = 0
        for feed, outputs in self._pairs():
            expected, actual = outputs[name], run(feed)[name]
            same += int((expected.argmax(-1) == actual.argmax(-1)).sum())
            rows += len(expected)
        if not rows:
            raise UsageError("there are no inputs to measure the agreement on")
        return same / rows

    def sqnr(self, run: Run) -> float:
        """The signal-to-noise ratio of the worst float output, in dB."""
        signal: dict[str, float] = {}
        noise: dict[str, float] = {}
        for feed, expected in self._pairs():
            actual = run(feed)
            for name, reference in _floats(expected):
                # Infinities (masks) are equal or they are not; they are no signal.
                finite = np.isfinite(reference)
                y = reference[finite].astype(np.float64)
                error = np.asarray(actual[name])[finite].astype(np.float64) - y
                signal[name] = signal.get(name, 0.0) + float(y @ y)
                noise[name] = noise.get(name, 0.0) + float(error @ error)
        if not signal:
            raise UsageError("there are no inputs, or no float outputs, to measure the SQNR on")
        return min(decibels(signal[name], noise[name]) for name in signal)


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise): inf without noise, -inf where the noise is not finite."""
    if not math.isfinite(noise):
        return -math.inf
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def _floats(outputs: Mapping[str, Any]) -> Iterable[tuple[str, np.ndarray]]:
    for name, value in outputs.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            yield name, value


def _class_scores(model: ir.Model) -> str | None:
    """The first output, if it is [batch, classes] of floats."""
    first = model.graph.outputs[0] if model.graph.outputs else None
    if first is None or first.shape is None or first.dtype is None or len(first.shape) != 2:
        return None
    classes = first.shape[1]
    if not first.dtype.is_floating_point() or not isinstance(classes, int) or classes < 2:
        return None
    return first.name


def _own(function: Callable[[Run], float], name: str, provider: str) -> TaskMetric:
    def measure(run: Run) -> float:
        try:
            return float(function(run))
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"the metric {name} failed: {reason_of(error)}") from error

    return TaskMetric(name, True, measure, provider)
