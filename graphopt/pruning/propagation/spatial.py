"""Operators that work on each channel's picture alone: pooling, Resize, sampling."""

from __future__ import annotations

import numpy as np

from graphopt.pruning.propagation.convolution import channels_first
from graphopt.pruning.propagation.place import NotUnderstood, Place
from graphopt.pruning.propagation.rule import Change, Rule, standard


def _relate_pool(place: Place) -> None:
    x, y = place.input(0), place.output()
    if len(place.outputs) > 1 and place.outputs[1] is not None:
        raise NotUnderstood("gives positions that count through all channels")
    channels_first(place, x, y)
    place.tie(x, 1, y, 1)


def _relate_global_pool(place: Place) -> None:
    _relate_pool(place)


def _relate_sampled(place: Place) -> None:
    """GridSample, RoiAlign, MaxRoiPool: the places are the same for every channel."""
    x, y = place.input(0), place.output()
    place.tie(x, 1, y, 1)


def _resize_inputs(place: Place | Change) -> tuple[int | None, int | None, int | None]:
    """Which inputs are roi, scales and sizes."""
    if place.node.op_type == "Upsample":
        return None, 1 if place.version >= 9 else None, None
    if place.version < 11:
        return None, 1, None
    return 1, 2, 3


def _relate_resize(place: Place) -> None:
    x, y = place.input(0), place.output()
    if x.rank != y.rank:
        raise NotUnderstood("has shapes that do not fit together")
    if place.text("coordinate_transformation_mode", "half_pixel") in (
        "tf_crop_and_resize",
        "tf_half_pixel_for_nn",
    ):
        raise NotUnderstood("moves channels by its coordinates")
    for index in range(1, len(place.inputs)):
        place.freeze_all(place.optional(index), "reads sizes from it")
    scales = _scales(place)
    listed = place.integers("axes")
    resized = set(range(x.rank)) if listed is None else {place.axis_of(x, axis) for axis in listed}
    for axis in range(x.rank):
        kept = x.sizes[axis] == y.sizes[axis] and x.fixed[axis] == y.fixed[axis]
        if axis not in resized or (kept and (scales is None or scales.get(axis, 1.0) == 1.0)):
            if scales is None and axis in resized and not _can_be_told(place):
                raise NotUnderstood("has sizes that only running the model tells")
            place.tie(x, axis, y, axis)
        else:
            place.freeze(x, axis, "resamples it")
            place.freeze(y, axis, "resamples it")


def _can_be_told(place: Place) -> bool:
    """Whether sizes that are given can be rewritten: they are constant."""
    sizes = _resize_inputs(place)[2]
    return sizes is not None and place.constant(sizes) is not None


def _scales(place: Place) -> dict[int, float] | None:
    """The scale of each resized axis; None where sizes are given instead."""
    _, at, sizes = _resize_inputs(place)
    if sizes is not None and place.has_input(sizes) and place.input(sizes).sizes != (0,):
        return None
    if at is None:
        values = place.node.attributes.get_floats("scales", None)
    else:
        constant = place.constant(at)
        values = None if constant is None else constant.reshape(-1).tolist()
    if values is None:
        raise NotUnderstood("has scales that only running the model tells")
    axes = place.integers("axes") or range(place.input(0).rank)
    return dict(zip(axes, values, strict=False))


def _adapt_resize(change: Change) -> None:
    at = _resize_inputs(change)[2]
    if at is None:
        return
    sizes = change.constant(at)
    if sizes is None or not sizes.size:
        return
    rank = len(change.input_shape(0))
    listed = change.node.attributes.get_ints("axes", range(rank))
    entries = sizes.reshape(-1).copy()
    for number, axis in enumerate(listed):
        kept = change.kept_output(0, axis % rank)
        if kept is not None:
            entries[number] = len(kept)
    if not np.array_equal(entries, sizes.reshape(-1)):
        change.set_constant(at, entries)


SPATIAL_RULES = {
    **standard(("MaxPool", "AveragePool", "LpPool"), Rule(_relate_pool)),
    **standard(("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"), Rule(_relate_global_pool)),
    **standard(("GridSample", "RoiAlign", "MaxRoiPool"), Rule(_relate_sampled)),
    **standard(("Resize", "Upsample"), Rule(_relate_resize, _adapt_resize)),
}
