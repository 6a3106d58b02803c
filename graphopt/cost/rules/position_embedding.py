"""What tells positions apart: rotations of queries and keys, biases of scores.

rotation of a pair (x, y)         x cos - y sin, x sin + y cos: 6, so 3 per rotated element
GemmaRotaryEmbedding              the same for q and k, each x cos + rotated x * sin (3), and
                                  the sines and cosines of its angles
RelativePositionBias (T5)         the bucket of each pair of positions: subtract, magnitude,
                                  compare, divide, log, multiply, add, round, bound: 8 and 1 log
GatedRelativePositionBias         q + bias, a linear layer of D columns, its halves summed
                                  (D - 2), two sigmoids, u * (r * eco_a - 1) + 2 (4), and
                                  that times the bias of every key
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.quantity import Number, product
from graphopt.cost.rules.formulas import SIGMOID


def rotary_embedding(node: Operator) -> Work:
    """ONNX's `RotaryEmbedding`: X, cosines, sines, positions."""
    return _rotated(node, cosines=1)


def rotary_embedding_of_runtime(node: Operator) -> Work:
    """`RotaryEmbedding`, `MRotaryEmbedding` of ONNX Runtime: X, positions, cosines, sines."""
    return _rotated(node, cosines=2)


def gemma_rotary_embedding(node: Operator) -> Work:
    """`GemmaRotaryEmbedding`: angles, q, rotated q, k, rotated k."""
    return Work(
        elementwise=3 * (node.input(1).size + node.input(3).size),
        transcendentals=2 * node.input().size,
    )


def gated_relative_position_bias(node: Operator) -> Work:
    """`GatedRelativePositionBias`: queries, their bias, positions, weights, bias, eco_a."""
    batch, heads, queries, keys = node.output().dims
    size, columns = node.input(3).dims
    rows = batch * heads * queries
    per_row = size + columns + (columns - 2) + 2 * SIGMOID[0] + 4 + keys
    return Work(
        macs=rows * size * columns,
        elementwise=rows * per_row,
        transcendentals=rows * 2 * SIGMOID[1],
    )


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
    Rule("com.microsoft", "GemmaRotaryEmbedding", gemma_rotary_embedding),
    Rule("com.microsoft", "GatedRelativePositionBias", gated_relative_position_bias),
)
