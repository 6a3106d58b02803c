"""What a backend runs in integers, as data: one `Rule` per operator, one `Backend` per file.

Nothing here decides; `graphopt.quantization.placement` reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from graphopt.graph import ir


class Role(StrEnum):
    """What an operator does with the integers it is given."""

    PRODUCT = "product"
    """Sums products of inputs and weights, with parameters of its own at the output."""
    ARITHMETIC = "arithmetic"
    """Computes elements from elements, with parameters of its own at the output."""
    MOVEMENT = "movement"
    """Only moves, drops, repeats or compares elements: input and output share parameters."""
    JOIN = "join"
    """Puts its inputs side by side (Concat); they share parameters where their ranges are alike."""
    LOOKUP = "lookup"
    """Takes rows of a constant table: the table is stored as integers."""


class Output(StrEnum):
    """Whether the integer kernel writes integers."""

    INTEGER = "integer"
    """Always: without QuantizeLinear behind it the operator runs in float."""
    EITHER = "either"
    """Integers for a consumer that reads them, floats otherwise."""
    FLOAT = "float"
    """Always floats."""


@dataclass(frozen=True)
class Format:
    """The integers that a kind of tensor is held in.

    Attributes:
        dtype: the integer type.
        symmetric: whether the zero point has to be the middle of the type.
        per_channel: whether each channel has its own scale.
    """

    dtype: ir.DataType
    symmetric: bool
    per_channel: bool = False


@dataclass(frozen=True)
class Rule:
    """How a backend runs one operator in integers.

    Attributes:
        op_type: the operator.
        role: what it does with integers.
        operands: inputs that have to be integers, activations or constants; None for all.
        bias: the input that is a bias, or None.
        output: what its kernel writes.
        absorbs: operators behind it that its kernel takes in: Relu and Clip, which the range of
            the output stands for, and Add of a constant vector to a MatMul, which is its bias.
        absorbs_residual: whether a residual Add behind it becomes part of its kernel; the other
            summand is an operand then.
        conditions: names of further conditions, see `placement_conditions.CONDITIONS`.
        per_channel: whether weights may have a scale per channel.
        merged_with: operators that the backend would merge with a float output of rank 2 before
            it looks for integers, into one it has no integer kernel for: an output that goes
            there has to be integers.
        chained: whether it pays only behind an integer Conv, whose layout its kernel shares.
        table: for an operator that moves rows, whether it also does with a constant table.
        saturates: whether the kernel is among those that `Backend.saturates` speaks of.
        slow: why the integer kernel is not worth having unless it was measured to be; "" if it is.
        domain: the operator's domain.
    """

    op_type: str
    role: Role
    operands: tuple[int, ...] | None = (0,)
    bias: int | None = None
    output: Output = Output.INTEGER
    absorbs: tuple[str, ...] = ()
    absorbs_residual: bool = False
    conditions: tuple[str, ...] = ()
    per_channel: bool = True
    merged_with: tuple[str, ...] = ()
    chained: bool = False
    table: bool = False
    saturates: bool = False
    slow: str = ""
    domain: str = ""


@dataclass(frozen=True)
class Backend:
    """What one backend runs in integers.

    Attributes:
        name: as `--backend` takes it.
        provider: the provider of ONNX Runtime that runs it ("cpu", "cuda", ...); None for none.
        activation: the format of activations.
        weight: the format of weights.
        left_weight: the format of a constant on the left of a matrix product.
        bias: the type of a bias, its scale the product of the scales of input and weight; None
            where it stays float.
        rules: the operators.
        ranges_absorb: whether Relu and Clip vanish because the integers behind them cannot go
            below or above; else the backend takes them into its kernel whatever the range.
        saturates: whether kernels add two neighbouring products in int16 on a processor without
            the instructions that avoid it (see `saturation`).
        takes_unasked: whether it runs an operator in integers too that was left float between a
            DequantizeLinear and a QuantizeLinear, quantizing float weights by itself.
        notes: what a user should know, one sentence each.
    """

    name: str
    provider: str | None
    activation: Format
    weight: Format
    left_weight: Format
    bias: ir.DataType | None
    rules: tuple[Rule, ...]
    ranges_absorb: bool = True
    saturates: bool = False
    takes_unasked: bool = False
    notes: tuple[str, ...] = ()

    def rule(self, node: ir.Node) -> Rule | None:
        """The rule for the operator of a node, or None."""
        return self._table.get((node.domain, node.op_type))

    def with_formats(
        self, *, activation: Format | None = None, weight: Format | None = None
    ) -> Backend:
        """This backend with other formats: int16 activations, unsigned weights, ..."""
        return dataclasses.replace(
            self, activation=activation or self.activation, weight=weight or self.weight
        )

    @cached_property
    def _table(self) -> Mapping[tuple[str, str], Rule]:
        return {(rule.domain, rule.op_type): rule for rule in self.rules}
