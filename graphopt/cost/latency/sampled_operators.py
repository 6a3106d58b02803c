"""A model of unrelated operators of random sizes, for those that networks use in passing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from graphopt.cost.latency import sampled_contractions as contractions
from graphopt.cost.latency.sketch import Sketch, made, random_size

_NODES = 20
_RECURRENT_LAYERS = 5
_LAYERS = 12
_POOLS = 2
_WIDEST_POOL = 20
_LARGEST = 1 << 20
_LARGEST_POOLED = 1 << 17


def operators(sketch: Sketch) -> None:
    """Fill the sketch with operators, each on the result of a cheap one."""
    random = sketch.random
    for _ in range(_NODES):
        draw = _DRAWN[int(random.integers(len(_DRAWN)))]
        draw(sketch)
    sketch.reduce_outputs()


def recurrent_layers(sketch: Sketch) -> None:
    """A few recurrent layers, each by itself."""
    for _ in range(_RECURRENT_LAYERS):
        contractions.recurrent(sketch)
    sketch.reduce_outputs()


def layers(sketch: Sketch) -> None:
    """Convolutions of the sizes that networks have, each by itself."""
    for _ in range(_LAYERS):
        contractions.layer(sketch)
    for _ in range(_POOLS):
        _pool(sketch)
    sketch.reduce_outputs()


def _data(sketch: Sketch, rank: int | None = None) -> str:
    """A tensor that a kernel has just made."""
    random = sketch.random
    rank = int(random.integers(2, 5)) if rank is None else rank
    size = random_size(random)
    cuts = np.sort(random.uniform(0, math.log2(size + 1), rank - 1))
    parts = np.diff(np.concatenate([[0.0], cuts, [math.log2(size + 1)]]))
    shape = [max(round(2**part), 1) for part in parts]
    if rank == 4 and random.random() < 0.8:
        shape[1] = shape[0] * shape[1]
        shape[0] = 1
    if rank == 3 and random.random() < 0.6:
        shape[1], shape[0] = shape[0] * shape[1], 1
    return made(sketch, shape)


_UNARY = (
    "Relu",
    "Sigmoid",
    "Tanh",
    "Exp",
    "Sqrt",
    "Erf",
    "Abs",
    "Neg",
    "Reciprocal",
    "Log",
    "Floor",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Softplus",
    "Elu",
    "Ceil",
    "Sin",
    "Cos",
    "Round",
)


def _unary(sketch: Sketch) -> None:
    x = _data(sketch)
    for _ in range(4):
        x = sketch.unary(str(sketch.random.choice(_UNARY)), x)
    sketch.output(x)


def _clip(sketch: Sketch) -> None:
    x = _data(sketch)
    sketch.output(sketch.unary("Clip", x, sketch.scalar(0.0), sketch.scalar(6.0)))


def _gelus(sketch: Sketch) -> None:
    random = sketch.random
    x = _data(sketch)
    kind = random.integers(3)
    if kind == 0:
        sketch.output(sketch.binary("Mul", x, sketch.unary("Sigmoid", x)))
        return
    if kind == 1:
        x = made(sketch, (1, random_size(random, 0, 8), random_size(random, 3, 11)))
        x = sketch.binary("Add", x, sketch.weight((sketch.shapes[x][-1],)))
    half = sketch.unary("Erf", sketch.binary("Div", x, sketch.scalar(2**0.5)))
    raised = sketch.binary("Mul", x, sketch.binary("Add", half, sketch.scalar(1.0)))
    sketch.output(sketch.binary("Mul", raised, sketch.scalar(0.5)))


def _binary(sketch: Sketch) -> None:
    x = _data(sketch)
    for _ in range(3):
        x = _combined(sketch, x)
    sketch.output(x)


def _combined(sketch: Sketch, x: str) -> str:
    random = sketch.random
    shape = sketch.shapes[x]
    kind = random.random()
    if kind < 0.35:
        other = made(sketch, shape)
    elif kind < 0.55:
        other = sketch.scalar(0.7)
    else:
        kept = [size if random.random() < 0.5 else 1 for size in shape]
        if random.random() < 0.5:
            kept = [1] * (len(shape) - 1) + [shape[-1]]
        other = sketch.weight(kept) if random.random() < 0.5 else made(sketch, kept)
    op_type = str(random.choice(["Add", "Add", "Mul", "Mul", "Sub", "Div", "Max", "Min", "PRelu"]))
    if op_type == "PRelu":
        other = sketch.weight((shape[1],) + (1,) * (len(shape) - 2))
    pair = (x, other) if random.random() < 0.7 else (other, x)
    return sketch.binary(op_type, *pair)


def _power(sketch: Sketch) -> None:
    exponent = float(sketch.random.choice([2.0, 2.0, 0.5, 3.0, 1.7]))
    sketch.output(sketch.binary("Pow", _data(sketch), sketch.scalar(exponent)))


def _compare(sketch: Sketch) -> None:
    x = _data(sketch)
    op_type = str(sketch.random.choice(["Equal", "Less", "Greater"]))
    if op_type == "Equal":
        x = sketch.unary("Cast", x, to=TensorProto.INT64)
        y = sketch.integers([3])
    else:
        y = sketch.scalar(0.2)
    truth = sketch.add(op_type, [x, y], sketch.shapes[x])
    if sketch.random.random() < 0.5:
        truth = sketch.unary("Not", truth)
    data = made(sketch, sketch.shapes[x])
    sketch.output(sketch.add("Where", [truth, data, sketch.scalar(0.0)], sketch.shapes[x]))


def _cast(sketch: Sketch) -> None:
    kinds = [TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.BOOL]
    whole = sketch.unary("Cast", _data(sketch), to=int(sketch.random.choice(kinds)))
    sketch.output(sketch.unary("Cast", whole, to=TensorProto.FLOAT))


def _rows(sketch: Sketch) -> None:
    random = sketch.random
    x = _data(sketch)
    shape = sketch.shapes[x]
    kind = random.integers(4)
    if kind < 2:
        axis = -1 if random.random() < 0.8 else 1
        sketch.output(sketch.unary("Softmax", x, axis=axis))
    elif kind == 2:
        wide = (shape[-1],)
        weights = (sketch.weight(wide), sketch.weight(wide))
        sketch.output(sketch.unary("LayerNormalization", x, *weights, axis=-1))
    else:
        square = sketch.unary("Pow", x, sketch.scalar(2.0))
        mean = sketch.add("ReduceMean", [square], (*shape[:-1], 1), axes=[-1])
        root = sketch.unary("Sqrt", sketch.binary("Add", mean, sketch.scalar(1e-5)))
        normal = sketch.binary("Div", x, root)
        sketch.output(sketch.binary("Mul", normal, sketch.weight((shape[-1],))))


def _channel_normal(sketch: Sketch) -> None:
    x = _data(sketch, 4)
    wide = (sketch.shapes[x][1],)
    weights = [sketch.weight(wide) for _ in range(2)]
    if sketch.random.random() < 0.5:
        sketch.output(sketch.unary("InstanceNormalization", x, *weights))
        return
    variance = sketch.constant(
        sketch.name("variance"), TensorProto.FLOAT, wide, np.ones(wide, np.float32).tobytes()
    )
    sketch.output(sketch.unary("BatchNormalization", x, *weights, weights[0], variance))


def _reduction(sketch: Sketch) -> None:
    random = sketch.random
    x = _data(sketch)
    shape = sketch.shapes[x]
    rank = len(shape)
    axes = (
        [rank - 1]
        if random.random() < 0.4
        else sorted(random.choice(rank, int(random.integers(1, rank)), replace=False).tolist())
    )
    if random.random() < 0.15:
        axes = list(range(rank))
    op_type = str(
        random.choice(
            ["ReduceMean", "ReduceMean", "ReduceSum", "ReduceMax", "ArgMax", "ArgMax", "ReduceL2"]
        )
    )
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    if op_type == "ReduceSum":
        sketch.output(sketch.add(op_type, [x, sketch.integers(axes)], kept))
    elif op_type == "ArgMax":
        made = sketch.add(op_type, [x], kept, axis=axes[-1])
        sketch.output(sketch.unary("Cast", made, to=TensorProto.FLOAT))
    else:
        sketch.output(sketch.add(op_type, [x], kept, axes=axes))


def _pool(sketch: Sketch) -> None:
    """Pools that no convolution stands before: ONNX Runtime keeps their layout."""
    random = sketch.random
    channels, side = random_size(random, 3, 9), random_size(random, 2, 7)
    while channels * side * side > _LARGEST_POOLED:
        channels //= 2
    x = made(sketch, (1, channels, side, side))
    kind = random.integers(5)
    if kind == 0:
        op_type = str(random.choice(["GlobalAveragePool", "GlobalMaxPool"]))
        sketch.output(sketch.add(op_type, [x], (1, channels, 1, 1)))
        return
    kernel = (
        side if kind == 1 and side <= _WIDEST_POOL else min(int(random.choice([2, 3, 5])), side)
    )
    op_type = str(random.choice(["MaxPool", "MaxPool", "AveragePool"]))
    stride = int(random.choice([1, 2, 2]))
    # Rounded up, ONNX Runtime leaves a pool in its layout even where it would change others.
    rounded_up = int(random.random() < 0.4)
    window: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2}
    sketch.output(sketch.add(op_type, [x], (), **window, ceil_mode=rounded_up))


def _transpose(sketch: Sketch) -> None:
    x = _data(sketch)
    rank = len(sketch.shapes[x])
    orders = [list(sketch.random.permutation(rank))]
    if rank == 4:
        orders += [[0, 2, 3, 1], [0, 3, 1, 2], [0, 2, 1, 3], [0, 1, 3, 2]]
    if rank == 3:
        orders += [[0, 2, 1], [1, 0, 2]]
    order = [int(axis) for axis in orders[int(sketch.random.integers(len(orders)))]]
    sketch.output(sketch.transpose(x, order))


def _concat(sketch: Sketch) -> None:
    random = sketch.random
    x = _data(sketch)
    shape = sketch.shapes[x]
    parts = [x, *(made(sketch, shape) for _ in range(int(random.integers(1, 4))))]
    axis = int(random.integers(len(shape)))
    whole = list(shape)
    whole[axis] *= len(parts)
    sketch.output(sketch.add("Concat", parts, whole, axis=axis))


def _split(sketch: Sketch) -> None:
    random = sketch.random
    x = _data(sketch)
    shape = list(sketch.shapes[x])
    axis = int(random.integers(len(shape)))
    pieces = int(random.choice([2, 3, 4]))
    if shape[axis] < pieces:
        _slice(sketch)
        return
    sizes = [shape[axis] // pieces] * (pieces - 1)
    sizes.append(shape[axis] - sum(sizes))
    shapes = [[*shape[:axis], size, *shape[axis + 1 :]] for size in sizes]
    sketch.output(*sketch.add_many("Split", [x, sketch.integers(sizes)], shapes, axis=axis))


def _slice(sketch: Sketch) -> None:
    random = sketch.random
    x = _data(sketch)
    shape = list(sketch.shapes[x])
    axis = int(random.integers(len(shape)))
    step = int(random.choice([1, 1, 1, 2]))
    begin = shape[axis] // int(random.choice([2, 3, 4])) if shape[axis] > 2 and step == 1 else 0
    shape[axis] = -(-(shape[axis] - begin) // step)
    places = [sketch.integers([value]) for value in (begin, 2**31 - 1, axis, step)]
    sketch.output(sketch.add("Slice", [x, *places], shape))


def _gather(sketch: Sketch) -> None:
    random = sketch.random
    if random.random() < 0.4:
        table = sketch.weight((random_size(random, 4, 12), random_size(random, 3, 9)))
        count = random_size(random, 0, 9)
        # The input decides, so that the lookup is not done beforehand.
        tokens = sketch.input((1, count), TensorProto.INT64)
        sketch.output(sketch.add("Gather", [table, tokens], (1, count, 1)))
        return
    x = _data(sketch)
    shape = list(sketch.shapes[x])
    axis = int(random.integers(len(shape)))
    if random.random() < 0.5:
        index = sketch.integers(0)
        shape.pop(axis)
    else:
        count = int(random.integers(1, shape[axis] + 1))
        index = sketch.integers(random.integers(0, shape[axis], count).tolist())
        shape[axis] = count
    sketch.output(sketch.add("Gather", [x, index], shape, axis=axis))


def _pad(sketch: Sketch) -> None:
    x = _data(sketch, 4)
    batch, channels, height, width = sketch.shapes[x]
    edge = int(sketch.random.choice([1, 2, 3]))
    extra = int(sketch.random.choice([0, 0, 8]))
    pads = sketch.integers([0, 0, edge, edge, 0, extra, edge, edge])
    shape = (batch, channels + extra, height + 2 * edge, width + 2 * edge)
    sketch.output(sketch.add("Pad", [x, pads], shape))


def _expand(sketch: Sketch) -> None:
    random = sketch.random
    x = _data(sketch)
    shape = list(sketch.shapes[x])
    times = int(random.choice([2, 4, 8]))
    if random.random() < 0.5:
        repeats = [1] * len(shape)
        repeats[int(random.integers(len(shape)))] = times
        whole = [size * repeat for size, repeat in zip(shape, repeats, strict=True)]
        sketch.output(sketch.add("Tile", [x, sketch.integers(repeats)], whole))
    else:
        sketch.output(sketch.add("Expand", [x, sketch.integers([times, *shape])], [times, *shape]))


def _view(sketch: Sketch) -> None:
    random = sketch.random
    x = _data(sketch)
    size = math.prod(sketch.shapes[x])
    for _ in range(3):
        kind = random.integers(3)
        if kind == 0:
            y = sketch.reshape(x, (size,))
        elif kind == 1:
            y = sketch.add("Unsqueeze", [x, sketch.integers([0])], (1, *sketch.shapes[x]))
        else:
            first = sketch.shapes[x][0]
            y = sketch.add("Flatten", [x], (first, size // first))
        x = sketch.binary("Add", y, sketch.scalar(0.1))
    sketch.output(x)


def _shape_arithmetic(sketch: Sketch) -> None:
    """What exporters write for a reshape whose sizes are free."""
    x = sketch.input(("free", 4, random_size(sketch.random, 0, 6)))
    for _ in range(3):
        sizes = sketch.add("Shape", [x], (3,))
        parts = []
        for axis in range(2):
            one = sketch.add("Gather", [sizes, sketch.integers(axis)], ())
            if axis and sketch.random.random() < 0.5:
                one = sketch.add("Mul", [one, sketch.integers([1])], ())
                parts.append(one)
                continue
            parts.append(sketch.add("Unsqueeze", [one, sketch.integers([0])], (1,)))
        target = sketch.add("Concat", [*parts, sketch.integers([-1])], (3,), axis=0)
        x = sketch.add("Reshape", [x, target], sketch.shapes[x])
        x = sketch.add("Add", [x, sketch.scalar(0.5)], sketch.shapes[x])
        if sketch.random.random() < 0.5:
            x = sketch.add(
                "Squeeze",
                [sketch.add("Unsqueeze", [x, sketch.integers([1])], ()), sketch.integers([1])],
                sketch.shapes[x],
            )
            x = sketch.add("Relu", [x], sketch.shapes[x])
    sketch.output(x)


def _resize(sketch: Sketch) -> None:
    random = sketch.random
    x = _data(sketch, 4)
    batch, channels, height, width = sketch.shapes[x]
    sizes = (batch, channels, min(2 * height, 1024), min(2 * width, 1024))
    more: dict[str, Any]
    if random.random() < 0.5:
        more = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
    else:
        more = {
            "mode": "linear",
            "coordinate_transformation_mode": str(random.choice(["half_pixel", "align_corners"])),
        }
    sketch.output(sketch.add("Resize", [x, "", "", sketch.integers(sizes)], sizes, **more))


def _alone(sketch: Sketch) -> None:
    """QuantizeLinear and back, with nothing between that a fusion would take."""
    x = _data(sketch)
    kind = TensorProto.INT8 if sketch.random.random() < 0.5 else TensorProto.UINT8
    sketch.output(sketch.binary("Sub", sketch.pair(x, kind), sketch.scalar(0.1)))


Drawn = Callable[[Sketch], None]
_DRAWN: tuple[Drawn, ...] = (
    *(_unary,) * 3,
    _clip,
    _gelus,
    *(_binary,) * 4,
    _power,
    _compare,
    _cast,
    *(_rows,) * 3,
    _channel_normal,
    *(_reduction,) * 2,
    *(_pool,) * 2,
    *(_transpose,) * 3,
    *(_concat,) * 2,
    _split,
    *(_slice,) * 2,
    *(_gather,) * 2,
    _pad,
    _expand,
    _view,
    _shape_arithmetic,
    *(contractions.products,) * 3,
    *(contractions.constant_product,) * 3,
    contractions.dynamic_product,
    contractions.einsum,
    *(contractions.plain_convolution,) * 3,
    contractions.transposed_convolution,
    contractions.recurrent,
    _resize,
    _alone,
)
