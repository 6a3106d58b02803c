"""The rules, one file per op family, and those that plugins bring for their own domains.

A distribution offers rules through an entry point in the group `graphopt.cost_rules` that
points at a tuple of `Rule`. A plugin's rule for an operator that has one here is an error: two
models of one cost are one too many.
"""

from __future__ import annotations

import functools
import importlib

from graphopt.cost.operator import Rule
from graphopt.entry_points import offered
from graphopt.errors import UsageError

GROUP = "graphopt.cost_rules"

_FAMILIES = (
    "attention",
    "convolution",
    "detection",
    "einsum",
    "elementwise",
    "mixture_of_experts",
    "generation",
    "indexing",
    "learned_trees",
    "linear_attention",
    "matrix_product",
    "movement",
    "normalization",
    "pooling",
    "position_embedding",
    "projected_attention",
    "quantization",
    "recurrent",
    "reduction",
    "resampling",
    "signal",
    "text",
)


@functools.cache
def rules() -> dict[tuple[str, str], Rule]:
    """Every rule by (domain, op type).

    Raises:
        UsageError: two rules are for one operator; the message names where each comes from.
    """
    found: dict[tuple[str, str], Rule] = {}
    origins: dict[tuple[str, str], str] = {}
    offers: list[tuple[str, object]] = [
        (f"{__name__}.{family}", rule)
        for family in _FAMILIES
        for rule in importlib.import_module(f"{__name__}.{family}").RULES
    ]
    offers += [(offer.distribution, offer.item) for offer in offered(GROUP)]
    for origin, rule in offers:
        if not isinstance(rule, Rule):
            raise UsageError(f"{origin} offers {rule!r} as a cost rule; offer graphopt.cost.Rule")
        key = (rule.domain, rule.op_type)
        if key in found and found[key] is not rule:
            name = f"{rule.domain}::{rule.op_type}".removeprefix("::")
            raise UsageError(
                f"two cost rules are for {name}: of {origins[key]} and of {origin}; uninstall one"
            )
        found[key], origins[key] = rule, origin
    return found
