"""Dynamic quantization: close to float, and what ONNX Runtime makes of it."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from graphopt.graph import clone, ir, to_proto, verify
from graphopt.quantization.dynamic import dynamic_parameters, quantize_dynamically
from graphopt.quantization.repair.linear_layer import linear_layers
from graphopt.quantization.repair.weight_rounding import round_weights
from graphopt.quantization.saturation import excess
from graphopt.rewrite import Journal
from graphopt.runtime import Session
from tests.quantization.small_models import model, sqnr

NETWORK = model(
    """(float[N,5,32] x) => (float[N,5,8] y, float[N,5,8] z) {
        t = MatMul (x, w)
        s = Add (t, b)
        r = Relu (s)
        y = MatMul (r, v)
        z = MatMul (r, u)
    }""",
    {"w": (32, 48), "b": (48,), "v": (48, 8), "u": (48, 8)},
)
MIXING = np.random.default_rng(1).normal(size=(32, 32))
FEEDS = [
    {"x": (np.random.default_rng(seed).normal(size=(4, 5, 32)) @ MIXING).astype(np.float32)}
    for seed in range(12)
]


def optimized_operators(changed: ir.Model, folder: Path) -> list[str]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    proto = to_proto(changed).SerializeToString()
    onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


def test_the_runtime_fuses_it_and_it_stays_close(tmp_path: Path) -> None:
    changed = clone(NETWORK)
    journal = Journal("x")
    quantize_dynamically(changed, journal, minimum_elements=1)
    assert not verify(changed)
    assert len(journal.rewrites) == 3
    operators = optimized_operators(changed, tmp_path)
    assert sorted(operators) == [
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",  # with the Add of the bias
        "MatMulIntegerToFloat",
        "MatMulIntegerToFloat",
        "Relu",
    ]
    for name, expected in Session(NETWORK).run(FEEDS[0]).items():
        assert sqnr(expected, Session(changed).run(FEEDS[0])[name]) > 36
        assert sqnr(expected, Session(changed, optimized=True).run(FEEDS[0])[name]) > 36


def test_second_order_rounding_goes_with_it() -> None:
    layers = {(layer.name, 1): dynamic_parameters(layer) for layer in linear_layers(NETWORK.graph)}
    rounded = round_weights(NETWORK, layers, FEEDS[:8])
    ratios = []
    for integers in (None, rounded.integers):
        changed = clone(NETWORK)
        quantize_dynamically(changed, Journal("x"), minimum_elements=1, integers=integers)
        session, reference = Session(changed), Session(NETWORK)
        ratios.append(
            np.mean([sqnr(reference.run(feed)["y"], session.run(feed)["y"]) for feed in FEEDS[8:]])
        )
    assert ratios[1] > ratios[0]


def test_no_pair_of_products_saturates_where_that_is_asked() -> None:
    changed = clone(NETWORK)
    quantize_dynamically(changed, Journal("x"), minimum_elements=1, saturation_safe=True)
    plain = clone(NETWORK)
    quantize_dynamically(plain, Journal("x"), minimum_elements=1, saturation_safe=False)
    for name in ("w_quantized", "v_quantized", "u_quantized"):
        assert excess(plain.graph.initializers[name].const_value.numpy(), 1).any()
        assert not excess(changed.graph.initializers[name].const_value.numpy(), 1).any()


def test_only_the_nodes_asked_for_are_changed() -> None:
    changed = clone(NETWORK)
    journal = Journal("x")
    quantize_dynamically(changed, journal, nodes={"y"}, minimum_elements=1)
    assert [rewrite.site for rewrite in journal.rewrites] == ["MatMul -> y"]
    assert sum(node.op_type == "MatMul" for node in changed.graph) == 2


@pytest.mark.parametrize("opset", [9, 10])
def test_an_old_opset_is_declined(opset: int) -> None:
    old = model("(float[N,4] x) => (float[N,4] y) { y = MatMul (x, w) }", {"w": (4, 4)}, opset)
    journal = Journal("x")
    quantize_dynamically(old, journal, minimum_elements=1)
    assert [decline.reason for decline in journal.declined] == [
        "DynamicQuantizeLinear needs opset 11"
    ]
