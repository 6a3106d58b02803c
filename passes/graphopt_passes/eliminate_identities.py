"""Remove a node whose first output is, bit for bit, its first input.

    Identity(x)                            -> x
    Dropout(x)                             -> x    in inference, the mask unused
    Cast(x, to = dtype of x), CastLike     -> x
    Concat(x), Sum(x), Max(x), Min(x), Mean(x), Split(x) with one output   -> x
    Transpose(x)                           -> x    the dims that are not 1 stay in order, and the
                                                   shape stays what it is
    Reshape(x, shape of x)                 -> x    also spelled with 0 and -1
    Flatten(x, axis=1)                     -> x    rank 2
    Squeeze(x), Unsqueeze(x, [])           -> x    no dim is 1; no axis is added
    Expand(x, s)                           -> x    each dim of s is 1 or that of x; no rank raised
    Pad(x, 0...), Tile(x, 1...)            -> x
    Slice(x, 0, end, step=1)               -> x    end reaches the end of every axis
    Resize(x), Upsample(x)                 -> x    every scale is 1, or the sizes are those of x
    Clip(x) without bounds                 -> x    integers only: floats lose their infinities

It does not hold where a name of the interface would be lost: a graph output cannot be an input,
an initializer, a value of an enclosing graph, or a second name of another output. Shapes count
as equal only where that is proven: a dim that is unknown, or two different symbols, never are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    same_dim,
    symbolic_value,
)

_Number = int | ir.SymbolicDim

_LARGEST_RANK = 64
_TO_THE_END = 2**31 - 1
"""ONNX recommends this end (or the 64-bit one) for slicing to the end of an unknown dim."""


def _check_inference(node: ir.Node) -> None:
    # Dropout before opset 12 has no training mode, and one input.
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return
    training = constant_array(node.inputs[2], 1)
    if training is None:
        raise NotApplicable("training_mode is not a constant")
    if training.any():
        raise NotApplicable("Dropout is in training mode")


def _always(node: ir.Node, value: ir.Value) -> bool:
    return True


def _is_single(node: ir.Node, value: ir.Value) -> bool:
    return len(node.inputs) == 1


def _splits_into_one(node: ir.Node, value: ir.Value) -> bool:
    return len(node.outputs) == 1


def _casts_to_same(node: ir.Node, value: ir.Value) -> bool:
    if node.op_type == "Cast":
        return value.dtype is not None and node.attributes.get_int("to", 0) == value.dtype
    like = node.inputs[1] if len(node.inputs) > 1 else None
    return value.dtype is not None and like is not None and like.dtype == value.dtype


def _keeps_order(node: ir.Node, value: ir.Value) -> bool:
    shape = known_shape(value)
    if "perm" in node.attributes:
        order = list(node.attributes.get_ints("perm", ()))
    elif shape is not None:
        order = list(reversed(range(len(shape))))
    else:
        return False
    if order == sorted(order):
        return True
    if shape is None or len(shape) != len(order):
        return False
    moved = [axis for axis in order if shape[axis] != 1]
    return moved == sorted(moved) and all(
        same_dim(shape[axis], dim) for axis, dim in zip(order, shape, strict=True)
    )


def _reshapes_to_same(node: ir.Node, value: ir.Value) -> bool:
    target, shape = _integers(node, "shape", 1), known_shape(value)
    if target is None or shape is None or len(target) != len(shape):
        return False
    copies_dim_at_zero = not node.attributes.get_int("allowzero", 0)
    computed = 0
    for wanted, dim in zip(target, shape, strict=True):
        if wanted == -1:
            # Where all other dims stay, the one that is computed stays too.
            computed += 1
        elif not (wanted == 0 and copies_dim_at_zero):
            if _differs(wanted, dim):
                return False
            if not same_dim(wanted, dim):
                raise NotApplicable(f"'{value.name}' is not known to have the target shape")
    return computed <= 1


def _is_flat(node: ir.Node, value: ir.Value) -> bool:
    shape = known_shape(value)
    return shape is not None and len(shape) == 2 and node.attributes.get_int("axis", 1) in (1, -1)


def _has_nothing_to_squeeze(node: ir.Node, value: ir.Value) -> bool:
    shape = known_shape(value)
    if len(node.inputs) > 1 or "axes" in node.attributes or shape is None:
        return False
    return all(isinstance(dim, int) and dim != 1 for dim in shape)


def _adds_no_axis(node: ir.Node, value: ir.Value) -> bool:
    return _integers(node, "axes", 1) == []


def _expands_to_same(node: ir.Node, value: ir.Value) -> bool:
    target, shape = _integers(node, None, 1), known_shape(value)
    if target is None or shape is None or len(target) > len(shape):
        return False
    kept = list(shape)[len(shape) - len(target) :]
    for wanted, dim in zip(target, kept, strict=True):
        if wanted == 1:
            continue
        if _differs(wanted, dim):
            return False
        if not same_dim(wanted, dim):
            raise NotApplicable(f"it may broadcast '{value.name}'")
    return True


def _pads_nothing(node: ir.Node, value: ir.Value) -> bool:
    pads = _integers(node, "pads", 1)
    return pads is not None and all(pad == 0 for pad in pads)


def _repeats_once(node: ir.Node, value: ir.Value) -> bool:
    repeats = _integers(node, None, 1) if len(node.inputs) == 2 else None
    return repeats is not None and all(count == 1 for count in repeats)


def _takes_everything(node: ir.Node, value: ir.Value) -> bool:
    starts, ends = _integers(node, "starts", 1), _integers(node, "ends", 2)
    if starts is None or ends is None or len(starts) != len(ends):
        return False
    axes: Sequence[_Number] | None = list(range(len(starts)))
    if "axes" in node.attributes or _has_input(node, 3):
        axes = _integers(node, "axes", 3)
    steps: Sequence[_Number] | None = [1] * len(starts)
    if _has_input(node, 4):
        steps = _integers(node, None, 4)
    if axes is None or steps is None or not len(axes) == len(steps) == len(starts):
        return False
    return all(
        start == 0 and step == 1 and _reaches_end(end, axis, value)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True)
    )


def _reaches_end(end: _Number, axis: _Number, value: ir.Value) -> bool:
    if isinstance(end, int) and end >= _TO_THE_END:
        return True
    dim = _dim_of(value, axis)
    if isinstance(end, int) and isinstance(dim, int):
        return end >= dim
    return dim is not None and same_dim(end, dim)


def _keeps_size(node: ir.Node, value: ir.Value) -> bool:
    attributes = node.attributes
    if attributes.get_string("coordinate_transformation_mode") == "tf_crop_and_resize":
        return False
    if attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    sizes = _integers(node, None, 3)
    if sizes:
        axes: Sequence[int] = attributes.get_ints("axes") or range(len(sizes))
        dims = [_dim_of(value, axis) for axis in axes]
        return len(dims) == len(sizes) and all(
            dim is not None and same_dim(size, dim) for size, dim in zip(sizes, dims, strict=True)
        )
    if "scales" in attributes:
        scales: Sequence[float] = attributes.get_floats("scales", ())
    else:
        # Resize takes the region of interest before the scales, since opset 11.
        index = 2 if len(node.inputs) > 2 else 1
        given = node.inputs[index] if len(node.inputs) > index else None
        array = constant_array(given, _LARGEST_RANK)
        scales = [] if array is None else array.ravel().tolist()
    return len(scales) > 0 and all(scale == 1 for scale in scales)


def _is_unbounded(node: ir.Node, value: ir.Value) -> bool:
    if node.attributes or any(bound is not None for bound in node.inputs[1:]):
        return False
    if value.dtype is None:
        return False
    if not value.dtype.is_integer():
        raise NotApplicable("Clip without bounds makes infinities finite")
    return True


def _integers(node: ir.Node, attribute: str | None, index: int) -> list[_Number] | None:
    """Small integers given by an attribute, or by an input that is known at least in part."""
    if attribute is not None and attribute in node.attributes:
        return list(node.attributes.get_ints(attribute, ()))
    value = node.inputs[index] if len(node.inputs) > index else None
    known = None if value is None else symbolic_value(value)
    return None if known is None else list(known.ravel())


def _has_input(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None


def _dim_of(value: ir.Value, axis: _Number) -> _Number | None:
    shape = known_shape(value)
    if shape is None or not isinstance(axis, int):
        return None
    return shape[axis] if -len(shape) <= axis < len(shape) else None


def _differs(wanted: _Number, dim: int | ir.SymbolicDim) -> bool:
    return isinstance(wanted, int) and isinstance(dim, int) and wanted != dim


_RETURNS_ITS_INPUT: dict[str, Callable[[ir.Node, ir.Value], bool]] = {
    "Cast": _casts_to_same,
    "CastLike": _casts_to_same,
    "Clip": _is_unbounded,
    "Concat": _is_single,
    "Expand": _expands_to_same,
    "Flatten": _is_flat,
    "Identity": _always,
    "Max": _is_single,
    "Mean": _is_single,
    "Min": _is_single,
    "Pad": _pads_nothing,
    "Reshape": _reshapes_to_same,
    "Resize": _keeps_size,
    "Slice": _takes_everything,
    "Split": _splits_into_one,
    "Squeeze": _has_nothing_to_squeeze,
    "Sum": _is_single,
    "Tile": _repeats_once,
    "Transpose": _keeps_order,
    "Unsqueeze": _adds_no_axis,
    "Upsample": _keeps_size,
}


class EliminateIdentities(RewritePass):
    """Remove Identity, Dropout in inference, and every other node that returns its input."""

    name = "eliminate-identities"
    promise = Promise.EXACT
    patterns = (op(("Dropout", *_RETURNS_ITS_INPUT)),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Let the consumers of the node read its first input."""
        node = match.root
        if not node.inputs or any(attribute.is_ref() for attribute in node.attributes.values()):
            return
        value = node.inputs[0]
        if value is None:
            return
        if node.op_type == "Dropout":
            _check_inference(node)
        elif not _RETURNS_ITS_INPUT[node.op_type](node, value):
            return
        rewriter.replace(node, [value, *[None] * (len(node.outputs) - 1)])
