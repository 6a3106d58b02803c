"""What can be asked of a conversion to half precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.pipeline.half_check import RTOL
from graphopt.pipeline.task_metric import Run


@dataclass(frozen=True)
class HalfOptions:
    """What is wanted of a conversion to half precision.

    Attributes:
        precision: "fp16" or "bf16".
        keep_io_types: float32 inputs and outputs of the model stay float32.
        storage_only: weights are stored in half and cast once; everything computes in float32.
        op_block_list: operators to leave in float32.
        node_block_list: regular expressions for names of nodes, or of their outputs.
        provider: whose kernels to go by: any, cpu, cuda, tensorrt.
        level: which exact and equivalent passes run before, see `graphopt.optimize`.
        calibration: data that ranges are measured and results compared on; see `read_feeds`.
        count: how many inputs to compare on.
        seed: of the inputs that are made up where there is no data.
        rtol: tolerance of an output relative to its scale.
        atol: absolute tolerance.
        check: whether to compare at all.
        metric: "agreement", "sqnr", `module:function` or a function; see `read_metric`.
        max_drop: how far the metric may fall, "1%" or "0.5".
    """

    precision: str = "fp16"
    keep_io_types: bool = False
    storage_only: bool = False
    op_block_list: Sequence[str] = ()
    node_block_list: Sequence[str] = ()
    provider: str = "any"
    level: int = 2
    calibration: Any = None
    count: int | None = None
    seed: int = 0
    rtol: float = RTOL
    atol: float = 1e-6
    check: bool = True
    metric: str | Callable[[Run], float] | None = None
    max_drop: str | None = None
