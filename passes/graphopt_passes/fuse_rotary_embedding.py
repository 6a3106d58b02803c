"""Turn pairs of numbers by their position in one operator, from opset 23 on.

    x * c + [-x2, x1] * s, [x1, x2] = x          ->  RotaryEmbedding(x, half(c), half(s))
    [x1*c - x2*s, x2*c + x1*s], [x1, x2] = x     ->  RotaryEmbedding(x, c, s)

x is [batch, heads, positions, size], cut in the middle of its last axis by Slice or by Split. In
the first line c and s hold each number twice, as cos([f, f]) does: what makes them is done for one
half only, be they constants, [f, f] itself, a sine, a cosine or a multiple of it, or rows picked
out of a constant. The operator wants one row of angles for each batch and position: declined where
that is not known, for doubles, which it does not take, and below opset 23.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Pattern,
    Promise,
    RewritePass,
    Rewriter,
    constant,
    constant_array,
    ir,
    known_shape,
    one_of,
    op,
    opset_version,
    same_dim,
    variable,
)
from graphopt_passes.operands import given, integers, is_number, no_references, rank

_MOST_GROWTH = 1 << 20
"""Bytes that copies of constant angles may take."""
_SLICE = ("starts", "ends", "axes", "steps")

_X = variable("x")
_CUT = (
    (op("Slice", _X, label="first"), op("Slice", _X, label="second")),
    (op("Split", _X, label="cut"), op("Split", _X, label="cut", output=1)),
)


def _minus(pattern: Pattern) -> Pattern:
    return one_of(
        op("Neg", pattern), op("Mul", pattern, constant(where=is_number(-1)), commutative=True)
    )


def _times(pattern: Pattern, label: str) -> Pattern:
    return op("Mul", pattern, variable(label), commutative=True)


class FuseRotaryEmbedding(RewritePass):
    """Turn pairs of numbers by their position in one operator, from opset 23 on."""

    name = "fuse-rotary-embedding"
    promise = Promise.EQUIVALENT
    patterns = (
        *(
            op(
                "Add",
                _times(_X, "cosines"),
                _times(op("Concat", _minus(second), first, label="joined"), "sines"),
                commutative=True,
            )
            for first, second in _CUT
        ),
        *(
            op(
                "Concat",
                op("Sub", _times(first, "cosines"), _times(second, "sines")),
                op("Add", _times(second, "cosines"), _times(first, "sines"), commutative=True),
                label="joined",
            )
            for first, second in _CUT
        ),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the RotaryEmbedding, or say what is not as it needs it."""
        if opset_version(match.root, rewriter.model) < 23:
            raise NotApplicable("RotaryEmbedding comes with opset 23")
        data = match.value("x")
        if data.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            raise NotApplicable(f"'{data.name}' is not of single or half precision")
        shape = known_shape(data)
        if shape is None or len(shape) != 4:
            raise NotApplicable(f"'{data.name}' is not of rank 4")
        size = shape[3]
        if not isinstance(size, int) or size % 2:
            raise NotApplicable("the size of the heads is not known, or odd")
        joined = match.node("joined")
        if len(joined.inputs) != 2 or joined.attributes.get_int("axis", 0) not in (-1, 3):
            raise NotApplicable("the halves are not joined again, on the last axis")
        _check_cut(match, size)
        angles = [
            _angles(rewriter, match.value(label), shape, size, doubled=joined is not match.root)
            for label in ("cosines", "sines")
        ]
        rewriter.replace(match.root, rewriter.node("RotaryEmbedding", [data, *angles]))


def _check_cut(match: Match, size: int) -> None:
    """Refuse anything but the first and the second half of the last axis.

    Raises:
        NotApplicable: it is cut elsewhere.
    """
    half = size // 2
    refusal = NotApplicable("the last axis is not cut in the middle")
    if "cut" in match.nodes:
        cut = match.node("cut")
        parts = [known_shape(part) for part in cut.outputs]
        if len(parts) != 2 or any(part is None or part[-1] != half for part in parts):
            raise refusal
        return
    for label, begin, end in (("first", 0, half), ("second", half, size)):
        node = match.node(label)
        limits = [integers(node, name, index) for index, name in enumerate(_SLICE, 1)]
        starts, ends, axes, steps = limits
        if axes not in ([-1], [3]) or steps not in (None, [1]) or not starts or not ends:
            raise refusal
        if slice(starts[0], ends[0]).indices(size)[:2] != (begin, end):
            raise refusal


def _angles(
    rewriter: Rewriter, value: ir.Value, shape: ir.Shape, size: int, *, doubled: bool
) -> ir.Value:
    """Cosines or sines as [batch, positions, size / 2].

    Raises:
        NotApplicable: they do not have this shape with an axis of 1 for the heads, or hold other
            numbers in their second half.
    """
    width = size if doubled else size // 2
    array = constant_array(value)
    if array is not None and array.ndim <= 4:
        full = array.reshape((1,) * (4 - array.ndim) + array.shape)
        if full.shape[1] == 1 and isinstance(shape[0], int) and full.shape[0] in (1, shape[0]):
            rows = np.broadcast_to(full[:, 0], (shape[0], *full.shape[2:]))
            _check_dims(rows.shape, shape, width)
            if rows.nbytes > array.nbytes + _MOST_GROWTH:
                raise NotApplicable("a copy of the constant angles for each batch is too large")
            return rewriter.initializer(_one_half(rows) if doubled else rows.copy(), "angles")
        raise NotApplicable("the constant angles do not have the batch of the data")
    node = value.producer()
    if node is None or node.op_type != "Unsqueeze" or node.domain not in ("", "ai.onnx"):
        raise NotApplicable(f"'{value.name}' is not given an axis of 1 for the heads")
    source = given(node, 0)
    if source is None or rank(source) != 3 or integers(node, "axes", 1) not in ([1], [-3]):
        raise NotApplicable(f"'{value.name}' is not given an axis of 1 for the heads")
    _check_dims(known_shape(source) or (), shape, width)
    return _halved(rewriter, source, 3) if doubled else source


def _check_dims(dims: Iterable[int | ir.SymbolicDim], shape: ir.Shape, width: int) -> None:
    dims, wanted = tuple(dims), (shape[0], shape[2], width)
    if len(dims) != 3 or not all(map(same_dim, dims, wanted)):
        raise NotApplicable("there is not known to be a row of angles for each batch and position")


def _one_half(array: np.ndarray) -> np.ndarray:
    first, second = np.split(array, 2, axis=-1)
    if not np.array_equal(first, second):
        raise NotApplicable("the angles of the second half are others")
    return first.copy()


def _halved(rewriter: Rewriter, value: ir.Value, axes: int) -> ir.Value:
    """The first half of the last of so many axes, where the second holds the same numbers.

    Raises:
        NotApplicable: that is not known.
    """
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        raise NotApplicable(f"the halves of '{value.name}' are not known to be equal")
    no_references(node)
    first, second = given(node, 0), given(node, 1)
    if node.op_type == "Concat" and first is not None and first is second:
        if len(node.inputs) == 2 and node.attributes.get_int("axis", 0) in (-1, axes - 1):
            return first
    elif node.op_type in ("Cos", "Sin", "Cast") and first is not None:
        half = _halved(rewriter, first, axes)
        return rewriter.node(node.op_type, [half], node.attributes).outputs[0]
    elif node.op_type == "Mul" and first is not None and second is not None:
        for data, number in ((first, second), (second, first)):
            array = constant_array(number, 1)
            if array is not None and array.size == 1 and rank(data) == axes:
                half = _halved(rewriter, data, axes)
                return rewriter.node("Mul", [half, number]).outputs[0]
    elif node.op_type == "Gather" and first is not None and rank(first) == 2:
        table = constant_array(first)
        if table is not None and node.attributes.get_int("axis", 0) in (0, -2):
            rows = rewriter.initializer(_one_half(table), first.name or "angles")
            return rewriter.node("Gather", [rows, second], {"axis": 0}).outputs[0]
    raise NotApplicable(f"the halves of '{value.name}' are not known to be equal")
