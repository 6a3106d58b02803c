"""Attend in one operator, from opset 23 on.

    MatMul(Softmax(MatMul(q, k^T) * s + mask), v)      ->  Attention(q, k, v, mask, scale = s)

q, k and v are [batch, heads, positions, size]. The factor may stand on q and on k^T instead, or be
a division. Where q and v are moved there from [batch, positions, heads, size], and the result is
moved back, the operator takes and gives the heads beside each other, which saves these moves.

A mask has to be a constant with something left in each row: ONNX Runtime's operator gives zeros
for a row that is masked as a whole, where the parts give NaN or an average. It takes neither a
negative scale nor empty operands: those are declined where they are known, and a free size must not
be zero. Declined too where the number of heads or their size is not known, where Softmax is not
over the last axis or is guarded against NaN, where the numbers are not float32, and below opset 23.
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
    opset_version,
)
from graphopt_passes.attention import ATTENTION, Parts, heads_apart, read_parts, rows

_LARGEST_MASK = 1 << 24
"""Elements of a mask that is looked through."""


class FuseAttention(RewritePass):
    """Attend in one operator, from opset 23 on."""

    name = "fuse-attention"
    promise = Promise.EQUIVALENT
    patterns = ATTENTION

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the Attention, or say what does not fit it."""
        if opset_version(match.root, rewriter.model) < 23:
            raise NotApplicable("Attention comes with opset 23")
        parts = read_parts(match)
        if parts.scale < 0:
            raise NotApplicable("ONNX Runtime takes no negative scale")
        if 0 in (parts.batch, parts.heads, parts.positions, parts.keys, parts.size, parts.width):
            raise NotApplicable("there is nothing to attend to")
        mask = match.get("mask")
        if mask is not None:
            _check_mask(mask, parts)
        heads, size, width = parts.heads, parts.size, parts.width
        inputs: list[ir.Value] = []
        attributes: dict[str, float | int] = {"scale": parts.scale}
        beside = _stand_apart(parts, match.root)
        if beside:
            inputs = [
                rows(rewriter, parts.query, (0, 2, 1, 3), heads * size),
                rows(rewriter, parts.key, (0, 3, 1, 2), heads * size),
                rows(rewriter, parts.value, (0, 2, 1, 3), heads * width),
            ]
            attributes |= {"q_num_heads": heads, "kv_num_heads": heads}
        else:
            turned = rewriter.node("Transpose", [parts.key], {"perm": [0, 1, 3, 2]})
            inputs = [parts.query, turned.outputs[0], parts.value]
        made = rewriter.node("Attention", inputs if mask is None else [*inputs, mask], attributes)
        if beside:
            made.outputs[0].type = parts.value.type
            made.outputs[0].shape = ir.Shape([parts.batch, parts.positions, heads * width])
            made = heads_apart(rewriter, made.outputs[0], heads, width)
        rewriter.replace(match.root, made)


def _check_mask(mask: ir.Value, parts: Parts) -> None:
    """Refuse a mask that ONNX Runtime does not take, or may not add.

    Raises:
        NotApplicable: it is computed, is not spelled out for each position, or leaves a row empty.
    """
    array = constant_array(mask, _LARGEST_MASK)
    if array is None:
        raise NotApplicable("a mask that is computed may leave nothing of a row")
    dims = (parts.batch, parts.heads, parts.positions, parts.keys)
    if not 2 <= array.ndim <= 4 or array.shape[-2:] != dims[2:]:
        raise NotApplicable("the mask is not spelled out for each position")
    if any(own not in (1, dim) for own, dim in zip(array.shape[::-1], dims[::-1], strict=False)):
        raise NotApplicable("the mask is not known to fit the scores")
    if not (array.max(axis=-1) > np.finfo(np.float32).min).all():
        raise NotApplicable("the mask leaves nothing of a row")


def _stand_apart(parts: Parts, root: ir.Node) -> bool:
    """Whether the heads are moved in front of the positions for this alone, and back behind it.

    The keys are not asked: they are turned for the product, by whatever moves.
    """
    return all(_is_moved(value.producer()) for value in (parts.query, parts.value)) and all(
        _is_moved(use.node) for use in root.outputs[0].uses()
    )


def _is_moved(node: ir.Node | None) -> bool:
    return (
        node is not None
        and node.op_type == "Transpose"
        and node.domain in ("", "ai.onnx")
        and list(node.attributes.get_ints("perm", ())) == [0, 2, 1, 3]
    )
