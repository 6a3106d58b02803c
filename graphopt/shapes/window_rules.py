"""Spatial dims, in expressions: convolution, pooling and resizing."""

import math
from collections.abc import Callable

from graphopt.shapes import arithmetic
from graphopt.shapes.broadcasting import Dims
from graphopt.shapes.expression import Dim, Expression
from graphopt.shapes.node_view import NodeView


def _windowed(view: NodeView, dims: Dims, kernel: Dims) -> Dims | None:
    """The spatial dims after a sliding window over `dims`."""
    rank = len(dims)
    strides = view.ints_attribute("strides") or [1] * rank
    dilations = view.ints_attribute("dilations") or [1] * rank
    pads = view.ints_attribute("pads") or [0] * (2 * rank)
    auto = view.text_attribute("auto_pad", "NOTSET")
    ceil = view.int_attribute("ceil_mode", 0)
    if not len(strides) == len(dilations) == len(kernel) == rank or len(pads) != 2 * rank:
        return None
    if min([*strides, *dilations], default=1) < 1:
        return None
    result: list[Dim] = []
    for axis, size in enumerate(dims):
        stride, extent = strides[axis], kernel[axis]
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            result.append(arithmetic.ceil_divide(size, stride))
            continue
        # dilation*(kernel - 1) + 1
        reach = arithmetic.add(
            arithmetic.multiply(arithmetic.subtract(extent, 1), dilations[axis]), 1
        )
        room = arithmetic.subtract(size, reach)
        if auto != "VALID":
            room = arithmetic.add(room, pads[axis] + pads[axis + rank])
        if ceil:
            # Runtimes drop a last window that would start in the padding, in ways that have
            # changed: only what divides evenly is certain.
            steps = arithmetic.divide_exactly(room, stride)
        else:
            steps = arithmetic.floor_divide(room, stride)
        result.append(arithmetic.add(steps, 1))
    # One that may be negative belongs to sizes at which the window does not fit: no run has it.
    return tuple(result)


def _conv(view: NodeView) -> list[Dims | None] | None:
    dims, weight = view.dims(0), view.dims(1)
    if dims is None or weight is None or len(dims) != len(weight) or len(dims) < 3:
        return None
    spatial = _windowed(view, dims[2:], weight[2:])
    return None if spatial is None else [(dims[0], weight[0], *spatial)]


def _pool(view: NodeView) -> list[Dims | None] | None:
    dims, kernel = view.dims(0), view.ints_attribute("kernel_shape")
    if dims is None or kernel is None or len(dims) != len(kernel) + 2:
        return None
    spatial = _windowed(view, dims[2:], tuple(kernel))
    if spatial is None:
        return None
    shape = (*dims[:2], *spatial)
    return [shape, shape] if view.op_type == "MaxPool" else [shape]


def _conv_transpose(view: NodeView) -> list[Dims | None] | None:
    dims, weight = view.dims(0), view.dims(1)
    if dims is None or weight is None or len(dims) != len(weight) or len(dims) < 3:
        return None
    rank = len(dims) - 2
    channels = arithmetic.multiply(weight[1], view.int_attribute("group", 1))
    given = view.ints_attribute("output_shape")
    if given is not None:
        return [(dims[0], channels, *given[-rank:])] if len(given) >= rank else None
    strides = view.ints_attribute("strides") or [1] * rank
    dilations = view.ints_attribute("dilations") or [1] * rank
    pads = view.ints_attribute("pads") or [0] * (2 * rank)
    extra = view.ints_attribute("output_padding") or [0] * rank
    if not len(strides) == len(dilations) == len(extra) == rank or len(pads) != 2 * rank:
        return None
    if view.text_attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    spatial: list[Dim] = []
    for axis in range(rank):
        reach = arithmetic.multiply(arithmetic.subtract(weight[2 + axis], 1), dilations[axis])
        size = arithmetic.multiply(arithmetic.subtract(dims[2 + axis], 1), strides[axis])
        margin = extra[axis] + 1 - pads[axis] - pads[axis + rank]
        size = arithmetic.add(arithmetic.add(size, reach), margin)
        spatial.append(size)
    # An expression that may be negative belongs to sizes at which no runtime runs the node.
    return [(dims[0], channels, *spatial)]


def _resize(view: NodeView) -> list[Dims | None] | None:
    dims = view.dims(0)
    if dims is None or "axes" in view.attributes:
        return None
    if view.text_attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    old = view.op_type == "Upsample" or view.version < 11
    if not old:
        sizes = view.elements(3)
        if sizes is not None and sizes.size == len(dims):
            known = (e if isinstance(e, int | Expression) else None for e in sizes.flat)
            return [tuple(d if arithmetic.is_non_negative(d) else None for d in known)]
        if view.fact(3) is not None:
            return None
    scales = view.numbers(1 if old else 2)
    if old and "scales" in view.attributes:
        scales = list(view.attributes["scales"].as_floats())
    if scales is None or len(scales) != len(dims):
        return None
    return [tuple(_scaled(dim, scale) for dim, scale in zip(dims, scales, strict=True))]


def _scaled(dim: Dim, scale: float) -> Dim:
    """floor(dim * scale), computed in floating point by the runtime: whole factors only."""
    if not math.isfinite(scale) or scale <= 0:
        return None
    if scale.is_integer():
        return arithmetic.multiply(dim, int(scale))
    inverse = 1 / scale
    # A power of two loses nothing in any precision.
    if inverse.is_integer() and int(inverse) & (int(inverse) - 1) == 0:
        return arithmetic.floor_divide(dim, int(inverse))
    return None


WINDOW_RULES: dict[str, Callable[[NodeView], list[Dims | None] | None]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": lambda view: _quantized_conv(view),
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "Resize": _resize,
    "Upsample": _resize,
}


def _quantized_conv(view: NodeView) -> list[Dims | None] | None:
    dims, weight = view.dims(0), view.dims(3)
    if dims is None or weight is None or len(dims) != len(weight) or len(dims) < 3:
        return None
    spatial = _windowed(view, dims[2:], weight[2:])
    return None if spatial is None else [(dims[0], weight[0], *spatial)]
