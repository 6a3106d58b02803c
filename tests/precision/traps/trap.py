"""What a trap is, and how its model is spelled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.graph import from_text, ir

Feed = dict[str, Any]


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Normal numbers that depend on the shape and the seed alone."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return (values * scale).astype(np.float32)


@dataclass(frozen=True)
class Trap:
    """One situation.

    Attributes:
        name: what it is called.
        text: the model, in ONNX text.
        feed: the input it is tried on.
        casts: Casts of the best conversion known.
        float32: op types that have to stay float32.
        loads: whether ONNX Runtime runs the model on a CPU.
        agrees: whether its kernels there, which round less than half does, agree too. In a row
            that is masked throughout only the rounding makes all scores equal.
    """

    name: str
    text: str
    feed: Feed
    casts: int
    float32: frozenset[str] = field(default_factory=frozenset)
    loads: bool = True
    agrees: bool = True

    def model(self) -> ir.Model:
        """A new copy of the model."""
        return from_text(self.text)


def opset(version: int = 17, ir_version: int = 8) -> str:
    """The head of a model."""
    return f'<ir_version: {ir_version}, opset_import: ["" : {version}]>\n'


def matrix(name: str, rows: int, columns: int, scale: float = 0.25) -> str:
    """An initializer of normal numbers."""
    numbers = normal(rows, columns, scale=scale, seed=sum(map(ord, name))).reshape(-1)
    listed = ", ".join(f"{number:.5f}" for number in numbers)
    return f"float[{rows},{columns}] {name} = {{{listed}}}"
