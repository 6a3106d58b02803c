"""Classical models of ai.onnx.ml: rules against loops that do the operator and count."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.cost.counted import (
    Counted,
    Row,
    absolute,
    accumulate,
    along,
    argument_of_largest,
    choose,
    exp,
    largest,
    power,
    sqrt,
    squares,
    summed,
    tanh,
)
from tests.cost.one_node import ML, Case, check

random = np.random.default_rng(13)
X = random.normal(size=(5, 3)).astype(np.float32)
WEIGHTS = random.normal(size=(3, 3)).astype(np.float32)
SHIFTS = random.normal(size=3).astype(np.float32)
VECTORS = random.normal(size=(4, 3)).astype(np.float32)
# Two trees of depth 2: x0 <= 0 then x1 <= 0, and x2 <= 0 then x0 <= 1.
TREES = [((0, 1, 0.0), (1.0, 2.0, 3.0, 4.0)), ((2, 0, 1.0), (10.0, 20.0, 30.0, 40.0))]


def dot(a: Any, b: Any) -> Any:
    held = Counted(0.0)
    for x, y in zip(a, b, strict=True):
        held = accumulate(held, x, y)
    return held


def leaf_of(row: Any, tree: Any) -> Any:
    """The whole tree is looked at: a comparison per level, and a choice between leaves."""
    (top, below, limit), leaves = tree
    first = row[top] <= 0
    second = row[below] <= limit
    return choose(first, choose(second, *leaves[:2]), choose(second, *leaves[2:]))


def forest(x: Any) -> Any:
    scores = []
    for row in x:
        score = Counted(0.0)
        for tree in TREES:
            score = score + leaf_of(row, tree)
        scores.append([score])
    return np.array(scores, object)


def voting_forest(x: Any) -> Any:
    """Each tree is for a class of its own; the label is that of the larger score."""
    scores = np.array([[Counted(0.0) + leaf_of(row, tree) for tree in TREES] for row in x], object)
    return np.array([argument_of_largest(list(row)) for row in scores], object), scores


def nodes(ends: str, class_per_tree: bool) -> dict[str, Any]:
    """Nodes 0 to 6 of each tree: the root, two branches, four leaves."""
    found: dict[str, list[Any]] = defaultdict(list)
    for tree, ((top, below, limit), leaves) in enumerate(TREES):
        for place in range(7):
            branch = place < 3
            found["nodes_treeids"].append(tree)
            found["nodes_nodeids"].append(place)
            found["nodes_featureids"].append((top if place == 0 else below) if branch else 0)
            found["nodes_values"].append(limit if place in (1, 2) else 0.0)
            found["nodes_modes"].append("BRANCH_LEQ" if branch else "LEAF")
            found["nodes_truenodeids"].append(2 * place + 1 if branch else 0)
            found["nodes_falsenodeids"].append(2 * place + 2 if branch else 0)
        for leaf, weight in enumerate(leaves):
            found[f"{ends}_treeids"].append(tree)
            found[f"{ends}_nodeids"].append(3 + leaf)
            found[f"{ends}_ids"].append(tree if class_per_tree else 0)
            found[f"{ends}_weights"].append(weight)
    return dict(found)


def tensor(dtype: int, values: list[float]) -> Any:
    import onnx

    return onnx.helper.make_tensor("values", dtype, [len(values)], values)


def indexed_nodes() -> dict[str, Any]:
    """The same two trees for opset 5: branches 0 to 2 of each tree, leaves apart."""
    found: dict[str, list[Any]] = defaultdict(list)
    for tree, ((top, below, _), _) in enumerate(TREES):
        for place in range(3):
            inner = place == 0
            first = 3 * tree + 1 if inner else 4 * tree + 2 * (place - 1)
            found["nodes_featureids"].append(top if inner else below)
            found["nodes_trueleafs"].append(int(not inner))
            found["nodes_falseleafs"].append(int(not inner))
            found["nodes_truenodeids"].append(first)
            found["nodes_falsenodeids"].append(first + 1)
    splits = [v for (_, _, limit), _ in TREES for v in (0.0, limit, limit)]
    weights = [weight for _, leaves in TREES for weight in leaves]
    return {
        **found,
        "tree_roots": [0, 3],
        "n_targets": 1,
        "nodes_modes": tensor(2, [0] * 6),
        "nodes_splits": tensor(1, splits),
        "leaf_targetids": [0] * 8,
        "leaf_weights": tensor(1, weights),
    }


def linear(*, classify: bool = False, after: Callable[[Row], Row] = list) -> Any:
    def loop(x: Any) -> Any:
        rows = [[dot(row, w) + b for w, b in zip(WEIGHTS, SHIFTS, strict=True)] for row in x]
        labels = [argument_of_largest(row) for row in rows] if classify else []
        scores = np.array([after(row) for row in rows], object)
        return (np.array(labels, object), scores) if classify else scores

    return loop


def logistic(values: Row) -> Row:
    return [1 / (1 + exp(-v)) for v in values]


def softmax(values: Row) -> Row:
    top = largest(values)
    raised = [exp(v - top) for v in values]
    total = summed(raised)
    return [v / total for v in raised]


KERNELS: dict[str, Callable[[Any, Any], Any]] = {
    "LINEAR": dot,
    "POLY": lambda x, v: power(0.5 * dot(x, v) + 4.0, 2),
    "RBF": lambda x, v: exp(-0.5 * squared_distance(x, v)),
    "SIGMOID": lambda x, v: tanh(0.5 * dot(x, v) + 4.0),
}


def squared_distance(x: Any, v: Any) -> Any:
    held = Counted(0.0)
    for a, b in zip(x, v, strict=True):
        difference = a - b
        held = accumulate(held, difference, difference)
    return held


def support_vectors(kind: str) -> Any:
    def loop(x: Any) -> Any:
        rows = []
        for row in x:
            kernels = [KERNELS[kind](row, vector) for vector in VECTORS]
            rows.append([dot(kernels, COEFFICIENTS[0]) + 0.25])
        return np.array(rows, object)

    return loop


COEFFICIENTS = random.normal(size=(2, 4)).astype(np.float32)
OWNERS = [0, 0, 1, 2]  # the class that each vector belongs to
OFFSETS = [0.1, 0.2, 0.3]


def support_vector_votes(x: Any) -> Any:
    """A decision between each two classes; the one with most votes is the label."""
    labels, scores = [], []
    for row in x:
        kernels = [KERNELS["RBF"](row, vector) for vector in VECTORS]
        votes, decisions = [0, 0, 0], []
        for (i, j), offset in zip(itertools.combinations(range(3), 2), OFFSETS, strict=True):
            held = Counted(0.0)
            for place, owner in enumerate(OWNERS):
                if owner == i:
                    held = accumulate(held, kernels[place], COEFFICIENTS[j - 1, place])
                elif owner == j:
                    held = accumulate(held, kernels[place], COEFFICIENTS[i, place])
            decision = held + offset
            winner = choose(decision > 0, i, j)
            votes[winner] += 1
            decisions.append(decision)
        labels.append(votes.index(max(votes)))
        scores.append(decisions)
    return np.array(labels), np.array(scores, object)


def case(op_type: str, loop: Any, attributes: dict[str, Any], label: str = "", **more: Any) -> Case:
    return Case(op_type, loop, [X], attributes, domain=ML, label=label, **more)


LINES = {"coefficients": WEIGHTS.ravel().tolist(), "intercepts": SHIFTS.tolist()}
CLASSES = {**LINES, "classlabels_ints": [0, 1, 2], "multi_class": 0}
SUPPORT = {
    "support_vectors": VECTORS.ravel().tolist(),
    "kernel_params": [0.5, 4.0, 2.0],
}
MODELS = [
    case("TreeEnsembleRegressor", forest, {**nodes("target", False), "n_targets": 1}),
    case("TreeEnsemble", forest, indexed_nodes(), opset=5),
    case(
        "TreeEnsembleClassifier",
        voting_forest,
        {**nodes("class", True), "classlabels_int64s": [0, 1]},
        outputs=2,
    ),
    case("LinearRegressor", linear(), {**LINES, "targets": 3}),
    case(
        "LinearRegressor",
        linear(after=logistic),
        {**LINES, "targets": 3, "post_transform": "LOGISTIC"},
        "logistic",
    ),
    case("LinearClassifier", linear(classify=True), CLASSES, outputs=2),
    case(
        "LinearClassifier",
        linear(classify=True, after=softmax),
        {**CLASSES, "post_transform": "SOFTMAX"},
        "softmax",
        outputs=2,
    ),
    *(
        case(
            "SVMRegressor",
            support_vectors(kind),
            {
                **SUPPORT,
                "coefficients": COEFFICIENTS[0].tolist(),
                "rho": [0.25],
                "n_supports": 4,
                "kernel_type": kind,
            },
            kind.lower(),
        )
        for kind in KERNELS
    ),
    case(
        "SVMClassifier",
        support_vector_votes,
        {
            **SUPPORT,
            "coefficients": COEFFICIENTS.ravel().tolist(),
            "rho": OFFSETS,
            "vectors_per_class": [2, 1, 1],
            "classlabels_ints": [0, 1, 2],
            "kernel_type": "RBF",
        },
        outputs=2,
    ),
    case(
        "Scaler",
        lambda x: np.array([[(v - 0.5) * 2 for v in row] for row in x], object),
        {"offset": [0.5], "scale": [2.0]},
    ),
    case(
        "Binarizer",
        lambda x: np.array([[choose(v > 0.2, 1.0, 0.0) for v in row] for row in x], object),
        {"threshold": 0.2},
    ),
    case(
        "Imputer",
        lambda x: np.array(
            [[choose(v == X[0, 0].item(), 7.0, v) for v in row] for row in x], object
        ),
        {"imputed_value_floats": [7.0], "replaced_value_float": X[0, 0].item()},
    ),
    case("Normalizer", along([1], lambda v: over(v, largest(v))), {"norm": "MAX"}, "max"),
    case("Normalizer", along([1], lambda v: over(v, summed(absolute(v)))), {"norm": "L1"}, "l1"),
    case(
        "Normalizer",
        along([1], lambda v: over(v, sqrt(summed(squares(v))))),
        {"norm": "L2"},
        "l2",
    ),
]


def over(values: Row, length: Any) -> Row:
    return [v / length for v in values]


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_the_rule_counts_what_a_loop_does(case: Case) -> None:
    check(case)


def test_the_trees_take_every_way() -> None:
    """The rows reach leaves on both sides of both roots, so no branch of the loop is idle."""
    assert all(len({bool(row[top] <= 0) for row in X}) == 2 for (top, _, _), _ in TREES)
