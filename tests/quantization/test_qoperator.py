"""The QOperator form computes to the bit what ONNX Runtime makes of the QDQ form."""

from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt.graph import clone, ir, verify
from graphopt.quantization.backends import BACKENDS
from graphopt.quantization.calibration import calibrate
from graphopt.quantization.insertion import quantized
from graphopt.quantization.placement import place
from graphopt.quantization.plan import make_plan
from graphopt.quantization.qoperator import convert_to_qoperators
from graphopt.rewrite import Journal
from graphopt.runtime import Session
from graphopt.shapes import infer_shapes
from tests.quantization.small_models import model, normal
from tests.zoo_models import batches

BACKEND = BACKENDS["ort-cpu"]


def qdq(original: ir.Model, feeds: list[dict[str, np.ndarray]]) -> ir.Model:
    placement = place(original, BACKEND)
    ranges = calibrate(original, feeds, placement.activations)
    found = quantized(original, make_plan(original, placement, ranges, BACKEND))
    infer_shapes(found)
    return found


def test_a_network_becomes_integers_throughout() -> None:
    original = model(
        """(float[N,4,8,8] x) => (float[N,6] y) {
            a = Conv <pads: ints = [1,1,1,1]> (x, w, b)
            r = Relu (a)
            c = Conv <group: int = 8, pads: ints = [1,1,1,1]> (r, d, e)
            s = Add (c, r)
            p = GlobalAveragePool (s)
            f = Flatten (p)
            y = Gemm <transB: int = 1> (f, g, h)
        }""",
        {"w": (8, 4, 3, 3), "b": (8,), "d": (8, 1, 3, 3), "e": (8,), "g": (6, 8), "h": (6,)},
    )
    feeds = normal((2, 4, 8, 8), 6)
    before = qdq(original, feeds)
    after = clone(before)
    journal = Journal("x")
    convert_to_qoperators(after, journal)
    assert not verify(after)
    kinds = [node.op_type for node in after.graph]
    assert kinds.count("QLinearConv") == 2
    assert "QLinearAdd" in kinds
    assert "Conv" not in kinds
    assert "Add" not in kinds
    assert "Relu" not in kinds
    for feed in feeds:
        expected = Session(before, optimized=True).run(feed)["y"]
        np.testing.assert_array_equal(Session(after, optimized=True).run(feed)["y"], expected)


def test_a_relu_that_does_something_stays() -> None:
    """Signed integers with zero in the middle reach below what Relu lets through."""
    head = "(float[N,2,4,4] x) => (float[N,2,4,4] y)"
    original = model(
        f"""{head} {{
            q = QuantizeLinear (x, s, z)
            d = DequantizeLinear (q, s, z)
            a = Conv (d, w)
            r = Relu (a)
            p = QuantizeLinear (r, s, z)
            y = DequantizeLinear (p, s, z)
        }}""",
        {"w": (2, 2, 1, 1), "s": np.array(0.05), "z": np.array(0, np.int8)},
    )
    journal = Journal("x")
    convert_to_qoperators(original, journal)
    assert not journal.rewrites
    assert "the integers reach beyond what Relu lets through" in {
        d.reason for d in journal.declined
    }


@pytest.mark.parametrize("name", ["cifar_resnet20", "lprnet"])
def test_zoo_models_give_the_same_outputs(zoo: Path, name: str) -> None:
    original = graphopt.optimize(graphopt.load(zoo / "models" / f"{name}.onnx")).model
    infer_shapes(original)
    feeds = [feed for feed, _ in batches(zoo, name, 3)]
    before = qdq(original, feeds[:2])
    after = clone(before)
    convert_to_qoperators(after, Journal("x"))
    assert not verify(after)
    assert sum(node.op_type == "QLinearConv" for node in after.graph) >= 16
    expected = Session(before, optimized=True).run(feeds[-1])
    for output, array in Session(after, optimized=True).run(feeds[-1]).items():
        np.testing.assert_array_equal(array, expected[output])
