"""Time counting on models of 5,000 and 50,000 nodes: it has to grow linearly.

    python tools/bench_cost.py [--repeat 3] [--nodes 5000 50000]

Three shapes of model, each with fixed and with free dims: a residual chain of convolutions, a
chain of attention blocks, and one value that every node reads. Exits with 1 where 5,000 nodes take
2 seconds or more, or the large model over 12 times the small one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from graphopt.cost import estimate_cost

MOST_SECONDS = 2.0
MOST_GROWTH = 12.0
Shape = Sequence[int | str]


def model_of(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], shape: Shape
) -> onnx.ModelProto:
    """A model from `x` to the last node's output."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "bench", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def weight(name: str, *shape: int) -> onnx.TensorProto:
    """A constant of ones."""
    return onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)


def residual(count: int, free: bool) -> onnx.ModelProto:
    """Conv, Relu, Add, again and again."""
    nodes, last = [], "x"
    for index in range(count // 3):
        made = [f"{kind}{index}" for kind in ("c", "r", "a")]
        nodes.append(helper.make_node("Conv", [last, "w"], [made[0]], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [made[0]], [made[1]]))
        nodes.append(helper.make_node("Add", [made[1], last], [made[2]]))
        last = made[2]
    shape: Shape = ["N", 8, "H", "W"] if free else [1, 8, 16, 16]
    return model_of(nodes, [weight("w", 8, 8, 3, 3)], shape)


def attention(count: int, free: bool) -> onnx.ModelProto:
    """MatMul, Transpose, MatMul, Softmax, MatMul, Add, again and again."""
    nodes, last = [], "x"
    for index in range(count // 6):
        q, t, s, p, v, a = (f"{kind}{index}" for kind in "qtspva")
        nodes += [
            helper.make_node("MatMul", [last, "w"], [q]),
            helper.make_node("Transpose", [last], [t], perm=[0, 2, 1]),
            helper.make_node("MatMul", [q, t], [s]),
            helper.make_node("Softmax", [s], [p]),
            helper.make_node("MatMul", [p, last], [v]),
            helper.make_node("Add", [v, last], [a]),
        ]
        last = a
    shape: Shape = ["N", "S", 32] if free else [1, 16, 32]
    return model_of(nodes, [weight("w", 32, 32)], shape)


def fan(count: int, free: bool) -> onnx.ModelProto:
    """One value that every node reads."""
    nodes = [helper.make_node("Relu", ["x"], [f"r{index}"]) for index in range(count - 1)]
    outputs = [node.output[0] for node in nodes]
    nodes.append(helper.make_node("Sum", outputs, ["y"]))
    return model_of(nodes, [], ["N", 8] if free else [4, 8])


SHAPES: dict[str, Callable[[int, bool], onnx.ModelProto]] = {
    "residual": residual,
    "attention": attention,
    "fan": fan,
}


def seconds(content: bytes, repeat: int) -> float:
    """The median time of counting a serialized model, loading included."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        cost = estimate_cost(content)
        assert cost.total.flops
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--nodes", type=int, nargs=2, default=(5_000, 50_000))
    arguments = parser.parse_args()
    small, large = arguments.nodes
    failed = False
    print(f"{'shape':20} {small:>9,} {large:>9,}  growth")
    for name, make in SHAPES.items():
        for free in (False, True):
            times = [
                seconds(make(count, free).SerializeToString(), arguments.repeat)
                for count in (small, large)
            ]
            growth = times[1] / times[0]
            title = f"{name}, {'free' if free else 'fixed'} dims"
            print(f"{title:20} {times[0]:8.2f}s {times[1]:8.2f}s {growth:6.1f}x")
            failed |= times[0] >= MOST_SECONDS or growth > MOST_GROWTH
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
