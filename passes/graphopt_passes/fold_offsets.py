"""Fold a constant that is added to what a convolution reads into its bias.

    Conv(x + c, w, b)  ->  Conv(x, w, b + sum(w*c))        and the same for x - c

The sum goes over the window and the channels of the input, in float64, and is rounded once. `c` is
one number, or one for each channel of the input: with fold-scales, what normalizes a picture
disappears in the first convolution. Where x is near -c, digits of the sum are lost in the larger
numbers, which no input of usual size shows: `c` is 1024 at most in float32.

Declined where the convolution pads, since its zeros take part in the sum and have no `c` in them;
where something else reads the sum; where the weight or the bias is not constant; where `c` varies
along another axis or may stretch what it is added to; and in half precision, which has no digits to
lose.
"""

from __future__ import annotations

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant,
    ir,
    op,
    variable,
)
from graphopt_passes.input_channels import by_input_channel
from graphopt_passes.operands import given, no_references
from graphopt_passes.parameters import parameter
from graphopt_passes.scaled_weights import rounded

_LEAST_BYTES = 4
"""Of a number, for differences to survive."""

_MOST_LOST = 2**-13
"""Of a sum near one, by rounding what is as large as the offset."""


class FoldOffsets(RewritePass):
    """Fold a constant that is added to what a convolution reads into its bias."""

    name = "fold-offsets"
    promise = Promise.EQUIVALENT
    patterns = (
        op(
            "Conv",
            op("Add", variable("data"), constant("offset"), commutative=True, label="shift"),
        ),
        op("Conv", op("Sub", variable("data"), constant("offset"), label="shift")),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Add the sum of the weight times the offset to the bias."""
        conv, shift, data = match.root, match.node("shift"), match.value("data")
        no_references(conv)
        _refuse_padding(conv)
        weight = parameter(conv.inputs[1], "Conv weight")
        offset = parameter(match.value("offset"), "the offset")
        if weight.dtype.itemsize < _LEAST_BYTES:
            raise NotApplicable(f"{weight.dtype.name} would lose the difference in the sum")
        if float(abs(offset).max(initial=0)) * np.finfo(weight.dtype).eps > _MOST_LOST:
            raise NotApplicable("the offset is so large that small sums would lose their digits")
        shape, size = by_input_channel(conv, weight, offset, data, "the offset")
        signed = offset.astype(np.float64) * (-1 if shift.op_type == "Sub" else 1)
        product = weight.astype(np.float64).reshape(size) * signed.reshape(shape)
        exact = product.sum(axis=tuple(range(2, len(size)))).reshape(-1)
        held = given(conv, 2)
        if held is not None:
            exact = exact + parameter(held, "Conv bias")
        bias = rounded(exact, weight.dtype)
        if not np.isfinite(bias).all():
            raise NotApplicable(f"the new bias overflows {weight.dtype.name}")
        inputs: list[ir.Value | None] = [data, conv.inputs[1]]
        inputs.append(rewriter.initializer(bias, (held.name if held is not None else "") or "bias"))
        rewriter.stand_for([conv, shift])
        rewriter.replace(conv, rewriter.node("Conv", inputs, conv.attributes.values()))


def _refuse_padding(conv: ir.Node) -> None:
    """Refuse a convolution that pads, or that may."""
    if conv.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise NotApplicable("Conv chooses its padding itself")
    if any(conv.attributes.get_ints("pads", ())):
        raise NotApplicable("Conv pads with zeros, which would lack the offset")
