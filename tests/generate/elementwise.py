"""Elementwise ops: unary, binary with broadcasting, comparisons, Where, Cast, Clip."""

import contextlib
import math

import numpy as np

from tests.generate.registry import emitter
from tests.generate.scope import (
    BOOL,
    DOUBLE,
    FLOAT,
    FLOATS,
    HALF,
    INT32,
    INT64,
    INTEGERS,
    Dims,
    NotApplicable,
    Result,
    Scope,
    Value,
    broadcast,
    elements,
    fixed,
    numpy_type,
)

# Op: first opset, bound of the result from the bound of the operand, exactness kept.
SMOOTH = {
    "Relu": (1, lambda m: m, True),
    "Neg": (1, lambda m: m, True),
    "Abs": (1, lambda m: m, True),
    "Sigmoid": (1, lambda m: 1.0, False),
    "Tanh": (1, lambda m: 1.0, False),
    "LeakyRelu": (1, lambda m: m, False),
    "Elu": (1, lambda m: m, False),
    "Selu": (1, lambda m: 2 * m, False),
    "Softplus": (1, lambda m: m + 1, False),
    "Softsign": (1, lambda m: 1.0, False),
    "HardSigmoid": (1, lambda m: 1.0, False),
    "Erf": (9, lambda m: 1.0, False),
    "Sin": (7, lambda m: 1.0, False),
    "Cos": (7, lambda m: 1.0, False),
    "Atan": (7, lambda m: 1.6, False),
    "HardSwish": (14, lambda m: m, False),
    "Celu": (12, lambda m: m, False),
    "Mish": (18, lambda m: m, False),
    "Gelu": (20, lambda m: m, False),
}
STEPS = ("Floor", "Ceil", "Round", "Sign")
BINARY = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a + b,
    "Mul": lambda a, b: a * b,
    "Max": max,
    "Min": max,
}


@emitter(4)
def unary(scope: Scope) -> None:
    """A smooth unary op."""
    op = scope.random.choice(sorted(SMOOTH))
    since, bound, keeps_exact = SMOOTH[op]
    if scope.opset < since:
        raise NotApplicable
    kinds = (*FLOATS, INT64, INT32) if op in ("Neg", "Abs") else (FLOAT,)
    x = scope.pick(kinds if scope.chance(0.3) else kinds[:1])
    attributes = {}
    if op in ("LeakyRelu", "Elu") and scope.chance(0.5):
        attributes["alpha"] = 0.25
    if op == "Gelu" and scope.chance(0.5):
        attributes["approximate"] = "tanh"
    result = Result(x.dtype, x.dims, bound(x.magnitude), x.exact and keeps_exact)
    scope.one(op, [x], result, **attributes)


@emitter(1)
def bounded_unary(scope: Scope) -> None:
    """Exp, Sqrt, Log, Reciprocal, Pow, on operands where they are tame."""
    x = scope.pick()
    op = scope.random.choice(("Exp", "Sqrt", "Log", "Reciprocal", "Pow"))
    result = Result(x.dtype, x.dims, x.magnitude + 1)
    if op == "Exp":
        if x.magnitude > 4:
            x = scope.one("Tanh", [x], Result(x.dtype, x.dims, 1.0))
        scope.one("Exp", [x], Result(x.dtype, x.dims, math.exp(x.magnitude)))
        return
    positive = scope.one("Abs", [x], Result(x.dtype, x.dims, x.magnitude, x.exact))
    positive = scope.one("Add", [positive, scope.scalar(1.0)], result)
    if op == "Pow":
        exponent = scope.random.choice((0.5, 1.0, 2.0, 3.0))
        bound = (x.magnitude + 1) ** exponent
        kind = np.float32 if scope.chance(0.7) or scope.opset < 12 else np.int64
        exponent = exponent if kind is np.float32 else 2
        scope.one("Pow", [positive, scope.scalar(exponent, kind)], Result(x.dtype, x.dims, bound))
    else:
        scope.one(op, [positive], result)


@emitter(1)
def step(scope: Scope) -> None:
    """A discontinuous unary op, on exact values only."""
    x = scope.pick((FLOAT, DOUBLE), where=lambda v: v.exact)
    op = scope.random.choice(STEPS)
    scope.one(op, [x], Result(x.dtype, x.dims, x.magnitude + 1, exact=True))


def other_operand(scope: Scope, x: Value) -> Value:
    """A value or a constant that broadcasts with `x`."""
    if scope.chance(0.5):
        try:
            return scope.pick((x.dtype,), where=lambda v: _fits(v.dims, x.dims))
        except NotApplicable:
            pass
    shape = [1 if len(set(dim)) > 1 or scope.chance(0.4) else dim[0] for dim in x.dims]
    shape = shape[scope.random.randrange(len(shape) + 1) :]
    if scope.chance(0.1) and len(shape) < 4:
        shape = [1] * (len(x.dims) - len(shape) + 1) + shape  # raises the rank
    array = scope.numpy.uniform(-1, 1, shape)
    if x.dtype in INTEGERS:
        array = np.round(array * 3)
    return scope.constant(array.astype(numpy_type(x.dtype)))


def _fits(left: Dims, right: Dims) -> bool:
    result = broadcast(left, right)
    return result is not None and elements(result) <= 1024


def _broadcast(left: Dims, right: Dims) -> Dims:
    dims = broadcast(left, right)
    if dims is None:
        raise NotApplicable
    return dims


@emitter(5)
def binary(scope: Scope) -> None:
    """Arithmetic with broadcasting, the constant on either side."""
    x = scope.pick((FLOAT, DOUBLE, HALF, INT64, INT32) if scope.chance(0.4) else (FLOAT,))
    op = scope.random.choice(sorted(BINARY))
    if op in ("Max", "Min") and (x.dtype == HALF or (x.dtype in INTEGERS and scope.opset < 12)):
        raise NotApplicable
    y = other_operand(scope, x)
    bound = BINARY[op](x.magnitude, y.magnitude)
    if x.dtype in INTEGERS and bound > 1e6:
        raise NotApplicable
    pair = [x, y] if scope.chance(0.6) else [y, x]
    exact = x.exact and y.exact and (x.dtype in INTEGERS or op in ("Max", "Min"))
    scope.one(op, pair, Result(x.dtype, _broadcast(x.dims, y.dims), bound, exact))


@emitter(2)
def divide(scope: Scope) -> None:
    """Div by a constant away from zero; integers divide towards zero."""
    x = scope.pick((FLOAT, DOUBLE, INT64, INT32))
    dims = [1 if len(set(dim)) > 1 else dim[0] for dim in x.dims]
    array = scope.numpy.uniform(0.5, 3, dims[scope.random.randrange(len(dims) + 1) :])
    if x.dtype in INTEGERS:
        array = np.ceil(array) * (-1 if scope.chance(0.3) else 1)
    y = scope.constant(array.astype(numpy_type(x.dtype)))
    exact = x.exact and x.dtype in INTEGERS
    op = "Mod" if x.dtype in INTEGERS and scope.chance(0.3) else "Div"
    scope.one(op, [x, y], Result(x.dtype, x.dims, 2 * x.magnitude, exact))


@emitter(1)
def variadic(scope: Scope) -> None:
    """Sum, Mean, Max, Min of one to three operands."""
    x = scope.pick()
    operands = [x] + [other_operand(scope, x) for _ in range(scope.random.randrange(3))]
    dims = x.dims
    for operand in operands:
        dims = _broadcast(dims, operand.dims)
    op = scope.random.choice(("Sum", "Mean", "Max", "Min"))
    bound = sum(operand.magnitude for operand in operands)
    scope.one(op, operands, Result(x.dtype, dims, bound))


@emitter(2)
def compare_and_select(scope: Scope) -> None:
    """A comparison of exact values, logic on it, and Where."""
    x = scope.pick((FLOAT, INT64, INT32), where=lambda v: v.exact)
    y = scope.constant(scope.numpy.randint(-1, 2, ()).astype(numpy_type(x.dtype)))
    op = scope.random.choice(("Greater", "Less", "Equal"))
    if op == "Greater" and scope.opset >= 12 and scope.chance(0.4):
        op = "GreaterOrEqual"
    mask = scope.one(op, [x, y], Result(BOOL, x.dims, 1.0, exact=True))
    if scope.chance(0.5):
        mask = scope.one("Not", [mask], Result(BOOL, mask.dims, 1.0, exact=True))
    if scope.chance(0.6):
        a = scope.pick((FLOAT,), where=lambda v: _fits(v.dims, mask.dims))
        dims = _broadcast(mask.dims, a.dims)
        b = other_operand(scope, a)
        bound = max(a.magnitude, b.magnitude)
        scope.one("Where", [mask, a, b], Result(a.dtype, _broadcast(dims, b.dims), bound))


@emitter(1)
def logic(scope: Scope) -> None:
    """And, Or, Xor of two masks."""
    x = scope.pick((BOOL,))
    y = scope.pick((BOOL,), where=lambda v: _fits(v.dims, x.dims))
    op = scope.random.choice(("And", "Or", "Xor"))
    scope.one(op, [x, y], Result(BOOL, _broadcast(x.dims, y.dims), 1.0, exact=True))


@emitter(1)
def where_constant(scope: Scope) -> None:
    """Where with a constant condition, all one value or mixed."""
    x = scope.pick()
    y = other_operand(scope, x)
    size = () if scope.chance(0.5) else (1,)
    condition = scope.constant(scope.numpy.randint(0, 2, size).astype(np.bool_))
    bound = max(x.magnitude, y.magnitude)
    dims = _broadcast(_broadcast(x.dims, y.dims), condition.dims)
    scope.one("Where", [condition, x, y], Result(x.dtype, dims, bound))


@emitter(2.5)
def cast(scope: Scope) -> None:
    """Cast or CastLike, at times there and back again."""
    x = scope.pick((FLOAT, DOUBLE, HALF, INT64, INT32, BOOL))
    widening = {BOOL: (FLOAT, INT64, INT32), INT32: (INT64, FLOAT), INT64: (INT32, FLOAT, DOUBLE)}
    targets = widening.get(x.dtype, (FLOAT, DOUBLE, HALF))
    if x.dtype in FLOATS and x.exact:
        targets = (*targets, INT64, INT32, BOOL)
    if x.magnitude > 60:
        raise NotApplicable
    target = scope.random.choice(targets)
    exact = x.exact and not (target == HALF or (x.dtype == DOUBLE and target in FLOATS))
    result = Result(target, x.dims, x.magnitude, exact)
    if scope.opset >= 15 and scope.chance(0.2):
        like = scope.constant(np.zeros((), numpy_type(target)))
        y = scope.one("CastLike", [x, like], result)
    else:
        y = scope.one("Cast", [x], result, to=target)
    if scope.chance(0.4) and (x.dtype in FLOATS) == (target in FLOATS):
        scope.one("Cast", [y], Result(x.dtype, x.dims, x.magnitude), to=x.dtype)


@emitter(1)
def lossy_cast(scope: Scope) -> None:
    """A Cast that loses something, and back: no identity."""
    x = scope.pick((FLOAT, INT64), where=lambda v: v.exact and v.magnitude < 60)
    narrow = scope.random.choice((INT64, INT32, BOOL) if x.dtype == FLOAT else (BOOL,))
    y = scope.one("Cast", [x], Result(narrow, x.dims, x.magnitude, exact=True), to=narrow)
    scope.one("Cast", [y], Result(x.dtype, x.dims, x.magnitude, exact=True), to=x.dtype)


@emitter(0.6)
def clip_both_ways(scope: Scope) -> None:
    """The same bound once as the lower one and once as the upper one."""
    x = scope.pick()
    bound = scope.scalar(0.25)
    result = Result(x.dtype, x.dims, x.magnitude + 0.25, x.exact)
    first = scope.one("Clip", [x, bound], result)
    second = scope.one("Clip", [x, None, bound], result)
    if scope.chance(0.5):
        scope.one("Sub", [first, second], Result(x.dtype, x.dims, 2 * x.magnitude))


@emitter(1.5)
def clip(scope: Scope) -> None:
    """Clip with its bounds present or omitted; one bound may come from data."""
    x = scope.pick((FLOAT, DOUBLE) if scope.chance(0.2) else (FLOAT,))
    kind = numpy_type(x.dtype)
    low = scope.constant(np.array(-0.5, kind)) if scope.chance(0.6) else None
    high = scope.constant(np.array(0.75, kind)) if scope.chance(0.6) else None
    result = Result(x.dtype, x.dims, max(1.0, x.magnitude), x.exact)
    y = scope.one("Clip", [x, low, high], result)
    if scope.chance(0.4):
        scope.one("Clip", [y, high, None] if scope.chance(0.3) else [y, low, high], result)


@emitter(1.2)
def clip_chain(scope: Scope) -> None:
    """Two or three of Relu, Clip, Min and Max by a number, one behind the other."""
    x = scope.pick((FLOAT, DOUBLE, INT64, INT32) if scope.chance(0.4) else (FLOAT,))
    if x.dtype in INTEGERS and scope.opset < 12:
        raise NotApplicable
    kind = numpy_type(x.dtype)
    bounds = (-2, 0, 1) if x.dtype in INTEGERS else (-0.5, 0.0, 0.25, 6.0)
    kinds = ("Min", "Max", "Clip") if x.dtype in INTEGERS else ("Min", "Max", "Clip", "Relu")
    for _ in range(scope.random.randint(2, 3)):
        op = scope.random.choice(kinds)
        low, high = (scope.constant(np.array(scope.random.choice(bounds), kind)) for _ in range(2))
        result = Result(x.dtype, x.dims, max(6.0, x.magnitude), x.exact)
        if op == "Relu":
            operands: list[Value | None] = [x]
        elif op == "Clip":
            operands = [x, low, high if scope.chance(0.6) else None]
        else:
            operands = [x, low] if scope.chance(0.6) else [low, x]
        x = scope.one(op, operands, result)


@emitter(1)
def expanded_operand(scope: Scope) -> None:
    """Expand to the shape of another value, or to sizes, and arithmetic with that value."""
    x = scope.pick((FLOAT, INT64) if scope.chance(0.3) else (FLOAT,), rank=(1, 2, 3, 4))
    shape = [1 if len(set(dim)) > 1 or scope.chance(0.5) else dim[0] for dim in x.dims]
    shape = shape[scope.random.randrange(len(shape)) :]
    array = scope.numpy.uniform(-1, 1, shape)
    if x.dtype in INTEGERS:
        array = np.round(array * 3)
    small = scope.constant(array.astype(numpy_type(x.dtype)))
    if x.dtype == FLOAT and scope.chance(0.5):
        # What only data tell is not folded.
        with contextlib.suppress(NotApplicable):
            small = scope.pick(where=lambda v: broadcast(v.dims, x.dims) == x.dims)
    if x.is_static and scope.chance(0.5):
        sizes = scope.ints(*(dim[0] for dim in x.dims))
    else:
        sizes = scope.one("Shape", [x], Result(INT64, fixed(x.rank), 8.0, exact=True))
    wide = scope.one("Expand", [small, sizes], Result(x.dtype, x.dims, small.magnitude))
    op = scope.random.choice(("Add", "Mul", "Sub", "Where"))
    if x.dtype in INTEGERS and x.magnitude > 1e5:
        raise NotApplicable
    result = Result(x.dtype, x.dims, BINARY.get(op, max)(x.magnitude, small.magnitude))
    other = x if scope.chance(0.7) else wide
    if op == "Where":
        zero = scope.constant(np.array(scope.chance(0.5)))
        scope.one("Where", [zero, other, wide], result)
    else:
        scope.one(op, [wide, other] if scope.chance(0.5) else [other, wide], result)


@emitter(0.7)
def prelu(scope: Scope) -> None:
    """PRelu with a slope that is shared or per channel."""
    x = scope.pick((FLOAT,), rank=(2, 3, 4))
    slope = (
        scope.weight(1)
        if scope.chance(0.4)
        else scope.weight(x.size(1), *([1] * (x.rank - 2)), low=0.0, high=0.5)
    )
    scope.one("PRelu", [x, slope], Result(x.dtype, x.dims, x.magnitude))
