"""Which groups are chosen, with a stopwatch that knows what everything takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from graphopt.graph import from_text, ir
from graphopt.quantization.backends.backend import Role
from graphopt.quantization.group_times import Kernel
from graphopt.quantization.groups import Group, Placement, Use
from graphopt.quantization.speed import Choice, choose_groups
from graphopt.quantization.stopwatch import Race

CHAIN = """
<ir_version: 10, opset_import: ["" : 17]>
chain (float[1,8,16,16] x, float[8,8,1,1] w) => (float[1,8,16,16] f) {
    a = Conv(x, w)
    b = Conv(a, w)
    c = Tanh(b)
    d = Conv(c, w)
    e = Conv(d, w)
    f = Tanh(e)
}
"""
GROUPS = ("a", "b", "d", "e")
FEED = {"x": np.zeros((1, 8, 16, 16), np.float32), "w": np.zeros((8, 8, 1, 1), np.float32)}


def conv(name: str, source: str) -> Group:
    """A group of one Conv."""
    use = Use(name, 0, source)
    return Group(name, "Conv", Role.PRODUCT, (name,), (use,), (name,), writes_integers=True)


def placement(*, slow: str = "") -> Placement:
    groups = [conv("a", "x"), conv("b", "a"), conv("d", "c"), conv("e", "d")]
    if slow:
        groups = [replace(g, slow="it is slow") if g.name == slow else g for g in groups]
    return placed(groups)


def placed(groups: Sequence[Group]) -> Placement:
    return Placement(
        backend="ort-cpu",
        groups=tuple(groups),
        ties={},
        fixed={},
        activations=("x", "a", "b", "c", "d", "e"),
    )


@dataclass
class World:
    """What the machine takes, in microseconds; it is asked through `build` and the stopwatch.

    Attributes:
        as_float: group -> its kernel in float.
        as_integers: group -> its kernel in integers.
        conversion: each QuantizeLinear and DequantizeLinear.
        threads_cost: what every integer group takes more with the default number of threads.
    """

    as_float: Mapping[str, float]
    as_integers: Mapping[str, float]
    conversion: float = 5.0
    threads_cost: float = 0.0
    others: dict[int, float] = field(default_factory=dict)
    built: dict[int, frozenset[str]] = field(default_factory=dict)
    kept: list[ir.Model] = field(default_factory=list)
    reasons: list[dict[str, str]] = field(default_factory=list)
    profiled: int = 0

    def model(self) -> ir.Model:
        model = from_text(CHAIN)
        self.built[id(model)] = frozenset(GROUPS)
        self.kept.append(model)
        return model

    def build(self, float_groups: Mapping[str, str]) -> ir.Model:
        model = from_text(CHAIN)
        self.built[id(model)] = frozenset(float_groups)
        self.reasons.append(dict(float_groups))
        self.kept.append(model)
        return model

    def conversions(self, floats: frozenset[str]) -> dict[str, float]:
        """By tensor; Tanh reads b and e as floats, x and c begin as floats."""
        found = {}
        for writer, tensor, reader in (
            (None, "x", "a"), ("a", "a", "b"), ("b", "b", None), (None, "c", "d"),
            ("d", "d", "e"), ("e", "e", None),
        ):  # fmt: skip
            before = writer is not None and writer not in floats
            after = reader is not None and reader not in floats
            if before != after:
                found[tensor] = self.conversion
        return found

    def seconds(self, model: ir.Model, threads: int) -> float:
        if id(model) in self.others:
            return self.others[id(model)] * 1e-6
        floats = self.built[id(model)]
        total = 20.0 + sum(self.conversions(floats).values())
        for group in GROUPS:
            total += self.as_float[group] if group in floats else self.as_integers[group]
            total += self.threads_cost if threads != 1 and group not in floats else 0.0
        return total * 1e-6

    def kernels(self, model: ir.Model) -> Sequence[Kernel]:
        self.profiled += 1
        floats = self.built[id(model)]
        found = [Kernel("Tanh", "c", "", 10e-6, 2048), Kernel("Tanh", "f", "", 10e-6, 2048)]
        for group in GROUPS:
            time = self.as_float[group] if group in floats else self.as_integers[group]
            found.append(Kernel("QLinearConv", group, "", time * 1e-6, 2048))
        for tensor, time in self.conversions(floats).items():
            found.append(Kernel("QuantizeLinear", "", tensor, time * 1e-6, 2048))
        return found

    def race(self, models: Mapping[str, ir.Model], threads: int, rounds: int) -> Race:
        return Race(threads, {n: (self.seconds(m, threads),) * rounds for n, m in models.items()})

    def choose(self, **options: object) -> Choice:
        where = options.pop("placement", placement())
        return choose_groups(
            self.model(),
            where,
            self.build,
            FEED,
            stopwatch=self,
            **options,  # type: ignore[arg-type]
        )


def even(**changed: float) -> World:
    """Integers take 20 instead of 40 in every group, but where `changed` says."""
    return World(dict.fromkeys(GROUPS, 40.0), {**dict.fromkeys(GROUPS, 20.0), **changed})


def test_all_groups_run_in_integers_where_each_gains() -> None:
    choice = even().choose()
    assert (choice.winner, choice.float_groups, choice.reason) == ("int8", {}, "")
    assert choice.gains == pytest.approx(dict.fromkeys(GROUPS, 20e-6))
    # 20 + 4 * 20 + 4 conversions of 5, against 20 + 4 * 40
    assert choice.ratios["int8"] == pytest.approx({1: 120 / 180, 0: 120 / 180})
    assert choice.seconds["float"] == pytest.approx({1: 180e-6, 0: 180e-6})


def test_a_region_that_does_not_pay_stays_float_and_the_reason_has_its_figures() -> None:
    world = even(d=70.0, e=35.0)
    choice = world.choose()
    assert choice.winner == "mixed"
    assert list(choice.float_groups) == ["d", "e"]
    assert choice.float_groups["d"] == "int8 takes 70 us, float 40 us"
    # e alone gains 5, and would need two conversions of 5
    assert choice.float_groups["e"].startswith("int8 saves 5 of 40 us, and conversions around it")
    assert choice.gains["d"] == pytest.approx(-30e-6)


def test_a_group_that_loses_between_two_that_gain_is_taken_along() -> None:
    # In float, a would leave b to pay for the conversion of a: 5 instead of 4 lost.
    choice = even(a=44.0).choose()
    assert choice.winner in ("int8", "mixed")
    # x -> a float -> Q -> b costs one conversion, as x -> Q -> a -> b does: so a stays float.
    assert list(choice.float_groups) == ["a"]
    world = World(
        {"a": 40.0, "b": 40.0, "d": 40.0, "e": 40.0},
        {"a": 10.0, "b": 44.0, "d": 10.0, "e": 10.0},
        conversion=7.0,
    )
    # b in float saves 4; its Tanh then reads it as it is, but a has to be converted for it: 7 - 7.
    assert list(world.choose().float_groups) == ["b"]


def test_float_stays_where_integers_are_slower_and_the_reason_says_by_how_much() -> None:
    choice = World(dict.fromkeys(GROUPS, 20.0), dict.fromkeys(GROUPS, 30.0)).choose()
    assert choice.winner == "float"
    assert set(choice.float_groups) == set(GROUPS)
    assert choice.reason == "with 1 thread(s) int8 takes 1.60 times as long as float"
    assert "1.60 times" in choice.float_groups["a"]


def test_conversions_alone_can_make_integers_slower() -> None:
    choice = World(
        dict.fromkeys(GROUPS, 20.0), dict.fromkeys(GROUPS, 15.0), conversion=30.0
    ).choose()
    assert choice.winner == "float"
    assert choice.gains == pytest.approx(dict.fromkeys(GROUPS, 5e-6))


def test_what_is_slower_with_more_threads_is_not_chosen() -> None:
    world = even()
    world.threads_cost = 40.0
    choice = world.choose()
    assert choice.winner == "float"
    assert "the default number of threads" in choice.reason
    assert world.choose(threads=(1,)).winner == "int8"


def test_a_gain_too_small_to_tell_from_noise_is_not_worth_the_error() -> None:
    choice = World(
        dict.fromkeys(GROUPS, 400.0), {**dict.fromkeys(GROUPS, 400.0), "e": 385.0}, conversion=1.0
    ).choose()
    assert choice.winner == "float"


def test_a_group_of_a_slow_kernel_is_not_tried() -> None:
    world = even()
    choice = world.choose(placement=placement(slow="e"))
    assert choice.float_groups == {"e": "it is slow"}
    assert all("e" in reasons for reasons in world.reasons)


def test_groups_fixed_as_float_are_never_built_in_integers() -> None:
    world = even()
    choice = world.choose(fixed={"b": "its error is too large"})
    assert choice.float_groups["b"] == "its error is too large"
    assert all(reasons.get("b") == "its error is too large" for reasons in world.reasons)


def test_another_kind_of_quantization_wins_where_it_is_faster() -> None:
    world = even()
    dynamic, slow = from_text(CHAIN), from_text(CHAIN)
    world.others = {id(dynamic): 50.0, id(slow): 500.0}
    choice = world.choose(others={"dynamic": dynamic, "slow": slow})
    assert choice.winner == "dynamic"
    assert set(choice.float_groups) == set(GROUPS)
    assert choice.ratios["dynamic"][1] == pytest.approx(50 / 180)
    assert "slow" not in choice.ratios


def test_nothing_to_quantize_is_float_without_a_measurement() -> None:
    world = even()
    choice = world.choose(placement=placed(()))
    assert (choice.winner, choice.float_groups) == ("float", {})
    assert choice.reason == "there is nothing that could be quantized"
    assert world.profiled == 0


def test_the_same_measurements_give_the_same_choice() -> None:
    assert even(d=70.0, e=35.0).choose() == even(d=70.0, e=35.0).choose()
