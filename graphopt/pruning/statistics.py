"""The second moments of what linear layers read, and rows of it drawn at random.

    H = sum over rows  x x^T        x: one row of X, the patch of an image or a vector

Rows are positions of a feature map; enough are drawn for the columns of each layer, from all feeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from graphopt.graph import ir
from graphopt.pruning.groups import Groups
from graphopt.pruning.linear_layers import Layer, layers_of, same_pads
from graphopt.pruning.repair_walk import Walk
from graphopt.rewrite import NotApplicable
from graphopt.runtime import Feed, SecondMoment

MAX_COLUMNS = 5000
"""A layer with more columns is not refitted: its second moment would take over 200 MB."""

ROWS_PER_COLUMN = 30
"""Rows in a second moment for each of its columns: the estimate's excess error is 1/30."""

MIN_ROWS = 4096
MAX_ROW_BYTES = 256 << 20


def consumer_moments(
    model: ir.Model,
    groups: Groups,
    feeds: Sequence[Feed],
    *,
    rows_per_column: int = ROWS_PER_COLUMN,
    seed: int = 0,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, SecondMoment]:
    """For the name of each layer that consumes prunable channels the moment of its columns.

    The model runs once over the data. Layers too wide to be refitted are left out.

    Args:
        model: the model in which the groups were found; it is not changed.
        groups: of `find_groups`.
        feeds: the data.
        rows_per_column: rows that are drawn for each column.
        seed: which ones.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        progress: called with the layers done and the layers in all.
    """
    layers, _ = layers_of(model.graph)
    consuming = {member.node for group in groups.prunable for member in group.consumers}
    wanted = [layer for layer in layers.values() if layer.name in consuming]
    walk = Walk(model, feeds, threads)
    moments: dict[str, SecondMoment] = {}
    for number, layer in enumerate(wanted if feeds else ()):
        if progress is not None:
            progress(number, len(wanted))
        if layer.columns > MAX_COLUMNS:
            continue
        data = layer.data.name or ""
        walk.advance([data, layer.name])
        random = np.random.default_rng([seed, number])
        each = drawn_each(layer, rows_per_column, len(walk))
        try:
            parts = [
                gathered_rows(layer, x, y, drawn(layer, y, each, random))[0]
                for x, y in zip(walk.values(data), walk.values(layer.name), strict=True)
            ]
        except NotApplicable:
            continue
        rows = np.concatenate(parts, axis=1)
        finite = np.isfinite(rows).all(axis=(0, 2))
        if finite.any():
            moments[layer.name] = _moment(rows if finite.all() else rows[:, finite])
    return moments


def drawn_each(layer: Layer, rows_per_column: int, feeds: int) -> int:
    """How many rows of each feed to take, so that a layer gets its rows within the memory."""
    wanted = max(MIN_ROWS, rows_per_column * layer.columns)
    wanted = min(wanted, MAX_ROW_BYTES // (4 * (layer.groups * layer.columns + layer.outputs)))
    return max(1, -(-wanted // feeds))


def drawn(layer: Layer, result: np.ndarray, each: int, random: np.random.Generator) -> np.ndarray:
    """Numbers of rows of a result, ascending, at most `each` of them."""
    count = result.size // layer.outputs
    if count <= each:
        return np.arange(count)
    return np.sort(random.choice(count, each, replace=False))


def _moment(rows: np.ndarray) -> SecondMoment:
    groups, count, columns = rows.shape
    matrix = np.zeros((groups, columns, columns))
    for start in range(0, count, 1 << 14):
        part = rows[:, start : start + (1 << 14)]
        matrix += np.matmul(part.transpose(0, 2, 1), part)
    sums = rows.sum(axis=1, dtype=np.float64)
    return SecondMoment(matrix, sums, sums, count)


def gathered_rows(
    layer: Layer, values: np.ndarray, result: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Chosen rows of X as float32 [groups, rows, columns] and of `result` as [rows, outputs].

    Args:
        layer: whose rows.
        values: what it reads.
        result: anything of the shape of its output.
        chosen: numbers of rows, of those that `result` has over all axes but the channels.
    """
    gathered = rows_at(result, layer.channel_axis, chosen)
    patches = layer.patches
    if patches is None:
        return rows_at(values, -1, chosen)[None], gathered
    places = np.unravel_index(chosen, (result.shape[0], *result.shape[2:]))
    rank = len(patches.kernel)
    pads = same_pads(layer, values.shape[2:]) or patches.pads or (0,) * 2 * rank
    border = [(0, 0), *zip(pads[:rank], pads[rank:], strict=True), (0, 0)]
    last = np.pad(np.moveaxis(values, 1, -1), border).astype(np.float32, copy=False)
    offsets = list(np.ndindex(*patches.kernel))
    rows = np.empty((len(chosen), last.shape[-1], len(offsets)), np.float32)
    strides = patches.strides or (1,) * rank
    dilations = patches.dilations or (1,) * rank
    for number, offset in enumerate(offsets):
        index = [
            places[1 + axis] * strides[axis] + offset[axis] * dilations[axis]
            for axis in range(rank)
        ]
        rows[:, :, number] = last[(places[0], *index)]
    grouped = rows.reshape(len(chosen), layer.groups, -1).transpose(1, 0, 2)
    return grouped, gathered


def rows_at(array: np.ndarray, axis: int, chosen: np.ndarray) -> np.ndarray:
    """Chosen rows of a tensor as float32 [rows, channels]; a vector is one row."""
    moved = np.moveaxis(array, axis, -1)
    if moved.ndim == 1:
        moved = moved[None]
    return np.asarray(moved[np.unravel_index(chosen, moved.shape[:-1])], np.float32)


def feeds_of(feeds: Iterable[Feed], samples: int) -> list[Feed]:
    """The first feeds that hold so many samples together (at least one feed)."""
    taken: list[Feed] = []
    count = 0
    for feed in feeds:
        taken.append(feed)
        count += max((np.shape(value)[0] for value in feed.values() if np.ndim(value)), default=1)
        if count >= samples:
            break
    return taken
