"""Offers: what a measurement keeps, leaves out, and says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import pytest

import graphopt
from graphopt.errors import RuntimeUnavailableError, UsageError
from graphopt.graph import ir
from graphopt.pipeline import optimization
from graphopt.pipeline.offers import Speed, measured_speed
from graphopt.presets import LEVELS
from graphopt.quantization.group_times import Kernel
from graphopt.quantization.stopwatch import Race
from graphopt.report import CheckStatus, PassStatus

HEADS = f"""
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,16] x) => (float[N,8] y, float[N,4] z)
<float[16,8] u = {{{", ".join(["0.5"] * 128)}}}, float[16,4] v = {{{", ".join(["0.25"] * 64)}}}>
{{
    y = MatMul (x, u)
    z = MatMul (x, v)
}}
"""

FAST, SLOW = Speed((0.9,) * 5, (0.95,) * 3), Speed((1.1,) * 5, (1.05,) * 3)
MERGE = "merge-parallel-products"


def measure_as(monkeypatch: pytest.MonkeyPatch, speed: Speed) -> list[tuple[int, int]]:
    """Let every measurement say `speed`; the nodes of what was measured."""
    seen: list[tuple[int, int]] = []

    def measured(before: ir.Model, after: ir.Model, **_: object) -> Speed:
        seen.append((len(before.graph), len(after.graph)))
        return speed

    monkeypatch.setattr(optimization, "measured_speed", measured)
    return seen


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def heads() -> onnx.ModelProto:
    return onnx.parser.parse_model(HEADS)


def test_what_measures_faster_is_kept_and_the_names_of_the_passes_make_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = measure_as(monkeypatch, FAST)
    result = graphopt.optimize(heads(), level=3, provider="cpu")
    assert result.ok
    assert result.report.check.status is CheckStatus.VERIFIED
    assert operators(result.model) == ["MatMul", "Split"]
    assert seen == [(2, 2)]
    (offer,) = result.report.offers
    assert (offer.name, offer.kept) == (MERGE, True)
    assert offer.result == "1.111x as fast with one thread, 1.053x with all"
    named = [entry.name for entry in result.report.passes]
    assert named == [*dict.fromkeys(LEVELS[3]), MERGE]
    again = graphopt.optimize(heads(), passes=",".join(named))
    assert again.model.SerializeToString() == result.model.SerializeToString()


def test_what_does_not_measure_faster_is_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measure_as(monkeypatch, SLOW)
    result = graphopt.optimize(heads(), level=3, provider="cpu")
    plain = graphopt.optimize(heads(), level=3)
    assert result.ok
    assert result.model.SerializeToString() == plain.model.SerializeToString()
    (offer,) = result.report.offers
    assert (offer.name, offer.kept) == (MERGE, False)
    assert MERGE not in [entry.name for entry in result.report.passes]


def test_nothing_is_measured_without_a_provider_or_where_nothing_is_offered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = measure_as(monkeypatch, FAST)
    assert not graphopt.optimize(heads(), level=3).report.offers
    assert not graphopt.optimize(heads(), level=3, provider="cpu", skip=MERGE).report.offers
    named = graphopt.optimize(heads(), level=3, passes=[MERGE], provider="cpu")
    assert not named.report.offers
    assert named.report.passes[0].status is PassStatus.CHANGED
    assert seen == []


def test_a_model_that_does_not_run_here_is_measured_by_nobody() -> None:
    model = heads()
    model.graph.node[0].domain = "unknown.to.all"
    model.opset_import.add(domain="unknown.to.all", version=1)
    result = graphopt.optimize(model, level=3, provider="cpu")
    assert not result.report.offers
    assert any("no offer was measured" in warning for warning in result.report.warnings)


def test_an_offer_that_cannot_be_measured_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> Speed:
        raise RuntimeUnavailableError("no memory")

    monkeypatch.setattr(optimization, "measured_speed", fails)
    result = graphopt.optimize(heads(), level=3, provider="cpu")
    (offer,) = result.report.offers
    assert (offer.kept, offer.result) == (False, "not measured: no memory")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"level": 2, "provider": "cpu"}, "-O3"),
        ({"level": 3, "provider": "abacus"}, "abacus"),
        ({"level": 3, "skip": MERGE}, "cannot be skipped"),
        ({"level": 3, "provider": "cpu", "skip": "fuse-pat"}, "fuse-pat"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        graphopt.optimize(heads(), **options)


@pytest.mark.parametrize(
    ("single", "together", "pays"),
    [
        ((0.9, 0.9, 0.9, 0.9, 1.2), (0.9, 1.1, 1.0), True),
        ((0.9, 0.9, 0.9, 1.1, 1.2), (0.9, 0.9, 0.9), False),  # two of five lost: noise
        ((0.99,) * 5, (0.9,) * 3, False),  # within the noise
        ((0.9,) * 5, (0.9, 1.1, 1.1), False),  # slower with all threads
    ],
)
def test_only_what_is_faster_by_more_than_the_noise_pays(
    single: tuple[float, ...], together: tuple[float, ...], pays: bool
) -> None:
    assert Speed(single, together).pays is pays


def test_speed_is_the_ratio_of_each_race() -> None:
    class Clock:
        def kernels(self, model: ir.Model) -> Sequence[Kernel]:
            raise NotImplementedError

        def race(self, models: Mapping[str, ir.Model], threads: int, rounds: int) -> Race:
            factor = 0.5 if threads == 1 else 2.0
            times = dict.fromkeys(models, (1.0,) * rounds)
            times["with"] = (factor,) * rounds
            return Race(threads, times)

    model = graphopt.load(heads().SerializeToString())
    speed = measured_speed(model, model, {}, "cpu", Clock())
    assert speed == Speed((0.5,) * 5, (2.0,) * 3)


def test_a_real_measurement_ends_in_a_report() -> None:
    result = graphopt.optimize(heads(), level=3, provider="cpu", check="off")
    (offer,) = result.report.offers
    assert "as fast with one thread" in offer.result
    assert (MERGE in [entry.name for entry in result.report.passes]) is offer.kept
