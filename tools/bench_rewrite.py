"""Time rewriting on graphs of 5,000 and 50,000 nodes: it has to grow linearly.

    python tools/bench_rewrite.py [--repeat 3] [--nodes 5000 50000] [--graphs NAME ...] [--whole]

One rewrite for every five nodes, on graphs of several shapes, and the passes that walk a whole
graph. Exits with 1 where the large graph takes over ten seconds, or over 12 times the small one.
With --whole it is `graphopt.optimize` at its usual level that is timed, from the bytes of each
graph to the bytes of the result, without the comparison; the limit is then 1.5 times the time per
node of the small graph.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from graphopt_passes.eliminate_dead_nodes import EliminateDeadNodes
from graphopt_passes.eliminate_duplicates import EliminateDuplicates
from graphopt_passes.eliminate_identities import EliminateIdentities

import graphopt
from graphopt.graph import ir, patient_collector, to_bytes
from graphopt.plugin import (
    Journal,
    Match,
    Pass,
    Pattern,
    Rewriter,
    constant,
    op,
    rewrite_until_stable,
    variable,
)

NODES_PER_REWRITE = 5
MOST_SECONDS = 10.0
MOST_GROWTH = 12.0
MOST_GROWTH_OF_THE_WHOLE = 15.0


class Builder:
    """Appends nodes to a graph of float[8] values."""

    def __init__(self) -> None:
        self.input = self._value("x")
        self.graph = ir.Graph([self.input], [], nodes=[], opset_imports={"": 18}, name="bench")
        self.count = 0

    def node(self, op_type: str, *inputs: ir.Value) -> ir.Value:
        """Append a node; its output."""
        self.count += 1
        output = self._value(f"v{self.count}")
        self.graph.append(ir.Node("", op_type, inputs, outputs=[output], name=f"n{self.count}"))
        return output

    def initializer(self) -> ir.Value:
        """Add an initializer of its own."""
        value = self._value(f"w{len(self.graph.initializers)}")
        number = len(self.graph.initializers)
        value.const_value = ir.tensor(np.full(8, number, np.float32), name=value.name)
        self.graph.initializers.add(value)
        return value

    def model(self, *outputs: ir.Value) -> ir.Model:
        """The model with these outputs."""
        self.graph.outputs.extend(outputs)
        return ir.Model(self.graph, ir_version=10)

    @staticmethod
    def _value(name: str) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape([8]), type=ir.TensorType(ir.DataType.FLOAT))


def chain(blocks: int) -> ir.Model:
    """One long path; two Negs in each block cancel."""
    builder = Builder()
    value = builder.input
    for _ in range(blocks):
        for op_type in ("Neg", "Neg", "Relu", "Sigmoid", "Tanh"):
            value = builder.node(op_type, value)
    return builder.model(value)


def hub(blocks: int) -> ir.Model:
    """One value that every block reads twice."""
    builder = Builder()
    center = builder.node("Relu", builder.input)
    value = center
    for _ in range(blocks):
        gated = builder.node("Mul", center, builder.node("Sigmoid", center))
        value = builder.node("Add", value, builder.node("Tanh", gated))
        value = builder.node("Relu", value)
    return builder.model(value)


def constants(blocks: int) -> ir.Model:
    """Each block multiplies by two constants, which become a new one of the same base name."""
    builder = Builder()
    value = builder.input
    for _ in range(blocks):
        value = builder.node("Mul", value, builder.initializer())
        value = builder.node("Mul", value, builder.initializer())
        for op_type in ("Relu", "Sigmoid", "Tanh"):
            value = builder.node(op_type, value)
    return builder.model(value)


def outputs(blocks: int) -> ir.Model:
    """Each block ends in a graph output, which the rewrite replaces."""
    builder = Builder()
    ends = []
    for _ in range(blocks):
        value = builder.input
        for op_type in ("Relu", "Sigmoid", "Tanh", "Neg", "Neg"):
            value = builder.node(op_type, value)
        ends.append(value)
    return builder.model(*ends)


def cascade(blocks: int) -> ir.Model:
    """Nested pairs: each rewrite makes the next one possible."""
    builder = Builder()
    value = builder.input
    for _ in range(blocks):
        value = builder.node("Neg", value)
    for _ in range(3 * blocks):
        value = builder.node("Relu", value)
    for _ in range(blocks):
        value = builder.node("Neg", value)
    return builder.model(value)


def identities(blocks: int) -> ir.Model:
    """An Identity in each block, all of one hub."""
    builder = Builder()
    center = builder.node("Relu", builder.input)
    value = center
    for _ in range(blocks):
        added = builder.node("Add", value, builder.node("Identity", center))
        value = builder.node("Tanh", builder.node("Sigmoid", builder.node("Relu", added)))
    return builder.model(value)


def duplicates(blocks: int) -> ir.Model:
    """The same function of one hub in each block."""
    builder = Builder()
    center = builder.node("Relu", builder.input)
    value = center
    for _ in range(blocks):
        added = builder.node("Add", value, builder.node("Sigmoid", center))
        value = builder.node("Tanh", builder.node("Sigmoid", builder.node("Relu", added)))
    return builder.model(value)


def dead(blocks: int) -> ir.Model:
    """A dead branch of a hub in each block."""
    builder = Builder()
    center = builder.node("Relu", builder.input)
    value = center
    for _ in range(blocks):
        builder.node("Sigmoid", center)
        for op_type in ("Tanh", "Relu", "Sigmoid", "Tanh"):
            value = builder.node(op_type, value)
    return builder.model(value)


def _cancel(match: Match, rewriter: Rewriter) -> None:
    rewriter.replace(match.root, match.value("x"))


def _gate(match: Match, rewriter: Rewriter) -> None:
    rewriter.replace(match.root, rewriter.node("HardSwish", [match.value("x")]))


def _multiply(match: Match, rewriter: Rewriter) -> None:
    factors = [match.value(label).const_value for label in ("a", "b")]
    product = np.prod([factor.numpy() for factor in factors if factor is not None], axis=0)
    factor = rewriter.initializer(product.astype(np.float32), "factor")
    rewriter.replace(match.root, rewriter.node("Mul", [match.value("x"), factor]))


@dataclass(frozen=True)
class Scenario:
    """A graph, and what is done to it; exactly one of a pattern and a pass."""

    build: Callable[[int], ir.Model]
    pattern: Pattern | None = None
    rewrite: Callable[[Match, Rewriter], None] = _cancel
    item: Pass | None = None

    def run(self, model: ir.Model) -> int:
        """Rewrite the model; how often."""
        journal = Journal("bench")
        if self.item is not None:
            self.item.run(model, journal)
        elif self.pattern is not None:
            rewrite_until_stable(model, [self.pattern], self.rewrite, journal)
        return len(journal.rewrites)


_DOUBLE_NEGATION = op("Neg", op("Neg", variable("x")))
_SWISH = op("Mul", variable("x"), op("Sigmoid", variable("x")), commutative=True)
_TWO_FACTORS = op("Mul", op("Mul", variable("x"), constant("a")), constant("b"))

SCENARIOS = (
    Scenario(chain, _DOUBLE_NEGATION),
    Scenario(cascade, _DOUBLE_NEGATION),
    Scenario(hub, _SWISH, _gate),
    Scenario(constants, _TWO_FACTORS, _multiply),
    Scenario(outputs, _DOUBLE_NEGATION),
    Scenario(identities, item=EliminateIdentities()),
    Scenario(duplicates, item=EliminateDuplicates()),
    Scenario(dead, item=EliminateDeadNodes()),
)


def measure(scenario: Scenario, nodes: int, whole: bool) -> tuple[float, int]:
    """CPU seconds of one run, and the number of rewrites."""
    model = scenario.build(nodes // NODES_PER_REWRITE)
    if whole:
        data = to_bytes(model)
        start = time.process_time()
        report = graphopt.optimize(data, check="off").report
        seconds = time.process_time() - start
        return seconds, sum(len(entry.rewrites) for entry in report.passes)
    with patient_collector():  # as the pipeline runs passes
        # Time of this process alone: other load on the machine does not count.
        start = time.process_time()
        rewrites = scenario.run(model)
        return time.process_time() - start, rewrites


def compare(
    scenario: Scenario, small: int, large: int, repeat: int, whole: bool
) -> tuple[float, float, int]:
    """Median CPU seconds at both sizes, interleaved, and the rewrites at the large one.

    Each large run has the small runs that make up the same number of nodes just before it,
    so that both see the machine in the same state.
    """
    measure(scenario, small, whole)  # warms caches up
    smalls, larges, rewrites = [], [], 0
    for _ in range(repeat):
        runs = [measure(scenario, small, whole)[0] for _ in range(large // small)]
        smalls.append(statistics.median(runs))
        seconds, rewrites = measure(scenario, large, whole)
        larges.append(seconds)
    return statistics.median(smalls), statistics.median(larges), rewrites


def main() -> int:
    """Print the table; 1 if a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--nodes", type=int, nargs=2, default=(5_000, 50_000))
    names = [scenario.build.__name__ for scenario in SCENARIOS]
    parser.add_argument("--graphs", nargs="+", choices=names, default=names)
    parser.add_argument("--whole", action="store_true", help="time graphopt.optimize")
    arguments = parser.parse_args()
    small, large = arguments.nodes
    most_growth = MOST_GROWTH_OF_THE_WHOLE if arguments.whole else MOST_GROWTH
    most_seconds = float("inf") if arguments.whole else MOST_SECONDS

    print(f"{'graph':<12} {'rewrites':>9} {small:>9,} {large:>9,} {'growth':>8}")
    failed = False
    for scenario in SCENARIOS:
        if scenario.build.__name__ not in arguments.graphs:
            continue
        before, after, rewrites = compare(scenario, small, large, arguments.repeat, arguments.whole)
        growth = after / before
        too_slow = after > most_seconds or growth > most_growth * (large / small) / 10
        failed = failed or too_slow
        print(
            f"{scenario.build.__name__:<12} {rewrites:>9,} {before:>8.3f}s {after:>8.3f}s "
            f"{growth:>7.1f}x{'  TOO SLOW' if too_slow else ''}"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
