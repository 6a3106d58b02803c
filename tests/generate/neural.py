"""Layers: convolutions with BN in its variants, pools, Gemm, MatMul, Resize, GRU."""

import contextlib

import numpy as np

from tests.generate import forms
from tests.generate.registry import emitter
from tests.generate.scope import (
    FLOAT,
    Dim,
    Dims,
    NotApplicable,
    Result,
    Scope,
    Value,
    broadcast,
    fixed,
    is_static,
)


def _windowed(dim: Dim, kernel: int, stride: int, pads: tuple[int, int], dilation: int = 1) -> Dim:
    span = dilation * (kernel - 1) + 1
    sizes = tuple((size + sum(pads) - span) // stride + 1 for size in dim)
    if min(size + sum(pads) - span for size in dim) < 0:
        raise NotApplicable
    return sizes


def convolution(scope: Scope, x: Value) -> Value:
    """Conv: 1-D or 2-D, grouped, depthwise, dilated, padded by numbers or by auto_pad."""
    channels = x.size(1)
    spatial = x.rank - 2
    kernel = scope.random.choice((1, 2, 3))
    stride = scope.random.choice((1, 1, 2))
    dilation = 2 if kernel == 2 and scope.chance(0.3) else 1
    group = scope.random.choice([g for g in (1, 1, 2, channels) if channels % g == 0])
    outputs = group * scope.random.choice((1, 2))
    weight = scope.weight(outputs, channels // group, *[kernel] * spatial)
    bias = scope.weight(outputs) if scope.chance(0.5) else None
    attributes: dict[str, object] = {}
    if scope.chance(0.2) and dilation == 1:
        attributes["auto_pad"] = "SAME_UPPER"
        dims = tuple(tuple(-(-size // stride) for size in dim) for dim in x.dims[2:])
    else:
        pads = (scope.random.randrange(2), scope.random.randrange(2))
        dims = tuple(_windowed(dim, kernel, stride, pads, dilation) for dim in x.dims[2:])
        attributes["pads"] = [pads[0]] * spatial + [pads[1]] * spatial
    attributes |= {"strides": [stride] * spatial, "group": group if group > 1 else None}
    if dilation > 1:
        attributes["dilations"] = [dilation] * spatial
    if scope.chance(0.5):
        attributes["kernel_shape"] = [kernel] * spatial
    bound = 1 + x.magnitude * 0.5 * (channels // group * kernel**spatial) ** 0.5
    result = Result(FLOAT, (x.dims[0], fixed(outputs)[0], *dims), bound)
    return scope.one("Conv", [x, weight, bias], result, **attributes)


def transposed_convolution(scope: Scope, x: Value) -> Value:
    """ConvTranspose: its weight is [in, out / group, ...]."""
    channels = x.size(1)
    spatial = x.rank - 2
    kernel, stride = scope.random.choice((1, 2, 3)), scope.random.choice((1, 2))
    group = scope.random.choice([g for g in (1, 2) if channels % g == 0])
    outputs = scope.random.choice((1, 2, 3))
    weight = scope.weight(channels, outputs, *[kernel] * spatial)
    bias = scope.weight(outputs * group) if scope.chance(0.5) else None
    dims = tuple(tuple((size - 1) * stride + kernel for size in dim) for dim in x.dims[2:])
    bound = 1 + x.magnitude * (channels * kernel**spatial) ** 0.5
    result = Result(FLOAT, (x.dims[0], fixed(outputs * group)[0], *dims), bound)
    attributes = {"strides": [stride] * spatial, "group": group}
    return scope.one("ConvTranspose", [x, weight, bias], result, **attributes)


def batch_norm(scope: Scope, x: Value) -> Value:
    """BatchNormalization in inference, at times with parameters that a fold must refuse."""
    channels = x.size(1)
    parameters = [
        scope.weight(channels, low=0.5, high=1.5),
        scope.weight(channels),
        scope.weight(channels),
        scope.weight(channels, low=0.5, high=2.0),
    ]
    if scope.chance(0.1):
        with contextlib.suppress(NotApplicable):
            parameters[1] = scope.pick(rank=(1,), where=lambda v: v.dims == fixed(channels))
    bound = 1.5 * (x.magnitude + 0.5) / 0.7 + parameters[1].magnitude
    epsilon = scope.random.choice((None, 1e-3))
    return scope.one(
        "BatchNormalization", [x, *parameters], Result(FLOAT, x.dims, bound), epsilon=epsilon
    )


@emitter(3)
def conv(scope: Scope) -> None:
    """Conv or ConvTranspose; often a BN behind it, or arithmetic that looks per-channel."""
    x = scope.pick(rank=(3, 4))
    y = (convolution if scope.chance(0.75) else transposed_convolution)(scope, x)
    draw = scope.random.random()
    if draw < 0.45:
        y = batch_norm(scope, y)
    elif draw < 0.75:
        channels, spatial = y.size(1), y.rank - 2
        column = y.dims[-1][0] if is_static(y.dims[-1]) else 1
        shape = scope.random.choice(
            ((channels, *[1] * spatial), (1, channels, *[1] * spatial), (column,), ())
        )
        for _ in range(scope.random.randint(1, 2)):
            op = scope.random.choice(("Mul", "Add", "Sub", "Div"))
            constant = scope.weight(*shape, low=0.5, high=1.5)
            result = Result(FLOAT, y.dims, y.magnitude * 2 + 1.5)
            pair = (
                [constant, y]
                if op in ("Mul", "Add", "Sub") and scope.chance(0.3)
                else [y, constant]
            )
            y = scope.one(op, pair, result)
    if scope.chance(0.4):
        scope.one("Relu", [y], Result(FLOAT, y.dims, y.magnitude))


@emitter(1)
def batch_norm_alone(scope: Scope) -> None:
    """BN on anything, before a Conv for instance."""
    y = batch_norm(scope, scope.pick(rank=(2, 3, 4)))
    if y.rank >= 3 and scope.chance(0.5):
        convolution(scope, y)


@emitter(2)
def twin_convolutions(scope: Scope) -> None:
    """Two Convs that share their weight, and their bias if they have one; one has a BN."""
    x = scope.pick(rank=(3, 4))
    channels = x.size(1)
    shared = [scope.weight(channels, channels, *[1] * (x.rank - 2))]
    if scope.chance(0.5):
        shared.append(scope.weight(channels))
    result = Result(FLOAT, x.dims, 1 + x.magnitude * channels)
    first = scope.one("Conv", [x, *shared], result)
    normal = batch_norm(scope, first)
    again = scope.random.choice((x, first, normal))
    scope.one("Conv", [again, *shared], result)


@emitter(2)
def gemm(scope: Scope) -> None:
    """Gemm with alpha, beta, transposes and C in its shapes; at times with a BN behind it."""
    x = scope.pick(rank=(2,))
    if scope.chance(0.3) and is_static(x.dims[0]):
        result = Result(FLOAT, x.dims[::-1], x.magnitude)
        x = scope.one("Transpose", [x], result, perm=[1, 0] if scope.chance(0.5) else None)
    width, units = x.size(1), scope.random.choice((2, 3, 4))
    transposed = scope.random.randrange(2)
    weight = scope.weight(*((units, width) if transposed else (width, units)))
    shape = scope.random.choice(((units,), (1, units), (1,), None))
    c = scope.weight(*shape) if shape else None
    attributes = {"alpha": 0.5, "beta": 2.0} if scope.chance(0.3) else {}
    bound = 1 + x.magnitude * 0.5 * width**0.5
    result = Result(FLOAT, (x.dims[0], fixed(units)[0]), bound)
    y = scope.one("Gemm", [x, weight, c], result, transB=transposed or None, **attributes)
    if scope.chance(0.4):
        batch_norm(scope, y)
    elif scope.chance(0.3):
        scope.one("Transpose", [y], Result(FLOAT, y.dims[::-1], y.magnitude))


@emitter(0.7)
def gemm_of_values(scope: Scope) -> None:
    """Gemm of two values, one or both transposed ahead, or the result behind."""
    x = scope.pick(rank=(2,))
    other = scope.pick(rank=(2,), where=lambda v: v.dims[1] == x.dims[1])
    result = Result(FLOAT, (x.dims[0], other.dims[0]), 8 * x.magnitude * other.magnitude)
    if scope.chance(0.5):
        other = scope.one("Transpose", [other], Result(FLOAT, other.dims[::-1], other.magnitude))
        y = scope.one("Gemm", [x, other], result)
    else:
        y = scope.one("Gemm", [x, other], result, transB=1)
    if scope.chance(0.5):
        scope.one("Transpose", [y], Result(FLOAT, y.dims[::-1], y.magnitude))


@emitter(2.5)
def matmul(scope: Scope) -> None:
    """MatMul with a weight on either side, or of two values; bias or BN behind it."""
    x = scope.pick(rank=(1, 2, 3, 4))
    result_bound = 1 + x.magnitude * 2
    if x.rank >= 2 and scope.chance(0.25):
        other = scope.pick(rank=(2, 3), where=lambda v: v.dims[-2] == x.dims[-1])
        dims = _product_dims(x.dims, other.dims)
        bound = 1 + x.magnitude * other.magnitude * 4
        scope.one("MatMul", [x, other], Result(FLOAT, dims, bound))
        return
    if x.rank >= 2 and scope.chance(0.2):
        weight = scope.weight(3, x.size(-2))
        dims = (*x.dims[:-2], fixed(3)[0], x.dims[-1])
        scope.one("MatMul", [weight, x], Result(FLOAT, dims, result_bound))
        return
    units = scope.random.choice((2, 3, 4))
    weight = scope.weight(x.size(-1), units)
    y = scope.one("MatMul", [x, weight], Result(FLOAT, x.dims[:-1] + fixed(units), result_bound))
    if scope.chance(0.5):
        y = scope.one("Add", [y, scope.weight(units)], Result(FLOAT, y.dims, result_bound + 0.5))
    if y.rank == 2 and scope.chance(0.4):
        batch_norm(scope, y)


def _product_dims(left: Dims, right: Dims) -> Dims:
    stacked = broadcast(left[:-2], right[:-2])
    if stacked is None:
        raise NotApplicable
    return (*stacked, left[-2], right[-1])


@emitter(2)
def pool(scope: Scope) -> None:
    """MaxPool or AveragePool, a Pad in front of it at times; or a global pool."""
    x = scope.pick(rank=(3, 4))
    spatial = x.rank - 2
    if scope.chance(0.3):
        op = scope.random.choice(("GlobalAveragePool", "GlobalMaxPool"))
        dims = x.dims[:2] + fixed(*[1] * spatial)
        scope.one(op, [x], Result(FLOAT, dims, x.magnitude))
        return
    if scope.chance(0.4):
        x = forms.pad(scope, x, [(0, 0)] * 2 + [(1, 1)] * spatial, "constant")
    kernel, stride = scope.random.choice((2, 3)), scope.random.choice((1, 2))
    pads = scope.random.choice(((0, 0), (1, 1), (0, 1)))
    dims = tuple(_windowed(dim, kernel, stride, pads) for dim in x.dims[2:])
    attributes: dict[str, object] = {
        "kernel_shape": [kernel] * spatial,
        "strides": [stride] * spatial,
        "pads": [pads[0]] * spatial + [pads[1]] * spatial,
    }
    op = scope.random.choice(("MaxPool", "AveragePool"))
    if op == "AveragePool" and scope.chance(0.5):
        attributes["count_include_pad"] = 1
    result = Result(FLOAT, x.dims[:2] + dims, x.magnitude, x.exact and op == "MaxPool")
    scope.one(op, [x], result, **attributes)


@emitter(0.8)
def resize(scope: Scope) -> None:
    """Resize to nearest: scales given, roi and sizes omitted."""
    x = scope.pick(rank=(4,))
    scales = scope.constant(np.array([1, 1, 2, 2], np.float32))
    roi = scope.constant(np.zeros(0, np.float32)) if scope.opset < 13 or scope.chance(0.3) else None
    dims = x.dims[:2] + tuple(tuple(2 * s for s in dim) for dim in x.dims[2:])
    scope.one(
        "Resize",
        [x, roi, scales],
        Result(FLOAT, dims, x.magnitude, x.exact),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _pointwise(scope: Scope, x: Value, outputs: int) -> Value:
    inputs = x.size(1)
    weight = scope.weight(outputs, inputs, 1, 1)
    bias = scope.weight(outputs) if scope.chance(0.5) else None
    bound = 1 + x.magnitude * 0.5 * inputs**0.5
    result = Result(FLOAT, (x.dims[0], fixed(outputs)[0], *x.dims[2:]), bound)
    return scope.one("Conv", [x, weight, bias], result)


@emitter(0.8)
def pointwise_convolution(scope: Scope) -> None:
    """A 1x1 Conv of many channels, ahead of an average or behind a bilinear Resize."""
    x = _pointwise(scope, scope.pick(rank=(4,)), 16)
    if scope.chance(0.5):
        scales = scope.constant(np.array([1, 1, 2, 2], np.float32))
        roi = scope.constant(np.zeros(0, np.float32)) if scope.opset < 13 else None
        dims = x.dims[:2] + tuple(tuple(2 * s for s in dim) for dim in x.dims[2:])
        result = Result(FLOAT, dims, x.magnitude)
        _pointwise(scope, scope.one("Resize", [x, roi, scales], result, mode="linear"), 12)
        return
    x = _pointwise(scope, x, 12)
    padding = scope.random.choice((0, 1))
    pads = (padding, padding)
    dims = x.dims[:2] + tuple(_windowed(dim, 2, 2, pads) for dim in x.dims[2:])
    attributes: dict[str, object] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    if padding:
        attributes |= {"pads": [1] * 4, "count_include_pad": scope.random.choice((0, 1))}
    scope.one("AveragePool", [x], Result(FLOAT, dims, x.magnitude), **attributes)


_PRODUCTS = ("{x},{k}z->{r}z", "{x},z{k}->{r}z", "{x},{k}z->z{r}", "{x},{k}z")
"""Equations of a product with a matrix: letters of x, the last one, and the ones before."""


@emitter(1.2)
def einsum(scope: Scope) -> None:
    """Einsum: a transpose, a sum, an elementwise or a matrix product, of one or two values."""
    if scope.opset < 12:
        raise NotApplicable
    x = scope.pick(rank=(2, 3))
    letters = "abc"[: x.rank]
    kind = scope.random.choice(("transpose", "sum", "elementwise", "dot", "matmul", "matmul"))
    if kind == "transpose":
        result = Result(FLOAT, x.dims[::-1], x.magnitude)
        scope.one("Einsum", [x], result, equation=f"{letters}->{letters[::-1]}")
    elif kind == "sum":
        result = Result(FLOAT, x.dims[:0:-1], x.magnitude * max(x.dims[0]))
        scope.one("Einsum", [x], result, equation=f"{letters}->{letters[:0:-1]}")
    elif kind == "elementwise":
        axis = scope.random.randrange(x.rank)
        weight = scope.weight(x.size(axis))
        result = Result(FLOAT, x.dims[::-1], x.magnitude)
        equation = f"{letters},{letters[axis]}->{letters[::-1]}"
        scope.one("Einsum", [x, weight], result, equation=equation)
    elif kind == "dot":
        other = scope.pick(where=lambda v: v.dims == x.dims)
        bound = x.magnitude * other.magnitude * max(x.dims[-1])
        result = Result(FLOAT, x.dims[:-1], bound)
        scope.one("Einsum", [x, other], result, equation=f"{letters},{letters}->{letters[:-1]}")
    else:
        _einsum_product(scope, x, letters)


def _einsum_product(scope: Scope, x: Value, letters: str) -> None:
    equation = scope.random.choice(_PRODUCTS)
    size = x.size(-1)
    weight = scope.weight(*((3, size) if "z{k}" in equation else (size, 3)))
    written = equation.format(x=letters, k=letters[-1], r=letters[:-1])
    dims = (
        fixed(3) + x.dims[:-1] if written.endswith(f"->z{letters[:-1]}") else x.dims[:-1] + fixed(3)
    )
    result = Result(FLOAT, dims, 1 + 2 * x.magnitude)
    scope.one("Einsum", [x, weight], result, equation=written)


@emitter(0.6)
def gru(scope: Scope) -> None:
    """GRU over the first axis: optional inputs omitted in the middle, one output unused."""
    x = scope.pick(rank=(3,))
    width, hidden = x.size(2), 3
    w, r = scope.weight(1, 3 * hidden, width), scope.weight(1, 3 * hidden, hidden)
    bias = scope.weight(1, 6 * hidden) if scope.chance(0.5) else None
    scope.emit(
        "GRU",
        [x, w, r, bias],
        Result(FLOAT, (x.dims[0], fixed(1)[0], x.dims[1], fixed(hidden)[0]), 1.0),
        Result(FLOAT, (fixed(1)[0], x.dims[1], fixed(hidden)[0]), 1.0),
        hidden_size=hidden,
    )
