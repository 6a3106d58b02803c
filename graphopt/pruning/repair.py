"""repair: refit the layers of a pruned model to the original, on unlabelled data, in closed form.

    for each layer in the order of the model:
        W, b = argmin |activation(x W + b + s) - activation(t)|^2      x, s: pruned,  t: original

x is what the layer reads behind the layers already repaired, so each layer also makes good what
is left of the errors before it; the constant parts of removed channels go into the biases. What
names a class is then fitted to the original's probabilities (`class_fit`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from graphopt.errors import RuntimeUnavailableError
from graphopt.graph import ir
from graphopt.pruning.class_fit import fit_classes, gives_classes
from graphopt.pruning.linear_layers import Layer, layer_of, layers_of, output_shape
from graphopt.pruning.pair_fit import FEWEST_SAMPLES, Pair, fit_pair, pairs_of, samples_for
from graphopt.pruning.propagation.place import node_name
from graphopt.pruning.repair_solve import RIDGE, Rows, fitted, fitted_on_few, squared_error
from graphopt.pruning.repair_targets import Aim, aims_of
from graphopt.pruning.repair_walk import MAX_HELD_BYTES, Walk, values_read
from graphopt.pruning.statistics import MAX_COLUMNS, drawn, drawn_each, gathered_rows, rows_at
from graphopt.rewrite import NotApplicable
from graphopt.runtime import Feed

KeptIndices = Mapping[tuple[str, int], np.ndarray]
"""For each (tensor, axis) that lost something the indices that stay (see `kept_indices`)."""


FEW = 30
"""Rows for each column below which the ridge is chosen on rows that are held out."""


@dataclass(slots=True)
class RepairReport:
    """What was repaired.

    Attributes:
        refitted: by layer the error relative to the original's variance, before and after.
        skipped: by layer why it was left as it is.
        feeds: how many feeds were used.
    """

    refitted: dict[str, tuple[float, float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    feeds: int = 0


def repair(
    model: ir.Model,
    original: ir.Model,
    feeds: Sequence[Feed],
    kept: KeptIndices,
    *,
    rows_per_column: int = 40,
    ridge: float = RIDGE,
    max_bytes: int = MAX_HELD_BYTES,
    seed: int = 0,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> RepairReport:
    """Refit every layer that reads something else than it did in the original.

    Args:
        model: the pruned model; its weights and biases are changed in place.
        original: the model before units were removed, whose values have the same names.
        feeds: unlabelled inputs.
        kept: of `graphopt.pruning.surgery.kept_indices`.
        rows_per_column: rows (positions of a feature map) for each column of a layer.
        ridge: see `graphopt.pruning.repair_solve`.
        max_bytes: memory for activations on the way; feeds are left out where it is too little.
        seed: which rows are drawn.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        progress: called with the layers done and the layers in all.
    """
    report = RepairReport(feeds=len(feeds))
    layers, declined = layers_of(model.graph)
    changed = _Changed(model.graph, kept)
    report.skipped.update(
        (name, reason) for name, reason in declined.items() if changed.reaches_node(name)
    )
    if not feeds:
        report.skipped.update(dict.fromkeys(layers, "there is no data"))
        return report
    aims = aims_of(model.graph, layers)
    lost = {value for value, _ in kept}
    pairs = {
        name: pair
        for name, pair in pairs_of(layers, aims).items()
        if pair.second.data.name in lost and pair.columns <= MAX_COLUMNS
    }
    pruned, teacher = (
        Walk(each, feeds, threads, max_bytes=max_bytes) for each in (model, original)
    )
    for pair in pairs.values():
        pruned.keep(pair.first.data.name or "")
    for number, (name, layer) in enumerate(layers.items()):
        if progress is not None:
            progress(number, len(layers))
        if not changed.reaches(layer):
            continue
        changed.add(layer)
        if layer.columns > MAX_COLUMNS:
            report.skipped[name] = f"it has {layer.columns} columns, over {MAX_COLUMNS}"
            continue
        try:
            aim = _advanced(layer, aims[name], pruned, teacher)
            plain = name not in pairs and _is_plain(aim)
            report.refitted[name] = _refit(
                layer, aim, pruned, teacher, kept, plain, rows_per_column, ridge, seed + number
            )
            if name in pairs:
                with suppress(NotApplicable):  # they stay fitted one by one, then
                    left = _refit_pair(pairs[name], aim, pruned, teacher, kept)
                    before, after = report.refitted[name]
                    report.refitted[name] = before, after * left
        except NotApplicable as reason:
            report.skipped[name] = str(reason)
        except RuntimeUnavailableError as reason:
            # What comes later reads what this stretch should have given.
            later = list(layers)[number:]
            report.skipped.update(dict.fromkeys(later, str(reason)))
            break
        if name in pairs:
            pruned.release(pairs[name].first.data.name or "")
        held = pruned.held_bytes + teacher.held_bytes
        report.feeds = len(pruned)
        if held > max_bytes:
            report.feeds = max(1, int(len(pruned) * max_bytes / held))
            pruned.drop(report.feeds)
            teacher.drop(report.feeds)
    return report


def _advanced(layer: Layer, aim: Aim, pruned: Walk, teacher: Walk) -> Aim:
    """Bring both walks to a layer; its aim, or its own output where the sum broadcasts."""
    data = layer.data.name or ""
    pruned.advance([data] if aim.branch is None else [data, aim.branch])
    if aim.branch is not None:
        x, branch = (next(pruned.values(name)) for name in (data, aim.branch))
        if branch.shape != output_shape(layer, x.shape):
            aim = Aim(layer.output.name or "", None, -math.inf, math.inf)
    teacher.advance([aim.total])
    fewest = min(len(pruned), len(teacher))
    pruned.drop(fewest)
    teacher.drop(fewest)
    return aim


def _refit(
    layer: Layer,
    aim: Aim,
    pruned: Walk,
    teacher: Walk,
    kept: KeptIndices,
    plain: bool,
    rows_per_column: int,
    ridge: float,
    seed: int,
) -> tuple[float, float]:
    rows = _rows(layer, aim, pruned, teacher, kept, rows_per_column, seed)
    few = rows.x.shape[1] < FEW * layer.columns
    solve = partial(
        fitted_on_few if few else fitted,
        matrix=layer.matrix(),
        bias=layer.bias_vector(),
        fit_bias=layer.bias is not None,
        low=aim.low,
        high=aim.high,
        ridge=ridge,
    )
    fit = solve(rows)
    if not (math.isfinite(fit.before) and layer.holds(fit.matrix, fit.bias)):
        raise NotApplicable("what it reads or should give is too large for a fit")
    if fit.after > fit.before:
        return fit.before, fit.before
    layer.write(fit.matrix, fit.bias)
    if not plain or not gives_classes(layer, next(teacher.values(aim.total)).shape, rows.target):
        return fit.before, fit.after
    found = fit_classes(rows, fit, solve, fit_bias=layer.bias is not None)
    if found is None:
        return fit.before, fit.after
    matrix, bias = found[0][None], found[1]
    if not layer.holds(matrix, bias):
        return fit.before, fit.after
    layer.write(matrix, bias)
    least = max(squared_error(rows, fit.matrix, fit.bias), 1e-30)
    return fit.before, fit.after * squared_error(rows, matrix, bias) / least


def _is_plain(aim: Aim) -> bool:
    """Whether what counts is the layer's own output, as it is."""
    return aim.branch is None and aim.low == -math.inf and aim.high == math.inf


def _refit_pair(pair: Pair, aim: Aim, pruned: Walk, teacher: Walk, kept: KeptIndices) -> float:
    """Fit a layer and the one before it together, where both walks are at the second.

    Returns:
        The share of the error that is left on samples that were not fitted to.

    Raises:
        NotApplicable: there is too little to fit to, or together they are no better.
    """
    names = [pair.first.data.name or "", *([] if aim.branch is None else [aim.branch])]
    read = [list(pruned.values(name)) for name in names]
    totals = list(teacher.values(aim.total))
    shapes = {
        tuple(array.shape[1:] for array in arrays) for arrays in zip(*read, totals, strict=True)
    }
    if len(shapes) > 1 or totals[0].ndim != 4:
        raise NotApplicable("the images are of several sizes")
    between = next(pruned.values(pair.second.data.name or ""))
    count = samples_for(pair, *(math.prod(array.shape[2:]) for array in (between, totals[0])))
    inputs, *branch = (_spread(arrays, count) for arrays in read)
    target = _spread(totals, count)
    if len(target) < FEWEST_SAMPLES:
        raise NotApplicable("the samples are too few, or too much to compute")
    indices = kept.get((aim.total, 1))
    target = target if indices is None else np.take(target, indices, 1)
    nodes = [pair.first.node, pair.second.data.producer()]
    fresh = Pair(layer_of(pair.first.node), layer_of(pair.second.node), pair.low, pair.high)
    found = fit_pair(
        fresh, inputs, target, branch[0] if branch else None, low=aim.low, high=aim.high
    )
    if not found[1] < found[0]:
        raise NotApplicable("together they are no better")
    stretch = [node_name(node) for node in nodes if node is not None]
    pruned.again(stretch, pair.second.data.name or "")
    return found[1] / found[0]


def _spread(arrays: Sequence[np.ndarray], count: int) -> np.ndarray:
    """So many samples of all, as far apart as they can be."""
    total = sum(len(array) for array in arrays)
    chosen = np.linspace(0, total - 1, min(count, total)).astype(int)
    start, parts = 0, []
    for array in arrays:
        inside = chosen[(chosen >= start) & (chosen < start + len(array))] - start
        parts.append(array[inside])
        start += len(array)
    return np.concatenate(parts)


def _rows(
    layer: Layer,
    aim: Aim,
    pruned: Walk,
    teacher: Walk,
    kept: KeptIndices,
    rows_per_column: int,
    seed: int,
) -> Rows:
    """Rows from all feeds, as many from each."""
    each = drawn_each(layer, rows_per_column, len(pruned))
    random = np.random.default_rng(seed)
    inputs, targets, branches = [], [], []
    data = layer.data.name or ""
    others = pruned.values(aim.branch) if aim.branch is not None else [None] * len(pruned)
    for x, total, other in zip(pruned.values(data), teacher.values(aim.total), others, strict=True):
        axis = layer.channel_axis % total.ndim
        indices = kept.get((aim.total, axis))
        result = total if indices is None else np.take(total, indices, axis)
        own = output_shape(layer, x.shape)
        if result.shape != own or (other is not None and other.shape != own):
            raise NotApplicable(f"'{aim.total}' does not have the shape of what the layer gives")
        chosen = drawn(layer, result, each, random)
        found, target = gathered_rows(layer, x, result, chosen)
        inputs.append(found)
        if other is not None:
            branch = rows_at(other, axis, chosen)
            branches.append(branch)
            target = target - branch
        targets.append(target)
    x, target = np.concatenate(inputs, axis=1), np.concatenate(targets)
    added = np.concatenate(branches) if branches else None
    finite = np.isfinite(x).all(axis=(0, 2)) & np.isfinite(target).all(axis=1)
    if finite.all():
        return Rows(x, target, added)
    if not finite.any():
        raise NotApplicable("what it reads or should give is not finite")
    return Rows(x[:, finite], target[finite], None if added is None else added[finite])


class _Changed:
    """Which values differ from the original's."""

    def __init__(self, graph: ir.Graph, kept: KeptIndices) -> None:
        self._reads = [(node, values_read(node)) for node in graph]
        self._lost = {value for value, _ in kept}
        self._values: set[ir.Value] = set()

    def reaches(self, layer: Layer) -> bool:
        """Whether the layer reads something else than in the original."""
        return layer.data in self._values or layer.data.name in self._lost

    def reaches_node(self, name: str) -> bool:
        """Whether channels that a node reads were removed."""
        return any(
            value.name in self._lost
            for node, read in self._reads
            if node_name(node) == name
            for value in read
        )

    def add(self, layer: Layer) -> None:
        """Everything behind a layer that changed."""
        self._values.update(layer.node.outputs)
        for node, read in self._reads:
            if not self._values.isdisjoint(read):
                self._values.update(node.outputs)
