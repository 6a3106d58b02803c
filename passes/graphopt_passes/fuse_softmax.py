"""Compute Softmax over the last axis in one operator.

    e / sum(e), e = exp(x - max(x))      ->  Softmax(x)
    e / sum(e), e = exp(x)               ->  Softmax(x), where x is bounded

The division may be a product with the reciprocal. The maximum and the sum are taken over the last
axis, which is kept. Without the maximum taken away, exp(x) overflows above 88 and is nothing but
zeros below -103, where Softmax has a result: so x has to come out of an operator that bounds it, as
Tanh, Sigmoid or Clip. Declined over other axes, where ONNX Runtime's Softmax moves data and is
slower than its parts, and without the maximum in half precision, where it takes Softmax apart.
"""

from __future__ import annotations

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant_array,
    ir,
    one_of,
    op,
    variable,
)
from graphopt_passes.operands import given, integers, no_references, rank
from graphopt_passes.reduced_axes import keeps_dims

_X = variable("x")
_EXP = op(
    "Exp",
    one_of(op("Sub", _X, op("ReduceMax", _X, label="max")), variable("bounded")),
)
_SUM = op("ReduceSum", _EXP, label="sum")
_FLOATING = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_BOUNDED = ("Tanh", "Sigmoid", "HardSigmoid", "Softsign", "Erf", "Sin", "Cos")
_LARGEST = 60.0
"""Neither the exponentials of it and of minus it, nor the sum of as many as a tensor holds, leave
the normal numbers of single precision."""


class FuseSoftmax(RewritePass):
    """Compute Softmax over the last axis in one operator."""

    name = "fuse-softmax"
    promise = Promise.EQUIVALENT
    patterns = (
        op("Div", _EXP, _SUM),
        op("Mul", _EXP, op("Reciprocal", _SUM), commutative=True),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the Softmax, or say what is not as it needs it."""
        data = match.get("x") or match.value("bounded")
        if data.dtype not in _FLOATING:
            raise NotApplicable(f"the type of '{data.name}' is not floating")
        axes = rank(data)
        if axes is None:
            raise NotApplicable(f"the rank of '{data.name}' is not known")
        for label in ("max", "sum"):
            if label in match.nodes:
                _over_last_axis(match.node(label), axes)
        if "bounded" in match.values:
            if data.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
                raise NotApplicable("nothing is won in half precision without the maximum")
            if not _is_bounded(data):
                raise NotApplicable(f"the exponential of '{data.name}' may overflow")
        # Below opset 13 all axes behind the given one are taken together.
        rewriter.replace(match.root, rewriter.node("Softmax", [data], {"axis": axes - 1}))


def _over_last_axis(node: ir.Node, axes: int) -> None:
    """Refuse a reduction of anything but the last of so many axes, and one that drops it."""
    no_references(node)
    if not keeps_dims(node):
        raise NotApplicable(f"{node.op_type} drops its axes")
    if integers(node, "axes", 1) not in ([-1], [axes - 1]):
        raise NotApplicable(f"{node.op_type} is not over the last axis alone")


def _is_bounded(value: ir.Value) -> bool:
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _BOUNDED:
        return True
    limits = [given(node, index) for index in (1, 2)] if node.op_type == "Clip" else []
    numbers = [None if limit is None else constant_array(limit, 1) for limit in limits]
    return bool(numbers) and all(
        number is not None and number.size == 1 and abs(float(number.reshape(-1)[0])) <= _LARGEST
        for number in numbers
    )
