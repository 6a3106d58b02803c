"""What ONNX Runtime's CUDA provider runs in integers: nothing that QDQ leads to.

It runs QuantizeLinear and DequantizeLinear as they stand and computes between them in float, so
a QDQ model is never faster than the float one there. The rules say what to quantize for the
sake of the file's size or to study the error; TensorRT runs the same graph in integers.
"""

from __future__ import annotations

import dataclasses

from graphopt.quantization.backends.tensorrt import TENSORRT

ORT_CUDA = dataclasses.replace(
    TENSORRT,
    name="ort-cuda",
    provider="cuda",
    notes=(
        (
            "The CUDA provider of ONNX Runtime computes QDQ models in float: they are smaller, not "
            "faster; use --backend tensorrt, or weight-only quantization."
        ),
    ),
)
