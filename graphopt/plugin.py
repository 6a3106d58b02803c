"""What the author of a pass imports; nothing else of graphopt is needed, nor promised.

A pass is a frozen dataclass whose fields are its options:

    @dataclass(frozen=True)
    class FuseAddNeg(RewritePass):
        '''a + (-b) -> a - b.'''

        name = "fuse-add-neg"
        promise = Promise.EXACT
        patterns = (op("Add", variable("a"), op("Neg", variable("b")), commutative=True),)

        def rewrite(self, match: Match, rewriter: Rewriter) -> None:
            inputs = [match.value("a"), match.value("b")]
            rewriter.replace(match.root, rewriter.node("Sub", inputs))
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from graphopt.errors import GraphoptError
from graphopt.graph import (
    all_graphs,
    all_nodes,
    constant_array,
    constant_tensor,
    ir,
    load,
    nested_graphs,
    opset_version,
    outer_values,
    outside,
    replace_content,
    subgraphs,
    to_proto,
)
from graphopt.rewrite import (
    Journal,
    Match,
    NotApplicable,
    Pattern,
    Rewriter,
    constant,
    maybe,
    one_of,
    op,
    rewrite_until_stable,
    variable,
)
from graphopt.rewrite.journal import site_of
from graphopt.rewrite.rewriter import is_removable
from graphopt.shapes import known_shape, same_dim, same_shape, static_shape, symbolic_value

if TYPE_CHECKING:
    from graphopt.precision import Blocked, Measurements, format_named
    from graphopt.precision import Request as HalfRequest
    from graphopt.precision import convert as convert_to_half
    from graphopt.pruning.uniform import prune_channels
    from graphopt.quantization.dynamic import quantize_dynamically
    from graphopt.quantization.insertion import insert_qdq
    from graphopt.quantization.plan_sources import plan_of_ranges, read_plan
    from graphopt.quantization.repair.equalization import equalize_channels
    from graphopt.quantization.repair.smoothing import smooth_activations
    from graphopt.quantization.weight_only import BlockFormat, quantize_weights
    from graphopt.runtime import read_feeds

__all__ = [
    "BlockFormat",
    "Blocked",
    "GraphoptError",
    "HalfRequest",
    "Journal",
    "Match",
    "Measurements",
    "NotApplicable",
    "Pass",
    "Pattern",
    "Promise",
    "RewritePass",
    "Rewriter",
    "all_graphs",
    "all_nodes",
    "constant",
    "constant_array",
    "constant_tensor",
    "convert_to_half",
    "equalize_channels",
    "evaluate",
    "format_named",
    "insert_qdq",
    "ir",
    "is_removable",
    "known_shape",
    "load",
    "maybe",
    "nested_graphs",
    "one_of",
    "op",
    "opset_version",
    "option",
    "outer_values",
    "outside",
    "plan_of_ranges",
    "prune_channels",
    "quantize_dynamically",
    "quantize_weights",
    "read_feeds",
    "read_plan",
    "replace_content",
    "same_dim",
    "same_shape",
    "site_of",
    "smooth_activations",
    "static_shape",
    "subgraphs",
    "symbolic_value",
    "to_proto",
    "variable",
]


_LOSSY_HOME = {
    "Blocked": "precision",
    "Measurements": "precision",
    "format_named": "precision",
    "HalfRequest": "precision:Request",
    "convert_to_half": "precision:convert",
    "prune_channels": "pruning.uniform",
    "quantize_dynamically": "quantization.dynamic",
    "insert_qdq": "quantization.insertion",
    "plan_of_ranges": "quantization.plan_sources",
    "read_plan": "quantization.plan_sources",
    "equalize_channels": "quantization.repair.equalization",
    "smooth_activations": "quantization.repair.smoothing",
    "BlockFormat": "quantization.weight_only",
    "quantize_weights": "quantization.weight_only",
    "read_feeds": "runtime",
}
"""Where the names live that only lossy passes need: a pass imports them where it runs, so that a
lossless run does not wait for them."""


def __getattr__(name: str) -> Any:
    if name not in _LOSSY_HOME:
        raise AttributeError(f"module 'graphopt.plugin' has no attribute '{name}'")
    module, _, there = _LOSSY_HOME[name].partition(":")
    value = getattr(import_module(f"graphopt.{module}"), there or name)
    globals()[name] = value
    return value


class Promise(StrEnum):
    """What a pass promises about the numbers."""

    EXACT = "exact"
    """The same bits."""
    EQUIVALENT = "equivalent"
    """The same up to the order of floating-point operations."""
    LOSSY = "lossy"
    """Different within a budget that the user gave; never in a preset."""


@dataclasses.dataclass(frozen=True)
class Pass(ABC):
    """A named change to a model; the dataclass fields of a subclass are its options.

    Attributes:
        name: the command line's name, verb first: `fold-constants`.
        promise: what holds of the numbers afterwards.
        drops_defaults: whether the pass may take an input that has a default (an
            initializer of the same name) off the model's interface. Off but for the pass
            whose purpose that is.
        acts_on: the ONNX operators of which the model must hold one for the pass to do anything,
            so that it need not run over models without; empty where it has to look itself.
    """

    name: ClassVar[str]
    promise: ClassVar[Promise] = Promise.EQUIVALENT
    drops_defaults: ClassVar[bool] = False
    acts_on: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def run(self, model: ir.Model, journal: Journal) -> None:
        """Change `model` in place and write into `journal` what was done and declined.

        A change is made only where `journal.permits(site)` allows it, and told with
        `journal.record`, so that bisection can find the change that is at fault. Any
        exception means that the pass failed: the pipeline undoes all of it.
        """


class RewritePass(Pass):
    """A pass that replaces matches of patterns, in every graph of the model.

    Attributes:
        patterns: what to look for; each is rooted at an op.
    """

    patterns: ClassVar[tuple[Pattern, ...]]

    @abstractmethod
    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Replace one match through `rewriter`, or raise NotApplicable with the reason."""

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Rewrite until no pattern matches any more."""
        rewrite_until_stable(model, self.patterns, self.rewrite, journal)


def option(default: Any, help_text: str) -> Any:
    """A field of a pass: its default, and what the documentation says of it."""
    return dataclasses.field(default=default, metadata={"help": help_text})


def evaluate(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Run a model that has no inputs once in ONNX Runtime; its outputs by name.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot run it.
    """
    from graphopt.runtime.evaluate import evaluate as run

    return run(model)
