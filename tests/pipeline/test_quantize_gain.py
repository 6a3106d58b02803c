"""Groups that make most of the noise are given up only where most of the gain is left."""

import pytest

from graphopt.graph import from_text
from graphopt.pipeline.quantization.proof import keeps_gain
from graphopt.quantization.stopwatch import Race, RunningStopwatch

MODEL = from_text(
    '<ir_version: 9, opset_import: ["" : 18]> g (float[2] x) => (float[2] y) {y=Neg(x)}'
)


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ((0.5, 0.5), (0.55, 0.55), True),
        ((0.5, 0.5), (0.7, 0.7), False),
        ((0.5, 0.9), (0.5, 0.95), True),
        ((0.5, 0.5), (0.3, 1.05), False),
    ],
)
def test_most_of_the_gain_is_left(
    monkeypatch: pytest.MonkeyPatch,
    before: tuple[float, float],
    after: tuple[float, float],
    kept: bool,
) -> None:
    def race(self, models, threads, rounds):
        place = 0 if threads == 1 else 1
        times = {"float": 1.0, "before": before[place], "after": after[place]}
        return Race(threads, {name: (times[name],) for name in models})

    monkeypatch.setattr(RunningStopwatch, "race", race)
    assert keeps_gain(MODEL, MODEL, MODEL, {}, "cpu") is kept
