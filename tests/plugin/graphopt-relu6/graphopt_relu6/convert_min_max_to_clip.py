"""Convert Min and Max with constant bounds to a Clip.

    Min(Max(x, low), high)  ->  Clip(x, low, high)      for numbers low <= high

Declined where a bound is more than one number, where it would raise the rank of x, where the
bounds are out of order, before opset 12 (whose Clip takes no integers), and, with `relu6_only`,
where the bounds are not 0 and 6.
"""

from __future__ import annotations

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
    op,
    opset_version,
    option,
    variable,
)


@dataclass(frozen=True)
class ConvertMinMaxToClip(RewritePass):
    """Convert Min(Max(x, low), high) with constant bounds to Clip(x, low, high)."""

    name = "convert-min-max-to-clip"
    promise = Promise.EXACT
    patterns = (
        op(
            "Min",
            op("Max", variable("x"), constant("low"), commutative=True, label="max"),
            constant("high"),
            commutative=True,
        ),
    )

    relu6_only: bool = option(False, "convert only where the bounds are 0 and 6")

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make a Clip of the two, or say why not."""
        if opset_version(match.root, rewriter.model) < 12:
            raise NotApplicable("Clip takes no integers before opset 12")
        if len(match.root.inputs) != 2 or len(match.node("max").inputs) != 2:
            raise NotApplicable("Min or Max has more than two operands")
        x = match.value("x")
        low, high = (_number(match.value(label), label, x) for label in ("low", "high"))
        if not low <= high:
            raise NotApplicable(f"the bounds {low} and {high} are out of order")
        if self.relu6_only and (float(low), float(high)) != (0.0, 6.0):
            raise NotApplicable(f"the bounds are {low} and {high}, not 0 and 6")
        bounds = [rewriter.initializer(low, "low"), rewriter.initializer(high, "high")]
        rewriter.replace(match.root, rewriter.node("Clip", [x, *bounds]))


def _number(bound: ir.Value, label: str, x: ir.Value) -> np.ndarray:
    """The bound as an array of rank 0."""
    array = constant_array(bound, max_elements=1)
    if array is None or array.size != 1:
        raise NotApplicable(f"the {label} bound is more than one number")
    if array.ndim and (x.shape is None or len(x.shape) < array.ndim):
        raise NotApplicable(f"the {label} bound may raise the rank")
    return array.reshape(())
