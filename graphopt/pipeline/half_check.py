"""Compares a rounded model with the original as half precision allows.

Floats may differ by `rtol` of the output's scale (1e-2 by default), and no NaN or infinity may
appear. On an input where an output is next to nothing, they may differ by `atol`, but by no more
than `rtol` of what the output reaches on any input: one that lies below `atol` as a whole is
compared relative to its scale, as zeros in its place would pass otherwise. Of an output that holds
the places of the largest values (ArgMax, ArgMin, TopK) the order may differ where the original's
own scores are that close:

    s[i'] >= s[i] - 2 rtol max |s|        i the original's choice, i' the half model's

since each of two scores may move by rtol. Of other integers 1 in 100 may differ. What
NonMaxSuppression chose may be another choice, in another number, where the boxes and scores that it
chose from, and what was taken at the places chosen, differ by no more than floats may.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from graphopt.graph import clone, constant_tensor, ir
from graphopt.pipeline.check import Checker
from graphopt.precision.operators import MATRIX, MOVEMENT
from graphopt.report import OutputCheck

RTOL = 1e-2
"""Tolerance of an output, relative to its scale: 20 roundings of float16 in the same direction."""

_LEAST_SHARE = 0.5
_FEW = 0.01
_PASSING = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})


@dataclass(frozen=True)
class Ranked:
    """An output that holds places of the largest (or smallest) scores.

    Attributes:
        output: the output's name.
        places: the name of the indices as ArgMax or TopK gives them.
        scores: the name of what they were chosen from.
        axis: along which they were chosen.
        sign: 1 for the largest, -1 for the smallest.
        drops_axis: whether `places` lacks the axis.
    """

    output: str
    places: str
    scores: str
    axis: int
    sign: int
    drops_axis: bool


def ranked_outputs(model: ir.Model) -> list[Ranked]:
    """The integer outputs of a model that are choices among scores."""
    found = []
    for value in model.graph.outputs:
        if value.dtype is None or not value.dtype.is_integer():
            continue
        node = value.producer()
        while node is not None and node.op_type in _PASSING and node.inputs[0] is not None:
            node = node.inputs[0].producer()
        if node is None or node.domain != "" or node.graph is not model.graph:
            continue
        scores = node.inputs[0] if node.inputs else None
        if scores is None or scores.name is None or value.name is None:
            continue
        if node.op_type in ("ArgMax", "ArgMin"):
            places, sign = node.outputs[0], 1 if node.op_type == "ArgMax" else -1
            axis = node.attributes.get_int("axis", 0) or 0
            drops = not node.attributes.get_int("keepdims", 1)
        elif node.op_type == "TopK" and len(node.outputs) > 1:
            places, sign = node.outputs[1], 1 if node.attributes.get_int("largest", 1) else -1
            axis, drops = node.attributes.get_int("axis", -1) or 0, False
        else:
            continue
        if places.name:
            found.append(Ranked(value.name, places.name, scores.name, axis, sign, drops))
    return found


@dataclass(frozen=True)
class Selected:
    """What an output holds that NonMaxSuppression chose.

    Attributes:
        places: the names of the choices: its own, and those of TopK among what it chose.
        sources: the names of the boxes and scores that it chose from, and of what was taken at
            the places.
    """

    places: tuple[str, ...]
    sources: tuple[str, ...]


def selected_outputs(model: ir.Model) -> dict[str, Selected]:
    """The outputs that hold what NonMaxSuppression chose; types must have been inferred.

    Not what layers compute of it: that is right where it is right, whatever was chosen.
    """
    chosen: list[ir.Value] = []
    for node in model.graph:
        if node.op_type == "NonMaxSuppression" and node.domain == "":
            chosen.extend(node.outputs)
    waiting, seen = list(chosen), set(chosen)
    nodes = dict.fromkeys(value.producer() for value in chosen)
    while waiting:
        for use in waiting.pop().uses():
            node = use.node
            if node.graph is not model.graph or node.op_type in MATRIX:
                continue
            nodes[node] = None
            new = [value for value in node.outputs if value not in seen]
            waiting.extend(new)
            seen.update(new)
            if node.op_type == "TopK":
                chosen.append(node.outputs[1])
    read = dict.fromkeys(
        value for node in nodes if node for value in node.inputs if value and value not in seen
    )
    sources = dict.fromkeys(filter(None, map(_source, read)))
    selected = Selected(
        tuple(dict.fromkeys(value.name for value in chosen if value.name)), tuple(sources)
    )
    return {value.name: selected for value in model.graph.outputs if value in seen and value.name}


def _source(value: ir.Value) -> str | None:
    """The name of what holds the numbers of a value; None if nothing computes them."""
    node = value.producer()
    while node is not None and node.op_type in MOVEMENT and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    if node is None or constant_tensor(value) is not None or node.graph is None:
        return None
    return value.name if value.dtype is None or value.dtype.is_floating_point() else None


def share_of_tolerance(inputs: int, *, real: bool) -> float:
    """How much of the tolerance a mixture may use that was chosen to be right on these inputs.

    A search stops where the result is just right on what it is shown; the largest error on
    inputs that it is not shown is larger: 1 - 1 / sqrt(n) for n inputs, and at least a half.

    Args:
        inputs: how many there are.
        real: whether they are the user's; made-up ones count as few.
    """
    if not real or inputs < 1:
        return _LEAST_SHARE
    return max(_LEAST_SHARE, 1 - 1 / math.sqrt(inputs))


class HalfChecker(Checker):
    """Compares candidates, which have the original's interface, with the original."""

    def __init__(self, original: ir.Model, *, rtol: float = RTOL, **options: Any) -> None:
        inputs = {value.name for value in original.graph.inputs}
        taken = inputs | {value.name for value in original.graph.outputs}
        self._ranked: dict[str, Ranked] = {}
        self._copied: dict[str, str] = {}
        for item in ranked_outputs(original):
            if item.scores in inputs:
                # ONNX Runtime gives no input back as an output: a copy goes out in its place.
                self._copied[item.scores] = f"{item.scores}/scores"
                item = replace(item, scores=f"{item.scores}/scores")
            self._ranked[item.output] = item
        needed = [name for item in self._ranked.values() for name in (item.places, item.scores)]
        self._selected = selected_outputs(original)
        needed += [
            name for item in self._selected.values() for name in (*item.places, *item.sources)
        ]
        self._extra = [name for name in dict.fromkeys(needed) if name not in taken]
        super().__init__(self.exposed(original), rtol=rtol, **options)

    def exposed(self, model: ir.Model) -> ir.Model:
        """The model with the scores and places of ranked outputs as further outputs."""
        if not self._extra:
            return model
        copied = clone(model)
        graph = copied.graph
        for value in graph.inputs:
            name = self._copied.get(value.name or "")
            if name is not None:
                node = ir.Node("", "Identity", [value], num_outputs=1)
                node.outputs[0].name = name
                graph.append(node)
        for node in graph:
            graph.outputs.extend(v for v in node.outputs if v.name in self._extra)
        return copied

    def _differences(self, expected: dict[str, Any], actual: dict[str, Any]) -> list[OutputCheck]:
        wanted = {name: value for name, value in expected.items() if name not in self._extra}
        given = {name: value for name, value in actual.items() if name not in self._extra}
        checks = super()._differences(wanted, given)
        return [
            self._strict(check, expected, actual)
            if check.ok
            else self._lenient(check, expected, actual)
            for check in checks
        ]

    def absolute_tolerance(self, name: str) -> float:
        """How far an output may be off whatever its scale on one input is."""
        scale = self._scales.get(name, 0.0)
        return min(self.atol, self.rtol * scale) if scale > 0 else self.atol

    @cached_property
    def _scales(self) -> dict[str, float]:
        """The largest finite magnitude that each output of the original has on any input."""
        from graphopt.runtime import compare_outputs

        scales: dict[str, float] = {}
        for outcome in itertools.chain.from_iterable(self._expected(self._names)):
            if isinstance(outcome, str):
                continue  # an input that proves nothing, see `compare`
            for found in compare_outputs(outcome, outcome):
                scales[found.name] = max(found.scale, scales.get(found.name, 0.0))
        return scales

    def _strict(
        self, check: OutputCheck, expected: Mapping[str, Any], actual: Mapping[str, Any]
    ) -> OutputCheck:
        """A check that passed, looked at again where it was the absolute tolerance alone."""
        if check.relative_error <= self.rtol:
            return check
        name = check.name
        atol = self.absolute_tolerance(name)
        if check.max_abs_error <= atol:
            return check
        from graphopt.runtime import compare_outputs

        (found,) = compare_outputs(
            {name: expected[name]}, {name: actual[name]}, rtol=self.rtol, atol=atol
        )
        return OutputCheck(name, found.max_abs_error, found.relative_error, found.ok, found.reason)

    def _lenient(
        self, check: OutputCheck, expected: Mapping[str, Any], actual: Mapping[str, Any]
    ) -> OutputCheck:
        """A failed check, looked at again where the output holds integers, or what was chosen."""
        if check.name in self._selected:
            return self._chosen(check, expected, actual)
        one, two = expected.get(check.name), actual.get(check.name)
        if not isinstance(one, np.ndarray) or not isinstance(two, np.ndarray):
            return check
        if one.dtype.kind not in "iub" or one.shape != two.shape or not one.size:
            return check
        ranked = self._ranked.get(check.name)
        wrong = _misplaced(ranked, expected, actual, self.rtol) if ranked else None
        if wrong is None:
            wrong = float(np.mean(one != two))
            if wrong <= _FEW:
                return OutputCheck(check.name, wrong, wrong, True)
            return check
        if wrong == 0:
            return OutputCheck(check.name, 0.0, 0.0, True)
        reason = f"{check.name}: {wrong:.1%} of the choices differ by more than a near tie"
        return OutputCheck(check.name, wrong, wrong, wrong <= _FEW, reason)

    def _chosen(
        self, check: OutputCheck, expected: Mapping[str, Any], actual: Mapping[str, Any]
    ) -> OutputCheck:
        """A failed check of what was chosen: other choices are right where boxes and scores are."""
        from graphopt.runtime import compare_outputs

        selected = self._selected[check.name]
        places = ((expected[n], actual.get(n)) for n in selected.places if n in expected)
        if all(np.array_equal(one, () if two is None else two) for one, two in places):
            return check  # the same were chosen
        if _is_finite(expected.get(check.name)) and not _is_finite(actual.get(check.name)):
            return check
        sources = [name for name in selected.sources if name in expected]
        if not sources:
            return check
        wanted, given = (
            {name: values.get(name) for name in sources} for values in (expected, actual)
        )
        found = compare_outputs(wanted, given, rtol=self.rtol, atol=self.atol)
        worst = max(found, key=lambda difference: difference.relative_error)
        if not all(difference.ok for difference in found):
            return check
        return OutputCheck(check.name, worst.max_abs_error, worst.relative_error, True)


def _is_finite(value: Any) -> bool:
    return not isinstance(value, np.ndarray) or (
        value.dtype.kind != "f" or bool(np.isfinite(value).all())
    )


def _misplaced(
    ranked: Ranked, expected: Mapping[str, Any], actual: Mapping[str, Any], rtol: float
) -> float | None:
    """The share of places whose original score is clearly worse; None if it cannot be told."""
    scores = expected.get(ranked.scores)
    one, two = expected.get(ranked.places), actual.get(ranked.places)
    if scores is None or one is None or two is None or one.shape != two.shape:
        return None
    if ranked.drops_axis:
        one, two = (np.expand_dims(places, ranked.axis) for places in (one, two))
    wide = np.asarray(scores, np.float64) * ranked.sign
    finite = np.abs(wide[np.isfinite(wide)])
    allowed = 2 * rtol * float(finite.max(initial=0.0))
    chosen = np.take_along_axis(wide, one.astype(np.int64), ranked.axis)
    others = np.take_along_axis(wide, two.astype(np.int64), ranked.axis)
    return float(np.mean(others < chosen - allowed))
