"""Reads the small integers that operators take as attributes in old opsets, as inputs in new."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphopt.plugin import NotApplicable, constant_array, ir, known_shape

_MOST = 64


def integers(node: ir.Node, attribute: str, index: int) -> list[int] | None:
    """The numbers of an attribute, or of the input that took its place; None if left out.

    Raises:
        NotApplicable: the input is not a constant, or the attribute is a parameter of the
            function around the node.
    """
    held = node.attributes.get(attribute)
    if held is not None:
        if held.is_ref():
            raise NotApplicable(f"{node.op_type} takes '{attribute}' from the function's caller")
        return [held.as_int()] if held.type == ir.AttributeType.INT else list(held.as_ints())
    value = given(node, index)
    if value is None:
        return None
    array = constant_array(value, _MOST)
    if array is None:
        raise NotApplicable(f"the {attribute} of {node.op_type} are not constant")
    return [int(item) for item in array.reshape(-1)]


def given(node: ir.Node, index: int) -> ir.Value | None:
    """The input at `index`; None where it is left out, at the end or as an empty name."""
    return node.inputs[index] if index < len(node.inputs) else None


def rank(value: ir.Value) -> int | None:
    """The number of axes, where it is known."""
    shape = known_shape(value)
    return None if shape is None else len(shape)


def keep_rank(data: ir.Value, result: ir.Node) -> None:
    """Refuse a result that may have more axes than its data, given by a constant on the way.

    Raises:
        NotApplicable: the ranks differ, or one of them is not known.
    """
    ranks = rank(data), rank(result.outputs[0])
    if ranks[0] is None or ranks[0] != ranks[1]:
        raise NotApplicable("a constant may raise the rank")


def no_references(node: ir.Node) -> None:
    """Refuse a node that takes an attribute from the caller of the function it stands in.

    Raises:
        NotApplicable: it does.
    """
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            raise NotApplicable(f"{node.op_type} takes '{name}' from the function's caller")


def positive_number(value: ir.Value) -> float:
    """A constant of one number that is not below zero, as the epsilon of a norm.

    Raises:
        NotApplicable: it is something else.
    """
    array = constant_array(value, 1)
    if array is None or array.size != 1 or not 0 <= float(array.reshape(-1)[0]) < np.inf:
        raise NotApplicable("epsilon is not a positive number")
    return float(array.reshape(-1)[0])


def is_number(number: float) -> Callable[[ir.Value], bool]:
    """A condition on a constant: one element, and this number as nearly as its type has it."""

    def holds(value: ir.Value) -> bool:
        array = constant_array(value, 1)
        if array is None or array.size != 1 or array.dtype == object:
            return False
        wanted = np.asarray(number).astype(array.dtype)
        # Exporters round in float32 before they write a double, or write six digits.
        return bool(np.isclose(float(array.reshape(-1)[0]), float(wanted), rtol=2e-6, atol=0))

    return holds
