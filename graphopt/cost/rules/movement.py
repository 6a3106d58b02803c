"""Operators that move whole tensors or name them anew; none of them computes.

    a view: other name, shape or type, the same bytes     reads 0               writes 0
    Transpose, Concat, DepthToSpace, ...                  its inputs            its outputs
    Split                                                 what it writes        its outputs
    Expand, Tile, Pad, CenterCropPad, Crop                its data (what fits)  its output
    sequences                                             the tensors that go in or come out

Bytes of inputs that only say a shape, axes or a count are not counted. A runtime may make a
view of more (a Concat whose inputs it places side by side), or copy where a view would do.
"""

from __future__ import annotations

from graphopt.cost.operator import MOVE, VIEW, Operator, Rule, Work
from graphopt.cost.quantity import total
from graphopt.cost.rules.formulas import fixed, overlap_bytes


def split(node: Operator) -> Work:
    """All of the outputs that somebody wants, read and written."""
    written = total(output.bytes for output in node.outputs if output is not None)
    return Work(reads=written, writes=written)


def repeat(node: Operator) -> Work:
    """The data is read once, however often it is repeated."""
    return Work(reads=node.input().bytes)


def crop_or_pad(node: Operator) -> Work:
    """What of the data is in the output is read; padding costs its write alone."""
    return Work(reads=overlap_bytes(node.input(), node.output()))


def into_sequence(node: Operator) -> Work:
    """The tensors that go into a sequence are copied."""
    copied = total(tensor.bytes for tensor in node.inputs if tensor is not None)
    return Work(reads=copied, writes=copied)


def insert(node: Operator) -> Work:
    """The tensor that is inserted is copied; those already there are shared."""
    copied = node.input(1).bytes
    return Work(reads=copied, writes=copied)


def split_to_sequence(node: Operator) -> Work:
    """Every part of the data is copied."""
    copied = node.input().bytes
    return Work(reads=copied, writes=copied)


def from_sequence(node: Operator) -> Work:
    """The tensor that comes out is read where it lies and written."""
    copied = node.output().bytes
    return Work(reads=copied, writes=copied)


RULES = (
    *fixed("", VIEW, "Identity Reshape Flatten Squeeze Unsqueeze BitCast Shape Size Constant"),
    *fixed("", VIEW, "Optional OptionalGetElement OptionalHasElement"),
    *fixed("", VIEW, "SequenceEmpty SequenceErase SequenceLength"),
    *fixed("", MOVE, "Concat Transpose DepthToSpace SpaceToDepth ReverseSequence Trilu"),
    *fixed("", MOVE, "MemcpyFromHost MemcpyToHost"),
    *fixed("com.microsoft", VIEW, "ExpandDims"),
    *fixed("com.microsoft", MOVE, "Trilu UnfoldTensor SampleOp"),
    *fixed("com.microsoft.nchwc", MOVE, "ReorderInput ReorderOutput"),
    *(Rule("", op_type, repeat) for op_type in ("Expand", "Tile")),
    *(Rule("", op_type, crop_or_pad) for op_type in ("Pad", "CenterCropPad", "Crop")),
    Rule("com.microsoft", "Pad", crop_or_pad),
    Rule("", "Split", split),
    Rule("", "SequenceConstruct", into_sequence),
    Rule("", "SequenceInsert", insert),
    Rule("", "SequenceAt", from_sequence),
    Rule("", "ConcatFromSequence", from_sequence),
    Rule("", "SplitToSequence", split_to_sequence),
)
