"""Chooses sizes for the dynamic dims of a model's inputs."""

import ast
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphopt.graph import ir

Dim = int | str
"""A size, or the name of a symbol, or an expression of symbols such as "past + 1"."""

FEED_SIZES = (1, 2, 3, 5, 7, 11, 13, 17)
"""What the dynamic dims are in the first feed, the second, ...: one, an even number, primes."""

# Beyond the small ones: what networks ask for that shrink their input by a power of two.
SEARCHED_SIZES = (1, 2, 3, 7, 16, 32, 64, 128, 224, 256, 320, 512)
_PAIRED_SIZES = (1, 2, 3, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class InputDims:
    """The dims of every tensor input.

    Attributes:
        shapes: input name -> its dims.
        symbols: the symbols in them, in order of appearance.
        leading: those that are some input's first dim: batch sizes, mostly.
    """

    shapes: Mapping[str, tuple[Dim, ...]]
    symbols: tuple[str, ...]
    leading: frozenset[str]

    def sizes_for(self, index: int) -> dict[str, int]:
        """Every symbol the same: the size of the feed with this index."""
        return dict.fromkeys(self.symbols, feed_size(index))

    def search(self, index: int) -> Iterator[dict[str, int]]:
        """Assignments to try in turn for the feed with this index, the likeliest first.

        Leading symbols keep the feed's own size while all the others go through a list of
        sizes, first together, then in two groups; at last the leading ones are 1 as well.
        """
        own = feed_size(index)
        others = [symbol for symbol in self.symbols if symbol not in self.leading]
        yield self.sizes_for(index)
        for size in SEARCHED_SIZES:
            if others:
                yield self.sizes_for(index) | dict.fromkeys(others, size)
        for first, second in itertools.permutations(_PAIRED_SIZES, 2):
            if len(others) > 1:
                rest = dict.fromkeys(others[1:], second)
                yield self.sizes_for(index) | {others[0]: first} | rest
        if own != 1 or len(self.leading) > 1:
            for size in SEARCHED_SIZES:
                yield dict.fromkeys(self.symbols, 1) | dict.fromkeys(others, size)
        for size in SEARCHED_SIZES:
            if self.leading:
                yield dict.fromkeys(self.symbols, size)


def feed_size(index: int) -> int:
    """The size of dynamic dims in the feed with this index."""
    return FEED_SIZES[index % len(FEED_SIZES)]


def input_dims(inputs: Mapping[str, ir.Value], unknown_rank: int = 2) -> InputDims:
    """The dims of tensor inputs; a shape that is not known at all gets `unknown_rank` dims.

    An unnamed dim is a symbol of its own. A name that is no expression is opaque: any text.
    """
    shapes: dict[str, tuple[Dim, ...]] = {}
    symbols: dict[str, None] = {}
    leading: set[str] = set()
    for name, value in inputs.items():
        known = value.shape
        raw = [None] * unknown_rank if known is None else [_dim(dim) for dim in known.dims]
        dims = tuple(f"{name}:{axis}" if dim is None else dim for axis, dim in enumerate(raw))
        shapes[name] = dims
        for axis, dim in enumerate(dims):
            if isinstance(dim, str):
                found = _symbols(dim)
                symbols.update(dict.fromkeys(found))
                if axis == 0:
                    leading.update(found)
    return InputDims(shapes, tuple(symbols), frozenset(leading))


def resolve(dim: int | ir.SymbolicDim | str | None, sizes: Mapping[str, int]) -> int | None:
    """The size of a dim under an assignment; None where the assignment does not tell it."""
    if not isinstance(dim, str):
        dim = _dim(dim)
    if dim is None or isinstance(dim, int):
        return dim
    if dim in sizes:
        return sizes[dim]
    tree = _expression(dim)
    return None if tree is None else _evaluate(tree, sizes)


def _dim(dim: int | ir.SymbolicDim | None) -> Dim | None:
    if isinstance(dim, ir.SymbolicDim):
        return None if dim.value is None else str(dim.value)
    # -1 is how some exporters spell a dim that is not known.
    return None if dim is not None and dim < 0 else dim


def _symbols(dim: str) -> list[str]:
    tree = _expression(dim)
    if tree is None:
        return [dim]
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _expression(text: str) -> ast.expr | None:
    """The parse of sums, products and floor divisions of names and integers, or None."""
    if text.isidentifier():
        return None
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in ast.walk(tree):
        allowed = ast.BinOp | ast.Name | ast.Load | ast.Add | ast.Sub | ast.Mult | ast.FloorDiv
        if not isinstance(node, allowed) and not (
            isinstance(node, ast.Constant) and type(node.value) is int
        ):
            return None
    return tree if any(isinstance(node, ast.Name) for node in ast.walk(tree)) else None


def _evaluate(tree: ast.expr, sizes: Mapping[str, int]) -> int | None:
    if isinstance(tree, ast.Constant):
        return tree.value if isinstance(tree.value, int) else None
    if isinstance(tree, ast.Name):
        return sizes.get(tree.id)
    if not isinstance(tree, ast.BinOp):
        return None
    left, right = _evaluate(tree.left, sizes), _evaluate(tree.right, sizes)
    if left is None or right is None:
        return None
    match tree.op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return max(left - right, 0)
        case ast.Mult():
            return left * right
        case _:
            return left // right if right else None
