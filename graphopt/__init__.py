"""graphopt: optimizes exported ONNX models, and proves the result.

    import graphopt

    model, ok = graphopt.optimize("model.onnx", output="model.opt.onnx")

Every name below is imported when it is first used, so that `import graphopt` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphopt.cost import Cost, estimate_cost
    from graphopt.errors import (
        EquivalenceError,
        GraphoptError,
        InvalidModelError,
        MemoryLimitError,
        ModelError,
        OutputError,
        PassError,
        RuntimeUnavailableError,
        ShapeError,
        UnreadableModelError,
        UsageError,
    )
    from graphopt.graph import load, save, verify
    from graphopt.pipeline import QuantizeResult, Result, bisect, compare, optimize, quantize
    from graphopt.pipeline.layout import layout
    from graphopt.pipeline.prune import PruneResult, prune
    from graphopt.pipeline.prune_blocks import PruneBlocksResult, prune_blocks
    from graphopt.plugin import Pass, Promise, RewritePass
    from graphopt.report import Report

    __version__: str

__all__ = [
    "Cost",
    "EquivalenceError",
    "GraphoptError",
    "InvalidModelError",
    "MemoryLimitError",
    "ModelError",
    "OutputError",
    "Pass",
    "PassError",
    "Promise",
    "PruneBlocksResult",
    "PruneResult",
    "QuantizeResult",
    "Report",
    "Result",
    "RewritePass",
    "RuntimeUnavailableError",
    "ShapeError",
    "UnreadableModelError",
    "UsageError",
    "__version__",
    "bisect",
    "compare",
    "estimate_cost",
    "layout",
    "load",
    "optimize",
    "prune",
    "prune_blocks",
    "quantize",
    "save",
    "verify",
]

_HOME = {
    "Cost": "graphopt.cost",
    "estimate_cost": "graphopt.cost",
    "load": "graphopt.graph",
    "save": "graphopt.graph",
    "verify": "graphopt.graph",
    "QuantizeResult": "graphopt.pipeline",
    "Result": "graphopt.pipeline",
    "bisect": "graphopt.pipeline",
    "compare": "graphopt.pipeline",
    "optimize": "graphopt.pipeline",
    "quantize": "graphopt.pipeline",
    "layout": "graphopt.pipeline.layout",
    "PruneResult": "graphopt.pipeline.prune",
    "prune": "graphopt.pipeline.prune",
    "PruneBlocksResult": "graphopt.pipeline.prune_blocks",
    "prune_blocks": "graphopt.pipeline.prune_blocks",
    "Pass": "graphopt.plugin",
    "Promise": "graphopt.plugin",
    "RewritePass": "graphopt.plugin",
    "Report": "graphopt.report",
}
"""Where the names live that are not errors."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("graphopt")
    elif name in __all__:
        value = getattr(importlib.import_module(_HOME.get(name, "graphopt.errors")), name)
    else:
        raise AttributeError(f"module 'graphopt' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
