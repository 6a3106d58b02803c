"""One node as an inference rule sees it: its operator, attributes and input facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.graph import ir
from graphopt.shapes.expression import Dim, Expression
from graphopt.shapes.facts import Elements, Fact


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node with references to function parameters resolved.

    Attributes:
        op_type: the operator, of ONNX's own domain wherever a rule is asked.
        version: the version of the operator set in force.
        attributes: without those that could not be resolved.
        inputs: a fact for each input; None for an omitted one.
        outputs: for each output whether it is wanted at all (an empty name omits it).
        unresolved: an attribute refers to something unknown: defaults must not be assumed.
        nonempty: dims may be taken to be at least 1 where two of them are broadcast.
    """

    op_type: str
    version: int
    attributes: Mapping[str, ir.Attr]
    inputs: Sequence[Fact | None]
    outputs: Sequence[bool]
    unresolved: bool = False
    nonempty: bool = False

    def fact(self, index: int) -> Fact | None:
        """The fact of an input, None where it is omitted."""
        return self.inputs[index] if index < len(self.inputs) else None

    def dims(self, index: int) -> tuple[Dim, ...] | None:
        """The dims of an input, None where they are unknown or the input is omitted."""
        fact = self.fact(index)
        return None if fact is None else fact.dims

    def elements(self, index: int) -> Elements | None:
        """The elements of an input, None where they are unknown or the input is omitted."""
        fact = self.fact(index)
        return None if fact is None else fact.elements

    def integers(self, index: int) -> list[int] | None:
        """The elements of an input as a flat list where all are plain integers."""
        elements = self.elements(index)
        if elements is None:
            return None
        flat = [element for element in elements.flat if isinstance(element, int)]
        return flat if len(flat) == elements.size else None

    def scalar(self, index: int) -> Dim:
        """The only element of an integer input; None where it is unknown."""
        elements = self.elements(index)
        if elements is None or elements.size != 1:
            return None
        (element,) = elements.flat
        return element if isinstance(element, int | Expression) else None

    def numbers(self, index: int) -> list[float] | None:
        """The elements of a floating-point input where all are known."""
        elements = self.elements(index)
        if elements is None:
            return None
        flat = [float(element) for element in elements.flat if isinstance(element, np.floating)]
        return flat if len(flat) == elements.size else None

    def int_attribute(self, name: str, default: int) -> int:
        """An integer attribute or its default."""
        attribute = self.attributes.get(name)
        return default if attribute is None else attribute.as_int()

    def ints_attribute(self, name: str) -> list[int] | None:
        """An attribute that is a list of integers, None where it is absent."""
        attribute = self.attributes.get(name)
        return None if attribute is None else list(attribute.as_ints())

    def text_attribute(self, name: str, default: str) -> str:
        """A string attribute or its default."""
        attribute = self.attributes.get(name)
        return default if attribute is None else attribute.as_string()

    def axes(self, index: int) -> list[int] | None:
        """Axes from the attribute `axes` or, as in newer operator sets, from an input."""
        return self.ints_attribute("axes") if "axes" in self.attributes else self.integers(index)


def normalized_axis(axis: int, rank: int) -> int | None:
    """The axis counted from the front; None where it is out of range."""
    axis = axis + rank if axis < 0 else axis
    return axis if 0 <= axis < rank else None
