"""Residual blocks: which are found, why others are not, and what can stand for them exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from graphopt.graph import clone, ir, load, verify
from graphopt.pruning.block_fit import BlockFitter, fitted
from graphopt.pruning.residual_blocks import find_blocks, split_sums
from graphopt.runtime import Feed, Session
from graphopt.shapes import infer_shapes
from tests.pruning.pruning_models import Weights, model

RANDOM = np.random.default_rng(7)


def drawn(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 0.4, shape).astype(np.float32)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@dataclass(frozen=True)
class Case:
    """Blocks for which a substitute is exact.

    Attributes:
        inputs: the declared inputs; x is the first.
        outputs: the declared outputs.
        kinds: by block what is put there.
        sizes: the shape of x in each run.
    """

    inputs: str
    outputs: str
    body: str
    weights: Weights
    kinds: Mapping[str, str]
    sizes: tuple[tuple[int, ...], ...]
    opset: int = 17


IMAGE = "float[N, 6, 5, 5] x"
IMAGES = ((4, 6, 5, 5), (1, 6, 5, 5), (7, 6, 5, 5))
TOKENS = "float[N, T, 8] x"
SENTENCES = ((4, 9, 8), (1, 1, 8), (3, 5, 8))

CONVOLUTIONS = """
    a = Conv<pads = [1, 1, 1, 1]>(x, w, p)
    b = Relu(a)
    f = Conv<pads = [1, 1, 1, 1]>(b, v, q)
    s = Add(f, x)
    y = Relu(s)
"""

ATTENTION = """
    n = LayerNormalization<axis = -1>(x, scale, bias)
    q = MatMul(n, wq)
    k = MatMul(n, wk)
    v = MatMul(n, wv)
    t = Transpose<perm = [0, 2, 1]>(k)
    l = MatMul(q, t)
    p = Softmax<axis = -1>(l)
    a = MatMul(p, v)
    f = MatMul(a, wo)
    s = Add(x, f)
    m = LayerNormalization<axis = -1>(s, scale, bias)
    h = MatMul(m, w1)
    r = Relu(h)
    g = MatMul(r, w2)
    y = Add(s, g)
"""

EXACT = {
    "identity: zero weights": Case(
        IMAGE,
        "float[N, 6, 5, 5] y",
        CONVOLUTIONS,
        {"w": drawn(9, 6, 3, 3), "p": drawn(9), "v": zeros(6, 9, 3, 3), "q": zeros(6)},
        {"s": "constant"},
        IMAGES,
    ),
    "identity, as a linear map": Case(
        IMAGE,
        "float[N, 6, 5, 5] y",
        CONVOLUTIONS,
        {"w": drawn(9, 6, 3, 3), "p": drawn(9), "v": zeros(6, 9, 3, 3), "q": zeros(6)},
        {"s": "linear"},
        IMAGES,
    ),
    "constant: a bias alone": Case(
        IMAGE,
        "float[N, 6, 5, 5] y",
        CONVOLUTIONS,
        {"w": drawn(9, 6, 3, 3), "p": drawn(9), "v": zeros(6, 9, 3, 3), "q": drawn(6)},
        {"s": "constant"},
        IMAGES,
    ),
    "constant behind a dead activation": Case(
        IMAGE,
        "float[N, 6, 5, 5] y",
        "a = Conv(x, w, p)\nb = Relu(a)\nf = Conv(b, v, q)\ny = Add(x, f)",
        {"w": zeros(9, 6, 1, 1), "p": drawn(9), "v": drawn(6, 9, 1, 1), "q": drawn(6)},
        {"y": "constant"},
        IMAGES,
    ),
    "linear: two convolutions of one point": Case(
        IMAGE,
        "float[N, 6, 5, 5] y",
        "a = Conv(x, w, p)\nf = Conv(a, v, q)\ns = Add(f, x)\ny = Relu(s)",
        {"w": drawn(9, 6, 1, 1), "p": drawn(9), "v": drawn(6, 9, 1, 1), "q": drawn(6)},
        {"s": "linear"},
        IMAGES,
    ),
    "linear: a signal": Case(
        "float[N, 6, 5] x",
        "float[N, 6, 5] y",
        "a = Conv(x, w, p)\nf = Conv(a, v, q)\ny = Add(x, f)",
        {"w": drawn(9, 6, 1), "p": drawn(9), "v": drawn(6, 9, 1), "q": drawn(6)},
        {"y": "linear"},
        ((8, 6, 5), (1, 6, 5)),
    ),
    "linear: vectors": Case(
        "float[N, 8] x",
        "float[N, 8] y",
        "a = Gemm(x, w, p)\nf = MatMul(a, v)\ny = Add(x, f)",
        {"w": drawn(8, 20), "p": drawn(20), "v": drawn(20, 8)},
        {"y": "linear"},
        ((60, 8), (1, 8)),
    ),
    "linear: images turned to channels last inside": Case(
        IMAGE,
        "float[N, 6, 5, 5] y",
        "t = Transpose<perm = [0, 2, 3, 1]>(x)\na = MatMul(t, w)\nb = MatMul(a, v)\n"
        "f = Transpose<perm = [0, 3, 1, 2]>(b)\ny = Add(x, f)",
        {"w": drawn(6, 9), "v": drawn(9, 6)},
        {"y": "linear"},
        IMAGES,
    ),
    "linear: channels last throughout": Case(
        "float[N, 5, 5, 6] x",
        "float[N, 5, 5, 6] y",
        "a = MatMul(x, w)\nf = MatMul(a, v)\ny = Add(x, f)",
        {"w": drawn(6, 9), "v": drawn(9, 6)},
        {"y": "linear"},
        ((4, 5, 5, 6), (1, 5, 5, 6)),
    ),
    "one behind the other, the first is what the second reads": Case(
        TOKENS,
        "float[N, T, 8] y",
        "a = MatMul(x, w)\nf = MatMul(a, v)\ns = Add(x, f)\n"
        "b = MatMul(s, w2)\ng = MatMul(b, v2)\ny = Add(g, s)",
        {"w": drawn(8, 20), "v": drawn(20, 8), "w2": drawn(8, 20), "v2": drawn(20, 8)},
        {"s": "linear", "y": "linear"},
        SENTENCES,
    ),
    "a transformer's attention without values and feed-forward without output": Case(
        TOKENS,
        "float[N, T, 8] y",
        ATTENTION,
        {
            "scale": drawn(8),
            "bias": drawn(8),
            "wq": drawn(8, 8),
            "wk": drawn(8, 8),
            "wv": zeros(8, 8),
            "wo": drawn(8, 8),
            "w1": drawn(8, 16),
            "w2": zeros(16, 8),
        },
        {"s": "constant", "y": "constant"},
        SENTENCES,
    ),
    "shared weights: the other block keeps them": Case(
        IMAGE,
        "float[N, 6, 5, 5] y",
        "a = Conv(x, w)\nr = Relu(a)\nz = Mul(r, none)\nf = Conv(z, v, q)\ns = Add(x, f)\n"
        "b = Conv(s, w)\nt = Relu(b)\ng = Conv(t, v, q)\ny = Add(s, g)",
        {"w": drawn(9, 6, 1, 1), "v": drawn(6, 9, 1, 1), "q": drawn(6), "none": zeros(1)},
        {"s": "constant"},
        IMAGES,
    ),
    "a block within a block that goes": Case(
        IMAGE,
        "float[N, 6, 5, 5] y",
        "a = Conv(x, w)\nf = Conv(a, w)\ns = Add(x, f)\ng = Conv(s, v)\ny = Add(x, g)",
        {"w": drawn(6, 6, 1, 1), "v": drawn(6, 6, 1, 1)},
        {"s": "linear", "y": "linear"},
        IMAGES,
    ),
    "f reads sizes, and a table that they cut": Case(
        TOKENS,
        "float[N, T, 8] y",
        "n = Shape(x)\nt = Gather<axis = 0>(n, one)\ne = Slice(table, zero, t, zero)\n"
        "a = MatMul(x, w)\nb = Add(a, e)\nf = MatMul(b, v)\ny = Add(x, f)",
        {
            "table": zeros(9, 8),
            "zero": np.array([0]),
            "one": np.array([1]),
            "w": drawn(8, 8),
            "v": drawn(8, 8),
        },
        {"y": "linear"},
        SENTENCES,
    ),
    "somebody reads the size of what is computed in f": Case(
        TOKENS,
        "float[N, T, 8] y, int64[3] n",
        "a = MatMul(x, w)\nn = Shape(a)\nf = MatMul(a, v)\ny = Add(x, f)",
        {"w": drawn(8, 20), "v": drawn(20, 8)},
        {"y": "linear"},
        SENTENCES,
    ),
}


def prepared(case: Case) -> ir.Model:
    found = model(case.inputs, case.outputs, case.body, case.weights, opset=case.opset)
    assert verify(found) == []
    infer_shapes(found)
    return found


def fed(shape: tuple[int, ...]) -> Feed:
    return {"x": np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)}


@pytest.mark.parametrize("name", EXACT)
def test_what_is_exactly_so_is_replaced_exactly(name: str) -> None:
    case = EXACT[name]
    original = prepared(case)
    blocks, _ = find_blocks(original.graph)
    assert set(case.kinds) <= set(blocks)
    feeds = [{"x": RANDOM.normal(size=case.sizes[0]).astype(np.float32)} for _ in range(8)]
    smaller, errors = BlockFitter(original, blocks, feeds).build(case.kinds)
    assert errors
    assert all(error < 1e-9 for error in errors.values())
    assert verify(smaller) == []
    assert len(list(smaller.graph)) < len(list(original.graph)) or "size" in name
    before, after = Session(original), Session(smaller)
    for shape in case.sizes:
        expected, actual = before.run(fed(shape)), after.run(fed(shape))
        for output, value in expected.items():
            assert actual[output].shape == value.shape
            np.testing.assert_allclose(actual[output], value, atol=1e-5 * np.abs(value).max())


def test_the_weights_of_what_goes_go_too() -> None:
    case = EXACT["constant: a bias alone"]
    original = prepared(case)
    blocks, _ = find_blocks(original.graph)
    smaller, _ = BlockFitter(original, blocks, [fed((4, 6, 5, 5))]).build({"s": "constant"})
    assert set(smaller.graph.initializers) == {"s/mean"}
    assert {node.op_type for node in smaller.graph} == {"Add", "Relu"}
    # The model that it was made of is as it was.
    assert set(original.graph.initializers) == {"w", "p", "v", "q"}


def test_later_blocks_make_good_what_earlier_ones_miss() -> None:
    """The second block is linear: fitted behind the first it takes up that one's error too."""
    original = model(
        TOKENS,
        "float[N, T, 8] y",
        "a = MatMul(x, w)\nr = Relu(a)\nf = MatMul(r, v)\ns = Add(x, f)\n"
        "b = MatMul(s, w2)\ng = MatMul(b, v2)\ny = Add(g, s)",
        {"w": drawn(8, 20), "v": drawn(20, 8), "w2": drawn(8, 20), "v2": drawn(20, 8)},
    )
    infer_shapes(original)
    feeds = [{"x": RANDOM.normal(size=(4, 9, 8)).astype(np.float32)} for _ in range(20)]
    fitter = BlockFitter(original, find_blocks(original.graph)[0], feeds)
    alone, _ = fitter.build({"s": "constant"})
    both, _ = fitter.build({"s": "constant", "y": "linear"})
    reference = Session(original)

    def missed(candidate: ir.Model) -> float:
        run = Session(candidate).run
        return float(
            np.mean([np.square(run(feed)["y"] - reference.run(feed)["y"]) for feed in feeds])
        )

    assert missed(both) < 0.9 * missed(alone)


def test_the_rows_of_all_blocks_together_fit_into_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = EXACT["one behind the other, the first is what the second reads"]
    original = prepared(case)
    blocks, _ = find_blocks(original.graph)
    feeds = [{"x": RANDOM.normal(size=(40, 9, 8)).astype(np.float32)} for _ in range(8)]
    limit = 50_000
    monkeypatch.setattr("graphopt.pruning.block_fit.MAX_KEPT_BYTES", limit)
    fitter = BlockFitter(original, blocks, feeds)
    kept = [*fitter._x.values(), *fitter._y.values()]
    assert 0.8 * limit < sum(part.nbytes for parts in kept for part in parts) <= 1.1 * limit
    _, errors = fitter.build(case.kinds)
    assert all(error < 1e-9 for error in errors.values())


@pytest.mark.filterwarnings("error")
def test_one_row_is_fitted_by_the_mean() -> None:
    fit = fitted(drawn(1, 4), drawn(1, 4), linear=True)
    assert fit.matrix is not None
    assert not fit.matrix.any()
    assert fit.error == 0.0


@pytest.mark.parametrize("rows", [3, 30, 3000])
def test_a_fit_is_no_worse_on_other_rows_than_the_mean(rows: int) -> None:
    """However few rows there are: the ridge is chosen on rows that are held out."""
    random = np.random.default_rng(rows)
    matrix = random.normal(size=(12, 12)) * 0.1

    def made(count: int) -> tuple[np.ndarray, np.ndarray]:
        x = random.normal(size=(count, 12))
        return x, x + x @ matrix.T + random.normal(size=(count, 12))

    x, y = made(rows)
    other, target = made(5000)
    linear, constant = fitted(x, y, linear=True), fitted(x, y, linear=False)
    assert linear.matrix is not None
    with_map = np.square(other + other @ linear.matrix.T + linear.bias - target).mean()
    with_mean = np.square(other + constant.bias - target).mean()
    assert with_map < (1.3 if rows < 12 else 1.15 if rows < 100 else 0.95) * with_mean


def test_x_that_varies_in_few_directions_is_fitted() -> None:
    x = RANDOM.normal(size=(500, 2)) @ RANDOM.normal(size=(2, 9))
    y = x + x @ RANDOM.normal(size=(9, 9)) + 3.0
    fit = fitted(x, y, linear=True)
    assert fit.error < 1e-12
    assert fit.matrix is not None
    assert np.abs(fit.matrix).max() < 10


def test_half_precision_stays_half() -> None:
    original = model(
        "float16[N, 8] x",
        "float16[N, 8] y",
        "a = MatMul(x, w)\nf = MatMul(a, v)\ny = Add(x, f)",
        {"w": drawn(8, 9).astype(np.float16), "v": zeros(9, 8).astype(np.float16)},
    )
    infer_shapes(original)
    feeds = [{"x": RANDOM.normal(size=(40, 8)).astype(np.float16)}]
    fitter = BlockFitter(original, find_blocks(original.graph)[0], feeds)
    for kind in fitter.kinds("y"):
        smaller, _ = fitter.build({"y": kind})
        assert verify(smaller) == []
        found = Session(smaller).run(feeds[0])["y"]
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, Session(original).run(feeds[0])["y"])


MLP = "a = MatMul(x, w)\nr = Relu(a)\nf = MatMul(r, v)\n"
SQUARE: Weights = {"w": (8, 8), "v": (8, 8)}

DECLINED = {
    "f(x) reads 'm' beside x = 'x'": (
        f"{TOKENS}, float[N, T, 8] m",
        "float[N, T, 8] y",
        "a = MatMul(x, w)\nr = Add(a, m)\nf = MatMul(r, v)\ny = Add(x, f)",
    ),
    "is computed of the other": (
        TOKENS,
        "float[N, T, 8] y",
        "a = MatMul(x, w)\nf = MatMul(x, v)\ny = Add(a, f)",
    ),
    "adds a tensor to itself": (
        TOKENS,
        "float[N, T, 8] y",
        "a = MatMul(x, w)\nr = MatMul(a, v)\ny = Add(r, r)",
    ),
    "'r' within f(x) is an output": (
        TOKENS,
        "float[N, T, 8] y, float[N, T, 8] r",
        MLP + "y = Add(x, f)",
    ),
    "'r' within f(x) is read by 'z' too": (
        TOKENS,
        "float[N, T, 8] z",
        MLP + "y = Add(x, f)\nz = Mul(y, r)",
    ),
    "'r' within f(x) is read by a subgraph": (
        f"{TOKENS}, bool c",
        "float[N, T, 8] y, float[N, T, 8] z",
        MLP
        + "y = Add(x, f)\n"
        + "z = If(c) <then_branch = t () => (float[N, T, 8] i) {i = Relu(r)}, "
        + "else_branch = e () => (float[N, T, 8] j) {j = Neg(r)}>",
    ),
    "If 'r' in f(x) holds a subgraph": (
        TOKENS,
        "float[N, T, 8] y",
        (
            "a = MatMul(x, w)\nq = ReduceMax<keepdims = 0>(a)\ng = Greater(q, q)\n"
            "r = If(g) <then_branch = t () => (float[N, T, 8] i) {i = Relu(a)}, "
            "else_branch = e () => (float[N, T, 8] j) {j = Neg(a)}>\n"
            "f = MatMul(r, v)\ny = Add(x, f)"
        ),
    ),
    "RandomNormalLike 'r' in f(x) is random": (
        TOKENS,
        "float[N, T, 8] y",
        "a = MatMul(x, w)\nr = RandomNormalLike(a)\nu = Mul(a, r)\nf = MatMul(u, v)\ny = Add(x, f)",
    ),
    "Dropout 'r' in f(x) is random": (
        TOKENS,
        "float[N, T, 8] y",
        (
            "h = Constant<value = float {0.5}>()\nm = Constant<value = bool {1}>()\n"
            "a = MatMul(x, w)\nr = Dropout(a, h, m)\nf = MatMul(r, v)\ny = Add(x, f)"
        ),
    ),
    "have the shapes": (
        TOKENS,
        "float[N, T, 8] y",
        "a = MatMul(x, w)\nr = ReduceMean<axes = [1]>(a)\nf = MatMul(r, v)\ny = Add(x, f)",
    ),
    "how many channels": (
        "float[N, T, C] x",
        "float[N, T, C] y",
        "a = Softmax(x)\nf = Relu(a)\ny = Add(x, f)",
    ),
    "is of type": ("int32[N, 8] x", "int32[N, 8] y", "f = Abs(x)\ny = Add(x, f)"),
    "has 1 dims": ("float[8] x", "float[8] y", "f = Relu(x)\ny = Add(x, f)"),
}


@pytest.mark.parametrize("reason", DECLINED)
def test_declines_with_its_reason(reason: str) -> None:
    inputs, outputs, body = DECLINED[reason]
    weights = {name: shape for name, shape in SQUARE.items() if f" {name})" in body}
    found = model(inputs, outputs, body, weights)
    infer_shapes(found)
    blocks, declined = find_blocks(found.graph)
    assert "y" not in blocks
    assert reason in declined["y"]


def test_operators_of_unknown_domains_may_hold_a_state() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
        g (float[N, 8] x) => (float[N, 8] y) <float[N, 8] r, float[N, 8] f>
        {
            r = mine.Count(x)
            f = Relu(r)
            y = Add(x, f)
        }
    """
    found = ir.from_onnx_text(text)
    blocks, declined = find_blocks(found.graph)
    assert not blocks
    assert declined == {"y": "Count 'r' in f(x) is of the domain 'mine' and may hold a state"}


def test_a_sum_within_gemm_is_a_sum() -> None:
    original = model(
        "float[N, 8] x",
        "float[N, 8] y",
        "a = Gemm(x, w, p)\nr = Relu(a)\ny = Gemm<transB = 1, alpha = 2.0>(r, v, x)",
        {"w": (8, 9), "p": (9,), "v": (8, 9)},
    )
    infer_shapes(original)
    split = clone(original)
    split_sums(split)
    assert verify(split) == []
    blocks, declined = find_blocks(split.graph)
    assert set(blocks) == {"y"}
    assert not declined
    expected = Session(original).run(fed((5, 8)))["y"]
    found = Session(split).run(fed((5, 8)))["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_gemm_that_adds_something_else_stays_whole() -> None:
    for text in ("Gemm<beta = 0.5>(r, v, x)", "Gemm(r, v, b)", "Gemm(r, v, p)"):
        found = model(
            "float[N, 8] x, float[8] p",
            "float[N, 8] y",
            f"r = Relu(x)\ny = {text}",
            {"v": (8, 8), **({"b": (8,)} if "b)" in text else {})},
        )
        infer_shapes(found)
        split_sums(found)
        assert [node.op_type for node in found.graph] == ["Relu", "Gemm"]


def test_biases_are_no_blocks_and_nothing_to_decline() -> None:
    found = model(
        "float[N, 8] x", "float[N, 8] y", "a = Add(x, b)\ny = Add(c, a)", {"b": (8,), "c": (8,)}
    )
    infer_shapes(found)
    assert find_blocks(found.graph) == ({}, {})


def test_finds_the_blocks_of_trained_models(fixtures) -> None:
    from graphopt.pipeline.prune import prepared as made_ready

    resnet, declined = find_blocks(made_ready(load(fixtures / "digits_resnet.onnx")).graph)
    assert [(block.axis, block.channels) for block in resnet.values()] == [(1, 16), (1, 32)]
    assert len(declined) == 1  # the shortcut that is a convolution
    transformer, declined = find_blocks(
        made_ready(load(fixtures / "digits_transformer.onnx")).graph
    )
    assert [(block.axis, block.channels) for block in transformer.values()] == [(2, 32)] * 4
    assert not declined
