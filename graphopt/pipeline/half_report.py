"""What a conversion to half precision has to tell."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.cost import Quantity
from graphopt.cost.estimate import cost_of_inferred
from graphopt.errors import GraphoptError, RuntimeUnavailableError
from graphopt.graph import clone, ir
from graphopt.precision import HalfFormat, Plan, kernels_of
from graphopt.report import CheckReport, CheckStatus, ModelStatistics
from graphopt.shapes import infer_shapes


@dataclass(frozen=True)
class Task:
    """The measure of the task, before and after.

    Attributes:
        metric: its name; higher is better.
        before: the original's figure.
        after: the figure in half precision.
        allowed_drop: how far it may fall.
        ok: whether it fell no further.
    """

    metric: str
    before: float
    after: float
    allowed_drop: str
    ok: bool

    def __str__(self) -> str:
        """One line."""
        return f"{self.metric} {self.before:.4g} -> {self.after:.4g} (allowed {self.allowed_drop})"


@dataclass
class HalfReport:
    """The whole run.

    Attributes:
        precision: "fp16" or "bf16".
        before: counts of the original.
        after: counts of the result.
        storage_only: whether only weights were stored in half.
        half: sites of what is in half.
        half_nodes: how many nodes are.
        float32: site -> why it stays float32.
        fallen_back: sites that the comparison with the original put back.
        clamped: constants whose values were brought into the range, and to what magnitude.
        rounded: weights and biases whose half numbers were chosen by data, for the outputs' sake.
        lost: weights that half holds few digits of, or none, and that the outputs do not miss.
        scales_moved: sums that a scale was moved ahead of, so that they stay in the range.
        angles_reduced: angles that were brought down to one turn, so that one Cast serves both
            their sine and their cosine.
        casts_before: Casts in the original.
        casts_after: Casts in the result.
        measured: how many tensors' ranges are known from running the model.
        measurements: those ranges, as `convert-half{ranges=report.json}` reads them.
        check: the comparison of the rounded model with the original.
        first_check: the comparison before anything fell back; None if nothing did.
        runs: how many times a candidate was compared.
        task: the measure of the task; None if none was asked for.
        runtime: how the result itself fared in ONNX Runtime here.
        notes: what a person has to know.
        output: the file written.
        seconds: the run's time.
    """

    precision: str
    before: ModelStatistics
    after: ModelStatistics
    storage_only: bool = False
    half: list[str] = field(default_factory=list)
    half_nodes: int = 0
    float32: dict[str, str] = field(default_factory=dict)
    fallen_back: list[str] = field(default_factory=list)
    clamped: dict[str, float] = field(default_factory=dict)
    rounded: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    scales_moved: list[str] = field(default_factory=list)
    angles_reduced: list[str] = field(default_factory=list)
    casts_before: int = 0
    casts_after: int = 0
    measured: int = 0
    measurements: dict[str, Any] = field(default_factory=dict)
    check: CheckReport = field(default_factory=CheckReport)
    first_check: CheckReport | None = None
    runs: int = 0
    task: Task | None = None
    runtime: str = "not run"
    notes: list[str] = field(default_factory=list)
    output: str | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is known to be wrong."""
        task = self.task is None or self.task.ok
        return task and self.check.status is not CheckStatus.FAILED

    def to_json(self, indent: int | None = None) -> str:
        """The report as one JSON object; a figure that is not finite is null."""
        data = _finite({**dataclasses.asdict(self), "ok": self.ok})
        return json.dumps(data, indent=indent, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def loads_in_runtime(model: ir.Model, feed: Any, report: HalfReport, half: HalfFormat) -> None:
    """Load the result in ONNX Runtime here, run it once, and look for NaN and infinity."""
    from graphopt.runtime import Session

    try:
        session = Session(model, threads=1)
    except RuntimeUnavailableError as error:
        report.runtime = f"does not load on this CPU: {error}"
        if half.name == "fp16":
            report.notes.append(f"the result {report.runtime}")
        return
    report.runtime = "loads"
    if feed is None:
        return
    kinds = {value.name: value.dtype for value in model.graph.inputs}
    given = {
        name: half.cast(value)
        if kinds.get(name) == half.dtype and isinstance(value, np.ndarray)
        else value
        for name, value in feed.items()
        if name in kinds
    }
    try:
        session.run(given)
    except RuntimeUnavailableError as error:
        report.runtime = f"loads and fails: {error}"
        report.notes.append(f"the result {report.runtime}")
    else:
        report.runtime = "loads and runs"


def cpu_note(model: ir.Model, plan: Plan, provider: str, report: HalfReport) -> None:
    """Say what a CPU without half arithmetic makes of the result, in figures."""
    if provider not in ("any", "cpu"):
        return
    cpu = kernels_of("cpu")
    lacking = [
        node
        for node, cluster in plan.flow.by_node.items()
        if plan.placement.get(cluster.root()) and not cpu.computes(node.op_type)
    ]
    if not lacking:
        return
    moved = _bytes_moved(model, {_label(node) for node in lacking})
    traffic = "" if moved is None else f" ({moved / 1e6:,.1f} MB of tensors in every run)"
    report.notes.append(
        f"on a CPU without {report.precision} arithmetic, such as this one, ONNX Runtime computes "
        f"{len(lacking)} of the {report.half_nodes} half nodes in float32 and casts their inputs "
        f"and outputs{traffic}: the model is slower there than the original, and smaller; "
        "--storage-only keeps its speed"
    )


def _label(node: ir.Node) -> str:
    return node.name or next((value.name for value in node.outputs if value.name), "")


def _bytes_moved(model: ir.Model, labels: set[str]) -> float | None:
    """Bytes that these nodes read and write; None where dims are free."""
    try:
        counted = clone(model)
        infer_shapes(counted)
        rows = cost_of_inferred(counted).by_node
    except GraphoptError:
        return None
    total = 0.0
    for row in rows:
        if row.name in labels:
            moved = row.bytes_read + row.bytes_written
            if isinstance(moved, Quantity):
                return None
            total += moved
    return total if math.isfinite(total) and total else None
