"""Split into tensors where the pieces are taken out of a sequence again one by one.

    s = SplitToSequence(x, 128, axis=2);  SequenceAt(s, 0), SequenceAt(s, 1)
                                                 ->  a, b = Split(x, [128, 128], axis=2)

torch.export writes `chunk` and `split` so. Declined where something else reads the sequence,
where a place in it or the sizes are not constant or the dim that is split is not known, and
where the pieces lose their axis (keepdims=0).
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
    opset_version,
)
from graphopt_passes.operands import given, no_references

_MOST_PIECES = 64


class ConvertSplitToSequence(RewritePass):
    """Split into tensors where the pieces are taken out of a sequence again one by one."""

    name = "convert-split-to-sequence"
    promise = Promise.EXACT
    patterns = (op("SplitToSequence"),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the Split, and let its outputs stand for what was taken out."""
        root = match.root
        no_references(root)
        data, sequence = root.inputs[0], root.outputs[0]
        if data is None or sequence.is_graph_output():
            raise NotApplicable("the sequence is an output")
        axis = root.attributes.get_int("axis", 0)
        sizes = _sizes(root, data, axis)
        readers = [usage.node for usage in sequence.uses()]
        if not readers:
            return
        places = [_place(reader, len(sizes)) for reader in readers]
        if any(reader.graph is not root.graph for reader in readers):
            raise NotApplicable("a subgraph reads the sequence")
        if any(reader.outputs[0].is_graph_output() for reader in readers) and len(
            set(places)
        ) != len(places):
            raise NotApplicable("one piece is two outputs")
        attributes: dict[str, object] = {"axis": axis}
        inputs = [data]
        if opset_version(root, rewriter.model) < 13:
            attributes["split"] = sizes
        else:
            inputs.append(rewriter.initializer(np.array(sizes, np.int64), "split_sizes"))
        made = rewriter.node("Split", inputs, attributes, outputs=len(sizes))
        for piece in made.outputs:
            piece.type = data.type
        rewriter.stand_for([root, *readers])
        first, *others = zip(readers, places, strict=True)
        rewriter.replace(first[0], made.outputs[first[1]])
        for reader, place in others:
            rewriter.replace(reader, made.outputs[place])


def _sizes(node: ir.Node, data: ir.Value, axis: int) -> list[int]:
    """How long the pieces are."""
    shape = known_shape(data)
    whole = None if shape is None else shape[axis]
    split = given(node, 1)
    if split is None:
        raise NotApplicable("the pieces lose their axis, or are single rows")
    array = constant_array(split, _MOST_PIECES)
    if array is None:
        raise NotApplicable("the sizes of the pieces are not constant")
    if array.ndim == 1:
        return [int(size) for size in array]
    size = int(array)
    if not isinstance(whole, int) or size < 1 or whole > size * _MOST_PIECES:
        raise NotApplicable("it is not known how many pieces there are")
    full, rest = divmod(whole, size)
    return [size] * full + [rest] * (rest > 0)


def _place(reader: ir.Node, count: int) -> int:
    """Which piece a SequenceAt takes."""
    index = None if reader.op_type != "SequenceAt" else given(reader, 1)
    array = None if index is None else constant_array(index, 1)
    if array is None:
        raise NotApplicable(f"{reader.op_type} reads the sequence, or takes a computed place")
    place = int(array.reshape(-1)[0])
    if not -count <= place < count:
        raise NotApplicable("there is no such piece")
    return place % count
