"""The models that a machine is calibrated on: small networks of random build and size.

A kernel inside a model finds its activations where the kernel before left them, and its weights
where the last run left them. So kernels are measured inside networks that look like those people
run, drawn over wide ranges, and none of them is a published network. The sequence depends on
nothing but its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from graphopt.cost.latency.sampled_operators import layers, operators, recurrent_layers
from graphopt.cost.latency.sketch import Sketch

_SMALLEST_MACS, _LARGEST_MACS = 3e6, 1e9


@dataclass(frozen=True)
class Sample:
    """One model to measure, and the family it was drawn from."""

    family: str
    model: onnx.ModelProto


def samples(seed: int = 0) -> Iterator[Sample]:
    """An endless sequence of models: every family in turn, so that it can be cut anywhere."""
    rounds = 0
    while True:
        for index, (family, draw, integer) in enumerate(_PLAN):
            random = np.random.default_rng([seed, rounds, index])
            dtype = None
            if integer:
                dtype = TensorProto.INT8 if random.random() < 0.7 else TensorProto.UINT8
            sketch = Sketch(random, dtype)
            draw(sketch)
            yield Sample(family, sketch.model())
        rounds += 1


def _log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def _channels(random: np.random.Generator, low: float, high: float) -> int:
    """A number of channels: most are multiples of 8, as in most networks."""
    step = int(random.choice([2, 4, 8, 8, 8, 16, 16, 16, 32]))
    return max(step, round(_log_uniform(random, low, high) / step) * step)


def _convolutional(sketch: Sketch) -> None:
    """A convolutional network: a stem, blocks of one style (or any), a head."""
    random = sketch.random
    budget = _log_uniform(random, _SMALLEST_MACS, _LARGEST_MACS)
    side = int(_log_uniform(random, 24, 320))
    wide = side if random.random() < 0.6 else int(side * _log_uniform(random, 0.4, 2.5))
    activate = _activation(random)
    if random.random() < 0.3:
        # The late part of a network: many channels at few places.
        side = int(_log_uniform(random, 4, 24))
        channels = _channels(random, 64, 768)
        x = sketch.conv(sketch.input((1, 32, side, side)), channels)
    else:
        x = sketch.input((1, int(random.choice([1, 3, 3, 3])), side, wide))
        x = sketch.conv(
            x,
            _channels(random, 8, 64),
            int(random.choice([3, 3, 5, 7])),
            stride=int(random.choice([1, 2, 2])),
        )
    x = activate(sketch, x)
    style = _BLOCKS[random.integers(len(_BLOCKS))] if random.random() < 0.7 else None
    skipped: list[str] = []
    for _ in range(int(random.integers(6, 20))):
        _, channels, height, width = sketch.shapes[x]
        # Wide layers at large sizes would use the whole budget: go down first, as networks do.
        allowed = max(budget / 4 / (height * width * 4), 64.0)
        shrink = min(height, width) >= 6 and (
            random.random() < 0.25 or channels * channels > 2 * allowed
        )
        if sketch.macs > budget or sketch.weight_bytes > 64e6:
            break
        block = style or _BLOCKS[random.integers(len(_BLOCKS))]
        growth = _log_uniform(random, 1.2, 2.8) if shrink else _log_uniform(random, 0.6, 1.5)
        filters = _channels(random, channels * growth * 0.9, channels * growth * 1.1)
        filters = int(min(max(filters, 8), 2048, 2 * allowed**0.5 + 16))
        if shrink:
            skipped.append(x)
        x = block(sketch, x, filters, 2 if shrink else 1, activate)
    _head(sketch, x, skipped)


Activation = Callable[[Sketch, str], str]


def _activation(random: np.random.Generator) -> Activation:
    def relu(sketch: Sketch, x: str) -> str:
        return sketch.unary("Relu", x)

    def clip(sketch: Sketch, x: str) -> str:
        return sketch.unary("Clip", x, sketch.scalar(0.0), sketch.scalar(6.0))

    def silu(sketch: Sketch, x: str) -> str:
        return sketch.binary("Mul", x, sketch.unary("Sigmoid", x))

    def hard_swish(sketch: Sketch, x: str) -> str:
        if sketch.random.random() < 0.5:
            gate = sketch.unary("HardSigmoid", x, alpha=1 / 6)
            return sketch.binary("Mul", x, gate)
        moved = sketch.binary("Add", x, sketch.scalar(3.0))
        gate = sketch.unary("Clip", moved, sketch.scalar(0.0), sketch.scalar(6.0))
        return sketch.binary("Div", sketch.binary("Mul", x, gate), sketch.scalar(6.0))

    def leaky(sketch: Sketch, x: str) -> str:
        return sketch.unary("LeakyRelu", x, alpha=0.1)

    def parametric(sketch: Sketch, x: str) -> str:
        return sketch.unary("PRelu", x, sketch.weight((sketch.shapes[x][1], 1, 1)))

    def none(_: Sketch, x: str) -> str:
        return x

    choices = (relu, relu, relu, relu, clip, silu, hard_swish, leaky, parametric, none)
    return choices[int(random.integers(len(choices)))]


def _residual(sketch: Sketch, x: str, filters: int, stride: int, activate: Activation) -> str:
    kernel = int(sketch.random.choice([3, 3, 5]))
    y = activate(sketch, sketch.conv(x, filters, kernel, stride=stride))
    y = sketch.conv(y, filters, kernel)
    if sketch.shapes[x] != sketch.shapes[y]:
        x = sketch.conv(x, filters, stride=stride)
    return activate(sketch, sketch.binary("Add", x, y))


def _bottleneck(sketch: Sketch, x: str, filters: int, stride: int, activate: Activation) -> str:
    random = sketch.random
    group = 1
    inner = _channels(random, max(filters / 4, 8), max(filters, 9))
    if random.random() < 0.3:
        width = int(random.choice([4, 8, 16, 32]))
        inner = max(inner // width, 1) * width
        group = inner // width
    y = activate(sketch, sketch.conv(x, inner))
    y = activate(sketch, sketch.conv(y, inner, 3, stride=stride, group=group))
    y = sketch.conv(y, filters)
    if sketch.shapes[x] != sketch.shapes[y]:
        x = sketch.conv(x, filters, stride=stride)
    return activate(sketch, sketch.binary("Add", x, y))


def _inverted(sketch: Sketch, x: str, filters: int, stride: int, activate: Activation) -> str:
    random = sketch.random
    channels = sketch.shapes[x][1]
    inner = int(channels * random.choice([1, 2, 3, 4, 6]))
    y = activate(sketch, sketch.conv(x, inner)) if inner != channels else x
    kernel = int(random.choice([3, 3, 5, 7]))
    dilation = int(random.choice([1, 1, 1, 1, 2])) if stride == 1 else 1
    y = sketch.conv(y, inner, kernel, stride=stride, group=inner, dilation=dilation)
    y = activate(sketch, y)
    if random.random() < 0.4:
        y = _excited(sketch, y)
    y = sketch.conv(y, filters)
    if sketch.shapes[x] == sketch.shapes[y]:
        y = sketch.binary("Add", x, y)
    return y


def _excited(sketch: Sketch, x: str) -> str:
    """Squeeze and excitation: a gate for each channel."""
    batch, channels, *_ = sketch.shapes[x]
    pooled = sketch.add("GlobalAveragePool", [x], (batch, channels, 1, 1))
    inner = max(channels // int(sketch.random.choice([4, 8, 16])), 4)
    hidden = sketch.unary("Relu", sketch.conv(pooled, inner))
    gate = sketch.conv(hidden, channels)
    if sketch.random.random() < 0.5:
        gate = sketch.unary("HardSigmoid", gate, alpha=1 / 6)
    else:
        gate = sketch.unary("Sigmoid", gate)
    return sketch.binary("Mul", x, gate)


def _separable(sketch: Sketch, x: str, filters: int, stride: int, activate: Activation) -> str:
    channels = sketch.shapes[x][1]
    y = activate(sketch, sketch.conv(x, channels, 3, stride=stride, group=channels))
    return activate(sketch, sketch.conv(y, filters))


def _dense(sketch: Sketch, x: str, filters: int, stride: int, activate: Activation) -> str:
    if stride > 1:
        x = _pool(sketch, x, "AveragePool", 2, 2)
    growth = max(filters // 32 * 8, 8)
    for _ in range(int(sketch.random.integers(1, 3))):
        # After a Concat nothing takes the normalization in.
        y = sketch.unary("Relu", sketch.normalized(x)) if sketch.random.random() < 0.5 else x
        y = activate(sketch, sketch.conv(y, 2 * growth))
        y = activate(sketch, sketch.conv(y, growth, 3))
        x = _concatenate(sketch, [x, y])
    return x


def _inception(sketch: Sketch, x: str, filters: int, stride: int, activate: Activation) -> str:
    if stride > 1:
        x = _pool(sketch, x, "MaxPool", 3, 2)
    part = max(filters // 24 * 8, 8)
    a = activate(sketch, sketch.conv(x, part))
    b = activate(sketch, sketch.conv(x, max(part // 16 * 8, 8)))
    kernel = [(1, 3), (3, 1), (1, 7), (5, 5), (3, 3)][int(sketch.random.integers(5))]
    b = activate(sketch, sketch.conv(b, part, kernel))
    c = activate(sketch, sketch.conv(_pool(sketch, x, "MaxPool", 3, 1), part))
    return _concatenate(sketch, [a, b, c])


def _plain(sketch: Sketch, x: str, filters: int, stride: int, activate: Activation) -> str:
    random = sketch.random
    if stride > 1 and random.random() < 0.4:
        x, stride = _pool(sketch, x, "MaxPool", int(random.choice([2, 3])), 2), 1
    dilation = int(random.choice([1, 1, 1, 2, 4])) if stride == 1 else 1
    kernel = int(random.choice([1, 3, 3, 3, 5, 7]))
    return activate(sketch, sketch.conv(x, filters, kernel, stride=stride, dilation=dilation))


def _shuffled(sketch: Sketch, x: str, filters: int, stride: int, activate: Activation) -> str:
    """Channels are split, one half convolved, and both shuffled together."""
    filters += filters % 2
    half = filters // 2
    y = sketch.conv(activate(sketch, sketch.conv(x, half)), half, 3, stride=stride, group=half)
    z = sketch.conv(x, half, stride=stride)
    joined = _concatenate(sketch, [activate(sketch, y), z])
    batch, channels, height, width = sketch.shapes[joined]
    parts = sketch.reshape(joined, (batch, 2, channels // 2, height, width))
    return sketch.reshape(
        sketch.transpose(parts, (0, 2, 1, 3, 4)), (batch, channels, height, width)
    )


Block = Callable[[Sketch, str, int, int, Activation], str]
_BLOCKS: tuple[Block, ...] = (
    _residual,
    _residual,
    _bottleneck,
    _inverted,
    _inverted,
    _separable,
    _dense,
    _inception,
    _plain,
    _plain,
    _shuffled,
)


def _pool(sketch: Sketch, x: str, op_type: str, kernel: int, stride: int) -> str:
    batch, channels, height, width = sketch.shapes[x]
    after = [kernel // 2 - (kernel % 2 == 0)] * 2
    shape = (batch, channels, -(-height // stride), -(-width // stride))
    if kernel % 2 == 0:
        shape = (batch, channels, height // stride, width // stride)
        after = [0, 0]
    pads = [0 if kernel % 2 == 0 else kernel // 2] * 2 + after
    return sketch.add(
        op_type, [x], shape, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads
    )


def _concatenate(sketch: Sketch, parts: list[str]) -> str:
    batch, _, *spatial = sketch.shapes[parts[0]]
    channels = sum(sketch.shapes[part][1] for part in parts)
    return sketch.add("Concat", parts, (batch, channels, *spatial), axis=1)


def _head(sketch: Sketch, x: str, skipped: list[str]) -> None:
    """Classes of the image, of its pixels, or boxes."""
    random = sketch.random
    kind = random.random()
    batch, channels, height, width = sketch.shapes[x]
    if kind < 0.5:
        x = sketch.add("GlobalAveragePool", [x], (batch, channels, 1, 1))
        x = sketch.add("Flatten", [x], (batch, channels))
        x = sketch.linear(x, int(random.choice([2, 10, 100, 1000])))
        sketch.output(sketch.unary("Softmax", x) if random.random() < 0.5 else x)
        return
    if kind < 0.75 and skipped:
        mode = str(random.choice(["nearest", "linear"]))
        for level in reversed(skipped[-2:]):
            *_, height, width = sketch.shapes[level]
            x = _resized(sketch, sketch.conv(x, 32), height, width, mode)
            x = _concatenate(sketch, [x, level])
            x = sketch.unary("Relu", sketch.conv(x, 32, 3))
        sketch.output(sketch.unary("Sigmoid", sketch.conv(x, int(random.choice([1, 2, 21])))))
        return
    found = sketch.conv(x, int(random.choice([6, 12, 18, 85])), int(random.choice([1, 3])))
    _, filters, height, width = sketch.shapes[found]
    found = sketch.transpose(found, (0, 2, 3, 1))
    parts = 3 if filters % 3 == 0 else 5
    found = sketch.reshape(found, (batch, parts * height * width, filters // parts))
    sketch.output(sketch.unary("Softmax", found))


def _resized(sketch: Sketch, x: str, height: int, width: int, mode: str) -> str:
    batch, channels, *_ = sketch.shapes[x]
    sizes = (batch, channels, height, width)
    if mode == "nearest":
        return sketch.add(
            "Resize",
            [x, "", "", sketch.integers(sizes)],
            sizes,
            mode=mode,
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    return sketch.add(
        "Resize",
        [x, "", "", sketch.integers(sizes)],
        sizes,
        mode=mode,
        coordinate_transformation_mode="half_pixel",
    )


def _transformer(sketch: Sketch) -> None:
    """A stack of attention and feed-forward layers on tokens."""
    random = sketch.random
    budget = _log_uniform(random, _SMALLEST_MACS, _LARGEST_MACS)
    heads = int(random.choice([2, 3, 4, 6, 8, 12]))
    size = int(random.choice([8, 16, 32, 64, 64]))
    width = heads * size
    tokens = int(_log_uniform(random, 4, 512))
    while tokens > 4 and tokens * width * (width * 8 + tokens) > budget:
        tokens //= 2
    batch = 1 if random.random() < 0.6 else int(random.choice([2, 4, 16, 64]))
    while batch > 1 and batch * tokens * width * width * 12 > budget:
        batch //= 2
    x = sketch.input((batch, tokens, width))
    modern = random.random() < 0.3
    mask = sketch.weight((1, 1, tokens, tokens)) if random.random() < 0.4 else None
    ratio = random.choice([2, 4, 4])
    for _ in range(int(random.integers(1, 5))):
        normal = _root_mean_square if modern else _layer_normal
        x = sketch.binary("Add", x, _attention(sketch, normal(sketch, x), heads, mask))
        inner = int(width * ratio)
        y = normal(sketch, x)
        if modern:
            gate = sketch.linear(y, inner, bias=False)
            gate = sketch.binary("Mul", gate, sketch.unary("Sigmoid", gate))
            y = sketch.binary("Mul", gate, sketch.linear(y, inner, bias=False))
        else:
            y = _gelu(sketch, sketch.linear(y, inner))
        x = sketch.binary("Add", x, sketch.linear(y, width, bias=not modern))
        if sketch.macs > budget or sketch.weight_bytes > 64e6:
            break
    x = _layer_normal(sketch, x)
    pooled = sketch.add("Gather", [x, sketch.integers(0)], (batch, width), axis=1)
    sketch.output(sketch.linear(pooled, int(random.choice([2, 10, 1000]))))


def _layer_normal(sketch: Sketch, x: str) -> str:
    width = sketch.shapes[x][-1]
    return sketch.unary(
        "LayerNormalization", x, sketch.weight((width,)), sketch.weight((width,)), axis=-1
    )


def _root_mean_square(sketch: Sketch, x: str) -> str:
    *outer, width = sketch.shapes[x]
    square = sketch.unary("Pow", x, sketch.scalar(2.0))
    mean = sketch.add("ReduceMean", [square], (*outer, 1), axes=[-1])
    root = sketch.unary("Sqrt", sketch.binary("Add", mean, sketch.scalar(1e-5)))
    return sketch.binary("Mul", sketch.binary("Div", x, root), sketch.weight((width,)))


def _gelu(sketch: Sketch, x: str) -> str:
    half = sketch.unary("Erf", sketch.binary("Div", x, sketch.scalar(2**0.5)))
    raised = sketch.binary("Mul", x, sketch.binary("Add", half, sketch.scalar(1.0)))
    return sketch.binary("Mul", raised, sketch.scalar(0.5))


def _attention(sketch: Sketch, x: str, heads: int, mask: str | None) -> str:
    random = sketch.random
    batch, tokens, width = sketch.shapes[x]
    size = width // heads
    parts: list[str] = []
    if random.random() < 0.4:
        joined = sketch.linear(x, 3 * width)
        split = sketch.reshape(joined, (batch, tokens, 3, heads, size))
        moved = sketch.transpose(split, (2, 0, 3, 1, 4))
        shape = (batch, heads, tokens, size)
        parts.extend(
            sketch.add("Gather", [moved, sketch.integers(index)], shape, axis=0)
            for index in range(3)
        )
    else:
        wide = [sketch.linear(x, width) for _ in range(3)]
        split_up = [sketch.reshape(y, (batch, tokens, heads, size)) for y in wide]
        parts.extend(sketch.transpose(y, (0, 2, 1, 3)) for y in split_up)
    query, key, value = parts
    scores = sketch.matmul(query, sketch.transpose(key, (0, 1, 3, 2)))
    scores = sketch.binary("Mul", scores, sketch.scalar(size**-0.5))
    if mask is not None:
        scores = sketch.binary("Add", scores, mask)
    mixed = sketch.matmul(sketch.unary("Softmax", scores, axis=-1), value)
    mixed = sketch.reshape(sketch.transpose(mixed, (0, 2, 1, 3)), (batch, tokens, width))
    return sketch.linear(mixed, width)


def _channels_last_blocks(sketch: Sketch) -> None:
    """Depthwise convolutions with linear layers on the channels between them."""
    random = sketch.random
    width = _channels(random, 24, 512)
    side = int(_log_uniform(random, 7, 64))
    while side > 7 and side * side * width * width * 8 > _LARGEST_MACS / 2:
        side //= 2
    x = sketch.conv(sketch.input((1, 3, 4 * side, 4 * side)), width, 4, stride=4)
    for _ in range(int(random.integers(1, 4))):
        y = sketch.conv(x, width, int(random.choice([3, 5, 7])), group=width)
        y = _layer_normal(sketch, sketch.transpose(y, (0, 2, 3, 1)))
        y = sketch.linear(_gelu(sketch, sketch.linear(y, 4 * width)), width)
        y = sketch.transpose(y, (0, 3, 1, 2))
        x = sketch.binary("Add", x, sketch.binary("Mul", y, sketch.weight((width, 1, 1))))
    sketch.output(x)


def _perceptron(sketch: Sketch) -> None:
    """Linear layers of any size, also large ones on few rows."""
    random = sketch.random
    rows = int(_log_uniform(random, 1, 256)) if random.random() < 0.6 else 1
    x = sketch.input((rows, int(_log_uniform(random, 8, 2048))))
    for _ in range(int(random.integers(2, 9))):
        columns = int(_log_uniform(random, 8, 4096))
        if sketch.macs > _LARGEST_MACS or sketch.weight_bytes > 80e6:
            break
        x = sketch.linear(x, columns)
        x = sketch.unary(str(random.choice(["Relu", "Tanh", "Sigmoid"])), x)
    sketch.output(x)


_PLAN: tuple[tuple[str, Callable[[Sketch], None], bool], ...] = (
    ("convolutional", _convolutional, False),
    ("operators", operators, False),
    ("convolutional int8", _convolutional, True),
    ("layers", layers, False),
    ("transformer", _transformer, False),
    ("layers int8", layers, True),
    ("convolutional", _convolutional, False),
    ("operators int8", operators, True),
    ("recurrent", recurrent_layers, False),
    ("convolutional int8", _convolutional, True),
    ("operators", operators, False),
    ("transformer int8", _transformer, True),
    ("convolutional", _convolutional, False),
    ("linear", _perceptron, False),
    ("channels last", _channels_last_blocks, False),
    ("linear int8", _perceptron, True),
    ("convolutional int8", _convolutional, True),
    ("operators", operators, False),
)
