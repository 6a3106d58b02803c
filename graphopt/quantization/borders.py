"""Tells where floats meet integers, given which groups are quantized.

A tensor is held in integers if a quantized group reads it, or writes it so. A float reader gets
it dequantized; a quantized reader of a float tensor makes it be quantized. Each costs a pass over
the tensor, which is what `settle` weighs: an operator that computes hardly faster in integers, or
only moves elements, is quantized only where that saves conversions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphopt.graph import ir
from graphopt.quantization.backends.backend import Role
from graphopt.quantization.groups import Group

_ISOLATED = "its neighbours are float, so that it would only add conversions"
_UNCHAINED = "its integer kernel is fast only behind an integer Conv"


@dataclass(frozen=True)
class Readers:
    """Who reads the tensors that groups read or write.

    Attributes:
        uses: tensor -> how many node inputs it is, those inside bodies included.
        outputs: the tensors that are outputs of a graph.
    """

    uses: Mapping[str, int]
    outputs: frozenset[str]


def readers_of(model: ir.Model, groups: Iterable[Group]) -> Readers:
    """Who reads what the groups read or write."""
    wanted = {name for group in groups for name in group.tensors}
    uses: dict[str, int] = {}
    outputs: set[str] = set()
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    for value in values:
        name = value.name
        if name and name in wanted:
            uses[name] = len(value._uses)
            if value.is_graph_output():
                outputs.add(name)
    return Readers(uses, frozenset(outputs))


class Borders:
    """Which tensors are integers while a set of groups is quantized; groups can be taken out."""

    def __init__(self, groups: Iterable[Group], readers: Readers) -> None:
        self.groups: dict[str, Group] = {group.name: group for group in groups}
        self._readers = readers
        self._reads: dict[str, int] = {}
        self._writer: dict[str, Group] = {}
        for group in self.groups.values():
            for use in group.reads:
                self._reads[use.tensor] = self._reads.get(use.tensor, 0) + 1
            for name in group.writes:
                self._writer[name] = group

    def take_out(self, name: str) -> None:
        """Leave a group float."""
        group = self.groups.pop(name)
        for use in group.reads:
            self._reads[use.tensor] -= 1
        for written in group.writes:
            del self._writer[written]

    def reads(self, tensor: str, but: Group | None = None) -> bool:
        """Whether a quantized group reads the tensor; one other than `but`, if that is given."""
        count = self._reads.get(tensor, 0)
        if but is not None and but.name in self.groups:
            count -= sum(use.tensor == tensor for use in but.reads)
        return count > 0

    def has_float_reader(self, tensor: str) -> bool:
        """Whether a float node reads the tensor, or the caller of the model."""
        known = self._readers
        return tensor in known.outputs or known.uses.get(tensor, 0) > self._reads.get(tensor, 0)

    def writer(self, tensor: str) -> Group | None:
        """The quantized group that writes the tensor, in integers or not."""
        return self._writer.get(tensor)

    def writes(self, tensor: str) -> bool:
        """Whether a quantized group writes the tensor in integers."""
        group = self._writer.get(tensor)
        if group is None or group.writes_integers is False:
            return False
        if group.writes_integers:
            return True
        return self.reads(tensor) and not self.has_float_reader(tensor)

    def writes_always(self, tensor: str) -> bool:
        """Whether the kernel that writes the tensor has no other way than in integers."""
        group = self._writer.get(tensor)
        return group is not None and group.writes_integers is True

    def is_integer(self, tensor: str) -> bool:
        """Whether the tensor is held in integers anywhere."""
        return self.reads(tensor) or self.writes(tensor)


def settle(borders: Borders) -> dict[str, str]:
    """Take out the groups that only add conversions, until none is left; group name -> why."""
    found: dict[str, str] = {}
    changed = True
    while changed:
        changed = False
        for group in list(borders.groups.values()):
            reason = _why_not(group, borders)
            if reason is not None:
                borders.take_out(group.name)
                found[group.name] = reason
                changed = True
    return found


def _why_not(group: Group, borders: Borders) -> str | None:
    """Why a group is better float, given the others; None if it is not."""
    if group.role is Role.PRODUCT:
        return None
    if group.chained and not _behind_convolution(group, borders):
        return _UNCHAINED
    reads = dict.fromkeys(use.tensor for use in group.reads)
    # In passes over a tensor of the group's size: the parts that a Split writes, or a Concat
    # reads, are one together.
    part = 1 / len(reads) if group.role is Role.JOIN else 1.0
    piece = 1 / len(group.writes) if group.role is Role.MOVEMENT else 1.0
    in_integers = in_floats = 0.0
    for tensor in reads:
        if borders.writes_always(tensor):
            # As a float reader it has the tensor dequantized, unless another one has already.
            in_floats += 0.0 if borders.has_float_reader(tensor) else part
        elif borders.writes(tensor):
            # The writer has integers as easily as floats.
            continue
        elif not borders.reads(tensor, but=group):
            in_integers += part
    for tensor in group.writes:
        in_integers += piece if borders.has_float_reader(tensor) else 0.0
        in_floats += piece if borders.reads(tensor) else 0.0
    if in_integers < in_floats:
        return None
    if in_integers == in_floats and any(borders.writes_always(tensor) for tensor in reads):
        return None
    return _ISOLATED


def _behind_convolution(group: Group, borders: Borders) -> bool:
    """Whether a Conv, or what keeps its layout, writes the integers that a group reads."""
    pending = [use.tensor for use in group.reads]
    seen: set[str] = set()
    while pending:
        tensor = pending.pop()
        writer = borders.writer(tensor) if borders.writes(tensor) else None
        if writer is None or writer.name in seen:
            continue
        if writer.op_type == "Conv":
            return True
        seen.add(writer.name)
        if writer.op_type in ("Add", "Concat", "LeakyRelu", "MaxPool", "Mul", "Sigmoid"):
            pending.extend(use.tensor for use in writer.reads)
    return False
