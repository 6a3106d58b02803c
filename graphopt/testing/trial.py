"""One run of a pass on a model, and what is wrong with what it left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.errors import RuntimeUnavailableError, ShapeError
from graphopt.graph import all_graphs, clone, ir, to_text
from graphopt.pipeline.guard import first_problem, interface_change, interface_of
from graphopt.plugin import Journal, Pass, Promise
from graphopt.shapes import infer_shapes

if TYPE_CHECKING:
    from graphopt.runtime import Feed, Session

FEEDS = 3
"""Inputs that both models run on: dynamic dims get three sizes in turn."""


@dataclass(frozen=True)
class Trial:
    """What came of a pass on a model.

    Attributes:
        result: the model that the pass left.
        journal: what it says that it did and declined.
        problem: what is wrong with the result, in a phrase; None if nothing is known to be.
        not_run: why the numbers were not compared; None if they were.
    """

    result: ir.Model
    journal: Journal
    problem: str | None
    not_run: str | None

    @property
    def changed(self) -> bool:
        """Whether the pass says that it changed anything."""
        return bool(self.journal.rewrites)


def run_trial(item: Pass, original: ir.Model) -> Trial:
    """Run a pass on a copy of `original` (shapes inferred) and judge what it leaves.

    An exception of the pass is passed on.
    """
    _make_writable(original)
    before = to_text(original)
    interface = interface_of(original)
    result = clone(original)
    journal = Journal(item.name)
    item.run(result, journal)

    def judged(problem: str | None, not_run: str | None = None) -> Trial:
        return Trial(result, journal, problem, not_run)

    if to_text(original) != before:
        return judged("it wrote into a tensor or an attribute that other models share")
    problem = first_problem(result)
    if problem is not None:
        return judged(f"it left an invalid model: {problem}")
    change = interface_change(interface, interface_of(result), drops_defaults=item.drops_defaults)
    if change is not None:
        return judged(f"it changed the model's interface: {change}")
    if not journal.rewrites and to_text(result) != before:
        return judged("it changed the model and recorded no rewrite")
    try:
        infer_shapes(result.clone())
    except ShapeError as error:
        return judged(f"it left shapes that contradict each other: {error}")
    if not journal.rewrites:
        return judged(None)  # it is the same model
    return judged(*_compare_runs(item, original, result))


def _make_writable(model: ir.Model) -> None:
    """Hold the weights in arrays that a careless pass can write into, so that it shows."""
    for graph in all_graphs(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.serde.TensorProtoTensor):
                array = np.array(tensor.numpy())
                value.const_value = ir.tensor(array, dtype=tensor.dtype, name=tensor.name)


def without_inner_types(model: ir.Model) -> str:
    """The model as text, without the types of values that inference finds again."""
    bare = model.clone()
    for function in bare.functions.values():
        for value in (*function.inputs, *function.outputs):
            value.type = None
            value.shape = None
    for graph in all_graphs(bare):
        for node in graph:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.type = None
                    value.shape = None
    text = to_text(bare)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _compare_runs(
    item: Pass, original: ir.Model, result: ir.Model
) -> tuple[str | None, str | None]:
    """What is wrong with the result's numbers, and why they were not compared."""
    from graphopt.runtime import Session, runnable_feeds

    try:
        expected_session = Session(original, threads=1)
        feeds = runnable_feeds(original, expected_session, count=FEEDS)
    except RuntimeUnavailableError as error:
        return None, str(error)
    if not feeds:
        return None, "no input was found on which the model runs"
    try:
        actual_session = Session(result, threads=1)
    except RuntimeUnavailableError as error:
        return f"ONNX Runtime refuses the result: {error}", None
    if not item.drops_defaults:
        feeds += _overriding(original, feeds[-1], expected_session)
    kept = {value.name for value in result.graph.inputs}
    for whole_feed in feeds:
        # An input that the pass was allowed to drop keeps its default in the original too.
        feed = {name: value for name, value in whole_feed.items() if name in kept}
        expected = expected_session.run(feed)
        try:
            actual = actual_session.run(feed)
        except RuntimeUnavailableError as error:
            return f"the result fails where the original runs: {error}", None
        problem = _disagreement(item.promise, expected, actual)
        if problem is not None:
            return f"{problem} (on {_sizes(feed)})", None
    return None, None


def _overriding(model: ir.Model, feed: Feed, session: Session) -> list[Feed]:
    """The feed with other values for the inputs that have defaults, if the model runs on it."""
    others = {}
    for value in model.graph.inputs:
        default = value.const_value if value.is_initializer() else None
        if default is not None and default.dtype.is_floating_point():
            array = default.numpy()
            others[value.name or ""] = (array.astype(np.float64) + 1).astype(array.dtype)
    if not others or model.ir_version < 4:  # before 4 every initializer is an input
        return []
    changed = {**feed, **others}
    try:
        session.run(changed)
    except RuntimeUnavailableError:
        return []
    return [changed]


def _disagreement(
    promise: Promise, expected: Mapping[str, Any], actual: Mapping[str, Any]
) -> str | None:
    from graphopt.runtime import compare_outputs

    if promise is Promise.EXACT:
        for name, value in expected.items():
            if not _same_bits(value, actual.get(name)):
                return f"output '{name}' is not the same bits, which the pass promises"
        return None
    if promise is Promise.LOSSY:
        for name, value in expected.items():
            if name not in actual or np.shape(value) != np.shape(actual[name]):
                return f"output '{name}' changed its shape"
        return None
    differences = compare_outputs(expected, actual)
    return next((difference.reason for difference in differences if not difference.ok), None)


def _same_bits(expected: Any, actual: Any) -> bool:
    if expected is None or actual is None:
        return expected is actual
    if isinstance(expected, Mapping):
        return (
            isinstance(actual, Mapping)
            and list(expected) == list(actual)
            and all(_same_bits(value, actual[key]) for key, value in expected.items())
        )
    if isinstance(expected, list | tuple):
        return (
            isinstance(actual, list | tuple)
            and len(expected) == len(actual)
            and all(map(_same_bits, expected, actual))
        )
    left, right = np.asarray(expected), np.asarray(actual)
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.kind in "OUS":
        return bool(np.array_equal(left, right))
    return left.tobytes() == right.tobytes()


def _sizes(feed: Mapping[str, Any]) -> str:
    sizes = [f"{name} {list(np.shape(value))}" for name, value in feed.items()]
    return "inputs " + ", ".join(sizes) if sizes else "its only run"
