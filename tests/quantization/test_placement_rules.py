"""Every rule of the ort-cpu backend against the ONNX Runtime that is installed.

Each operator stands behind an integer Conv, is quantized as the tool does it, and the graph that
ONNX Runtime makes of it has to have the integer kernel. The converse is tried too: what the
backend's page says has no integer kernel has none.
"""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.quantization.backends import BACKENDS
from graphopt.runtime.executed import executed_model

from .quantizing import ORT_CPU, Quantized, model_of, normal, quantize

# t is [1, 8, 8, 8] and comes from an integer Conv.
_MOVED = {
    "DepthToSpace": "y = DepthToSpace <blocksize = 2> (t)",
    "Expand": "y = Expand (t, five)",
    "Flatten": "y = Flatten (t)",
    "Gather": "y = Gather <axis = 1> (t, picked)",
    "GatherElements": "y = GatherElements <axis = 1> (t, elements)",
    "MaxPool": "y = MaxPool <kernel_shape = [2, 2]> (t)",
    "ReduceMax": "y = ReduceMax <axes = [2, 3]> (t)",
    "ReduceMin": "y = ReduceMin <axes = [2, 3]> (t)",
    "Reshape": "y = Reshape (t, flat)",
    "Resize": 'y = Resize <mode = "nearest"> (t, , doubled)',
    "Slice": "y = Slice (t, zero, two, one)",
    "Split": "y, z = Split <axis = 1> (t)",
    "Squeeze": "y = Squeeze (t, zero)",
    "Tile": "y = Tile (t, repeats)",
    "Transpose": "y = Transpose <perm = [0, 2, 3, 1]> (t)",
    "Unsqueeze": "y = Unsqueeze (t, zero)",
}
_COMPUTED = {
    "Add": ("y = Add (t, t2)", "QLinearAdd"),
    "Mul": ("y = Mul (t, t2)", "QLinearMul"),
    "Where": ("y = Where (chosen, t, t2)", "QLinearWhere"),
    "Sigmoid": ("y = Sigmoid (t)", "QLinearSigmoid"),
    "LeakyRelu": ("y = LeakyRelu (t)", "QLinearLeakyRelu"),
    "GlobalAveragePool": ("y = GlobalAveragePool (t)", "QLinearGlobalAveragePool"),
    "AveragePool": ("y = AveragePool <kernel_shape = [2, 2]> (t)", "QLinearAveragePool"),
    "Softmax": ("y = Softmax (t)", "QLinearSoftmax"),
    "Concat": ("y = Concat <axis = 1> (t, t2)", "QLinearConcat"),
}
_PRODUCTS = {
    "Conv": ("y = Conv (x, w)", [1, 8, 8, 8], "QLinearConv"),
    "Gemm": ("y = Gemm <transB = 1> (x, m, b)", [4, 8], "QGemm"),
    "MatMul": ("y = MatMul (x, m)", [2, 4, 8], "MatMulIntegerToFloat"),
}
_NO_KERNEL = (
    "ConvTranspose (t, w)",
    "Tanh (t)",
    "HardSigmoid (t)",
    "HardSwish (t)",
    "ReduceMean <axes = [2, 3]> (t)",
    "Sub (t, t2)",
    "Div (t, t2)",
    "Pad (t, border)",
    "Elu (t)",
)
_CONSTANTS = {
    "w": normal(8, 8, 1, 1, scale=0.3),
    "w2": normal(8, 8, 1, 1, seed=1, scale=0.3),
    "m": normal(8, 8, seed=2),
    "b": normal(8, seed=3),
    "five": np.array([2, 8, 8, 8]),
    "picked": np.array([0, 3]),
    "elements": np.zeros((1, 8, 8, 8), np.int64),
    "flat": np.array([1, -1]),
    "doubled": np.array([1, 1, 2, 2], np.float32),
    "zero": np.array([0]),
    "two": np.array([2]),
    "one": np.array([1]),
    "repeats": np.array([1, 2, 1, 1]),
    "chosen": np.tile([True, False], 256).reshape(1, 8, 8, 8),
    "border": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
}


def _behind_conv(line: str) -> Quantized:
    """The operator behind integer Convs, quantized though it may be slow."""
    text = f"g (float[1,8,8,8] x) => (float y{', float z' if 'z =' in line else ''}) {{"
    second = "t2 = Conv (x, w2)" if "t2" in line else ""
    text += f" t = Conv (x, w) {second} {line} }}"
    if "Split" in line:
        text = '<ir_version: 8, opset_import: ["" : 13]>' + text
    used = {k: v for k, v in _CONSTANTS.items() if k in text.replace("(", " ").replace(",", " ")}
    model = model_of(text.replace("float y", "y").replace("float z", "z"), used)
    return quantize(model, {"x": normal(1, 8, 8, 8, seed=5)}, float_groups={})


def _node(line: str) -> str:
    return line.split(" = ")[1].split()[0]


def test_every_rule_is_tried() -> None:
    tried = {*_MOVED, *_COMPUTED, *_PRODUCTS, "Identity"}
    assert {rule.op_type for rule in ORT_CPU.rules} == tried


@pytest.mark.parametrize("op_type", _MOVED)
def test_what_moves_elements_moves_integers(op_type: str) -> None:
    found = _behind_conv(_MOVED[op_type])
    kernels = found.kernels()
    at = next(i for i, kernel in enumerate(kernels) if kernel.removeprefix("Nhwc") == op_type)
    # Nothing is dequantized before it, nothing quantized behind it.
    assert "DequantizeLinear" not in kernels[:at]
    assert "QuantizeLinear" not in kernels[at:]
    assert found.sqnr(optimized=True) > 30


def test_identity_vanishes_between_integers() -> None:
    found = _behind_conv("u = Identity (t) y = Conv (u, w2)")
    assert found.kernels().count("DequantizeLinear") == 1


@pytest.mark.parametrize("op_type", _COMPUTED)
def test_what_computes_elements_has_an_integer_kernel(op_type: str) -> None:
    line, kernel = _COMPUTED[op_type]
    found = _behind_conv(line)
    assert kernel in found.kernels()
    assert op_type not in found.kernels()
    assert found.sqnr(optimized=True) > 30
    assert abs(found.sqnr(optimized=True) - found.sqnr()) < 3


@pytest.mark.parametrize("op_type", _PRODUCTS)
def test_products_have_an_integer_kernel(op_type: str) -> None:
    line, shape, kernel = _PRODUCTS[op_type]
    dims = ",".join(map(str, shape))
    used = {name: _CONSTANTS[name] for name in ("w", "m", "b") if name in line.split("(")[1]}
    model = model_of(f"g (float[{dims}] x) => (y) {{ {line} }}", used)
    found = quantize(model, {"x": normal(*shape, seed=5)})
    assert kernel in found.kernels()
    assert op_type not in found.kernels()
    assert found.sqnr(optimized=True) > 30


@pytest.mark.parametrize("call", _NO_KERNEL)
def test_what_has_no_rule_has_no_integer_kernel(call: str) -> None:
    op_type = call.split()[0]
    assert op_type not in {rule.op_type for rule in ORT_CPU.rules}
    # The generic backend is asked to put integers around it by a rule made for the purpose.
    import dataclasses

    from graphopt.quantization.backends import Role, Rule

    operands = (0, 1) if "t2" in call or ", w" in call else (0,)
    role = Role.MOVEMENT if op_type == "Pad" else Role.ARITHMETIC
    backend = dataclasses.replace(
        BACKENDS["ort-cpu"], rules=(*ORT_CPU.rules, Rule(op_type, role, operands=operands))
    )
    text = f"g (float[1,8,8,8] x) => (y) {{ t = Conv (x, w) t2 = Conv (x, w2) y = {call} }}"
    used = {name: _CONSTANTS[name] for name in ("w", "w2", "border") if name in text}
    model = model_of(text, used)
    found = quantize(model, {"x": normal(1, 8, 8, 8, seed=5)}, backend=backend, float_groups={})
    kernels = [node.op_type for node in executed_model(found.result, threads=1).graph]
    assert not any(kernel == f"QLinear{op_type}" for kernel in kernels)
    assert kernels.count("DequantizeLinear") > 1  # it is dequantized for, and again at the end
