"""Reductions, rankings and normalizations over axes."""

import numpy as np

from tests.generate import forms
from tests.generate.registry import emitter
from tests.generate.scope import FLOAT, INT64, NotApplicable, Result, Scope, fixed

BOUNDS = {
    "ReduceSum": lambda m, n: m * n,
    "ReduceMean": lambda m, n: m,
    "ReduceMax": lambda m, n: m,
    "ReduceMin": lambda m, n: m,
    "ReduceL1": lambda m, n: m * n,
    "ReduceL2": lambda m, n: m * n**0.5,
    "ReduceSumSquare": lambda m, n: m * m * n,
    "ReduceLogSumExp": lambda m, n: m + 3,
}


@emitter(3)
def reduce(scope: Scope) -> None:
    """A reduction over some or all axes, keeping dims or not."""
    x = scope.pick((FLOAT,), rank=(1, 2, 3, 4))
    op = scope.random.choice(sorted(BOUNDS))
    axes = sorted(scope.random.sample(range(x.rank), scope.random.randint(1, x.rank)))
    if scope.chance(0.3):
        axes = [axis - x.rank for axis in axes]
    count = int(np.prod([max(x.dims[axis]) for axis in axes]))
    chosen = None if scope.chance(0.15) else axes
    bound = BOUNDS[op](x.magnitude, count if chosen else 64)
    forms.reduce(scope, op, x, chosen, scope.random.randrange(2), bound)


@emitter(0.3)
def reduce_nothing(scope: Scope) -> None:
    """ReduceSum with noop_with_empty_axes: an identity."""
    if scope.opset < 13:
        raise NotApplicable
    x = scope.pick()
    empty = scope.constant(np.zeros(0, np.int64)) if scope.chance(0.5) else None
    result = Result(x.dtype, x.dims, x.magnitude)
    scope.one("ReduceSum", [x, empty], result, noop_with_empty_axes=1)


@emitter(1)
def arg_max(scope: Scope) -> None:
    """ArgMax or ArgMin of exact values."""
    x = scope.pick((FLOAT,), rank=(1, 2, 3, 4), where=lambda v: v.exact)
    axis = scope.random.randrange(x.rank)
    keep = scope.random.randrange(2)
    dims = x.dims[:axis] + (fixed(1) if keep else ()) + x.dims[axis + 1 :]
    last = 1 if scope.opset >= 12 and scope.chance(0.3) else None
    bound = float(max(x.dims[axis]))
    scope.one(
        scope.random.choice(("ArgMax", "ArgMin")),
        [x],
        Result(INT64, dims, bound, exact=True),
        axis=axis,
        keepdims=keep,
        select_last_index=last,
    )


@emitter(1)
def top_k(scope: Scope) -> None:
    """TopK of exact values; at times only one of its outputs is used."""
    x = scope.pick((FLOAT,), rank=(1, 2, 3), where=lambda v: v.exact)
    axis = scope.random.randrange(x.rank)
    count = scope.random.randint(1, x.size(axis))
    dims = (*x.dims[:axis], fixed(count)[0], *x.dims[axis + 1 :])
    scope.emit(
        "TopK",
        [x, scope.ints(count)],
        Result(FLOAT, dims, x.magnitude, exact=True),
        Result(INT64, dims, float(x.size(axis)), exact=True),
        axis=axis,
        largest=scope.random.randrange(2),
    )


@emitter(2)
def softmax(scope: Scope) -> None:
    """Softmax or LogSoftmax: before opset 13 it flattens to two dims first."""
    x = scope.pick((FLOAT,), rank=(1, 2, 3, 4))
    op = scope.random.choice(("Softmax", "Softmax", "LogSoftmax"))
    axis = scope.random.choice((None, scope.random.randrange(-x.rank, x.rank)))
    if x.rank == 1 and axis is None and scope.opset < 13:
        axis = 0
    bound = 1.0 if op == "Softmax" else 2 * x.magnitude + 5
    scope.one(op, [x], Result(x.dtype, x.dims, bound), axis=axis)


@emitter(1.5)
def layer_norm(scope: Scope) -> None:
    """LayerNormalization, or what exporters write in its place before opset 17."""
    x = scope.pick((FLOAT,), rank=(2, 3, 4))
    width = x.size(-1)
    scale, bias = scope.weight(width, low=0.5, high=1.5), scope.weight(width)
    result = Result(x.dtype, x.dims, width**0.5 * 1.5 + 0.5)
    if scope.opset >= 17 and scope.chance(0.6):
        given = bias if scope.chance(0.7) else None
        scope.one("LayerNormalization", [x, scale, given], result, axis=-1, epsilon=1e-3)
        return
    mean = forms.reduce(scope, "ReduceMean", x, [-1], 1, x.magnitude)
    centred = scope.one("Sub", [x, mean], Result(x.dtype, x.dims, 2 * x.magnitude))
    two = scope.scalar(2.0)
    square = scope.one("Pow", [centred, two], Result(x.dtype, x.dims, 4 * x.magnitude**2))
    variance = forms.reduce(scope, "ReduceMean", square, [-1], 1, 4 * x.magnitude**2)
    shape = Result(x.dtype, variance.dims, 2 * x.magnitude + 1)
    shifted = scope.one("Add", [variance, scope.scalar(1e-3)], shape)
    deviation = scope.one("Sqrt", [shifted], shape)
    normal = scope.one("Div", [centred, deviation], result)
    scaled = scope.one("Mul", [normal, scale], result)
    scope.one("Add", [scaled, bias], result)


@emitter(0.8)
def other_norm(scope: Scope) -> None:
    """InstanceNormalization, LpNormalization, LRN or GroupNormalization."""
    x = scope.pick((FLOAT,), rank=(3, 4))
    channels = x.size(1)
    result = Result(x.dtype, x.dims, 8.0)
    kind = scope.random.choice(("instance", "lp", "lrn", "group"))
    if kind == "instance":
        parameters = [scope.weight(channels, low=0.5, high=1.5), scope.weight(channels)]
        scope.one("InstanceNormalization", [x, *parameters], result, epsilon=1e-2)
    elif kind == "lp":
        shifted = scope.one("Softplus", [x], Result(x.dtype, x.dims, x.magnitude + 1))
        scope.one("LpNormalization", [shifted], result, axis=1, p=2)
    elif kind == "lrn" and x.rank == 4:
        scope.one("LRN", [x], Result(x.dtype, x.dims, x.magnitude), size=3)
    elif kind == "group" and scope.opset >= 21 and channels % 2 == 0:
        parameters = [scope.weight(channels, low=0.5, high=1.5), scope.weight(channels)]
        scope.one("GroupNormalization", [x, *parameters], result, num_groups=2, epsilon=1e-2)
    else:
        raise NotApplicable
