"""What a cost rule sees of a node, and what it says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphopt.cost.quantity import Number, product
from graphopt.graph import ir


class UnknownShapeError(Exception):
    """A rule asked for a shape that nothing is known of; the node is then reported uncounted."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of one input or output of a node.

    Attributes:
        name: the value's name.
        dtype: its element type; None where unknown (or no tensor: a sequence, say).
        shape: its dims; None where not even the rank is known.
        elements: the numbers in it, where it is a small integer tensor that is known.
    """

    name: str
    dtype: ir.DataType | None
    shape: tuple[Number, ...] | None
    elements: tuple[Number | None, ...] | None = None

    @property
    def size(self) -> Number:
        """How many elements it has.

        Raises:
            UnknownShapeError: nothing is known of its shape.
        """
        return product(self.dims)

    @property
    def dims(self) -> tuple[Number, ...]:
        """Its shape.

        Raises:
            UnknownShapeError: nothing is known of it.
        """
        if self.shape is None:
            raise UnknownShapeError(f"the shape of '{self.name}' is unknown")
        return self.shape

    @property
    def bytes(self) -> Number:
        """Its size in memory; types below a byte are packed, strings count 0 (they lie elsewhere).

        Raises:
            UnknownShapeError: nothing is known of its shape.
        """
        if self.dtype in (None, ir.DataType.UNDEFINED, ir.DataType.STRING):
            return 0
        bits = self.dtype.bitwidth
        return self.size * (bits // 8) if bits % 8 == 0 else (self.size * bits + 7) // 8


@dataclass(frozen=True, slots=True)
class Work:
    """What running a node once takes.

    Attributes:
        macs: multiply-accumulates of contractions (convolutions, matrix products, ...).
        elementwise: arithmetic operations beyond the MACs: biases, activations, comparisons,
            reductions; one for each addition, multiplication, division or comparison.
        transcendentals: evaluations of exp, log, tanh, erf, sqrt, sin and the like.
        reads: bytes read; None where each input is read once, whole.
        writes: bytes written; None where each output is written once, whole.
        note: what a person has to know about the figures; empty if nothing.
    """

    macs: Number = 0
    elementwise: Number = 0
    transcendentals: Number = 0
    reads: Number | None = None
    writes: Number | None = None
    note: str = ""


VIEW = Work(reads=0, writes=0)
"""A new name or shape for the same bytes, or something that is settled before the run."""

MOVE = Work()
"""Data movement only: every input is read, every output is written, nothing is computed."""


class Operator:
    """One node as a rule sees it: attributes, and inputs and outputs by position.

    Attributes:
        op_type: the node's op type.
        domain: its domain, "" for ONNX's own.
        version: the opset version of that domain.
        inputs: one entry per input, None where an optional input is left out.
        outputs: one entry per output, None where an optional output is left out.
    """

    __slots__ = ("_attributes", "domain", "inputs", "op_type", "outputs", "version")

    def __init__(
        self,
        node: ir.Node,
        version: int,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor | None],
    ) -> None:
        self.op_type = node.op_type
        self.domain = "" if node.domain == "ai.onnx" else node.domain
        self.version = version
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._attributes = node.attributes

    def has_input(self, index: int) -> bool:
        """Whether the input at `index` is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def has_output(self, index: int) -> bool:
        """Whether anybody wants the output at `index`."""
        return index < len(self.outputs) and self.outputs[index] is not None

    def input(self, index: int = 0) -> Tensor:
        """The input at `index`.

        Raises:
            UnknownShapeError: it is left out.
        """
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise UnknownShapeError(f"input {index} is missing")
        return found

    def output(self, index: int = 0) -> Tensor:
        """The output at `index`.

        Raises:
            UnknownShapeError: it is left out.
        """
        found = self.outputs[index] if index < len(self.outputs) else None
        if found is None:
            raise UnknownShapeError(f"output {index} is missing")
        return found

    def integer(self, name: str, default: int) -> int:
        """The integer attribute `name`."""
        attribute = self._attributes.get(name)
        return default if attribute is None else attribute.as_int()

    def integers(self, name: str) -> tuple[int, ...] | None:
        """The attribute `name`, a list of integers; None where it is absent."""
        attribute = self._attributes.get(name)
        return None if attribute is None else tuple(attribute.as_ints())

    def number(self, name: str, default: float) -> float:
        """The float attribute `name`."""
        attribute = self._attributes.get(name)
        return default if attribute is None else attribute.as_float()

    def text(self, name: str, default: str = "") -> str:
        """The string attribute `name`."""
        attribute = self._attributes.get(name)
        return default if attribute is None else attribute.as_string()

    def texts(self, name: str) -> tuple[str, ...]:
        """The attribute `name`, a list of strings; empty where it is absent."""
        attribute = self._attributes.get(name)
        return () if attribute is None else tuple(attribute.as_strings())


@dataclass(frozen=True, slots=True)
class Rule:
    """How to count one operator.

    Attributes:
        domain: the operator's domain, "" for ONNX's own.
        op_type: its op type.
        count: gives the work of one run of the node; it may raise `UnknownShapeError`.
    """

    domain: str
    op_type: str
    count: Callable[[Operator], Work]
