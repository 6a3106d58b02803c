"""Linear attention: a state of dk x dv per head instead of scores of all pairs.

Per token, MACs of each head of the keys and values, and elementwise operations:

    state + k outer v           dk * dv
    state * exp(g)              dk * dv products; 1 exp per element of g      (gated)
    v - state . k               dk * dv, and dv subtractions, dv by beta      (delta)
    scale * (q . state)         dk * dv and dv products, per head of the output

It counts the recurrence, token by token, also from a state of zeros; kernels that take a chunk of
tokens at once do other work for the same result.
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.quantity import Number


def linear_attention(node: Operator) -> Work:
    """`LinearAttention`: query, key, value in 3-D, state, decay, beta."""
    batch, tokens, columns = node.input().dims
    heads, kept = node.integer("q_num_heads", 1), node.integer("kv_num_heads", 1)
    return _recurrence(
        node,
        tokens=batch * tokens,
        heads=max(heads, kept),
        kept=kept,
        key_size=columns // heads,
        value_size=node.input(2).dims[2] // kept,
        decays=node.input(4).size if node.has_input(4) else 0,
    )


def _recurrence(
    node: Operator,
    *,
    tokens: Number,
    heads: Number,
    kept: Number,
    key_size: Number,
    value_size: Number,
    decays: Number,
) -> Work:
    rule = node.text("update_rule", "gated_delta")
    gated, delta = rule in ("gated", "gated_delta"), rule in ("delta", "gated_delta")
    state = key_size * value_size
    return Work(
        macs=tokens * state * (kept * (1 + delta) + heads),
        elementwise=tokens * (kept * (state * gated + 2 * value_size * delta) + heads * value_size),
        transcendentals=decays if gated else 0,
    )


RULES = (
    Rule("", "LinearAttention", linear_attention),
    Rule("com.microsoft", "LinearAttention", linear_attention),
)
