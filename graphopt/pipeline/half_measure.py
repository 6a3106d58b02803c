"""Measures the ranges that decide what half precision can hold."""

from __future__ import annotations

import platform
from pathlib import Path

from graphopt.errors import RuntimeUnavailableError
from graphopt.graph import constant_tensor, ir
from graphopt.pipeline.check import Checker
from graphopt.precision import REAL_MARGIN, SEEDED_MARGIN, Measured, Measurements
from graphopt.precision.slots import holds_float32, is_container


def measured_ranges(model: ir.Model, checker: Checker, *, real: bool) -> Measurements | None:
    """The largest and smallest value of each float tensor of the main graph.

    Args:
        model: the float32 model.
        checker: has the inputs.
        real: whether they are the user's, not made up.

    Returns:
        None where the model cannot be run.
    """
    from graphopt.runtime import collect

    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    names = [
        value.name
        for value in values
        if value.name
        and holds_float32(value)
        and not is_container(value)
        and constant_tensor(value) is None
    ]
    kept = {value.name for value in model.graph.inputs}
    feeds = ({k: v for k, v in feed.items() if k in kept} for feed in checker.feeds())
    if not names:
        return None
    try:
        found = collect(model, feeds, names)
    except RuntimeUnavailableError:
        return None
    ranges = {
        name: Measured(item.minimum, item.maximum, item.left_out)
        for name, item in found.items()
        if item.count
    }
    return Measurements(ranges, REAL_MARGIN if real else SEEDED_MARGIN)


def half_on_this_cpu() -> bool:
    """Whether the processor computes in float16: AVX512-FP16, or ARM's half arithmetic."""
    if platform.machine().lower() in ("arm64", "aarch64") and platform.system() == "Darwin":
        return True
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return False
    flags = set(text.split())
    return bool(flags & {"avx512_fp16", "fphp", "asimdhp"})
