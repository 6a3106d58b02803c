"""Quantize with a rival tool, in an environment that has it: for tools/bench_quantize.py.

    python tools/quantize_rivals.py {nncf,onnxsim-static,onnxsim-dynamic} IN.onnx OUT.onnx DATA

DATA is a folder of .npz files, one sample each. It needs numpy and onnx, and the tool.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx


def feeds(folder: Path) -> list[dict[str, Any]]:
    """The samples, in the order of their names."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as content:
            found.append({name: content[name] for name in content.files})
    return found


def nncf(model: onnx.ModelProto, samples: list[dict[str, Any]]) -> onnx.ModelProto:
    """NNCF's post-training quantization with its defaults."""
    import nncf as tool

    transformer = any(
        node.op_type in ("LayerNormalization", "Softmax") for node in model.graph.node
    )
    kind = tool.ModelType.TRANSFORMER if transformer else None
    return tool.quantize(model, tool.Dataset(samples), subset_size=len(samples), model_type=kind)


def onnxsim_static(model: onnx.ModelProto, samples: list[dict[str, Any]]) -> onnx.ModelProto:
    """Calibrated QDQ of onnxsim."""
    import onnxsim

    simplified, _ = onnxsim.simplify(model)
    return onnxsim.quantize_static(simplified, samples)


def onnxsim_dynamic(model: onnx.ModelProto, samples: list[dict[str, Any]]) -> onnx.ModelProto:
    """Dynamic quantization of onnxsim, in the form that ONNX Runtime fuses."""
    import onnxsim

    del samples
    simplified, _ = onnxsim.simplify(model)
    return onnxsim.quantize_dynamic_matmul_integer_to_float(simplified)


TOOLS = {"nncf": nncf, "onnxsim-static": onnxsim_static, "onnxsim-dynamic": onnxsim_dynamic}


def main() -> int:
    tool, source, target, folder = sys.argv[1:]
    onnx.save(TOOLS[tool](onnx.load(source), feeds(Path(folder))), target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
