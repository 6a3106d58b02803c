"""Activations and norms in the parts that exporters write them in."""

import numpy as np

from tests.generate import forms
from tests.generate.registry import emitter
from tests.generate.scope import (
    FLOAT,
    NotApplicable,
    Result,
    Scope,
    Value,
    fixed,
    is_static,
)


def _binary(scope: Scope, op: str, left: Value, right: Value, bound: float) -> Value:
    """Two operands, in either order where it does not matter."""
    pair = [right, left] if op in ("Add", "Mul") and scope.chance(0.4) else [left, right]
    dims = left.dims if left.rank >= right.rank else right.dims
    return scope.one(op, pair, Result(FLOAT, dims, bound))


def _number(scope: Scope, number: float) -> Value:
    array = np.array(number, np.float32)
    return scope.constant(array.reshape(1) if scope.chance(0.2) else array)


def _inverse_root(scope: Scope, mean: Value, epsilon: float) -> tuple[Value, bool]:
    """The root of mean + epsilon, or one over it, and whether it is that."""
    bound = mean.magnitude + epsilon
    shifted = _binary(scope, "Add", mean, _number(scope, epsilon), bound)
    root = scope.one("Sqrt", [shifted], Result(FLOAT, mean.dims, bound**0.5))
    draw = scope.random.random()
    if draw < 0.4:
        return root, False
    result = Result(FLOAT, mean.dims, epsilon**-0.5)
    if draw < 0.7:
        return scope.one("Reciprocal", [root], result), True
    return scope.one("Div", [_number(scope, 1.0), root], result), True


def _square(scope: Scope, x: Value) -> Value:
    bound = x.magnitude**2
    if scope.chance(0.5):
        return scope.one("Mul", [x, x], Result(FLOAT, x.dims, bound))
    return scope.one("Pow", [x, _number(scope, 2.0)], Result(FLOAT, x.dims, bound))


def _normalized(scope: Scope, x: Value, mean: Value) -> Value:
    """`x` divided by the root of `mean`."""
    root, inverse = _inverse_root(scope, mean, scope.random.choice((0.5, 1e-1)))
    if inverse:
        return _binary(scope, "Mul", x, root, x.magnitude * 4)
    return scope.one("Div", [x, root], Result(FLOAT, x.dims, x.magnitude * 4))


@emitter(1)
def mish(scope: Scope) -> None:
    """x * tanh(softplus(x)), at times with x itself above a threshold."""
    x = scope.pick()
    soft = scope.one("Softplus", [x], Result(FLOAT, x.dims, x.magnitude + 1))
    if scope.opset >= 9 and x.rank and scope.chance(0.4):
        threshold = _number(scope, scope.random.choice((20.0, 20.0, 1.0)))
        above = scope.one("Greater", [x, threshold], Result(9, x.dims, 1.0))
        soft = scope.one("Where", [above, x, soft], Result(FLOAT, x.dims, x.magnitude + 1))
    gate = scope.one("Tanh", [soft], Result(FLOAT, x.dims, 1.0))
    _binary(scope, "Mul", x, gate, x.magnitude)


@emitter(1)
def softmax(scope: Scope) -> None:
    """Exponentials divided by their sum, the maximum taken away or not."""
    x = scope.pick(rank=(1, 2, 3, 4))
    axis = -1 if scope.chance(0.7) else scope.random.randrange(x.rank)
    if scope.chance(0.6):
        top = forms.reduce(scope, "ReduceMax", x, [axis], 1, x.magnitude)
        power = scope.one("Sub", [x, top], Result(FLOAT, x.dims, 2 * x.magnitude))
    else:
        power = scope.one("Tanh", [x], Result(FLOAT, x.dims, 1.0))
    exponential = scope.one("Exp", [power], Result(FLOAT, x.dims, 2.8))
    other = scope.random.randrange(x.rank) if scope.chance(0.1) else axis
    total = forms.reduce(scope, "ReduceSum", exponential, [other], 1, 2.8 * 64)
    if scope.chance(0.5):
        scope.one("Div", [exponential, total], Result(FLOAT, x.dims, 1.0))
        return
    share = scope.one("Reciprocal", [total], Result(FLOAT, total.dims, 1.0))
    _binary(scope, "Mul", exponential, share, 1.0)


@emitter(1)
def instance_normalization(scope: Scope) -> None:
    """Over the axes behind the channels, or one of them; a scale and a bias in several shapes."""
    x = scope.pick(rank=(3, 4))
    if x.magnitude > 100:
        raise NotApplicable
    axes = list(range(2, x.rank)) if scope.chance(0.8) else [x.rank - 1]
    mean = forms.reduce(scope, "ReduceMean", x, axes, 1, x.magnitude)
    centred = scope.one("Sub", [x, mean], Result(FLOAT, x.dims, 2 * x.magnitude))
    square = _square(scope, centred)
    variance = forms.reduce(scope, "ReduceMean", square, axes, 1, square.magnitude)
    y = _normalized(scope, centred, variance)
    _affine(scope, y)


def _affine(scope: Scope, y: Value) -> None:
    """At times a Mul and an Add: by channel, by the last axis, or by one number."""
    for op in ("Mul", "Add"):
        if scope.chance(0.3):
            break
        channels, last = y.dims[1], y.dims[-1]
        choices: list[tuple[int, ...]] = [()]
        if len(set(channels)) == 1:
            choices.append((channels[0], *[1] * (y.rank - 2)))
        if len(set(last)) == 1:
            choices.append((last[0],))
        constant = scope.weight(*scope.random.choice(choices), low=0.5, high=1.5)
        y = _binary(scope, op, y, constant, y.magnitude * 2 + 2)


@emitter(1)
def rms_normalization(scope: Scope) -> None:
    """x / sqrt(mean(x^2) + e), times a constant of the last axis."""
    x = scope.pick(rank=(2, 3, 4))
    if x.magnitude > 100:
        raise NotApplicable
    axes = [-1] if scope.chance(0.8) else [scope.random.randrange(x.rank)]
    square = _square(scope, x)
    mean = forms.reduce(scope, "ReduceMean", square, axes, 1, square.magnitude)
    y = _normalized(scope, x, mean)
    _affine(scope, y)


def _part(scope: Scope, x: Value, begin: int, end: int) -> Value:
    """Places of the last axis."""
    axis = scope.random.choice((-1, x.rank - 1))
    limits = [scope.ints(begin), scope.ints(end), scope.ints(axis)]
    dims = (*x.dims[:-1], fixed(min(end, x.size(-1)) - begin)[0])
    return scope.one("Slice", [x, *limits], Result(FLOAT, dims, x.magnitude))


@emitter(1)
def rotary_embedding(scope: Scope) -> None:
    """x * cos + [-x2, x1] * sin, the angles computed for each batch and position, or constants."""
    x = scope.pick(rank=(4,), where=lambda v: is_static(v.dims[-1]) and v.size(-1) % 2 == 0)
    size = x.size(-1)
    half = size // 2
    if scope.chance(0.7):
        mean = forms.reduce(scope, "ReduceMean", x, [1], 0, x.magnitude)
        angles = _part(scope, mean, 0, half)
        dims = (*angles.dims[:-1], fixed(size)[0])
        both = scope.one("Concat", [angles, angles], Result(FLOAT, dims, angles.magnitude), axis=2)
        turns = [scope.one(op, [both], Result(FLOAT, dims, 1.0)) for op in ("Cos", "Sin")]
        cosines, sines = (forms.unsqueeze(scope, turn, [1]) for turn in turns)
    else:
        table = scope.numpy.uniform(-1, 1, (1, 1, x.size(2), half)).astype(np.float32)
        other = table if scope.chance(0.8) else table * np.float32(0.5)
        cosines = scope.constant(np.concatenate([table, other], -1))
        sines = scope.constant(np.concatenate([table, table], -1))
    if scope.chance(0.6):
        first, second = _part(scope, x, 0, half), _part(scope, x, half, 2**63 - 1)
    else:
        first, second = forms.split(scope, x, -1, [half, half])
    minus = scope.one("Neg", [second], Result(FLOAT, second.dims, x.magnitude))
    order = [minus, first] if scope.chance(0.9) else [first, minus]
    turned = scope.one("Concat", order, Result(FLOAT, x.dims, x.magnitude), axis=-1)
    one = _binary(scope, "Mul", x, cosines, x.magnitude)
    other_one = _binary(scope, "Mul", turned, sines, x.magnitude)
    _binary(scope, "Add", one, other_one, 2 * x.magnitude)


@emitter(1)
def attention(scope: Scope) -> None:
    """Each head attends to itself; at times under a constant mask."""
    x = scope.pick(rank=(4,))
    if x.magnitude > 20:
        raise NotApplicable
    turned_dims = (*x.dims[:2], x.dims[3], x.dims[2])
    turned = scope.one("Transpose", [x], Result(FLOAT, turned_dims, x.magnitude), perm=[0, 1, 3, 2])
    bound = x.magnitude**2 * max(x.dims[3])
    dims = (*x.dims[:3], x.dims[2])
    scores = scope.one("MatMul", [x, turned], Result(FLOAT, dims, bound))
    scores = _binary(scope, "Mul", scores, _number(scope, 1 / 16), bound / 16)
    if is_static(x.dims[2]) and scope.chance(0.4):
        size = x.size(2)
        mask = np.where(scope.numpy.uniform(size=(size, size)) < 0.4, -100, 0).astype(np.float32)
        scores = _binary(scope, "Add", scores, scope.constant(mask), bound + 100)
    weights = scope.one("Softmax", [scores], Result(FLOAT, dims, 1.0), axis=-1)
    scope.one("MatMul", [weights, x], Result(FLOAT, x.dims, x.magnitude))
