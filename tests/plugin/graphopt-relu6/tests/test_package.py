"""The golden cases run by themselves; this is what they cannot say."""

from graphopt_relu6 import PASSES

from graphopt import catalog
from graphopt.testing import run_traps


def test_the_pass_is_listed() -> None:
    (item,) = PASSES
    assert catalog.passes()[item.name].distribution == "graphopt-relu6"


def test_the_pass_falls_into_no_trap() -> None:
    assert [result for result in run_traps(PASSES[0]) if not result.ok] == []
