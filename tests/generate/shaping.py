"""Ops that move data: Reshape, Transpose, Slice, Gather, Concat, Split, Pad, Tile, ..."""

import numpy as np

from tests.generate import forms
from tests.generate.registry import emitter
from tests.generate.scope import (
    BOOL,
    DOUBLE,
    FLOAT,
    HALF,
    INT32,
    INT64,
    Dim,
    NotApplicable,
    Result,
    Scope,
    Value,
    elements,
    fixed,
    is_static,
    numpy_type,
)

MOVABLE = (FLOAT, DOUBLE, HALF, INT64, INT32, BOOL)


def movable(scope: Scope, *ranks: int) -> Value:
    """Any tensor, float32 most often."""
    kinds = MOVABLE if scope.chance(0.3) else (FLOAT,)
    return scope.pick(kinds, rank=ranks or None)


def like(value: Value, dims: tuple[Dim, ...]) -> Result:
    return Result(value.dtype, dims, value.magnitude, value.exact)


@emitter(3)
def reshape(scope: Scope) -> None:
    """Reshape to a constant target with 0 and -1; at times a chain of two."""
    x = movable(scope, 2, 3, 4)
    for _ in range(scope.random.choice((1, 1, 2))):
        groups = _regrouped(scope, x)
        dims = tuple(dim for dim, _ in groups)
        target = [entry for _, entry in groups]
        if target.count(-1) > 1:
            raise NotApplicable
        zero_is_copy = 0 in target
        allow = 1 if scope.opset >= 14 and not zero_is_copy and scope.chance(0.2) else None
        x = scope.one("Reshape", [x, scope.ints(*target)], like(x, dims), allowzero=allow)


def _regrouped(scope: Scope, x: Value) -> list[tuple[Dim, int]]:
    """Each new dim with its entry in the target: dims are kept (0), merged (-1) or split."""
    dims: list[tuple[Dim, int]] = []
    axis = 0
    while axis < x.rank:
        dim = x.dims[axis]
        draw = scope.random.random()
        if axis + 1 < x.rank and draw < 0.35:
            merged = tuple(a * b for a, b in zip(dim, x.dims[axis + 1], strict=True))
            dims.append((merged, merged[0] if is_static(merged) else -1))
            axis += 2
            continue
        if is_static(dim) and dim[0] % 2 == 0 and draw < 0.5 and len(dims) < 4:
            dims += [(fixed(2)[0], 2), (fixed(dim[0] // 2)[0], dim[0] // 2)]
        elif not is_static(dim):
            # 0 copies the dim of its own position.
            entry = 0 if dims == [] and axis == 0 else -1
            dims.append((dim, entry))
        else:
            dims.append((dim, dim[0]))
        axis += 1
    if not any(entry == -1 for _, entry in dims) and scope.chance(0.4):
        index = scope.random.randrange(len(dims))
        dims[index] = (dims[index][0], -1)
    return dims


@emitter(3)
def transpose(scope: Scope) -> None:
    """Transpose; without perm it reverses; at times followed by another."""
    x = movable(scope, 2, 3, 4)
    perm = list(range(x.rank))
    scope.random.shuffle(perm)
    if scope.chance(0.2):
        perm = perm[::-1] if perm == sorted(perm) else list(range(x.rank))[::-1]
        y = scope.one("Transpose", [x], like(x, x.dims[::-1]))
        perm = list(range(x.rank))[::-1]
    else:
        y = scope.one("Transpose", [x], like(x, tuple(x.dims[p] for p in perm)), perm=perm)
    if scope.chance(0.4):
        back = [perm.index(axis) for axis in range(x.rank)]
        if scope.chance(0.3):
            scope.random.shuffle(back)
        scope.one("Transpose", [y], like(x, tuple(y.dims[p] for p in back)), perm=back)


@emitter(1.5)
def squeeze(scope: Scope) -> None:
    """Squeeze of one unit dim."""
    x = movable(scope, 2, 3, 4)
    units = [axis for axis, dim in enumerate(x.dims) if dim == fixed(1)[0]]
    if not units:
        raise NotApplicable
    axis = scope.random.choice(units)
    forms.squeeze(scope, x, [axis - x.rank if scope.chance(0.3) else axis])


@emitter(1.5)
def unsqueeze(scope: Scope) -> None:
    """Unsqueeze, at times undone at once."""
    x = movable(scope, 0, 1, 2, 3)
    axis = scope.random.randrange(x.rank + 1)
    y = forms.unsqueeze(scope, x, [axis])
    if scope.chance(0.3):
        forms.squeeze(scope, y, [axis])


@emitter(1)
def flatten(scope: Scope) -> None:
    """Flatten at any axis."""
    x = scope.pick((FLOAT,), rank=(2, 3, 4))
    axis = scope.random.randrange(x.rank + 1)

    def product(dims: tuple[Dim, ...]) -> Dim:
        return tuple(int(np.prod(sizes)) for sizes in zip(fixed(1)[0], *dims, strict=True))

    dims = (product(x.dims[:axis]), product(x.dims[axis:]))
    scope.one("Flatten", [x], like(x, dims), axis=axis if axis != 1 or scope.chance(0.5) else None)


@emitter(1.5)
def expand(scope: Scope) -> None:
    """Expand of unit dims, or to a shape that changes nothing."""
    x = movable(scope, 1, 2, 3)
    target, dims = [], []
    for dim in x.dims:
        grown = 3 if dim == fixed(1)[0] and scope.chance(0.6) else 1
        target.append(grown)
        dims.append(fixed(grown)[0] if grown > 1 else dim)
    if scope.chance(0.3):
        leading = scope.random.choice((1, 2))
        target, dims = [leading, *target], [fixed(leading)[0], *dims]
    scope.one("Expand", [x, scope.ints(*target)], like(x, tuple(dims)))


@emitter(2.5)
def slice_(scope: Scope) -> None:
    """Slice with negative bounds and steps; axes and steps may be omitted."""
    x = movable(scope, 1, 2, 3, 4)
    axis = scope.random.randrange(x.rank)
    size = x.size(axis)
    begin = scope.random.randrange(size)
    end = scope.random.randrange(begin + 1, size + 1)
    stride = scope.random.choice((1, 1, 1, 2, -1))
    length = len(range(begin, end, abs(stride)))
    start, stop = begin, end if end < size or scope.chance(0.5) else 2**62
    if stride < 0:
        start, stop = end - 1, begin - 1 if begin else -(2**62)
    elif scope.chance(0.3) and stop != 2**62:
        start, stop = start - size, stop if stop == size else stop - size
    dims = (*x.dims[:axis], fixed(length)[0], *x.dims[axis + 1 :])
    axes = None
    if axis or stride != 1 or scope.chance(0.5):
        axes = scope.ints(axis - x.rank if scope.chance(0.3) else axis)
    steps = scope.ints(stride) if stride != 1 or (axes and scope.chance(0.3)) else None
    scope.one("Slice", [x, scope.ints(start), scope.ints(stop), axes, steps], like(x, tuple(dims)))


@emitter(2)
def gather(scope: Scope) -> None:
    """Gather with a scalar, vector or matrix of constant indices, some negative."""
    x = movable(scope, 1, 2, 3)
    axis = scope.random.randrange(x.rank)
    size = x.size(axis)
    shape = scope.random.choice(((), (2,), (1,), (2, 2)))
    kind = np.int64 if scope.chance(0.7) else np.int32
    indices = scope.constant(scope.numpy.randint(-size, size, shape).astype(kind))
    dims = x.dims[:axis] + fixed(*shape) + x.dims[axis + 1 :]
    scope.one("Gather", [x, indices], like(x, dims), axis=axis or None)


@emitter(0.7)
def gather_elements(scope: Scope) -> None:
    """GatherElements along one axis of a static tensor."""
    x = scope.pick((FLOAT,), rank=(2, 3), where=lambda v: v.is_static)
    axis = scope.random.randrange(x.rank)
    shape = [dim[0] for dim in x.dims]
    indices = scope.constant(scope.numpy.randint(0, x.size(axis), shape).astype(np.int64))
    scope.one("GatherElements", [x, indices], like(x, x.dims), axis=axis)


@emitter(2.5)
def concat(scope: Scope) -> None:
    """Concat of values that agree but on one axis, the same value twice included."""
    x = movable(scope, 1, 2, 3, 4)
    axis = scope.random.randrange(x.rank)

    def suits(other: Value) -> bool:
        rest = [d for i, d in enumerate(other.dims) if i != axis]
        return other.rank == x.rank and rest == [d for i, d in enumerate(x.dims) if i != axis]

    parts = [x] + [scope.pick((x.dtype,), where=suits) for _ in range(scope.random.randrange(3))]
    total = tuple(sum(sizes) for sizes in zip(*(part.dims[axis] for part in parts), strict=True))
    dims = (*x.dims[:axis], total, *x.dims[axis + 1 :])
    bound = max(part.magnitude for part in parts)
    exact = all(part.exact for part in parts)
    given = axis - x.rank if scope.chance(0.3) else axis
    scope.one("Concat", parts, Result(x.dtype, dims, bound, exact), axis=given)


@emitter(1.5)
def split(scope: Scope) -> None:
    """Split, at times concatenated again."""
    x = movable(scope, 1, 2, 3, 4)
    axis = scope.random.randrange(x.rank)
    size = x.size(axis)
    if size < 2:
        raise NotApplicable
    first = size // 2 if size % 2 == 0 and scope.chance(0.5) else scope.random.randrange(1, size)
    parts = forms.split(scope, x, axis, [first, size - first])
    if scope.chance(0.4):
        scope.one("Concat", parts, like(x, x.dims), axis=axis)


@emitter(1.5)
def pad(scope: Scope) -> None:
    """Pad: constant (fill zero or not), reflect, edge; pads may crop or be zero."""
    x = scope.pick((FLOAT,), rank=(1, 2, 3, 4))
    mode = scope.random.choice(("constant", "constant", "edge", "reflect"))
    pads = []
    for dim in x.dims:
        most = min(2, min(dim) - 1) if mode == "reflect" else 2
        amounts = (scope.random.randint(0, max(most, 0)), scope.random.randint(0, max(most, 0)))
        pads.append(amounts if is_static(dim) and scope.chance(0.5) else (0, 0))
    if mode == "constant" and is_static(x.dims[-1]) and x.size(-1) > 2 and scope.chance(0.2):
        pads[-1] = (-1, 1)
    forms.pad(scope, x, pads, mode, scope.random.choice((0.0, 0.0, 0.5)))


@emitter(1)
def tile(scope: Scope) -> None:
    """Tile, at times by one everywhere."""
    x = movable(scope, 1, 2, 3)
    if elements(x.dims) > 256:
        raise NotApplicable
    repeats = [scope.random.choice((1, 1, 2)) for _ in x.dims]
    dims = tuple(tuple(s * r for s in dim) for dim, r in zip(x.dims, repeats, strict=True))
    scope.one("Tile", [x, scope.ints(*repeats)], like(x, dims))


@emitter(0.7)
def depth_to_space(scope: Scope) -> None:
    """DepthToSpace in both modes, or SpaceToDepth."""
    x = scope.pick((FLOAT,), rank=(4,))
    n, c, h, w = x.dims
    if x.size(1) % 4 == 0 and scope.chance(0.6):
        dims = (n, fixed(c[0] // 4)[0], tuple(2 * s for s in h), tuple(2 * s for s in w))
        mode = scope.random.choice(("DCR", "CRD"))
        scope.one("DepthToSpace", [x], like(x, dims), blocksize=2, mode=mode)
        return
    if x.size(2) % 2 or x.size(3) % 2:
        raise NotApplicable
    dims = (n, fixed(c[0] * 4)[0], tuple(s // 2 for s in h), tuple(s // 2 for s in w))
    scope.one("SpaceToDepth", [x], like(x, dims), blocksize=2)


@emitter(0.7)
def one_hot_or_trilu(scope: Scope) -> None:
    """OneHot of constant or exact integers, Trilu, or CumSum."""
    draw = scope.random.random()
    if draw < 0.4:
        x = scope.pick((INT64,), rank=(1, 2), where=lambda v: v.exact)
        values = scope.constant(np.array([-0.5, 1.0], np.float32))
        depth = scope.constant(np.array(5, np.int64))
        dims = (*x.dims, fixed(5)[0])
        scope.one("OneHot", [x, depth, values], Result(FLOAT, dims, 1.0, exact=True))
    elif draw < 0.7:
        if scope.opset < 14:
            raise NotApplicable
        x = scope.pick((FLOAT,), rank=(2, 3))
        shift = scope.scalar(1, np.int64) if scope.chance(0.5) else None
        scope.one("Trilu", [x, shift], like(x, x.dims), upper=scope.random.randrange(2))
    else:
        x = scope.pick((FLOAT,), rank=(1, 2, 3))
        axis = scope.scalar(scope.random.randrange(x.rank), np.int64)
        bound = x.magnitude * max(max(dim) for dim in x.dims)
        reverse = scope.random.randrange(2)
        scope.one("CumSum", [x, axis], Result(x.dtype, x.dims, bound), reverse=reverse)


@emitter(3)
def no_op(scope: Scope) -> None:
    """One of the ways to do nothing."""
    x = scope.pick((FLOAT,), rank=(1, 2, 3, 4))
    same = like(x, x.dims)
    kind = scope.random.randrange(13)
    if kind == 0:
        scope.one("Identity", [x], same)
    elif kind == 1:
        forms.dropout(scope, x)
    elif kind == 2:
        scope.one("Cast", [x], same, to=x.dtype)
    elif kind == 3:
        scope.one("Transpose", [x], same, perm=list(range(x.rank)))
    elif kind == 4:
        target = [0 if scope.chance(0.5) or not is_static(d) else d[0] for d in x.dims]
        scope.one("Reshape", [x, scope.ints(*target)], same)
    elif kind == 5:
        scope.one("Concat", [x], same, axis=0)
    elif kind == 6:
        forms.pad(scope, x, [(0, 0)] * x.rank, "constant")
    elif kind == 7:
        scope.one("Slice", [x, scope.ints(0), scope.ints(2**63 - 1)], same)
    elif kind == 8:
        scope.one("Expand", [x, scope.ints(*[1] * x.rank)], same)
    elif kind == 9:
        op, neutral = scope.random.choice((("Add", 0), ("Sub", 0), ("Mul", 1), ("Div", 1)))
        shape = [1] * scope.random.randrange(x.rank + 1)
        scope.one(op, [x, scope.constant(np.full(shape, neutral, np.float32))], same)
    elif kind == 10:
        y = scope.one("Neg", [x], same)
        scope.one("Neg", [y], same)
    elif kind == 11:
        # Not a no-op: the constant raises the rank or broadcasts.
        ones = scope.constant(np.ones((2,) + (1,) * x.rank, numpy_type(x.dtype)))
        scope.one("Mul", [x, ones], like(x, fixed(2) + x.dims))
    else:
        forms.split(scope, x, 0, [x.size(0)])
