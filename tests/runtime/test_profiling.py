"""Profiles of a model: a time for every node, and for the whole."""

import pytest

from graphopt.graph import load
from graphopt.runtime.profiling import profile, run_times
from graphopt.shapes import infer_shapes
from tests.runtime.test_executed import _feed, _network


@pytest.mark.parametrize("threads", [1, 2])
def test_a_profile_has_a_time_for_every_executed_node(threads: int) -> None:
    model = load(_network())
    infer_shapes(model)
    found = profile(model, _feed(), threads=threads, seconds=0.1, maximum_runs=20)
    names = [node.name for node in found.executed.graph]
    assert len(set(names)) == len(names)
    assert set(names) == set(found.node_seconds)
    assert 0 < found.quartiles[0] <= found.seconds <= found.quartiles[1]


def test_times_are_as_many_as_runs() -> None:
    assert len(run_times(load(_network()), _feed(), 1, 7)) == 7
