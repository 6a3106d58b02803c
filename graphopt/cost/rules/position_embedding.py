"""Rotations of queries and keys, which tell positions apart.

rotation of a pair (x, y)         x cos - y sin, x sin + y cos: 6, so 3 per rotated element
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.quantity import Number, product


def rotary_embedding(node: Operator) -> Work:
    """ONNX's `RotaryEmbedding`: X, cosines, sines, positions."""
    return _rotated(node, cosines=1)


def rotary_embedding_of_runtime(node: Operator) -> Work:
    """`RotaryEmbedding`, `MRotaryEmbedding` of ONNX Runtime: X, positions, cosines, sines."""
    return _rotated(node, cosines=2)


def _rotated(node: Operator, cosines: int) -> Work:
    """The rotated part of each head is twice as wide as a row of cosines."""
    dims = node.input().dims
    rotated = 2 * node.input(cosines).dims[-1]
    if len(dims) == 4:
        heads: Number = product(dims[:3])
    else:
        # Without a number of heads, the width of the table is that of a head.
        count = node.integer("num_heads", 0)
        heads = product(dims[:-1]) * (count or dims[-1] // rotated)
    return Work(elementwise=3 * heads * rotated)


RULES = (
    Rule("", "RotaryEmbedding", rotary_embedding),
    Rule("com.microsoft", "RotaryEmbedding", rotary_embedding_of_runtime),
    Rule("com.microsoft", "MRotaryEmbedding", rotary_embedding_of_runtime),
)
