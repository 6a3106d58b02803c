"""Reads the constants and attributes that a fusion needs, or says why it cannot."""

from __future__ import annotations

import numpy as np

from graphopt.plugin import NotApplicable, constant_array, ir


def parameter(value: ir.Value | None, what: str) -> np.ndarray:
    """The data of a constant parameter, in its own type.

    Raises:
        NotApplicable: it is not a constant, or holds NaN or an infinity.
    """
    if value is None:
        raise NotApplicable(f"{what} is absent")
    array = constant_array(value)
    if array is None:
        raise NotApplicable(f"{what} {_obstacle(value)}")
    if not np.isfinite(array).all():
        raise NotApplicable(f"{what} holds a value that is not finite")
    return array


def optional_input(node: ir.Node, index: int) -> ir.Value | None:
    """An input that may be left out, at the end or as an empty name."""
    return node.inputs[index] if index < len(node.inputs) else None


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute.

    Raises:
        NotApplicable: it is a parameter of the function around the node.
    """
    _known(node, name)
    return node.attributes.get_int(name, default)


def real(node: ir.Node, name: str, default: float) -> float:
    """A float attribute.

    Raises:
        NotApplicable: it is a parameter of the function around the node.
    """
    _known(node, name)
    return node.attributes.get_float(name, default)


def _known(node: ir.Node, name: str) -> None:
    attribute = node.attributes.get(name)
    if attribute is not None and attribute.is_ref():
        raise NotApplicable(f"{node.op_type} takes '{name}' from the function's caller")


def _obstacle(value: ir.Value) -> str:
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        return "is quantized: fusing would change its scale"
    if value.is_initializer():
        return f"'{value.name}' is an input that the caller may override"
    return "is not a constant"
