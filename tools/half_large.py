"""Times the conversion of large models; for tools/bench_fp16.py, and by itself.

    python tools/half_large.py [--blocks 10] [--external]

A transformer of `blocks` blocks of 50 MB, width 1024, with random weights, 128 tokens.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, TOKENS = 1024, 16, 128


class Builder:
    """Appends blocks; every weight is drawn from one seeded stream."""

    def __init__(self, blocks: int) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        last = "x"
        for _ in range(blocks):
            last = self._block(last)
        self.node("Identity", [last], "y")

    def model(self) -> onnx.ModelProto:
        """The model: float[1, 128, 1024] in and out."""
        shape = [1, TOKENS, WIDTH]
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "y")]
        graph = helper.make_graph(self.nodes, "large", ends[:1], ends[1:], self.weights)
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def node(self, op_type: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        """Append a node; its output."""
        name = name or f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=f"n_{name}", **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        """Add an initializer."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def linear(self, source: str, inner: int, outer: int) -> str:
        """Append a product with a weight, and a bias."""
        weight = self.random.standard_normal((inner, outer), dtype=np.float32)
        product = self.node("MatMul", [source, self.constant(weight * inner**-0.5)])
        bias = self.constant(np.zeros(outer, np.float32))
        return self.node("Add", [product, bias])

    def norm(self, source: str) -> str:
        """LayerNormalization with a scale of one."""
        ones = self.constant(np.ones(WIDTH, np.float32))
        return self.node("LayerNormalization", [source, ones], axis=-1)

    def _block(self, source: str) -> str:
        normal = self.norm(source)
        heads = [self.linear(normal, WIDTH, WIDTH) for _ in range(3)]
        shape = self.constant(np.array([1, TOKENS, HEADS, WIDTH // HEADS], np.int64))
        parts = [self.node("Reshape", [head, shape]) for head in heads]
        orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        q, k, v = (
            self.node("Transpose", [part], perm=order)
            for part, order in zip(parts, orders, strict=True)
        )
        root = self.constant(np.array((WIDTH // HEADS) ** -0.5, np.float32))
        scores = self.node("Mul", [self.node("MatMul", [q, k]), root])
        mixed = self.node("MatMul", [self.node("Softmax", [scores], axis=-1), v])
        back = self.node("Transpose", [mixed], perm=[0, 2, 1, 3])
        flat = self.constant(np.array([1, TOKENS, WIDTH], np.int64))
        joined = self.linear(self.node("Reshape", [back, flat]), WIDTH, WIDTH)
        middle = self.node("Add", [source, joined])
        wide = self.linear(self.norm(middle), WIDTH, 4 * WIDTH)
        narrow = self.linear(self.node("Relu", [wide]), 4 * WIDTH, WIDTH)
        return self.node("Add", [middle, narrow])


def timed(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, seconds of processor time, and peak resident MB (10^6) of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6


def measure_large(blocks: int = 10, *, external: bool = False) -> dict[str, Any]:
    """Convert one large model as users do; the figures, and lines for the page."""
    script = str(Path(sys.executable).with_name("graphopt"))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "large.onnx", Path(folder) / "half.onnx"
        # In a process of its own: a child's peak begins at what its parent had at most.
        make = [sys.executable, __file__, "--blocks", str(blocks), "--make", str(source)]
        subprocess.run(make + ["--external"] * external, check=True)
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
        lines, found = [], {}
        for what, flags in (("", []), (" --storage-only", ["--storage-only"])):
            figures = timed([script, "fp16", str(source), str(target), "--force", "-q", *flags])
            found[what.strip() or "fp16"] = figures
            seconds, processor, peak = figures
            lines.append(
                f"`graphopt fp16{what}` on a transformer of {size:,.0f} MB: {seconds:.1f} s "
                f"({processor:.1f} s of processor time), {peak:,.0f} MB of memory at most."
            )
    return {"figures": found, "lines": ["\n\n".join(lines)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--external", action="store_true")
    parser.add_argument("--make", type=Path, metavar="OUT.onnx", help="write the model only")
    arguments = parser.parse_args()
    if arguments.make is not None:
        model = Builder(arguments.blocks).model()
        kept = arguments.external
        onnx.save(model, arguments.make, save_as_external_data=kept, location="large.data")
        return
    print("\n".join(measure_large(arguments.blocks, external=arguments.external)["lines"]))


if __name__ == "__main__":
    main()
