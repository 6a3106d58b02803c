"""What is known of the numbers in a model: bounds, measurements, and the constants themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import UsageError, reason_of
from graphopt.graph import constant_tensor, ir
from graphopt.graph.external import MissingTensor
from graphopt.precision.formats import HalfFormat
from graphopt.precision.intervals import Interval, Intervals


@dataclass(frozen=True)
class Measured:
    """The finite values that a tensor had on data.

    Attributes:
        minimum: the smallest.
        maximum: the largest.
        non_finite: how many were NaN or infinite.
    """

    minimum: float
    maximum: float
    non_finite: int = 0

    @property
    def magnitude(self) -> float:
        """The largest magnitude."""
        return max(abs(self.minimum), abs(self.maximum))


@dataclass(frozen=True)
class Measurements:
    """Ranges of the tensors of the main graph.

    Attributes:
        by_name: name -> range.
        margin: by how much larger a value may be on other inputs: real data tells more than
            made-up inputs.
    """

    by_name: Mapping[str, Measured]
    margin: float

    @property
    def made_up(self) -> bool:
        """Whether the inputs were made up: they are as large as it pleased."""
        return self.margin >= SEEDED_MARGIN

    def to_json(self) -> dict[str, Any]:
        """The measurements as plain data."""
        ranges = {name: [m.minimum, m.maximum, m.non_finite] for name, m in self.by_name.items()}
        return {"margin": self.margin, "ranges": ranges}

    @classmethod
    def read(cls, path: str) -> Measurements:
        """Read a file written as `to_json` says, or the report of a conversion.

        Raises:
            UsageError: there is no such file, or it holds something else.
        """
        try:
            data = json.loads(Path(path).read_text("utf-8"))
            data = data.get("measurements", data)
            ranges = {
                name: Measured(float(low), float(high), int(count))
                for name, (low, high, count) in data["ranges"].items()
            }
            return cls(ranges, float(data["margin"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"'{path}' holds no ranges: {reason_of(error)}") from error


REAL_MARGIN = 2.0
"""On real data: inputs that come later may be twice as large."""
SEEDED_MARGIN = 4.0
"""On made-up inputs, which are a hint and no proof."""


@dataclass(frozen=True)
class ConstantFacts:
    """What decides whether a constant may be half.

    Attributes:
        magnitude: its largest finite magnitude.
        lowest: its smallest finite value.
        error: |c - half(c)|_2 / |c|_2, its relative error when it is rounded (overflow apart).
        worst: the largest relative error of an element that is not 0.
    """

    magnitude: float
    lowest: float
    error: float
    worst: float


class Evidence:
    """Answers questions about the values of one model."""

    def __init__(
        self, model: ir.Model, half: HalfFormat, measurements: Measurements | None
    ) -> None:
        self.half = half
        self.measurements = measurements
        self._intervals = Intervals(model)
        self._constants: dict[ir.Value, ConstantFacts | None] = {}
        self._lowest: dict[ir.Value, float] = {}
        self._measured: dict[ir.Value, Measured] = {}
        if measurements is not None:
            # Values of the main graph only: names need not be unique across subgraphs.
            for value in _values(model.graph):
                found = measurements.by_name.get(value.name or "")
                if found is not None:
                    self._measured[value] = found

    def bound(self, value: ir.Value | None) -> Interval:
        """What the values lie in for certain."""
        return self._intervals.of(value)

    def measured(self, value: ir.Value | None) -> Measured | None:
        """What they lay in on data."""
        return None if value is None else self._measured.get(value)

    def raise_floor(self, value: ir.Value, floor: float) -> None:
        """Say that masks that reach `value` have been made no lower than `floor`."""
        self._lowest[value] = max(floor, self._lowest.get(value, -math.inf))

    def is_floored(self, value: ir.Value) -> bool:
        """Whether `raise_floor` was called for a value."""
        return value in self._lowest

    def overflow(self, value: ir.Value) -> str | None:
        """Why a value does not fit the range; None if it does, as far as is known."""
        largest = self.half.largest
        bound = self.bound(value)
        floor = self._lowest.get(value)
        if floor is not None:
            bound = Interval(max(bound.low, floor), bound.high, bound.tight)
        if bound.magnitude <= largest:
            return None
        measured = self.measured(value)
        if measured is not None and self.measurements is not None:
            # What is masked is below the rest by design, and no lower than the floor.
            reached = measured.magnitude if floor is None else max(measured.maximum, 0.0)
            if reached * self.measurements.margin > largest:
                return f"it reaches {measured.magnitude:.3g} on the data"
            return None
        if bound.tight and bound.is_bounded:
            return f"it can reach {bound.magnitude:.3g}"
        return None

    def magnitude(self, value: ir.Value | None) -> float | None:
        """The largest magnitude, measured or else bounded; None where nothing is known."""
        measured = self.measured(value)
        if measured is not None:
            return measured.magnitude
        bound = self.bound(value)
        return bound.magnitude if bound.is_bounded else None

    def constant(self, value: ir.Value) -> ConstantFacts | None:
        """Facts of a float32 constant; None for what is none, or has no data."""
        if value not in self._constants:
            self._constants[value] = self._facts(constant_tensor(value))
        return self._constants[value]

    def _facts(self, tensor: ir.TensorProtocol | None) -> ConstantFacts | None:
        if tensor is None or isinstance(tensor, MissingTensor) or not tensor.size:
            return None
        array = tensor.numpy()
        if array.dtype.kind != "f":
            return None
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            array = array[np.isfinite(array)]
            if not array.size:
                return ConstantFacts(0.0, 0.0, 0.0, 0.0)
            low, high = float(array.min()), float(array.max())
        magnitude = max(abs(low), abs(high))
        error = worst = self.half.roundoff
        if magnitude < _SMALL * self.half.smallest_normal or array.size <= _FEW:
            error, worst = self._errors(array)
        release = getattr(tensor, "release", None)
        if release is not None:
            release()
        return ConstantFacts(magnitude, low, error, worst)

    def _errors(self, array: np.ndarray) -> tuple[float, float]:
        wide = array.astype(np.float64).reshape(-1)
        norm = float(np.linalg.norm(wide))
        if norm == 0:
            return 0.0, 0.0
        fits = np.abs(wide) <= self.half.largest
        difference = np.zeros_like(wide)
        difference[fits] = np.abs(self.half.rounded(wide[fits]) - wide[fits])
        nonzero = wide != 0
        worst = float((difference[nonzero] / np.abs(wide[nonzero])).max())
        return float(np.linalg.norm(difference)) / norm, worst


_SMALL = 256
"""A tensor that reaches this many times the smallest normal number loses nothing that counts."""
_FEW = 4096


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
