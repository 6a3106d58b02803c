"""Let the window of the operator behind it do what a Pad does.

    Conv(Pad(x, p, 0), w, pads=q)                               ->  Conv(x, w, pads=p+q)
    AveragePool(Pad(x, p, 0), pads=q)                           ->  AveragePool(x, pads=p+q)
                                                                    count_include_pad=1
    MaxPool(Pad(x, p, -inf), pads=q)                            ->  MaxPool(x, pads=p+q)

Conv pads with zeros, and a MaxPool with what is smaller than anything: Pad(0) into MaxPool is
wrong wherever all of a window is negative. AveragePool counts what Pad adds, so it goes only
with a pool that counts its own padding too, or has none. Declined where Pad crops, pads batch or
channels, is not constant, where the window chooses its padding itself (auto_pad), where a
pool would get a padding as wide as its kernel, which runtimes refuse, and where it rounds its
size up, since the windows that are added count otherwise there.
"""

from __future__ import annotations

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant_array,
    ir,
    known_shape,
    op,
)
from graphopt_passes.operands import given, integers, no_references


class FusePad(RewritePass):
    """Let the window of a Conv or a pooling do what the Pad before it does."""

    name = "fuse-pad"
    promise = Promise.EQUIVALENT
    patterns = (op(("Conv", "AveragePool", "MaxPool"), op("Pad", label="pad", shared=True)),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Add the padding to that of the window."""
        window, pad = match.root, match.node("pad")
        no_references(window)
        no_references(pad)
        _check_fill(window, pad)
        before, after = _spatial_pads(pad)
        if window.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise NotApplicable(f"{window.op_type} chooses its padding itself")
        own = list(window.attributes.get_ints("pads", ()) or [0] * (2 * len(before)))
        pads = [ours + theirs for ours, theirs in zip(own, before + after, strict=True)]
        changed: dict[str, object] = {**window.attributes, "pads": pads}
        changed.pop("auto_pad", None)
        if window.op_type != "Conv":
            _check_pool(window, own, pads)
        if window.op_type == "AveragePool":
            changed["count_include_pad"] = 1
        inputs = [pad.inputs[0], *window.inputs[1:]]
        made = rewriter.node(window.op_type, inputs, changed, outputs=len(window.outputs))
        rewriter.stand_for([window, pad])
        rewriter.replace(window, made)


def _check_fill(window: ir.Node, pad: ir.Node) -> None:
    """Refuse a Pad that does not add what the window itself would."""
    if pad.attributes.get_string("mode", "constant") != "constant":
        raise NotApplicable("Pad repeats data")
    value = given(pad, 2)
    if value is None:
        fill = pad.attributes.get_float("value", 0.0)
    else:
        array = constant_array(value, 1)
        if array is None or array.size != 1:
            raise NotApplicable("the value of Pad is not constant")
        fill = float(array.reshape(-1)[0])
    wanted = -np.inf if window.op_type == "MaxPool" else 0.0
    if fill != wanted:
        raise NotApplicable(f"{window.op_type} pads with {wanted:g}, and Pad with {fill:g}")
    if len(window.outputs) > 1:
        raise NotApplicable("MaxPool numbers the places of the padded data")


def _spatial_pads(pad: ir.Node) -> tuple[list[int], list[int]]:
    """What Pad adds before and after each spatial axis."""
    pads = integers(pad, "pads", 1)
    data = pad.inputs[0]
    shape = None if data is None else known_shape(data)
    if not pads or shape is None:
        raise NotApplicable("the rank of what Pad pads is not known")
    if given(pad, 3) is None:
        axes = list(range(len(shape)))
    else:
        axes = [axis % len(shape) for axis in integers(pad, "axes", 3) or []]
    sides = np.zeros((2, len(shape)), np.int64)
    sides[:, axes] = np.reshape(pads, (2, -1))
    if (sides < 0).any():
        raise NotApplicable("Pad crops")
    if sides[:, :2].any():
        raise NotApplicable("Pad pads the batch or the channels")
    return sides[0, 2:].tolist(), sides[1, 2:].tolist()


def _check_pool(pool: ir.Node, own: list[int], pads: list[int]) -> None:
    if pool.op_type == "AveragePool" and any(own) and not _number(pool, "count_include_pad"):
        raise NotApplicable("AveragePool does not count its own padding, but that of Pad")
    if _number(pool, "ceil_mode"):
        raise NotApplicable(f"{pool.op_type} rounds its size up")
    kernel = list(pool.attributes.get_ints("kernel_shape", ()))
    if any(side >= size for side, size in zip(pads, kernel * 2, strict=True)):
        raise NotApplicable(f"{pool.op_type} may not be padded by as much as its kernel")


def _number(node: ir.Node, attribute: str) -> int:
    held = node.attributes.get(attribute)
    return 0 if held is None else held.as_int()
