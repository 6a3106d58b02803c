"""Calibration models: the same from the same seed, and models that ONNX accepts."""

import itertools

import onnx

from graphopt.cost.latency.sampling import samples

_ROUND = 16


def _first(seed: int) -> list[tuple[str, bytes]]:
    drawn = itertools.islice(samples(seed), _ROUND)
    return [(sample.family, sample.model.SerializeToString()) for sample in drawn]


def test_a_seed_decides_every_byte() -> None:
    first = _first(3)
    assert first == _first(3)
    assert all(a != b for (_, a), (_, b) in zip(first, _first(4), strict=True))


def test_one_round_has_every_family_in_floats_and_integers() -> None:
    families = {family for family, _ in _first(0)}
    for family in ("convolutional", "transformer", "operators", "linear"):
        assert {family, f"{family} int8"} <= families
    assert "recurrent" in families


def test_every_value_is_made_before_it_is_read() -> None:
    for family, data in _first(1):
        graph = onnx.ModelProto.FromString(data).graph
        made = {""} | {value.name for value in [*graph.input, *graph.initializer]}
        for node in graph.node:
            assert set(node.input) <= made, (family, node)
            made |= set(node.output)
        outputs = {value.name for value in graph.output}
        assert outputs, family
        assert outputs <= made, family
