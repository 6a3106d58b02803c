"""Counts the uses of a value without copying them."""

from __future__ import annotations

from graphopt.graph import ir


def use_count(value: ir.Value) -> int:
    """How many node inputs, those of nodes in nested graphs included, are `value`.

    `len(value.uses())` copies every use: with that, 10,000 rewrites around a value that
    10,000 nodes read take minutes. onnx_ir has no public way to ask for the number alone.
    """
    return len(value._uses)
