"""What a run did: by which pass, what was declined and why, how far the outputs moved."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from graphopt.rewrite import Decline, Rewrite

if TYPE_CHECKING:
    from graphopt.cost import Number


class PassStatus(StrEnum):
    """How a pass ended."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    UNDONE = "undone"
    """It raised, broke the model or its interface, or moved the outputs: what it did then is gone.
    `rewrites` lists what is left of it from rounds before that one, if anything is."""
    REPAIRED = "repaired"
    """Some of its rewrites moved the outputs; these are left out and the rest is kept."""


class CheckStatus(StrEnum):
    """What is known about the result's equivalence."""

    VERIFIED = "verified"
    NOT_VERIFIED = "not verified"
    FAILED = "failed"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """Counts of one model.

    Attributes:
        nodes: nodes of the main graph and of every graph nested in it; functions apart.
        operators: how many nodes of each op type, nested ones included.
        parameters: elements of all initializers.
        parameter_bytes: bytes of all initializers.
        file_bytes: size of the model on disk, external data included; None if it is in no file.
        macs: multiply-accumulates of one run, an expression where dims are free; None where they
            were not counted.
        activation_bytes: the most that activations take during a run, nothing being computed in
            place; an expression where dims are free, None where it was not counted.
    """

    nodes: int
    operators: Mapping[str, int]
    parameters: int
    parameter_bytes: int
    file_bytes: int | None
    macs: Number | None = None
    activation_bytes: Number | None = None


@dataclass(slots=True)
class PassReport:
    """One pass, over all rounds in which it ran.

    Attributes:
        name: the pass, with the options that differ from the defaults.
        promise: exact, equivalent or lossy.
        seconds: time spent in it.
        rewrites: what it changed and is still in the result.
        declined: where it did not act, and why.
        problem: why it was undone, or what was left out of it; None otherwise.
        left_out: the rewrites that bisection found guilty.
    """

    name: str
    promise: str
    status: PassStatus = PassStatus.UNCHANGED
    seconds: float = 0.0
    rewrites: list[Rewrite] = field(default_factory=list)
    declined: list[Decline] = field(default_factory=list)
    problem: str | None = None
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """The worst disagreement seen at one output over all inputs tried.

    Attributes:
        relative_error: max |expected - actual| over the largest |expected|.
        ok: whether it is within the tolerance.
        reason: what is wrong with it; empty when ok.
    """

    name: str
    max_abs_error: float
    relative_error: float
    ok: bool
    reason: str = ""


@dataclass(slots=True)
class CheckReport:
    """The comparison of the result with the original in ONNX Runtime.

    Attributes:
        inputs_tried: how many feeds both models ran on.
        input_shapes: the shapes of each feed, by input name.
        rtol: tolerance relative to each output's scale.
        atol: absolute tolerance.
        reason: why nothing could be verified, or what failed; empty when verified.
    """

    status: CheckStatus = CheckStatus.OFF
    reason: str = ""
    inputs_tried: int = 0
    input_shapes: list[dict[str, str]] = field(default_factory=list)
    outputs: list[OutputCheck] = field(default_factory=list)
    rtol: float = 0.0
    atol: float = 0.0
    seconds: float = 0.0

    @property
    def worst(self) -> OutputCheck | None:
        """The output with the largest relative error."""
        return max(self.outputs, key=lambda output: output.relative_error, default=None)


@dataclass(frozen=True, slots=True)
class InterfaceChange:
    """What became of one input or output of a model whose interface was to be changed.

    Attributes:
        side: "input" or "output".
        before: its type and shape in the model that was given.
        after: the same in the result; None where it was left as it is.
        reason: why it was changed, or left.
    """

    side: str
    name: str
    before: str
    after: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class OfferReport:
    """A pass that was tried because it pays on some models, and timed on this one.

    Attributes:
        name: the pass, with the options that differ from the defaults.
        kept: whether the result has it. Then it stands among the passes too.
        result: how many times as fast the model is with it, or why that was not measured.
    """

    name: str
    kept: bool
    result: str


@dataclass(slots=True)
class Report:
    """The whole run.

    Attributes:
        offers: the passes that a measurement decided on; what it decides, another machine need
            not. The names of `passes`, in their order, make the result again.
        interface: the inputs and outputs, where a change of theirs was asked for; empty otherwise.
        seconds: the run's time, loading and saving included where the run did them.
        latency_before: seconds for one inference as ONNX Runtime runs it by default, on the
            first input of the check; None where it was not measured.
        speedups: how many times as fast the result is, the least and the largest of the middle
            four fifths of the turns that both took: what lies within says nothing.
    """

    before: ModelStatistics
    after: ModelStatistics
    passes: list[PassReport] = field(default_factory=list)
    offers: list[OfferReport] = field(default_factory=list)
    check: CheckReport = field(default_factory=CheckReport)
    interface: list[InterfaceChange] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    latency_before: float | None = None
    latency_after: float | None = None
    speedups: tuple[float, float] | None = None
    seconds: float = 0.0
    output: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is known to be wrong: no pass undone, no check failed."""
        undone = any(
            entry.status in (PassStatus.UNDONE, PassStatus.REPAIRED) for entry in self.passes
        )
        return not undone and self.check.status is not CheckStatus.FAILED

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for machines."""
        data = dataclasses.asdict(self)
        data["ok"] = self.ok
        return data

    def to_json(self, indent: int | None = None) -> str:
        """The report as one JSON object.

        A figure that is not finite is null, one that depends on free dims is its text.
        """
        return json.dumps(_finite(self.to_dict()), indent=indent, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if data is None or isinstance(data, str | int):
        return data
    return str(data)  # an expression in free dims
