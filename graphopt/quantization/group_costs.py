"""What each group and each conversion between groups costs, from the variants measured so far.

    Q(t) = c + elements * (q + layout),    D(t) = c + elements * (d + layout)

until the conversion of that very tensor was seen in a variant. q, d and the cost of a change of
layout are rates of the conversions that were seen in this model, or usual ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphopt.graph import ir
from graphopt.quantization.group_cut import Border, Costs
from graphopt.quantization.group_times import GroupTimes
from graphopt.quantization.groups import Group, Placement, name_of

if TYPE_CHECKING:
    from graphopt.runtime import Feed

# Seconds per element on a processor of this decade, where the model shows none of its own.
_USUAL_RATES = {
    "QuantizeLinear": 0.35e-9,
    "DequantizeLinear": 0.3e-9,
    "Transpose": 0.25e-9,
    "ReorderInput": 0.3e-9,
    "ReorderOutput": 0.3e-9,
}
_CALL = 2e-6  # seconds that a kernel takes however little it does
_BLOCKED = frozenset({"Conv"})
"""Operators that ONNX Runtime runs in a layout of its own, another one in integers."""


class CostModel:
    """The costs of a placement, as far as they were measured.

    Args:
        model: the float model that was placed.
        placement: its groups.
        feed: the inputs that decide the sizes.
    """

    def __init__(self, model: ir.Model, placement: Placement, feed: Feed) -> None:
        self._groups = {group.name: group for group in placement.groups}
        self._writer = {name: g for g in placement.groups for name in g.writes}
        self._readers = _readers(placement)
        self._float_uses = _float_uses(model, placement)
        self._elements, self._rank = _sizes(model, feed)
        self._as_float: dict[str, float] = {}
        self._as_integers: dict[str, float] = {}
        self._seen: dict[str, tuple[float, float]] = {}
        self._rates = dict(_USUAL_RATES)

    def learn(self, float_groups: frozenset[str], times: GroupTimes) -> None:
        """Take over what a variant showed. Of repeated measurements the shortest counts.

        Args:
            float_groups: the groups that were float in it.
            times: what it took.
        """
        for name in self._groups:
            known = self._as_float if name in float_groups else self._as_integers
            seconds = times.seconds.get(name, 0.0)
            known[name] = min(seconds, known.get(name, seconds))
        if len(float_groups) == len(self._groups):
            return
        self._rates |= {kind: rate for kind, rate in times.rates.items() if kind in self._rates}
        for tensor, seconds in times.conversions.items():
            self._learn_conversion(tensor, seconds, float_groups)

    def _learn_conversion(self, tensor: str, seconds: float, float_groups: frozenset[str]) -> None:
        writer = self._writer.get(tensor)
        to_integers, to_float = self._seen.get(tensor, (-1.0, -1.0))
        if writer is None or writer.name in float_groups:
            to_integers = seconds if to_integers < 0 else min(seconds, to_integers)
        else:
            readers = sum(name in float_groups for name in self._readers.get(tensor, ()))
            each = seconds / max(1, readers + self._float_uses.get(tensor, 0))
            to_float = each if to_float < 0 else min(each, to_float)
        self._seen[tensor] = (to_integers, to_float)

    def costs(self) -> Costs:
        """The costs for the minimum cut."""
        tensors = dict.fromkeys([*self._writer, *self._readers])
        # What never ran in integers is held in float, whatever figure stands here.
        as_integers = {**self._as_float, **self._as_integers}
        return Costs(self._as_float, as_integers, [self._border(name) for name in tensors])

    def gains(self) -> dict[str, float]:
        """Seconds that integers save each group that ran in them, conversions apart."""
        return {name: self._as_float[name] - seconds for name, seconds in self._as_integers.items()}

    def reason(self, name: str) -> str:
        """Why a group stays float, in figures."""
        before, after = self._as_float[name] * 1e6, self._as_integers[name] * 1e6
        if after >= before:
            return f"int8 takes {after:.0f} us, float {before:.0f} us"
        border = sum(self._conversion(tensor) for tensor in self._groups[name].tensors) * 1e6
        return (
            f"int8 saves {before - after:.0f} of {before:.0f} us, and conversions around it "
            f"would take up to {border:.0f} us"
        )

    def _conversion(self, tensor: str) -> float:
        border = self._border(tensor)
        return border.to_float if border.writer else border.to_integers

    def _border(self, tensor: str) -> Border:
        writer = self._writer.get(tensor)
        readers = tuple(self._readers.get(tensor, ()))
        seen_integers, seen_float = self._seen.get(tensor, (-1.0, -1.0))
        to_integers, to_float = self._guess(tensor, writer, readers)
        if writer is not None and writer.writes_integers is None:
            to_float = 0.0  # its kernel writes floats as well
        return Border(
            tensor,
            "" if writer is None else writer.name,
            readers,
            self._float_uses.get(tensor, 0),
            seen_integers if seen_integers >= 0 else to_integers,
            seen_float if seen_float >= 0 else to_float,
        )

    def _guess(
        self, tensor: str, writer: Group | None, readers: tuple[str, ...]
    ) -> tuple[float, float]:
        """Seconds to integers and to float, by size and layout."""
        elements = self._elements.get(tensor, 0)
        to_integers, to_float = self._rates["QuantizeLinear"], self._rates["DequantizeLinear"]
        image = self._rank.get(tensor) == 4
        written_blocked = image and writer is not None and writer.op_type in _BLOCKED
        read_blocked = image and any(self._groups[n].op_type in _BLOCKED for n in readers)
        if written_blocked:
            to_integers += self._rates["ReorderOutput"]
            to_float += self._rates["Transpose"]
        if read_blocked:
            to_integers += self._rates["Transpose"]
            to_float += self._rates["ReorderInput"]
        return _CALL + elements * to_integers, _CALL + elements * to_float


def _readers(placement: Placement) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for group in placement.groups:
        for use in group.reads:
            found.setdefault(use.tensor, {})[group.name] = None
    return {tensor: tuple(names) for tensor, names in found.items()}


def _float_uses(model: ir.Model, placement: Placement) -> Mapping[str, int]:
    """How many times each tensor is read by nodes of no group, or is an output."""
    grouped = {node for group in placement.groups for node in group.nodes}
    found: dict[str, int] = {}
    for node in model.graph:
        for value in node.outputs:
            uses = sum(name_of(use.node) not in grouped for use in value.uses())
            found[value.name or ""] = uses + value.is_graph_output()
    return found


def _sizes(model: ir.Model, feed: Feed) -> tuple[dict[str, int], dict[str, int]]:
    """Elements and rank of every tensor whose shape follows from the feed."""
    import numpy as np

    from graphopt.cost.latency.prediction import sized_model

    sized = sized_model(model, {name: np.shape(value) for name, value in feed.items()})
    elements: dict[str, int] = {}
    ranks: dict[str, int] = {}
    for value in (*sized.graph.inputs, *(v for node in sized.graph for v in node.outputs)):
        if value.shape is None or not value.name:
            continue
        sizes = [dim for dim in value.shape if isinstance(dim, int)]
        if len(sizes) == len(value.shape):
            elements[value.name] = int(np.prod(sizes, dtype=np.int64))
            ranks[value.name] = len(sizes)
    return elements, ranks
