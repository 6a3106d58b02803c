"""Matrix products, convolutions and recurrent layers of random sizes, each by itself."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from graphopt.cost.latency.sketch import Sketch, made, random_size

_LARGEST_LAYER = 3e7  # MACs
_LARGEST_DATA = 1 << 21


def products(sketch: Sketch) -> None:
    """A batched product of two computed matrices."""
    random = sketch.random
    batch = random_size(random, 0, 5)
    rows, depth, columns = (
        random_size(random, 0, 9),
        random_size(random, 2, 9),
        random_size(random, 2, 9),
    )
    while batch * rows * depth * columns > 1 << 25:
        batch, rows = max(batch // 2, 1), max(rows // 2, 1)
    a, b = made(sketch, (batch, rows, depth)), made(sketch, (batch, depth, columns))
    if random.random() < 0.4:
        b = sketch.transpose(made(sketch, (batch, columns, depth)), (0, 2, 1))
    sketch.output(sketch.matmul(a, b))


def constant_product(sketch: Sketch) -> None:
    """A linear layer."""
    random = sketch.random
    rows, depth, columns = (
        random_size(random, 0, 8),
        random_size(random, 2, 10),
        random_size(random, 0, 10),
    )
    shape = (1, rows, depth) if random.random() < 0.5 else (rows, depth)
    sketch.output(sketch.linear(made(sketch, shape), columns))


def einsum(sketch: Sketch) -> None:
    """An Einsum that comes down to one product."""
    random = sketch.random
    equation = str(
        random.choice(["bid,bjd->bij", "bij,bjd->bid", "bnd,de->bne", "bhid,bhjd->bhij"])
    )
    inputs, outputs = equation.split("->")
    sizes = {letter: random_size(random, 3, 7) for letter in inputs if letter.isalpha()} | {
        "b": 1,
        "h": 4,
    }
    shapes = [[sizes[letter] for letter in letters] for letters in inputs.split(",")]
    operands = [made(sketch, shape) for shape in shapes]
    shape = [sizes[letter] for letter in outputs]
    sketch.output(sketch.add("Einsum", operands, shape, equation=equation))


def dynamic_product(sketch: Sketch) -> None:
    """A product on activations that are quantized as they come."""
    random = sketch.random
    rows, depth, columns = (
        random_size(random, 0, 8),
        random_size(random, 4, 10),
        random_size(random, 4, 10),
    )
    x = made(sketch, (rows, depth))
    code, scale, zero = sketch.add_many("DynamicQuantizeLinear", [x], [(rows, depth), (), ()])
    weight = sketch.name("code")
    sketch.constant(
        weight,
        TensorProto.INT8,
        (depth, columns),
        np.resize(np.arange(-99, 100, dtype=np.int8), depth * columns).tobytes(),
    )
    product = sketch.add("MatMulInteger", [code, weight, zero], (rows, columns))
    product = sketch.unary("Cast", product, to=TensorProto.FLOAT)
    by = sketch.add("Mul", [scale, sketch.scalar(0.02)], ())
    sketch.output(sketch.add("Mul", [product, by], (rows, columns)))


def plain_convolution(sketch: Sketch) -> None:
    """Convolutions that stay in ONNX's layout: on sequences, with weights that are computed."""
    random = sketch.random
    kind = random.integers(3)
    if kind == 0:
        channels, filters = random_size(random, 3, 8), random_size(random, 3, 8)
        length, kernel = random_size(random, 4, 11), int(random.choice([1, 3, 5, 9]))
        x = made(sketch, (1, channels, length))
        weight = sketch.weight((filters, channels, kernel), 0.1)
        pads = [kernel // 2] * 2
        result = sketch.add("Conv", [x, weight], (1, filters, length), pads=pads)
        sketch.output(sketch.unary("Relu", result) if random.random() < 0.5 else result)
        return
    channels, filters = random_size(random, 2, 8), random_size(random, 2, 8)
    side, kernel = random_size(random, 2, 6), int(random.choice([1, 1, 3, 3, 5]))
    while channels * filters * side * side * kernel**2 > 1 << 26:
        side = max(side // 2, 1)
    group = 1
    if random.random() < 0.25:
        filters = group = channels
    x = made(sketch, (1, channels, side, side))
    weight = made(sketch, (filters, channels // group, kernel, kernel))
    stride = int(random.choice([1, 1, 2]))
    sketch.output(
        sketch.add(
            "Conv",
            [x, weight],
            (1, filters, -(-side // stride), -(-side // stride)),
            pads=[kernel // 2] * 4,
            strides=[stride] * 2,
            group=group,
        )
    )


def layer(sketch: Sketch) -> None:
    """A convolution as networks for images of 224 places, or about so many, have them."""
    random = sketch.random
    side = int(random.choice([7, 14, 28, 56, 112])) if random.random() < 0.5 else 0
    side = side or random_size(random, 2, 8)
    channels = 8 * random_size(random, 0, 7)
    kernel = int(random.choice([1, 1, 3, 3, 3, 5, 7]))
    stride = int(random.choice([1, 1, 1, 2]))
    group, filters = 1, 8 * random_size(random, 0, 7)
    kind = random.random()
    if kind < 0.25:
        group = filters = channels
        kernel = int(random.choice([3, 3, 5, 7]))
    elif kind < 0.4:
        group, kernel = int(random.choice([2, 4, 8, 16])), 3
        channels = filters = group * int(random.choice([4, 8, 16, 32]))
    elif kind < 0.52:
        channels, filters, stride = (
            int(random.choice([1, 3, 3])),
            int(random.choice([16, 32, 64])),
            2,
        )
        side, kernel = random_size(random, 5, 8.5), int(random.choice([3, 3, 5, 7]))
    share = channels * filters // group
    while side > 4 and share * (side * kernel // stride) ** 2 > _LARGEST_LAYER:
        side //= 2
    while channels * side * side > _LARGEST_DATA:
        side //= 2
    x = sketch.conv(
        made(sketch, (1, channels, side, side)), filters, kernel, stride=stride, group=group
    )
    sketch.output(sketch.unary("Relu", x) if random.random() < 0.5 else x)


def transposed_convolution(sketch: Sketch) -> None:
    """A ConvTranspose that doubles the size."""
    random = sketch.random
    channels, filters = random_size(random, 2, 8), random_size(random, 0, 7)
    side, kernel = random_size(random, 2, 6), int(random.choice([2, 3, 4]))
    while channels * filters * side * side * kernel**2 > 1 << 25:
        side = max(side // 2, 1)
    weight = sketch.weight((channels, filters, kernel, kernel), 0.1)
    x = made(sketch, (1, channels, side, side))
    sketch.output(
        sketch.add("ConvTranspose", [x, weight], (1, filters, 2 * side, 2 * side), strides=[2, 2])
    )


def recurrent(sketch: Sketch) -> None:
    """An LSTM or GRU layer."""
    random = sketch.random
    gates, op_type = [(4, "LSTM"), (3, "GRU")][int(random.integers(2))]
    steps = 1 if random.random() < 0.3 else random_size(random, 0, 7)
    width, hidden = random_size(random, 4, 9), random_size(random, 4, 9)
    while steps * gates * hidden * (width + hidden) > 1 << 24:
        steps, hidden = max(steps // 2, 1), max(hidden // 2, 8)
    directions = int(random.choice([1, 1, 2]))
    x = made(sketch, (steps, 1, width))
    weight = sketch.weight((directions, gates * hidden, width), 0.05)
    again = sketch.weight((directions, gates * hidden, hidden), 0.05)
    bias = sketch.weight((directions, 2 * gates * hidden), 0.05)
    sketch.output(
        sketch.add(
            op_type,
            [x, weight, again, bias],
            (steps, directions, 1, hidden),
            hidden_size=hidden,
            direction="bidirectional" if directions == 2 else "forward",
        )
    )
