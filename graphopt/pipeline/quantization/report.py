"""What `quantize` reports: each group, each evaluation, before and after."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from graphopt.cost import Quantity
from graphopt.report import ModelStatistics


@dataclass(frozen=True)
class GroupReport:
    """A group of nodes that is quantized together.

    Attributes:
        name: the first output of its main node.
        op_type: the operator of the main node.
        precision: "int8", "int16", ... or "float".
        range: what its output's integers span; None where that stays float.
        sqnr: of its output in the result, in dB; None where it could not be compared.
        noise: what it alone does to the model's outputs, noise power over signal power; None
            where that was not measured.
        gain: the seconds of one run that it saves (negative: costs); None where unknown.
        reason: why it stays float; empty where it is quantized.
    """

    name: str
    op_type: str
    precision: str
    range: tuple[float, float] | None = None
    sqnr: float | None = None
    noise: float | None = None
    gain: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Evaluation:
    """A mixture that was tried.

    Attributes:
        float_groups: how many groups were left float for it.
        value: its metric.
        gain: the share of the possible gain that it keeps, 0 to 1.
        allowed: whether it is within the budget.
    """

    float_groups: int
    value: float
    gain: float
    allowed: bool


@dataclass
class QuantizeReport:
    """The whole run.

    Attributes:
        kind: "static", "dynamic", "weight-only", or "float" where nothing was worth quantizing.
        backend: whom it was quantized for.
        method: how ranges were chosen.
        samples: how many feeds calibrated.
        checked_on: how many feeds the result was checked on.
        disjoint: whether none of them calibrated.
        groups: all groups, in the order of the graph.
        declined: further nodes that stay float, and why.
        repairs: what was done against the loss of accuracy, one line each.
        sqnr: of the worst output, in dB.
        metric: the name of the metric; None where none was measured.
        metric_before: the original's figure.
        metric_after: the result's.
        max_drop: how much less was allowed; None where nothing was asked.
        curve: the mixtures that the search tried, by number of float groups.
        latency_before: seconds of one run as ONNX Runtime runs it by default.
        latency_after: the result's.
        warnings: what the user should know.
        seconds: the run's time.
        output: the file written, if any.
    """

    before: ModelStatistics
    after: ModelStatistics
    kind: str
    backend: str
    method: str = ""
    samples: int = 0
    checked_on: int = 0
    disjoint: bool = True
    groups: list[GroupReport] = field(default_factory=list)
    declined: dict[str, str] = field(default_factory=dict)
    repairs: list[str] = field(default_factory=list)
    sqnr: float | None = None
    metric: str | None = None
    metric_before: float | None = None
    metric_after: float | None = None
    max_drop: str | None = None
    curve: list[Evaluation] = field(default_factory=list)
    latency_before: float | None = None
    latency_after: float | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    output: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the result is within the budget, where there is one."""
        return not self.curve or any(item.allowed for item in self.curve)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data; a figure that is not finite is null."""
        data: dict[str, Any] = _plain(dataclasses.asdict(self))
        data["ok"] = self.ok
        return data

    def to_json(self, indent: int | None = None) -> str:
        """The report as one JSON object."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    if isinstance(data, Quantity):
        return str(data)
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data
