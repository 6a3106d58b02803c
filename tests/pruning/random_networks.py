"""Random networks of everything that ties channels together."""

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphopt.graph import ir, load


@dataclass
class Tensor:
    """A feature map [1, channels, size, size]."""

    name: str
    channels: int
    size: int


@dataclass
class Network:
    """A network that grows by one random operator after another."""

    seed: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.open = [Tensor("x", 3, 6)]

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        array = self.random.normal(0, 1 / np.sqrt(max(np.prod(shape[1:]), 1)), shape)
        self.weights.append(numpy_helper.from_array((array + 0.01).astype(np.float32), name))
        return name

    def integers(self, *numbers: int) -> str:
        name = f"i{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> list[str]:
        names = [f"t{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names

    def pick(self) -> Tensor:
        # Late tensors more often than early ones.
        count = len(self.open)
        return self.open[count - 1 - min(int(self.random.geometric(0.5)) - 1, count - 1)]

    def add(self, name: str, channels: int, size: int) -> None:
        self.open.append(Tensor(name, channels, size))

    def grow(self) -> None:
        """Add one operator, or a few that belong together."""
        kinds = [name for name in dir(self) if name.startswith("grow_")]
        getattr(self, kinds[int(self.random.integers(len(kinds)))])(self.pick())

    def grow_conv(self, t: Tensor) -> None:
        out = int(self.random.choice([4, 6, 8, 12]))
        w, b = self.weight(out, t.channels, 3, 3), self.weight(out)
        self.add(self.node("Conv", t.name, w, b, pads=[1, 1, 1, 1])[0], out, t.size)

    grow_another_conv = grow_conv

    def grow_depthwise(self, t: Tensor) -> None:
        w = self.weight(t.channels, 1, 3, 3)
        y = self.node("Conv", t.name, w, group=t.channels, pads=[1, 1, 1, 1])[0]
        self.add(y, t.channels, t.size)

    def grow_grouped(self, t: Tensor) -> None:
        groups = [g for g in (2, 3, 4) if t.channels % g == 0]
        if groups:
            group = int(self.random.choice(groups))
            out = group * int(self.random.integers(1, 4))
            w = self.weight(out, t.channels // group, 1, 1)
            self.add(self.node("Conv", t.name, w, group=group)[0], out, t.size)

    def grow_transposed(self, t: Tensor) -> None:
        w = self.weight(t.channels, 6, 1, 1)
        self.add(self.node("ConvTranspose", t.name, w)[0], 6, t.size)

    def grow_norm(self, t: Tensor) -> None:
        scale, shift, mean = (self.weight(t.channels) for _ in range(3))
        spread = f"v{len(self.weights)}"
        array = self.random.uniform(0.5, 2, t.channels).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, spread))
        y = self.node("BatchNormalization", t.name, scale, shift, mean, spread)[0]
        self.add(y, t.channels, t.size)

    def grow_activation(self, t: Tensor) -> None:
        op = str(self.random.choice(["Relu", "Sigmoid", "HardSwish", "Tanh"]))
        self.add(self.node(op, t.name)[0], t.channels, t.size)

    def grow_slopes(self, t: Tensor) -> None:
        y = self.node("PRelu", t.name, self.weight(t.channels, 1, 1))[0]
        self.add(y, t.channels, t.size)

    def grow_sum(self, t: Tensor) -> None:
        same = [o for o in self.open if (o.channels, o.size) == (t.channels, t.size)]
        other = same[int(self.random.integers(len(same)))]
        op = str(self.random.choice(["Add", "Mul", "Max"]))
        self.add(self.node(op, t.name, other.name)[0], t.channels, t.size)

    def grow_concat(self, t: Tensor) -> None:
        same = [o for o in self.open if o.size == t.size]
        other = same[int(self.random.integers(len(same)))]
        if t.channels + other.channels <= 40:
            y = self.node("Concat", t.name, other.name, axis=1)[0]
            self.add(y, t.channels + other.channels, t.size)

    def grow_split(self, t: Tensor) -> None:
        if t.channels < 2:
            return
        first = int(self.random.integers(1, t.channels))
        sizes = self.integers(first, t.channels - first)
        a, b = self.node("Split", t.name, sizes, outputs=2, axis=1)
        self.add(a, first, t.size)
        self.add(b, t.channels - first, t.size)

    def grow_slice(self, t: Tensor) -> None:
        if t.channels < 3:
            return
        start = int(self.random.integers(0, t.channels - 1))
        end = int(self.random.integers(start + 1, t.channels + 1))
        step = int(self.random.choice([1, 1, 2]))
        given = (self.integers(number) for number in (start, end, 1, step))
        y = self.node("Slice", t.name, *given)[0]
        self.add(y, len(range(start, end, step)), t.size)

    def grow_gather(self, t: Tensor) -> None:
        order = self.random.permutation(t.channels)[: max(2, t.channels - 1)]
        y = self.node("Gather", t.name, self.integers(*order.tolist()), axis=1)[0]
        self.add(y, len(order), t.size)

    def grow_shuffle(self, t: Tensor) -> None:
        groups = [g for g in (2, 3) if t.channels % g == 0]
        if groups:
            g, s = groups[0], t.size
            apart = self.node("Reshape", t.name, self.integers(1, g, t.channels // g, s, s))[0]
            turned = self.node("Transpose", apart, perm=[0, 2, 1, 3, 4])[0]
            y = self.node("Reshape", turned, self.integers(0, t.channels, s, s))[0]
            self.add(y, t.channels, s)

    def grow_gate(self, t: Tensor) -> None:
        pooled = self.node("GlobalAveragePool", t.name)[0]
        down = self.node("Conv", pooled, self.weight(2, t.channels, 1, 1))[0]
        up = self.node("Conv", down, self.weight(t.channels, 2, 1, 1))[0]
        gate = self.node("Sigmoid", up)[0]
        self.add(self.node("Mul", t.name, gate)[0], t.channels, t.size)

    def grow_pad(self, t: Tensor) -> None:
        if t.channels < 20:
            y = self.node("Pad", t.name, self.integers(0, 1, 0, 0, 0, 2, 0, 0))[0]
            self.add(y, t.channels + 3, t.size)

    def grow_blocks(self, t: Tensor) -> None:
        if t.channels % 4 == 0 and t.size < 12:
            mode = str(self.random.choice(["DCR", "CRD"]))
            y = self.node("DepthToSpace", t.name, blocksize=2, mode=mode)[0]
            self.add(y, t.channels // 4, t.size * 2)

    def finish(self) -> ir.Model:
        """End in a convolution, and in rows behind a Flatten."""
        last, other = self.open[-1], self.pick()
        head = self.node("Conv", last.name, self.weight(5, last.channels, 1, 1))[0]
        flat = self.node("Flatten", other.name)[0]
        rows = self.node("Gemm", flat, self.weight(other.channels * other.size**2, 4))[0]
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (head, rows)
        ]
        graph = helper.make_graph(self.nodes, "g", [image], outputs, self.weights)
        opsets = [helper.make_opsetid("", 17)]
        return load(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def random_network(seed: int, operators: int = 14) -> ir.Model:
    """A network of so many random operators."""
    network = Network(seed)
    network.grow_conv(network.open[0])
    for _ in range(operators):
        network.grow()
    return network.finish()
