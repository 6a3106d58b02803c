"""Coupling on random networks, on long ones, and what a caller can get wrong."""

import time

import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.graph import clone, to_bytes
from graphopt.pruning.coupling import find_groups, group_graph
from graphopt.pruning.coupling_costs import PruningCosts
from graphopt.pruning.groups import Role
from graphopt.pruning.surgery import prune
from graphopt.rewrite import Journal
from graphopt.runtime import seeded_feeds
from tests.pruning.pruning_models import (
    model,
    parameters,
    set_to_zero,
    without,
    worst_error,
)
from tests.pruning.random_networks import Network, random_network


@pytest.mark.parametrize("seed", range(60))
def test_random_networks_lose_what_is_zero_in_effect(seed: int) -> None:
    source = random_network(seed)
    groups = find_groups(source)
    random = np.random.default_rng(seed)
    removed = {
        group.name: np.sort(
            random.choice(group.channels, int(random.integers(1, group.channels)), replace=False)
        ).tolist()
        for group in groups.prunable
        if group.consumers
    }
    zeroed = clone(source)
    for name, units in removed.items():
        for member in groups.named(name).consumers:
            set_to_zero(zeroed, member.value, member.axis, member.indices[units])
    pruned = without(zeroed, groups, removed)
    feeds = list(seeded_feeds(source, count=1))
    assert worst_error(zeroed, pruned, feeds, varied=False) < 1e-5
    counts = {name: groups.named(name).channels - len(units) for name, units in removed.items()}
    assert PruningCosts(source, groups).parameters(counts) == pytest.approx(
        parameters(pruned), abs=0.5
    )


def test_random_networks_are_worth_the_test() -> None:
    found = [len(find_groups(random_network(seed)).prunable) for seed in range(60)]
    assert sum(found) > 200
    assert min(found) == 0 or max(found) > 5


def test_groups_do_not_share_indices() -> None:
    for seed in range(20):
        taken: dict[tuple[str, int], set[int]] = {}
        for group in find_groups(random_network(seed)).prunable:
            own = {(m.value, m.axis): set(m.indices.reshape(-1).tolist()) for m in group.members}
            for key, indices in own.items():
                assert not taken.setdefault(key, set()) & indices
                taken[key] |= indices


def _deep(length: int):
    network = Network(0)
    network.grow_conv(network.open[0])
    for _ in range(length // 4):
        start = network.open[-1]
        network.grow_norm(start)
        network.grow_activation(network.open[-1])
        w = network.weight(start.channels, start.channels, 1, 1)
        branch = network.node("Conv", network.open[-1].name, w)[0]
        total = network.node("Add", branch, start.name)[0]
        network.open = [type(start)(total, start.channels, start.size)]
    return network.finish()


def test_time_grows_with_the_model() -> None:
    seconds = []
    for length in (600, 2400):
        source = _deep(length)
        start = time.perf_counter()
        groups = find_groups(source)
        kept = {group.name: range(group.channels - 1) for group in groups.prunable}
        prune(source, groups, kept)
        seconds.append(time.perf_counter() - start)
    assert len(groups) == 4
    # Four times the nodes; the square would be sixteen times.
    assert seconds[1] < 9 * seconds[0]


def test_same_model_same_groups() -> None:
    first, second = (find_groups(random_network(3)) for _ in range(2))
    assert [group.name for group in first] == [group.name for group in second]
    for one, two in zip(first, second, strict=True):
        assert [(m.value, m.axis, m.role) for m in one.members] == [
            (m.value, m.axis, m.role) for m in two.members
        ]


def _plain():
    weights = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (4, 8, 1, 1)}
    return model("float[1,3,6,6] x", "float y", "h = Conv(x, w1, b1)\ny = Conv(h, w2)", weights)


def test_the_model_given_is_not_changed() -> None:
    source = _plain()
    before = to_bytes(source)
    find_groups(source)
    assert to_bytes(source) == before


def test_members_have_their_roles() -> None:
    group = find_groups(_plain()).named("h")
    assert [(m.value, m.axis, m.role, m.node) for m in group.members] == [
        ("w1", 0, Role.PRODUCER, "h"),
        ("w2", 1, Role.CONSUMER, "y"),
        ("b1", 0, Role.VECTOR, "h"),
        ("h", 1, Role.ACTIVATION, ""),
    ]


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"h": []}, "would lose all its channels"),
        ({"h": [8]}, "has units 0 to 7"),
        ({"nothing": [0]}, "there is no coupling group 'nothing'"),
        ({"y": [0]}, "cannot be pruned: graph output 'y'"),
    ],
)
def test_wrong_requests_are_refused(kept, message) -> None:
    source = _plain()
    groups = find_groups(source)
    with pytest.raises(UsageError, match=message):
        prune(source, groups, kept)


def test_keeping_everything_changes_nothing() -> None:
    source = _plain()
    before = to_bytes(source)
    prune(source, find_groups(source), {"h": range(8), "y": range(4)})
    assert to_bytes(source) == before


def test_a_journal_can_leave_a_group_out() -> None:
    body = "h = Conv(x, w1)\nk = Conv(h, w2)\ny = Conv(k, w3)"
    weights = {"w1": (8, 3, 1, 1), "w2": (6, 8, 1, 1), "w3": (4, 6, 1, 1)}
    for journal, left in (
        (Journal("prune-channels", limit=1), (5, 6)),
        (Journal("prune-channels", skip=frozenset({"channels of h"})), (8, 2)),
    ):
        source = model("float[1,3,6,6] x", "float y", body, weights)
        prune(source, find_groups(source), {"h": range(5), "k": range(2)}, journal)
        shapes = {n: v.const_value.shape.numpy() for n, v in source.graph.initializers.items()}
        assert (shapes["w1"][0], shapes["w2"][0]) == left
        assert len(journal.rewrites) == 1


def test_stated_shapes_follow() -> None:
    source = _plain()
    hidden = next(iter(source.graph)).outputs[0]
    hidden.shape = type(source.graph.inputs[0].shape)([1, 8, 4, 4])
    prune(source, find_groups(source), {"h": range(5)})
    assert tuple(hidden.shape.numpy()) == (1, 5, 4, 4)
    assert parameters(source) == 5 * 27 + 5 + 20


def test_groups_as_a_graph() -> None:
    graph = group_graph(find_groups(_plain()))
    assert graph.nodes["group h"] == {"kind": "group", "channels": 8, "frozen": ""}
    assert graph.edges["group h", "w2"] == {"axis": 1, "role": "consumer"}
    assert graph.nodes["group y"]["frozen"] == "graph output 'y'"
