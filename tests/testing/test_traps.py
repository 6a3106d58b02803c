"""Every trap is a sound model, and careless passes fall into the traps made for them."""

from __future__ import annotations

import pytest

from graphopt.errors import RuntimeUnavailableError
from graphopt.graph import to_text, verify
from graphopt.plugin import Pass
from graphopt.runtime import Session, runnable_feeds
from graphopt.testing import run_traps
from graphopt.testing.trap import Trap, traps
from tests.testing import careless_passes as careless

CANNOT_RUN = {"custom-op", "function-opset"}


@pytest.mark.parametrize("trap", traps(), ids=lambda trap: trap.name)
def test_a_trap_is_valid_and_runs(trap: Trap) -> None:
    model = trap.model()
    assert verify(model) == []
    assert len(trap.why) > 30
    if trap.name in CANNOT_RUN:
        with pytest.raises(RuntimeUnavailableError):
            Session(model)
        return
    session = Session(model, threads=1)
    feeds = runnable_feeds(model, session, count=3)
    assert len(feeds) == 3
    for feed in feeds:
        assert set(session.run(feed)) == {value.name for value in model.graph.outputs}


@pytest.mark.parametrize(
    ("item", "trap", "problem"),
    [
        (careless.ScaleWeightInPlace(), "shared-weight", "wrote into a tensor"),
        (careless.FuseIgnoringDefaults(), "overridable-initializer", "largest error"),
        (careless.EliminateNeutral(), "symbolic-broadcast", "expected shape"),
        (careless.MergeEqualNodes(), "random", "differ"),
        (careless.DropUnusedHere(), "if-capture", "invalid model"),
        (careless.CancelCasts(), "cast-chain", "largest error"),
        (careless.SortInputs(), "omitted-inputs", "Resize"),
        (careless.RenameOutputs(), "residual", "output 'y' became 'output_0'"),
        (careless.FixBatch(), "residual", "changed the model's interface"),
        (careless.SilentChange(), "residual", "recorded no rewrite"),
        (careless.Raise(), "residual", "raised KeyError"),
        (careless.CancelAnyNegation(), "second-consumer", None),
        (careless.CancelDoubleNegation(), "residual", None),
    ],
    ids=lambda value: value.name if isinstance(value, Pass) else None,
)
def test_a_careless_pass_falls_into_its_trap(item: Pass, trap: str, problem: str | None) -> None:
    result = next(result for result in run_traps(item) if result.trap == trap)
    assert result.ok == (problem is None)
    assert (problem or "") in (result.problem or "")


def test_a_pass_that_does_nothing_falls_into_none() -> None:
    results = run_traps(lambda model: None)
    assert len(results) == len(traps()) >= 30
    assert all(result.ok for result in results)


def test_what_cannot_be_run_is_said() -> None:
    def append_to_names(model: object) -> None:
        for node in model.graph:  # type: ignore[attr-defined]
            node.name = f"{node.name}_"

    not_run = {result.trap for result in run_traps(append_to_names) if result.not_run}
    assert not_run == CANNOT_RUN


def test_traps_are_fresh_models() -> None:
    first = traps()[0].model()
    first.graph.inputs[0].name = "other"
    assert to_text(traps()[0].model()) != to_text(first)
