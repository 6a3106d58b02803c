"""Weights in blocks: what the kernels compute, what rounding costs, how small files become."""

import math
from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt.errors import UsageError
from graphopt.graph import clone, to_bytes, verify
from graphopt.quantization.blocks import quantize_in_blocks
from graphopt.quantization.weight_only import BlockFormat, quantize_weights, round_blocks
from graphopt.rewrite import Journal
from graphopt.runtime import Session
from graphopt.shapes import infer_shapes
from tests.quantization.small_models import model, sqnr
from tests.zoo_models import batches


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("inputs", [64, 100])
def test_the_kernel_computes_what_the_blocks_stand_for(
    inputs: int, bits: int, symmetric: bool
) -> None:
    original = model(
        f"(float[N,3,{inputs}] x) => (float[N,3,24] y) {{ y = MatMul (x, w) }}", {"w": (inputs, 24)}
    )
    changed = clone(original)
    kind = BlockFormat(bits, 32, symmetric)
    quantize_weights(changed, Journal("x"), kind, minimum_elements=1)
    assert not verify(changed)
    assert [node.op_type for node in changed.graph] == ["MatMulNBits"]
    feed = {"x": np.random.default_rng(0).normal(size=(2, 3, inputs)).astype(np.float32)}
    weight = original.graph.initializers["w"].const_value.numpy()
    expected = feed["x"] @ kind.blocks(weight.T).dequantize().T
    actual = Session(changed).run(feed)["y"]
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())
    assert sqnr(feed["x"] @ weight, actual) > {4: 18, 8: 42}[bits]


@pytest.mark.parametrize("bits", [4, 8])
def test_both_forms_compute_the_same(bits: int) -> None:
    original = model(
        """(float[N,64] x) => (float[N,8] y) {
            t = Gemm <transB: int = 1, alpha: float = 0.5> (x, w, b)
            y = MatMul (t, v)
        }""",
        {"w": (32, 64), "b": (32,), "v": (32, 8)},
        opset=21,
    )
    feed = {"x": np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)}
    found = []
    for form in ("matmulnbits", "dequantize"):
        changed = clone(original)
        journal = Journal("x")
        quantize_weights(
            changed,
            journal,
            BlockFormat(bits, 32, symmetric=False),
            form=form,  # type: ignore[arg-type]
            minimum_elements=1,
        )
        assert len(journal.rewrites) == 2
        assert not verify(changed)
        found.append(Session(changed).run(feed)["y"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_a_block_uses_the_full_range_of_its_integers() -> None:
    """The largest magnitude is negative in one block, positive in the other: both get -8."""
    steps = np.arange(-8, 8) / 4.0
    matrix = np.stack([steps, -steps])
    blocks = quantize_in_blocks(matrix, bits=4, size=16)
    np.testing.assert_allclose(blocks.dequantize(), matrix, atol=1e-6)
    assert blocks.is_symmetric


def test_second_order_blocks_are_closer() -> None:
    original = model("(float[N,64] x) => (float[N,24] y) { y = MatMul (x, w) }", {"w": (64, 24)})
    mixing = np.random.default_rng(1).normal(size=(64, 64))
    feeds = [
        {"x": (np.random.default_rng([seed]).normal(size=(64, 64)) @ mixing).astype(np.float32)}
        for seed in range(10)
    ]
    kind = BlockFormat(4, 32)
    rounded = round_blocks(original, feeds[:8], kind, minimum_elements=1)
    ratios = []
    for blocks in (None, rounded):
        changed = clone(original)
        quantize_weights(changed, Journal("x"), kind, minimum_elements=1, rounded=blocks)
        expected = Session(original).run(feeds[9])["y"]
        ratios.append(sqnr(expected, Session(changed).run(feeds[9])["y"]))
    assert ratios[1] > ratios[0] + 2


@pytest.mark.parametrize("bits", [4, 8])
def test_rows_of_a_table_are_read_from_blocks(bits: int) -> None:
    original = model(
        "(int64[N,2] ids) => (float[N,2,64] y) { y = Gather (table, ids) }", {"table": (30, 64)}
    )
    changed = clone(original)
    kind = BlockFormat(bits, 32, symmetric=False)
    quantize_weights(changed, Journal("x"), kind, minimum_elements=1)
    feed = {"ids": np.array([[0, 29], [7, 7]])}
    table = original.graph.initializers["table"].const_value.numpy()
    expected = kind.blocks(table).dequantize()[feed["ids"]]
    np.testing.assert_allclose(Session(changed).run(feed)["y"], expected, atol=1e-5)
    assert len(to_bytes(changed)) < len(to_bytes(original)) / 2.5


@pytest.mark.parametrize(("bits", "size"), [(3, 32), (4, 24), (4, 8)])
def test_what_has_no_kernel_is_refused(bits: int, size: int) -> None:
    with pytest.raises(UsageError, match="have no kernel"):
        BlockFormat(bits, size)


def test_a_decoder_in_eight_bits_predicts_as_well(zoo: Path) -> None:
    original = graphopt.optimize(graphopt.load(zoo / "models" / "stories260k.onnx")).model
    infer_shapes(original)
    changed = clone(original)
    quantize_weights(changed, Journal("x"), BlockFormat(8, 32), minimum_elements=1024)
    texts = list(batches(zoo, "stories260k", 2))
    losses = []
    for candidate in (original, changed):
        session, total, count = Session(candidate), 0.0, 0
        for feed, following in texts:
            (logits,) = session.run(feed).values()
            shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
            likely = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
            total -= np.take_along_axis(likely, following[..., None], -1).sum()
            count += following.size
        losses.append(math.exp(total / count))
    assert losses[1] < 1.01 * losses[0]
    assert len(to_bytes(changed)) < 0.7 * len(to_bytes(original))
