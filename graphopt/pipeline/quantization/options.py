"""What a quantization may be asked for; the checks that need no model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graphopt.errors import UsageError
from graphopt.pipeline.task_metric import Drop
from graphopt.quantization.backends import BACKENDS, Backend
from graphopt.quantization.calibration import DEFAULT_METHOD
from graphopt.quantization.clipping import METHODS

Kind = Literal["static", "dynamic", "weight-only"]


@dataclass(frozen=True)
class Options:
    """The options of `quantize`; see there."""

    kind: Kind = "static"
    backend: str = "ort-cpu"
    method: str = DEFAULT_METHOD
    percentile: float = 0.9999
    ranges: str | os.PathLike[str] | None = None
    save_ranges: str | os.PathLike[str] | None = None
    save_plan: str | os.PathLike[str] | None = None
    resume_file: str | os.PathLike[str] | None = None
    nodes_to_exclude: Sequence[str] = ()
    op_types_to_quantize: Sequence[str] | None = None
    equalize: bool = False
    smooth: float | Literal["auto", "off"] = "auto"
    rounding: Literal["auto", "nearest", "second-order"] = "auto"
    bias_correction: bool = True
    bits: int = 4
    block_size: int = 32
    metric: Any = None
    max_drop: str | None = None
    least_sqnr: float | None = None
    spare_outsized: bool = True
    only_if_faster: bool | None = None
    measure: bool = False
    seed: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("static", "dynamic", "weight-only"):
            raise UsageError(f"there is no quantization '{self.kind}'")
        if self.backend not in BACKENDS:
            raise UsageError(
                f"there is no backend '{self.backend}'; it is one of {', '.join(BACKENDS)}"
            )
        if self.method not in METHODS:
            raise UsageError(
                f"there is no method '{self.method}'; it is one of {', '.join(METHODS)}"
            )
        if self.smooth not in ("auto", "off") and not (
            isinstance(self.smooth, int | float) and 0 <= self.smooth <= 1
        ):
            raise UsageError(
                f"the strength of smoothing is {self.smooth!r}; give 0 to 1, auto or off"
            )
        if not 0.5 < self.percentile <= 1:
            raise UsageError(f"the percentile is {self.percentile}; give a share such as 0.9999")
        if self.max_drop is not None:
            Drop.parse(self.max_drop)

    @property
    def rules(self) -> Backend:
        """The backend's rules."""
        return BACKENDS[self.backend]

    @property
    def drop(self) -> Drop | None:
        """How far the metric may fall."""
        return None if self.max_drop is None else Drop.parse(self.max_drop)
