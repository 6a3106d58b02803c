"""Small models that the pipeline tests optimize, and passes that are wrong on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx.parser

from graphopt.graph import ir
from graphopt.plugin import Journal, Match, Pass, Promise, RewritePass, Rewriter, op, variable

CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
chain (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) {
    a = Identity (x)
    b = Relu (a)
    c = Identity (b)
    d = Neg (c)
    y = Abs (d)
    e = Identity (d)
    z = Tanh (e)
}
"""


def chain() -> onnx.ModelProto:
    """Relu, Neg, Abs and Tanh with Identities between; the batch is dynamic."""
    return onnx.parser.parse_model(CHAIN)


def nodes(model: onnx.ModelProto) -> list[str]:
    """The op types of the main graph, in order."""
    return [node.op_type for node in model.graph.node]


@dataclass(frozen=True)
class RemoveIdentities(RewritePass):
    """x -> Identity(x): the honest pass beside the wrong ones."""

    name = "remove-identities"
    promise = Promise.EXACT
    patterns = (op("Identity", variable("x"), label="identity"),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        rewriter.replace(match.root, match.value("x"))


@dataclass(frozen=True)
class Raises(Pass):
    """Changes the model and then fails."""

    name = "raises"

    def run(self, model: ir.Model, journal: Journal) -> None:
        node = model.graph[0]
        node.outputs[0].replace_all_uses_with(node.inputs[0])  # type: ignore[arg-type]
        raise RuntimeError("on purpose,\nin two lines")


@dataclass(frozen=True)
class LeavesInvalid(Pass):
    """Takes a node out whose output is still used."""

    name = "leaves-invalid"

    def run(self, model: ir.Model, journal: Journal) -> None:
        model.graph.remove(model.graph[1])


@dataclass(frozen=True)
class RenamesOutput(Pass):
    """Gives an output another name."""

    name = "renames-output"

    def run(self, model: ir.Model, journal: Journal) -> None:
        model.graph.outputs[0].name = "renamed"


@dataclass(frozen=True)
class DropsDynamicDim(Pass):
    """Freezes the batch at 1, as several well-known tools do."""

    name = "drops-dynamic-dim"

    def run(self, model: ir.Model, journal: Journal) -> None:
        for value in (*model.graph.inputs, *model.graph.outputs):
            value.shape = ir.Shape([1, 4])


@dataclass(frozen=True)
class WrongRewrite(RewritePass):
    """Neg(x) -> x, which is right under Abs and wrong under Tanh; Relu(x) -> Relu(x) is right."""

    name = "wrong-rewrite"
    patterns = (op("Neg", variable("x")), op("Identity", variable("x")))

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        rewriter.replace(match.root, match.value("x"))


def tilted(count: int) -> onnx.ModelProto:
    """A row of Softsigns, which `Tilts` makes a little different, or very."""
    nodes = "\n".join(f"v{i + 1} = Softsign(v{i})" for i in range(count))
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> row (float[N, 4] x) => (float[N, 4] y) '
        f"{{ v0 = Identity(x) {nodes} y = Identity(v{count}) }}"
    )


@dataclass(frozen=True)
class Tilts(RewritePass):
    """Softsign(x) -> Softsign(x) * factor, written as x / (1 + |x|) * factor."""

    factor: float = 1.0

    name = "tilts"
    patterns = (op("Softsign", variable("x")),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        x = match.value("x")
        one = rewriter.initializer(np.array([1], np.float32), "one")
        factor = rewriter.initializer(np.array([self.factor], np.float32), "factor")
        size = rewriter.node("Add", [one, rewriter.node("Abs", [x]).outputs[0]])
        quotient = rewriter.node("Div", [x, size.outputs[0]])
        rewriter.replace(match.root, rewriter.node("Mul", [quotient.outputs[0], factor]))


@dataclass(frozen=True)
class WrongAtBatchThree(RewritePass):
    """Abs(x) -> Max(s, -s) with s = x * where(batch == 3, 2, 1)."""

    name = "wrong-at-batch-three"
    patterns = (op("Abs", variable("x")),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        x = match.value("x")
        shape = rewriter.node("Shape", [x], {"start": 0, "end": 1})
        three = rewriter.initializer(np.array([3], np.int64), "three")
        factors = [rewriter.initializer(np.array([f], np.float32), "factor") for f in (2, 1)]
        equal = rewriter.node("Equal", [shape.outputs[0], three])
        factor = rewriter.node("Where", [equal.outputs[0], *factors])
        scaled = rewriter.node("Mul", [x, factor.outputs[0]])
        negative = rewriter.node("Neg", [scaled.outputs[0]])
        rewriter.replace(match.root, rewriter.node("Max", [scaled.outputs[0], negative.outputs[0]]))


@dataclass(frozen=True)
class WrongOnOneValue(RewritePass):
    """Relu(x) -> Where(x == 7, 0, Relu(x)): wrong only where an element is 7."""

    name = "wrong-on-one-value"
    patterns = (op("Relu", variable("x")),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        x = match.value("x")
        seven = rewriter.initializer(np.array(7, np.float32), "seven")
        zero = rewriter.initializer(np.array(0, np.float32), "zero")
        equal = rewriter.node("Equal", [x, seven])
        relu = rewriter.node("Max", [x, zero])
        where = rewriter.node("Where", [equal.outputs[0], zero, relu.outputs[0]])
        rewriter.replace(match.root, where)


@dataclass(frozen=True)
class NegateOutputs(Pass):
    """y -> -y, unless Neg is there already: right only after a pass that dropped one."""

    name = "negate-outputs"

    def run(self, model: ir.Model, journal: Journal) -> None:
        graph = model.graph
        if any(node.op_type == "Neg" for node in graph):
            return
        old = graph.outputs[0]
        new = ir.node("Neg", [old])
        new.outputs[0].name, old.name = old.name, "inner"
        new.outputs[0].type, new.outputs[0].shape = old.type, old.shape
        graph.append(new)
        graph.outputs[0] = new.outputs[0]
        journal.record("output", "negated")


@dataclass(frozen=True)
class SilentlyDrops(Pass):
    """x -> op(x) for nodes of one type, told to nobody."""

    op_type: str = "Neg"

    name = "silently-drops"

    def run(self, model: ir.Model, journal: Journal) -> None:
        for node in tuple(model.graph):
            if node.op_type == self.op_type:
                source = node.inputs[0]
                assert source is not None
                node.outputs[0].replace_all_uses_with(source)
                model.graph.remove(node)


@dataclass(frozen=True)
class BreaksRelu(RewritePass):
    """Relu(x) -> an operator that does not exist."""

    name = "breaks-relu"
    promise = Promise.EXACT
    patterns = (op("Relu", variable("x")),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        rewriter.replace(match.root, rewriter.node("Bogus", [match.value("x")]))


@dataclass(frozen=True)
class CoversUp(RewritePass):
    """What `BreaksRelu` leaves -> Neg(x): valid, and wrong."""

    name = "covers-up"
    promise = Promise.EXACT
    patterns = (op("Bogus", variable("x")),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        rewriter.replace(match.root, rewriter.node("Neg", [match.value("x")]))


@dataclass(frozen=True)
class ReplacesSlope(Pass):
    """alpha -> 0.25, in an attribute that may get the address of the one before."""

    name = "replaces-slope"
    promise = Promise.EXACT

    def run(self, model: ir.Model, journal: Journal) -> None:
        for node in model.graph:
            if node.op_type == "LeakyRelu" and node.attributes["alpha"].as_float() != 0.25:
                node.attributes.pop("alpha")
                node.attributes["alpha"] = ir.AttrFloat32("alpha", 0.25)
