"""The last layer of a classifier, fitted to probabilities."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from graphopt.graph import clone, from_text, ir
from graphopt.pruning.class_fit import fit_classes, gives_classes
from graphopt.pruning.coupling import find_groups
from graphopt.pruning.linear_layers import Layer, layers_of
from graphopt.pruning.repair import repair
from graphopt.pruning.repair_solve import Fit, Rows, fitted
from graphopt.pruning.surgery import kept_indices, prune
from graphopt.runtime import Session
from graphopt.shapes import infer_shapes

ROWS, COLUMNS, CLASSES = 400, 12, 5


def softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def divergence(scores: np.ndarray, wanted: np.ndarray) -> float:
    """KL(softmax(wanted) || softmax(scores))."""
    left, right = softmax(wanted), softmax(scores)
    return float((left * (np.log(left) - np.log(right))).sum(1).mean())


def problem(seed: int = 0, lost: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of which some are lost, the scores with all of them, and the matrix of the rest."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(COLUMNS, COLUMNS)) / 2
    x = np.maximum(random.normal(size=(2 * ROWS, COLUMNS)) @ mixing, 0)
    matrix = random.normal(size=(COLUMNS, CLASSES)) * 2
    scores = x @ matrix
    return x[:, lost:].astype(np.float32), scores.astype(np.float32), matrix[lost:]


def fit_of(
    x: np.ndarray, scores: np.ndarray, matrix: np.ndarray, *, fit_bias: bool = True
) -> tuple[Fit, tuple[np.ndarray, np.ndarray] | None]:
    """What least squares gives, and what comes of it."""
    rows = Rows(x[None], scores, None)
    solve = partial(fitted, matrix=matrix[None], bias=np.zeros(CLASSES), fit_bias=fit_bias)
    least = solve(rows)
    return least, fit_classes(rows, least, solve, fit_bias=fit_bias)


@pytest.mark.parametrize("fit_bias", [True, False])
def test_names_classes_better_than_least_squares(fit_bias: bool) -> None:
    """On rows that neither was fitted to."""
    x, scores, matrix = problem()
    least, found = fit_of(x[:ROWS], scores[:ROWS], matrix, fit_bias=fit_bias)
    assert found is not None
    before = divergence(x[ROWS:] @ least.matrix[0] + least.bias, scores[ROWS:])
    after = divergence(x[ROWS:] @ found[0] + found[1], scores[ROWS:])
    assert after < 0.95 * before
    assert fit_bias or (found[1] == least.bias).all()


def test_what_is_right_stays() -> None:
    x, scores, matrix = problem(lost=0)
    assert fit_of(x, scores, matrix)[1] is None


def test_what_rows_do_not_tell_is_left_alone() -> None:
    """There are too few, or what they say of the others is noise."""
    x, scores, matrix = problem()
    assert fit_of(x[:20], scores[:20], matrix)[1] is None
    random = np.random.default_rng(0)
    noise = random.normal(size=(60, 50)).astype(np.float32)
    unrelated = random.normal(size=(60, CLASSES)).astype(np.float32)
    assert fit_of(noise, unrelated, np.zeros((50, CLASSES)))[1] is None


def raw(classes: int = 8, clear: float = 3.0) -> np.ndarray:
    """Scores that name many classes in turn."""
    return np.random.default_rng(0).normal(size=(200, classes)) * clear


def head(body: str, result: str, *, opset: int = 17, shape: str = "N, 12") -> Layer:
    """The layer `y`, with eight outputs, and what reads it."""
    graph = from_text(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[{shape}] x) => ({result}) '
        f"<float[12, 8] w = {{{', '.join(['1'] * 96)}}}, int64[2] flat = {{-1, 8}}, "
        f"int64[3] split = {{-1, 2, 4}}, int64[3] grown = {{-1, 8, 1}}> "
        f"{{ y = MatMul(x, w) {body} }}"
    )
    infer_shapes(graph)
    return layers_of(graph.graph)[0]["y"]


@pytest.mark.parametrize(
    ("body", "result", "opset", "expected"),
    [
        ("p = Softmax(y)", "float[N, 8] p", 17, True),
        ("p = Softmax<axis = 1>(y)", "float[N, 8] p", 17, True),
        ("p = LogSoftmax(y)", "float[N, 8] p", 11, True),
        ("p = ArgMax<axis = 1>(y)", "int64[N, 1] p", 17, True),
        ("f = Flatten(y) i = Identity(f) p = Softmax(i)", "float[N, 8] p", 17, True),
        ("r = Reshape(y, grown) p = Softmax<axis = 1>(r)", "float[N, 8, 1] p", 17, True),
        # Over the samples.
        ("p = Softmax<axis = 0>(y)", "float[N, 8] p", 17, False),
        ("p = ArgMax(y)", "int64[1, 8] p", 17, False),
        # Over one entry, and over all of them where they are together.
        ("r = Reshape(y, grown) p = Softmax(r)", "float[N, 8, 1] p", 17, False),
        ("r = Reshape(y, grown) p = Softmax(r)", "float[N, 8, 1] p", 11, True),
        # Two questions with four answers each.
        ("r = Reshape(y, split) p = Softmax(r)", "float[N, 2, 4] p", 17, False),
        ("p = Mul(y, y)", "float[N, 8] p", 17, False),
    ],
)
def test_which_layers_name_classes(body: str, result: str, opset: int, expected: bool) -> None:
    layer = head(body, result, opset=opset)
    assert gives_classes(layer, (200, 8), raw(clear=0.1)) is expected


def test_a_softmax_beside_an_output_tells() -> None:
    layer = head("p = Softmax(y)", "float[N, 8] y, float[N, 8] p")
    assert gives_classes(layer, (200, 8), raw(clear=0.1))


@pytest.mark.parametrize("shape", [(8,), (20, 10, 8), (8, 25)])
def test_other_shapes_are_no_rows_of_classes(shape: tuple[int, ...]) -> None:
    layer = head("p = Softmax(y)", "float[M, 8] p")
    assert not gives_classes(layer, shape, raw())


def two_of_ten() -> np.ndarray:
    """Points in pixels: one of the two on the right has the largest coordinate."""
    points = np.random.default_rng(0).uniform(0, 20, (200, 8))
    points[:, [2, 6]] += 200
    return points


@pytest.mark.parametrize(
    ("scores", "expected"),
    [(raw(), True), (raw(clear=0.5), False), (two_of_ten(), False)],
    ids=["classes", "an embedding", "coordinates"],
)
def test_outputs_as_they_are_may_be_something_else(scores: np.ndarray, expected: bool) -> None:
    assert gives_classes(head("", "float[N, 8] y"), (200, 8), scores) is expected


def test_a_fit_that_would_take_minutes_is_not_made() -> None:
    rows = Rows(np.ones((1, 50, 800), np.float32), np.ones((50, 2000), np.float32), None)
    fit = Fit(np.ones((1, 800, 2000)), np.zeros(2000), 1.0, 1.0)

    def refit(_: Rows) -> Fit:
        raise AssertionError("nothing is fitted")

    assert fit_classes(rows, fit, refit, fit_bias=True) is None


@pytest.mark.parametrize("tail", ["s = Softmax(z)", "s = Mul(z, one)"])
def test_a_pruned_classifier_is_fitted_to_probabilities(tail: str) -> None:
    """And one whose outputs are numbers of another kind by least squares alone."""
    random = np.random.default_rng(1)
    shapes = {"w": (8, 24), "b": (24,), "v": (24, 6), "c": (6,), "one": ()}
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["one"] = np.ones((), np.float32)
    initializers = ", ".join(
        f"float[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items()
    )
    original = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N, 8] x) => (float[N, 6] s) '
        f"<{initializers}> {{ h = Gemm(x, w, b) a = Relu(h) z = Gemm(a, v, c) {tail} }}"
    )
    for node in original.graph:
        for value in node.inputs:
            if value is not None and value.name in arrays:
                array = arrays[value.name] / (2 if value.name == "v" else 1)
                value.const_value = ir.tensor(array, name=value.name)
                original.graph.initializers[value.name] = value
    groups = find_groups(original)
    kept = {"h": np.arange(14)}
    pruned = clone(original)
    prune(pruned, groups, kept)
    feeds = [{"x": random.normal(size=(60, 8)).astype(np.float32)} for _ in range(12)]
    repair(pruned, original, feeds[:8], kept_indices(groups, kept))
    sessions = [Session(model, outputs=["z", "a"]) for model in (original, pruned)]
    (wanted, _), (given, read) = (
        [np.concatenate([session.run(feed)[name] for feed in feeds]) for name in ("z", "a")]
        for session in sessions
    )
    ones = np.concatenate([read, np.ones((len(read), 1))], 1)
    least = ones @ np.linalg.lstsq(ones[:480], wanted[:480], rcond=None)[0]
    if "Softmax" in tail:
        assert divergence(given[480:], wanted[480:]) < 0.97 * divergence(least[480:], wanted[480:])
    else:
        np.testing.assert_allclose(given, least, atol=0.05 * least.std())
