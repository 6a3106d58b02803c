"""Models on which careless passes fail, and a run of a pass on all of them.

Each trap is a small valid model, as ONNX text in `traps/`, that holds one situation a first
version of a pass gets wrong. A pass may change it or leave it; what must hold afterwards is
what holds for every model: no exception, a valid result, the same interface, and numbers as
the pass promises, also when the caller overrides the defaults of inputs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources

from graphopt.catalog import PassLike, resolve
from graphopt.graph import from_text, ir
from graphopt.shapes import infer_shapes
from graphopt.testing.trial import run_trial

_SUFFIX = ".txt"


@dataclass(frozen=True)
class TrapResult:
    """What a pass did with one trap.

    Attributes:
        trap: the name of the trap.
        why: the situation that it holds, in a sentence.
        changed: whether the pass changed the model.
        problem: what is wrong with the result, in a phrase; None if nothing is known to be.
        not_run: why the numbers were not compared; None if they were, or nothing changed.
    """

    trap: str
    why: str
    changed: bool
    problem: str | None
    not_run: str | None

    @property
    def ok(self) -> bool:
        """Whether nothing is known to be wrong."""
        return self.problem is None


@dataclass(frozen=True)
class Trap:
    """One model; `why` is the situation that it holds, in a sentence."""

    name: str
    why: str
    text: str

    def model(self) -> ir.Model:
        """A new copy of the model, its shapes inferred."""
        model = from_text(self.text)
        infer_shapes(model)
        return model


@functools.cache
def traps() -> tuple[Trap, ...]:
    """All traps, in order of name."""
    folder = resources.files("graphopt.testing") / "traps"
    found = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(_SUFFIX):
            text = file.read_text("utf-8")
            comment = [line for line in text.splitlines() if line.startswith("#")]
            why = " ".join(line.lstrip("# ") for line in comment)
            found.append(Trap(file.name.removesuffix(_SUFFIX), why, text))
    return tuple(found)


def run_traps(item: PassLike) -> list[TrapResult]:
    """Run a pass on every trap.

    Args:
        item: a pass spec, a pass, an onnx_ir pass, or a function that takes an ir.Model.

    Raises:
        UsageError: `item` is nothing that can run as a pass.
    """
    resolved = resolve(item)
    results = []
    for trap in traps():
        try:
            trial = run_trial(resolved, trap.model())
        except Exception as error:  # noqa: BLE001 - a pass may be a stranger's
            problem = f"it raised {type(error).__name__}: {' '.join(str(error).split())}"
            results.append(TrapResult(trap.name, trap.why, False, problem, None))
        else:
            results.append(
                TrapResult(trap.name, trap.why, trial.changed, trial.problem, trial.not_run)
            )
    return results
