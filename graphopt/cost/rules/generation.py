"""Tensors that come from a few numbers, or from chance; they are only written.

    ConstantOfShape, EyeLike          nothing
    Range                             start + i * delta                       2 per element
    RandomUniform                     low + u * (high - low)                  2
    RandomNormal                      mean + z * scale                        2
    Bernoulli                         u < p                                   1
    Multinomial                       per row of C: exp and running sum, C - 1 additions;
                                      per sample: a search for u, C comparisons

What the generator does to draw u or z is not counted.
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.rules.formulas import combining, fixed

_DRAWS = "the generator of random numbers itself is not counted"


def arithmetic_progression(node: Operator) -> Work:
    """Each element from its index: start + i * delta."""
    return Work(elementwise=2 * node.output().size, reads=0)


def random_affine(node: Operator) -> Work:
    """A draw, scaled and shifted."""
    return Work(elementwise=2 * node.output().size, reads=0, note=_DRAWS)


def bernoulli(node: Operator) -> Work:
    """A draw for each probability."""
    return Work(elementwise=node.output().size, note=_DRAWS)


def multinomial(node: Operator) -> Work:
    """Samples of each row's categories, by logits."""
    logits, samples = node.input(), node.output()
    rows, categories = logits.dims
    return Work(
        elementwise=combining(logits.size, rows) + samples.size * categories,
        transcendentals=logits.size,
        note=_DRAWS,
    )


RULES = (
    *fixed("", Work(reads=0), "ConstantOfShape EyeLike"),
    Rule("", "Range", arithmetic_progression),
    Rule("com.microsoft", "Range", arithmetic_progression),
    *(
        Rule("", op_type, random_affine)
        for op_type in ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
    ),
    Rule("", "Bernoulli", bernoulli),
    Rule("", "Multinomial", multinomial),
)
