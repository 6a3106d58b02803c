"""Passes with one mistake each, of the kind that first versions make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.plugin import (
    Journal,
    Match,
    NotApplicable,
    Pass,
    Promise,
    RewritePass,
    Rewriter,
    all_graphs,
    constant,
    constant_array,
    ir,
    op,
    variable,
)


@dataclass(frozen=True)
class CancelDoubleNegation(RewritePass):
    """Neg(Neg(x)) -> x; the right one."""

    name = "cancel-double-negation"
    promise = Promise.EXACT
    patterns = (op("Neg", op("Neg", variable("x"))),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        rewriter.replace(match.root, match.value("x"))


@dataclass(frozen=True)
class CancelAnyNegation(RewritePass):
    """Wrong numbers: one Neg is taken for two."""

    name = "cancel-any-negation"
    promise = Promise.EXACT
    patterns = (op("Neg", variable("x")),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        rewriter.replace(match.root, match.value("x"))


@dataclass(frozen=True)
class ReorderSum(RewritePass):
    """(x + a) + b -> x + (a + b), which is not the same bits."""

    name = "reorder-sum"
    promise = Promise.EXACT
    patterns = (op("Add", op("Add", variable("x"), constant("a")), constant("b")),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        total = sum(
            constant_array(match.value(label)).astype(np.float64)  # type: ignore[union-attr]
            for label in "ab"
        )
        value = rewriter.initializer(np.asarray(total, np.float32), "total")
        rewriter.replace(match.root, rewriter.node("Add", [match.value("x"), value]))


class ReorderSumEquivalent(ReorderSum):
    """The same, and does not promise more than it holds."""

    name = "reorder-sum-equivalent"
    promise = Promise.EQUIVALENT


@dataclass(frozen=True)
class ScaleWeightInPlace(Pass):
    """Writes into the arrays of weights, which other models share."""

    name = "scale-weight-in-place"

    def run(self, model: ir.Model, journal: Journal) -> None:
        for node in model.graph:
            weight = node.inputs[1].const_value if node.op_type == "Conv" else None
            if weight is not None:
                weight.numpy()[:] *= 2
                journal.record("Conv", "scaled")


@dataclass(frozen=True)
class FuseIgnoringDefaults(RewritePass):
    """x * one -> x without a look at whether the caller may override `one`."""

    name = "fuse-ignoring-defaults"
    patterns = (op("Mul", variable("x"), variable("one")),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        default = match.value("one").const_value
        if default is None or not (default.numpy() == 1).all():
            raise NotApplicable("no one")
        rewriter.replace(match.root, match.value("x"))


@dataclass(frozen=True)
class EliminateNeutral(RewritePass):
    """x + 0 -> x, also where the zeros widen x."""

    name = "eliminate-neutral"
    patterns = (op(("Add", "Mul"), variable("x"), constant("neutral")),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        neutral = constant_array(match.value("neutral"), max_elements=16)
        wanted = 0 if match.root.op_type == "Add" else 1
        if neutral is None or not (neutral == wanted).all():
            raise NotApplicable("not neutral")
        rewriter.replace(match.root, match.value("x"))


@dataclass(frozen=True)
class MergeEqualNodes(Pass):
    """Merges nodes of one op and the same inputs, random ones included."""

    name = "merge-equal-nodes"

    def run(self, model: ir.Model, journal: Journal) -> None:
        seen: dict[object, ir.Node] = {}
        for node in list(model.graph):
            key = (node.op_type, *map(id, node.inputs), str(sorted(node.attributes)))
            first = seen.setdefault(key, node)
            if first is not node and len(node.outputs) == 1 and node.inputs != ():
                for usage in tuple(node.outputs[0].uses()):
                    usage.node.replace_input_with(usage.idx, first.outputs[0])
                journal.record(node.op_type, "merged")


@dataclass(frozen=True)
class DropUnusedHere(Pass):
    """Removes nodes that no node of the same graph uses: a use in a branch is none."""

    name = "drop-unused-here"

    def run(self, model: ir.Model, journal: Journal) -> None:
        graph = model.graph
        used = {value for node in graph for value in node.inputs} | set(graph.outputs)
        for node in reversed(list(graph)):
            if not any(output in used for output in node.outputs):
                graph.remove(node)
                journal.record(node.op_type, "removed")


@dataclass(frozen=True)
class CancelCasts(RewritePass):
    """Cast(Cast(x)) -> x where the types are the same at both ends."""

    name = "cancel-casts"
    patterns = (op("Cast", op("Cast", variable("x"))),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        if match.value("x").dtype != match.root.outputs[0].dtype:
            raise NotApplicable("another type")
        rewriter.replace(match.root, match.value("x"))


@dataclass(frozen=True)
class SortInputs(Pass):
    """Drops the empty places of omitted inputs."""

    name = "sort-inputs"

    def run(self, model: ir.Model, journal: Journal) -> None:
        for graph in all_graphs(model):
            for node in graph:
                present = [value for value in node.inputs if value is not None]
                if len(present) < len(node.inputs):
                    for index in range(len(node.inputs)):
                        value = present[index] if index < len(present) else None
                        node.replace_input_with(index, value)
                    journal.record(node.op_type, "sorted")


@dataclass(frozen=True)
class RenameOutputs(Pass):
    """Gives the outputs names of its own."""

    name = "rename-outputs"

    def run(self, model: ir.Model, journal: Journal) -> None:
        for index, value in enumerate(model.graph.outputs):
            value.name = f"output_{index}"
        journal.record("outputs", "renamed")


@dataclass(frozen=True)
class FixBatch(Pass):
    """Writes 1 where a dim of an input is symbolic."""

    name = "fix-batch"

    def run(self, model: ir.Model, journal: Journal) -> None:
        for value in model.graph.inputs:
            shape = value.shape or ir.Shape([])
            value.shape = ir.Shape([dim if isinstance(dim, int) else 1 for dim in shape])
        journal.record("inputs", "fixed")


@dataclass(frozen=True)
class SilentChange(Pass):
    """Changes the model and does not say so."""

    name = "silent-change"

    def run(self, model: ir.Model, journal: Journal) -> None:
        for node in list(model.graph):
            if node.op_type == "Relu":
                node.op_type = "Abs"


@dataclass(frozen=True)
class Raise(Pass):
    """Fails."""

    name = "raise"

    def run(self, model: ir.Model, journal: Journal) -> None:
        raise KeyError("no such thing")
