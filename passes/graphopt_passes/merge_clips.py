"""Clip once where numbers are bounded twice.

    Min(Max(x, a), b), Max(Min(x, b), a)     ->  Clip(x, a, b)
    Min(Relu(x), b), Relu(Min(x, b))         ->  Clip(x, 0, b)          a <= b; else one number
    Relu(Clip(x, a, b)), Clip(Relu(x), a, b) ->  Clip(x, max(a, 0), max(b, 0))
    Clip(Clip(x, a, b), c, d)                ->  Clip(x, [a]cd, [b]cd)  [n]cd = min(max(n, c), d)
    Max(Max(x, a), b), Relu(Max(x, a)), ...  ->  Max(x, max(a, b)) or Relu(x); so for Min
    Max(x, 0)                                ->  Relu(x)                floats

A NaN passes through all of them, and stays. Zeros may change their sign: Max turns -0.0 into 0.0
at times, Clip does not. A bound that Clip leaves out is the largest finite number of the type,
which makes infinities finite; Relu, Min and Max have no such bound. So Relu(Clip(x, a)) keeps it,
and Relu(Max(x, a)) gets none.

Declined where a bound is computed, has several elements, is NaN or may raise the rank of x, and
where the first result is used elsewhere. Below opset 12 runtimes clip float32 only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant,
    constant_array,
    ir,
    one_of,
    op,
    opset_version,
    variable,
)
from graphopt_passes.operands import given, is_number, no_references, rank

_X = variable("x")
_INNER = one_of(
    op(("Relu", "Clip"), _X, label="inner"),
    op(("Min", "Max"), _X, constant("first"), commutative=True, label="inner"),
)
_TYPES = {
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    ir.DataType.FLOAT16,
    ir.DataType.INT8,
    ir.DataType.UINT8,
    ir.DataType.INT32,
    ir.DataType.UINT32,
    ir.DataType.INT64,
    ir.DataType.UINT64,
}
_FLOATING = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
_BROADCASTS = 8
_BOUNDS_ARE_INPUTS = 11
_ALL_TYPES = 12

_Number = int | float
_Range = tuple[_Number, _Number]


class MergeClips(RewritePass):
    """Clip once where Clip, Relu, Min and Max bound numbers one after the other."""

    name = "merge-clips"
    promise = Promise.EQUIVALENT
    patterns = (
        op(("Relu", "Clip"), _INNER),
        op(("Min", "Max"), _INNER, constant("second"), commutative=True),
        op("Max", _X, constant("second", where=is_number(0)), commutative=True),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the one bound, or say what is not known of the two."""
        root, x = match.root, match.value("x")
        kind = x.dtype or root.outputs[0].dtype
        if kind not in _TYPES:
            raise NotApplicable(f"the type {kind} is not one that runtimes clip")
        if "inner" not in match.nodes:
            if kind not in _FLOATING:
                return
            _range_of(root, x, match.get("second"), kind)
            rewriter.replace(root, rewriter.node("Relu", [x]))
            return
        inner = match.node("inner")
        low, high = _range_of(inner, x, match.get("first"), kind)
        bounds = _range_of(root, x, match.get("second"), kind)
        made = _Clipping(
            kind,
            _within(min(low, high), bounds),
            _within(high, bounds),
            has_relu="Relu" in (root.op_type, inner.op_type),
            opset=opset_version(root, rewriter.model),
        )
        rewriter.replace(root, made.node(x, rewriter))


def _within(number: _Number, bounds: _Range) -> _Number:
    """What Clip makes of a number; its upper bound wins."""
    return min(max(number, bounds[0]), bounds[1])


def _range_of(node: ir.Node, x: ir.Value, operand: ir.Value | None, kind: ir.DataType) -> _Range:
    """The lower and the upper bound of Relu, Clip, Min or Max."""
    if node.op_type == "Relu":
        return 0, math.inf
    if node.op_type == "Clip":
        lowest, largest = _limits(kind)
        return _clip_bound(node, "min", 1, lowest), _clip_bound(node, "max", 2, largest)
    if operand is None or len(node.inputs) != 2:
        raise NotApplicable(f"{node.op_type} has more than two operands")
    axes = rank(x)
    added = rank(operand)
    if added is None or (added and (axes is None or axes < added)):
        raise NotApplicable(f"'{operand.name}' may raise the rank")
    bound = _number(operand)
    return (bound, math.inf) if node.op_type == "Max" else (-math.inf, bound)


def _clip_bound(node: ir.Node, name: str, index: int, default: _Number) -> _Number:
    no_references(node)
    if name in node.attributes:
        return float(np.float32(node.attributes[name].as_float()))
    held = given(node, index)
    return default if held is None else _number(held)


def _number(value: ir.Value) -> _Number:
    array = constant_array(value, 1)
    if array is None or array.size != 1:
        raise NotApplicable(f"the bound '{value.name}' is not one constant number")
    number: _Number = array.reshape(-1)[0].item()
    if math.isnan(number):
        raise NotApplicable(f"the bound '{value.name}' is NaN")
    return number


def _limits(kind: ir.DataType) -> _Range:
    """The finite numbers of a type, which bound what Clip gives where it has no bounds."""
    if kind in _FLOATING:
        largest = float(np.finfo(kind.numpy()).max)
        return -largest, largest
    limits = np.iinfo(kind.numpy())
    return int(limits.min), int(limits.max)


@dataclass(frozen=True)
class _Clipping:
    """What the two operators do together, and in which opset."""

    kind: ir.DataType
    low: _Number
    high: _Number
    has_relu: bool
    opset: int

    def node(self, x: ir.Value, rewriter: Rewriter) -> ir.Node:
        """The one operator that does it."""
        if self.high == math.inf and self.low == 0 and self.has_relu:
            return rewriter.node("Relu", [x])
        one_sided = math.inf in (self.high, -self.low)
        if one_sided and self.opset < _BROADCASTS:
            raise NotApplicable(f"Min and Max do not broadcast before opset {_BROADCASTS}")
        if self.high == math.inf:
            return rewriter.node("Max", [x, self._constant(self.low, "low", rewriter)])
        if self.low == -math.inf:
            return rewriter.node("Min", [x, self._constant(self.high, "high", rewriter)])
        if self.opset < _ALL_TYPES and self.kind != ir.DataType.FLOAT:
            raise NotApplicable(f"runtimes clip {self.kind} from opset {_ALL_TYPES} on")
        if self.opset < _BOUNDS_ARE_INPUTS:
            return rewriter.node("Clip", [x], {"min": float(self.low), "max": float(self.high)})
        lowest, largest = _limits(self.kind)
        low = None if self.low == lowest else self._constant(self.low, "low", rewriter)
        high = None if self.high == largest else self._constant(self.high, "high", rewriter)
        given_inputs = [x, low, high]
        while given_inputs[-1] is None:
            given_inputs.pop()
        return rewriter.node("Clip", given_inputs)

    def _constant(self, number: _Number, name: str, rewriter: Rewriter) -> ir.Value:
        return rewriter.initializer(np.array(number, self.kind.numpy()), name)
