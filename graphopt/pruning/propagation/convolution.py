"""Convolutions: with groups, channel = (group, channel within it), so each is a product.

    Conv:          x[C] = (G, I)   y[M] = (G, O)   W[M, C/G, ...]: axis 0 = (G, O), axis 1 = I
    ConvTranspose: x[C] = (G, I)   y[M] = (G, O)   W[C, M/G, ...]: axis 0 = (G, I), axis 1 = O

Pruning along G takes whole groups away; along I or O it takes the same channels from every group.
"""

from __future__ import annotations

from graphopt.pruning.groups import Role
from graphopt.pruning.propagation.place import NotUnderstood, Place, Tensor
from graphopt.pruning.propagation.rule import Change, Rule, standard


def channels_first(place: Place, x: Tensor, y: Tensor) -> None:
    """Tie the batch; what stands behind the channels is walked over by a kernel."""
    if x.rank < 2 or x.rank != y.rank:
        raise NotUnderstood("has shapes that do not fit together")
    place.tie(x, 0, y, 0)
    for tensor in (x, y):
        for axis in range(2, tensor.rank):
            place.freeze(tensor, axis, "moves a window over it")


def _relate_kernel(place: Place, weight: Tensor) -> None:
    for axis in range(2, weight.rank):
        place.freeze(weight, axis, "moves a window over it")


def relate_conv(
    place: Place, x: Tensor, weight: Tensor, y: Tensor, weight_input: int, *, transposed: bool
) -> None:
    """Relate the channels of a convolution of either kind."""
    channels_first(place, x, y)
    _relate_kernel(place, weight)
    group = place.integer("group", 1)
    own, other = (0, 1) if transposed else (1, 0)
    if group < 1 or not (x.fixed[1] and y.fixed[1]) or weight.rank != x.rank:
        raise NotUnderstood("has shapes that do not fit together")
    if group == 1:
        place.tie(x, 1, weight, own)
        place.tie(y, 1, weight, other)
    else:
        if x.sizes[1] % group or y.sizes[1] % group:
            raise NotUnderstood("has channels that its groups do not divide")
        inner_in, inner_out = x.sizes[1] // group, y.sizes[1] // group
        # In a depthwise convolution the groups are the channels.
        groups = place.virtual(group, preferred=inner_in == 1)
        inputs, outputs = place.virtual(inner_in), place.virtual(inner_out)
        place.product(x, 1, (groups, inputs))
        place.product(y, 1, (groups, outputs))
        if transposed:
            place.product(weight, 0, (groups, inputs))
            place.tie_axis(weight, 1, outputs)
        else:
            place.product(weight, 0, (groups, outputs))
            place.tie_axis(weight, 1, inputs)
    _conv_roles(place, weight_input, group, x.sizes[1], transposed=transposed)


def _conv_roles(
    place: Place, weight_input: int, group: int, channels: int, *, transposed: bool
) -> None:
    own, other = (0, 1) if transposed else (1, 0)
    if group == channels and group > 1:
        # A depthwise filter is made by nobody but the channel itself.
        place.weight(weight_input, 0, Role.VECTOR)
        if transposed:
            place.weight(weight_input, 1, Role.PRODUCER)
        return
    place.weight(weight_input, own, Role.CONSUMER)
    place.weight(weight_input, other, Role.PRODUCER)


def _relate(place: Place, *, transposed: bool) -> None:
    x, weight, y = place.input(0), place.input(1), place.output()
    relate_conv(place, x, weight, y, 1, transposed=transposed)
    bias = place.optional(2)
    if bias is not None:
        place.tie(bias, 0, y, 1)
        place.weight(2, 0, Role.VECTOR)


def _relate_forward(place: Place) -> None:
    _relate(place, transposed=False)


def _relate_transposed(place: Place) -> None:
    if place.integers("output_shape") is not None and len(place.integers("output_shape") or ()) > (
        place.input(0).rank - 2
    ):
        raise NotUnderstood("states the size of its channels in output_shape")
    _relate(place, transposed=True)


def _relate_integer(place: Place) -> None:
    """ConvInteger: x, w, x_zero_point, w_zero_point."""
    relate_conv(place, place.input(0), place.input(1), place.output(), 1, transposed=False)
    _per_output(place, 3, place.output())


def _relate_linear(place: Place) -> None:
    """QLinearConv: x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, B."""
    y = place.output()
    relate_conv(place, place.input(0), place.input(3), y, 3, transposed=False)
    for index in (4, 5, 8):
        _per_output(place, index, y)


def _per_output(place: Place, index: int, y: Tensor) -> None:
    vector = place.optional(index)
    if vector is not None and vector.rank == 1 and vector.sizes[0] > 1:
        place.tie(vector, 0, y, 1)
        place.weight(index, 0, Role.VECTOR)


def adapt_groups(change: Change, weight_input: int, *, transposed: bool) -> None:
    """How many groups are left: channels over channels of one group."""
    if change.node.attributes.get_int("group", 1) == 1:
        return

    def left(shape: tuple[int | None, ...], axis: int, kept: object) -> int:
        return len(kept) if kept is not None else shape[axis] or 0  # type: ignore[arg-type]

    if transposed:
        whole = left(change.output_shape(0), 1, change.kept_output(0, 1))
    else:
        whole = left(change.input_shape(0), 1, change.kept_input(0, 1))
    one = left(change.input_shape(weight_input), 1, change.kept_input(weight_input, 1))
    if whole % one:
        raise ArithmeticError("groups of different sizes are left")
    change.set_attribute("group", whole // one)


def _adapt_forward(change: Change) -> None:
    adapt_groups(change, 1, transposed=False)


def _adapt_transposed(change: Change) -> None:
    adapt_groups(change, 1, transposed=True)


def _adapt_linear(change: Change) -> None:
    adapt_groups(change, 3, transposed=False)


def _relate_deformable(place: Place) -> None:
    """DeformConv: x, W, offset, B, mask; the offsets belong to places, not to channels."""
    if place.integer("group", 1) != 1 or place.integer("offset_group", 1) != 1:
        raise NotUnderstood("has groups, which are not followed for deformable convolutions")
    x, weight, y = place.input(0), place.input(1), place.output()
    relate_conv(place, x, weight, y, 1, transposed=False)
    bias = place.optional(3)
    if bias is not None:
        place.tie(bias, 0, y, 1)
        place.weight(3, 0, Role.VECTOR)


CONVOLUTION_RULES = {
    **standard(("Conv",), Rule(_relate_forward, _adapt_forward)),
    **standard(("ConvTranspose",), Rule(_relate_transposed, _adapt_transposed)),
    **standard(("ConvInteger",), Rule(_relate_integer, _adapt_forward)),
    **standard(("QLinearConv",), Rule(_relate_linear, _adapt_linear)),
    **standard(("DeformConv",), Rule(_relate_deformable)),
}
