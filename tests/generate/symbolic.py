"""Shape arithmetic, random ops whose values do not matter, duplicates, QDQ."""

import numpy as np
import onnx
import onnx.helper

from tests.generate import forms
from tests.generate.registry import emitter
from tests.generate.scope import (
    BOOL,
    FLOAT,
    INT8,
    INT64,
    UINT8,
    NotApplicable,
    Result,
    Scope,
    Value,
    elements,
    fixed,
    is_static,
)


def shape_of(scope: Scope, x: Value) -> Value:
    """Shape; from opset 15 on at times with start and end spelled out."""
    spelled = {"start": 0, "end": x.rank} if scope.opset >= 15 and scope.chance(0.2) else {}
    dims = fixed(x.rank)
    return scope.one("Shape", [x], Result(INT64, dims, 16.0, exact=True), **spelled)


def dim_of(scope: Scope, x: Value, axis: int) -> Value:
    """One dim as a 1-element vector: Gather (scalar or vector), Slice, or Shape with start."""
    vector = Result(INT64, fixed(1), 16.0, exact=True)
    kind = scope.random.randrange(4)
    if kind == 0 and scope.opset >= 15:
        return scope.one("Shape", [x], vector, start=axis, end=axis + 1)
    shape = shape_of(scope, x)
    if kind == 1:
        return scope.one("Slice", [shape, scope.ints(axis), scope.ints(axis + 1)], vector)
    if kind == 2:
        return scope.one("Gather", [shape, scope.ints(axis)], vector, axis=0)
    scalar = Result(INT64, (), 16.0, exact=True)
    index = scope.scalar(axis, np.int64)
    return forms.unsqueeze(scope, scope.one("Gather", [shape, index], scalar, axis=0), [0])


@emitter(0.8)
def grid_gather(scope: Scope) -> None:
    """GatherND of a matrix by ranges on axes of their own, over all of it or all but a row."""
    if scope.opset < 11:
        raise NotApplicable
    x = scope.pick((FLOAT, INT64), rank=(2,))
    if scope.chance(0.2):
        x = scope.one("Neg", [x], Result(x.dtype, x.dims, x.magnitude))
    places = scope.random.choice(((0, 1), (1, 0), (0, 2), (0, 3), (2, 0), (1, 3)))
    rank = max(places) + 1 + scope.random.randrange(2)
    first = 1 if scope.chance(0.2) and min(x.dims[0]) > 1 else 0
    ranges = []
    for axis, place in enumerate(places):
        scalar = forms.squeeze(scope, dim_of(scope, x, axis), [0])
        start = first if axis == 0 else 0
        dim = tuple(size - start for size in x.dims[axis])
        bounds = [scope.scalar(start, np.int64), scalar, scope.scalar(1, np.int64)]
        counted = scope.one("Range", bounds, Result(INT64, (dim,), 8.0, True))
        shape = [-1 if at == place else 1 for at in range(rank)]
        dims = tuple(dim if at == place else fixed(1)[0] for at in range(rank))
        ranges.append(
            scope.one("Reshape", [counted, scope.ints(*shape)], Result(INT64, dims, 8.0, True))
        )
    grid = tuple(
        ranges[places.index(at)].dims[at] if at in places else fixed(1)[0] for at in range(rank)
    )
    largest = scope.one("Add", ranges, Result(INT64, grid, 16.0, True))
    target = scope.one("Shape", [largest], Result(INT64, fixed(rank), 8.0, True))
    columns = [
        forms.unsqueeze(
            scope, scope.one("Expand", [each, target], Result(INT64, grid, 8.0)), [rank]
        )
        for each in ranges
    ]
    indices = scope.one("Concat", columns, Result(INT64, (*grid, fixed(2)[0]), 8.0), axis=-1)
    scope.one("GatherND", [x, indices], Result(x.dtype, grid, x.magnitude))


@emitter(3)
def reshape_by_shape(scope: Scope) -> None:
    """Reshape to Concat(dims of the input, products of dims, constants, -1)."""
    x = scope.pick(rank=(2, 3, 4))
    parts: list[Value] = []
    dims = []
    axis = 0
    rest_given = False
    while axis < x.rank:
        vector = Result(INT64, fixed(1), 64.0, exact=True)
        if axis + 1 < x.rank and scope.chance(0.4):
            dims.append(tuple(a * b for a, b in zip(x.dims[axis], x.dims[axis + 1], strict=True)))
            if not rest_given and scope.chance(0.4):
                parts.append(scope.ints(-1))
                rest_given = True
            else:
                pair = [dim_of(scope, x, axis), dim_of(scope, x, axis + 1)]
                parts.append(scope.one("Mul", pair, vector))
            axis += 2
            continue
        dims.append(x.dims[axis])
        if is_static(x.dims[axis]) and scope.chance(0.5):
            parts.append(scope.ints(x.dims[axis][0]))
        elif not rest_given and scope.chance(0.2):
            parts.append(scope.ints(-1))
            rest_given = True
        else:
            parts.append(dim_of(scope, x, axis))
        axis += 1
    count = fixed(len(parts))
    target = scope.one("Concat", parts, Result(INT64, count, 64.0, exact=True), axis=0)
    scope.one("Reshape", [x, target], Result(x.dtype, tuple(dims), x.magnitude, x.exact))


@emitter(1.5)
def filled_by_shape(scope: Scope) -> None:
    """ConstantOfShape of a shape, used in arithmetic; or Expand to a shape."""
    x = scope.pick(rank=(1, 2, 3))
    shape = shape_of(scope, x)
    if scope.chance(0.5):
        one = scope.weight(*[1] * scope.random.randrange(x.rank + 1))
        scope.one("Expand", [one, shape], Result(FLOAT, x.dims, one.magnitude, exact=True))
        return
    number = scope.random.choice((0.0, 1.0, 0.5))
    fill = onnx.helper.make_tensor("value", FLOAT, [1], [number])
    result = Result(FLOAT, x.dims, number, exact=True)
    filled = scope.one("ConstantOfShape", [shape], result, value=fill)
    op = scope.random.choice(("Add", "Mul"))
    scope.one(op, [x, filled], Result(FLOAT, x.dims, x.magnitude + number))


@emitter(1)
def range_of_dim(scope: Scope) -> None:
    """Range(0, dim, 1): positions, as exporters write them."""
    x = scope.pick(rank=(1, 2, 3))
    axis = scope.random.randrange(x.rank)
    if max(x.dims[axis]) > 64:
        raise NotApplicable
    dim = forms.squeeze(scope, dim_of(scope, x, axis), [0])
    bounds = [scope.scalar(0, np.int64), dim, scope.scalar(1, np.int64)]
    bound = float(max(x.dims[axis]))
    scope.one("Range", bounds, Result(INT64, (x.dims[axis],), bound, exact=True))


@emitter(0.7)
def sized(scope: Scope) -> None:
    """Size, as a scale, or a division of dims."""
    x = scope.pick(rank=(1, 2, 3))
    if elements(x.dims) > 512:
        raise NotApplicable
    size = scope.one("Size", [x], Result(INT64, (), 512.0, exact=True))
    as_float = scope.one("Cast", [size], Result(FLOAT, (), 512.0, exact=True), to=FLOAT)
    scope.one("Div", [x, as_float], Result(FLOAT, x.dims, x.magnitude))


@emitter(0.8)
def random_but_unseen(scope: Scope) -> None:
    """A random op of which only the shape matters, or one that draws from [c, c)."""
    if scope.opset >= 22:
        raise NotApplicable  # ONNX Runtime has no kernels for the newer versions
    x = scope.pick(rank=(1, 2, 3))
    kind = scope.random.randrange(3)
    if kind == 0:
        scope.one("RandomUniformLike", [x], Result(FLOAT, x.dims, 1.5), low=1.5, high=1.5)
        return
    if kind == 1:
        noise = scope.one("RandomNormalLike", [x], Result(FLOAT, x.dims))
    else:
        shape = [3, 2]
        noise = scope.one("RandomNormal", [], Result(FLOAT, fixed(*shape)), shape=shape)
    scope.values.remove(noise)  # no output may depend on its numbers
    shape_of(scope, noise)


@emitter(2)
def duplicate(scope: Scope) -> None:
    """A second copy of a node already in this scope."""
    owned = {value.name: value for value in scope.values}
    suited = [
        node
        for node in scope.nodes
        if all(name in owned for name in node.output)
        and node.op_type not in ("If", "Loop", "Scan")
        and not node.op_type.startswith("Random")
    ]
    if not suited:
        raise NotApplicable
    copy = onnx.NodeProto()
    copy.CopyFrom(scope.random.choice(suited))
    copy.name = ""
    originals = [owned[name] for name in copy.output]
    del copy.output[:]
    for value in originals:
        twin = Value(scope.name(), value.dtype, value.dims, value.magnitude, value.exact)
        copy.output.append(twin.name)
        scope.values.append(twin)
    scope.nodes.append(copy)


@emitter(1.5)
def quantized(scope: Scope) -> None:
    """QuantizeLinear and DequantizeLinear around an exact value, then a layer on int8 weights."""
    x = scope.pick(where=lambda v: v.exact)
    kind, dtype = (np.uint8, UINT8) if scope.chance(0.5) else (np.int8, INT8)
    scale = scope.scalar(scope.random.choice((0.05, 0.1)))
    zero = scope.constant(np.array(3, kind))
    q = scope.one("QuantizeLinear", [x, scale, zero], Result(dtype, x.dims, 255.0, exact=True))
    result = Result(FLOAT, x.dims, min(x.magnitude, 14.0) + 0.1, exact=True)
    y = scope.one("DequantizeLinear", [q, scale, zero], result)
    if y.rank < 2 or not is_static(y.dims[-1]) or scope.opset < 13:
        return
    width = y.size(-1)
    weight = scope.constant(scope.numpy.randint(-127, 128, (width, 3)).astype(np.int8))
    scales = scope.weight(3, low=0.005, high=0.01)
    real = scope.one(
        "DequantizeLinear", [weight, scales], Result(FLOAT, fixed(width, 3), 1.3), axis=1
    )
    scope.one("MatMul", [y, real], Result(FLOAT, y.dims[:-1] + fixed(3), 4 + y.magnitude))


@emitter(0.7)
def non_zero_mask(scope: Scope) -> None:
    """IsNaN of a value, as masks are guarded: all false."""
    x = scope.pick()
    mask = scope.one("IsNaN", [x], Result(BOOL, x.dims, 1.0, exact=True))
    scope.one("Where", [mask, scope.scalar(0.0), x], Result(FLOAT, x.dims, x.magnitude))
