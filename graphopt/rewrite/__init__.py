"""Finds patterns in a graph and replaces them, in time that grows linearly with the graph."""

from graphopt.rewrite.journal import Decline, Journal, NotApplicable, Rewrite
from graphopt.rewrite.matcher import Match, match
from graphopt.rewrite.pattern import (
    Constant,
    Maybe,
    OneOf,
    Op,
    Pattern,
    Variable,
    constant,
    maybe,
    one_of,
    op,
    variable,
)
from graphopt.rewrite.rewriter import Rewriter
from graphopt.rewrite.worklist import rewrite_until_stable

__all__ = [
    "Constant",
    "Decline",
    "Journal",
    "Match",
    "Maybe",
    "NotApplicable",
    "OneOf",
    "Op",
    "Pattern",
    "Rewrite",
    "Rewriter",
    "Variable",
    "constant",
    "match",
    "maybe",
    "one_of",
    "op",
    "rewrite_until_stable",
    "variable",
]
