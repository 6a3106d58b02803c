"""Replaces f(x) of residual blocks by what is cheap, fitted to the original in closed form.

    constant:  f(x) ~ b                 b = mean(t)
    linear:    f(x) ~ A x + b           A = T^T X (X^T X + r I)^-1,  b = mean(t) - A mean(x)
    y = x + A x + b                     t = y_original - x

x is what the block reads behind the blocks replaced before it, y_original what the original gives
there, so each block also makes good errors that came before. X and T are less their means. r is
the ridge that is best on a fifth of the rows that is held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.graph import all_graphs, clone, ir
from graphopt.pruning.propagation.place import node_name
from graphopt.pruning.repair_walk import Walk
from graphopt.pruning.residual_blocks import ResidualBlock
from graphopt.pruning.statistics import MAX_COLUMNS, MAX_ROW_BYTES, MIN_ROWS
from graphopt.runtime import Feed, Session

KINDS = ("constant", "linear")
"""What can stand for f(x)."""

ROWS_PER_CHANNEL = 40
MAX_KEPT_BYTES = 2 << 30
"""Memory for the original's rows of all blocks together."""

_RIDGES = (0.0, 1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
"""Relative to the mean diagonal of X^T X."""

Chosen = Mapping[str, str]
"""For the name of each block that is replaced one of `KINDS`."""


@dataclass(frozen=True)
class Fit:
    """Numbers that stand for f.

    Attributes:
        matrix: A [channels, channels]; None for a constant.
        bias: b [channels].
        error: the mean squared error of x + A x + b relative to the variance of y_original.
    """

    matrix: np.ndarray | None
    bias: np.ndarray
    error: float


class BlockFitter:
    """Makes models in which blocks are replaced, on the rows of one set of feeds.

    The original runs once, here.

    Args:
        model: the model in which the blocks were found; it is not changed.
        blocks: of `find_blocks`.
        feeds: unlabelled inputs.
        seed: which rows are drawn.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot run the model.
    """

    def __init__(
        self,
        model: ir.Model,
        blocks: Mapping[str, ResidualBlock],
        feeds: Sequence[Feed],
        *,
        seed: int = 0,
        threads: int = 0,
    ) -> None:
        self._model = model
        self._blocks = blocks
        self._feeds = feeds
        self._seed = seed
        self._threads = threads
        self._x: dict[str, list[np.ndarray]] = {name: [] for name in blocks}
        self._y: dict[str, list[np.ndarray]] = {name: [] for name in blocks}
        if not blocks:
            return
        given = {value.name for value in model.graph.inputs}
        wanted = {value for b in blocks.values() for value in (b.name, b.x.name or "")} - given
        session = Session(model, outputs=sorted(wanted), threads=threads)
        for number, feed in enumerate(feeds):
            found = {**feed, **session.run(feed, sorted(wanted))}
            for name, block in blocks.items():
                self._x[name].append(self._rows(block, found[block.x.name or ""], number))
                self._y[name].append(self._rows(block, found[name], number))

    def kinds(self, name: str) -> tuple[str, ...]:
        """What can stand for f(x) of a block."""
        return KINDS if self._blocks[name].channels <= MAX_COLUMNS else KINDS[:1]

    def build(self, chosen: Chosen) -> tuple[ir.Model, dict[str, float]]:
        """The model with these blocks replaced, and the error of each (see `Fit`).

        Blocks within one that is replaced too are left out.

        Raises:
            RuntimeUnavailableError: ONNX Runtime cannot run the model.
        """
        built = clone(self._model)
        order = [name for name in self._blocks if name in chosen]
        covered = set().union(*(self.within(name) for name in order)) if order else set()
        order = [name for name in order if name not in covered]
        nodes = {node_name(node): node for node in built.graph}
        places = {
            name: _Substitute(built, self._blocks[name], nodes, chosen[name]) for name in order
        }
        walk = Walk(built, self._feeds, self._threads) if len(order) > 1 else None
        errors: dict[str, float] = {}
        for number, name in enumerate(order):
            block = self._blocks[name]
            if number == 0 or walk is None:
                parts = self._x[name]  # what it reads is the original's
            else:
                walk.advance([block.x.name or ""])
                values = walk.values(block.x.name or "")
                parts = [self._rows(block, value, place) for place, value in enumerate(values)]
            x = np.concatenate(parts)
            y = np.concatenate(self._y[name][: len(parts)])
            fit = fitted(x, y, linear=chosen[name] == "linear")
            places[name].write(fit)
            errors[name] = fit.error
        return built, errors

    def within(self, name: str) -> set[str]:
        """The blocks that are part of f of a block."""
        return {node_name(node) for node in self._blocks[name].nodes} & set(self._blocks)

    def _rows(self, block: ResidualBlock, value: np.ndarray, number: int) -> np.ndarray:
        """Rows of a tensor, [rows, channels]: the same ones of every tensor of a block and feed."""
        moved = np.moveaxis(value, block.axis, -1)
        count = moved.size // block.channels
        wanted = max(MIN_ROWS, ROWS_PER_CHANNEL * block.channels)
        most = min(MAX_ROW_BYTES, MAX_KEPT_BYTES // len(self._blocks)) // (8 * block.channels)
        each = -(-min(wanted, most) // len(self._feeds))
        chosen = np.arange(count)
        if count > each:
            random = np.random.default_rng([self._seed, number])
            chosen = np.sort(random.choice(count, each, replace=False))
        return moved[np.unravel_index(chosen, moved.shape[:-1])].astype(np.float32)


def fitted(x: np.ndarray, y: np.ndarray, *, linear: bool) -> Fit:
    """The numbers that give y from x best.

    Args:
        x: [rows, channels].
        y: [rows, channels].
        linear: fit a matrix too.
    """
    inputs = x.astype(np.float64)
    target = y.astype(np.float64) - inputs
    spread = float(np.square(y - y.mean(axis=0, dtype=np.float64)).mean())
    mean = target.mean(axis=0)
    if not linear:
        return Fit(None, mean, _relative(float(np.square(target - mean).mean()), spread))
    count = len(inputs)
    start = max(1, count - max(1, count // 5))
    first, held = slice(0, start), slice(min(start, count - 1), None)  # one row alone is both
    errors = []
    for matrix, bias in _ridges(inputs[first], target[first], _RIDGES):
        missing = target[held] - inputs[held] @ matrix.T - bias
        errors.append(float(np.square(missing).mean()))
    best = _RIDGES[int(np.argmin(errors))]
    ((matrix, bias),) = _ridges(inputs, target, (best,))
    missing = target - inputs @ matrix.T - bias
    return Fit(matrix, bias, _relative(float(np.square(missing).mean()), spread))


def _ridges(
    x: np.ndarray, target: np.ndarray, ridges: Sequence[float]
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """A and b for each ridge."""
    x_mean, mean = x.mean(axis=0), target.mean(axis=0)
    centred = x - x_mean
    values, vectors = np.linalg.eigh(centred.T @ centred)
    product = vectors.T @ (centred.T @ (target - mean))
    # Directions in which x does not vary tell nothing; float64 leaves them this much by rounding.
    floor = len(values) * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
    level = max(float(values.mean()), np.finfo(np.float64).tiny)
    for ridge in ridges:
        held = values + ridge * level
        inverse = np.divide(1.0, held, out=np.zeros_like(held), where=values > floor)
        matrix = (vectors @ (inverse[:, None] * product)).T
        yield matrix, mean - matrix @ x_mean


def _relative(error: float, spread: float) -> float:
    return error / spread if spread > 0.0 else (0.0 if error == 0.0 else float("inf"))


class _Substitute:
    """What stands in a model for one block; its numbers are zero until they are written."""

    def __init__(
        self, model: ir.Model, block: ResidualBlock, nodes: Mapping[str, ir.Node], kind: str
    ) -> None:
        self._graph = model.graph
        self._block = block
        self._addition = nodes[block.name]
        places = [getattr(value, "name", None) for value in self._addition.inputs]
        self._skip = places.index(block.x.name)
        self._taken = {v.name for g in all_graphs(model) for n in g for v in n.outputs}
        self._taken |= {name for g in all_graphs(model) for name in g.initializers}
        self._taken |= {value.name for value in model.graph.inputs}
        first = block.axis != block.rank - 1
        self._spatial = (1,) * (block.rank - 2) if first else ()
        channels = block.channels
        self._matrix: ir.Value | None = None
        if kind == "constant":
            self._bias = self._constant("mean", (channels, *self._spatial))
            self._addition.replace_input_with(1 - self._skip, self._bias)
        elif first:
            self._matrix = self._constant("weight", (channels, channels, *self._spatial))
            self._bias = self._constant("bias", (channels,))
            self._put_convolution()
        else:
            self._matrix = self._constant("weight", (channels, channels))
            self._bias = self._constant("bias", (channels,))
            self._put_product()
        for node in reversed([nodes[node_name(node)] for node in block.nodes]):
            # What tells sizes to others stays, with what it needs.
            if not any(value.uses() or value.is_graph_output() for value in node.outputs):
                _remove(node)

    def write(self, fit: Fit) -> None:
        """Give it its numbers."""
        dtype = self._block.x.dtype
        bias = fit.bias
        if self._matrix is not None and fit.matrix is not None:
            weight = fit.matrix + np.eye(self._block.channels)
            # A convolution's weight is [outputs, inputs]; the right factor of a product is not.
            conv = len(self._matrix.shape or ()) > 2
            _store(self._matrix, weight if conv else weight.T, dtype)
        _store(self._bias, bias, dtype)

    def _put_convolution(self) -> None:
        """Conv(x, I + A, b) in the place of the sum."""
        old = self._addition.outputs[0]
        node = ir.node(
            "Conv",
            [self._addition.inputs[self._skip], self._matrix, self._bias],
            attributes={"kernel_shape": list(self._spatial)},
            name=self._addition.name,
            metadata_props=dict(self._addition.metadata_props),
        )
        self._graph.insert_before(self._addition, node)
        result = node.outputs[0]
        result.type, result.shape = old.type, old.shape
        name = old.name
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        _remove(self._addition)
        result.name = name

    def _put_product(self) -> None:
        """MatMul(x, I + A) + b in the place of the sum."""
        node = ir.node(
            "MatMul",
            [self._addition.inputs[self._skip], self._matrix],
            name=self._unused("product"),
            metadata_props=dict(self._addition.metadata_props),
        )
        self._graph.insert_before(self._addition, node)
        total = self._addition.outputs[0]
        product = node.outputs[0]
        product.name = self._unused("product")
        product.type, product.shape = total.type, total.shape
        self._addition.replace_input_with(0, product)
        self._addition.replace_input_with(1, self._bias)

    def _constant(self, role: str, shape: tuple[int, ...]) -> ir.Value:
        name = self._unused(role)
        self._taken.add(name)
        value = ir.Value(name=name)
        value.shape = ir.Shape(shape)
        _store(value, np.zeros(shape), self._block.x.dtype)
        self._graph.initializers.add(value)
        return value

    def _unused(self, role: str) -> str:
        name = f"{self._block.name}/{role}"
        while name in self._taken:
            name += "_"
        return name


def _store(value: ir.Value, array: np.ndarray, dtype: ir.DataType | None) -> None:
    shape = tuple(value.shape.numpy()) if value.shape is not None else array.shape
    kind = (dtype or ir.DataType.FLOAT).numpy()
    value.const_value = ir.Tensor(
        np.ascontiguousarray(array.reshape(shape).astype(kind)), name=value.name
    )
    value.type = ir.TensorType(dtype or ir.DataType.FLOAT)


def _remove(node: ir.Node) -> None:
    """Take a node out, with the weights that nobody reads any more."""
    graph = node.graph
    read = [value for value in node.inputs if value is not None]
    if isinstance(graph, ir.Graph):
        graph.remove(node, safe=True)
        for value in read:
            unread = value.is_initializer() and not value.uses() and not value.is_graph_input()
            if unread and not value.is_graph_output():
                graph.initializers.pop(value.name or "", None)
