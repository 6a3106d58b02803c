"""Classical models of ai.onnx.ml: trees, linear models, support vectors, feature transforms.

For N rows of F features:

    trees             each tree is walked to its deepest leaf: a comparison per level, an
                      addition per weight of a leaf; a classifier compares its C scores: C - 1
    LinearRegressor   N * F * targets MACs, 1 addition per target
    LinearClassifier  N * F * C MACs, 1 addition per score, C - 1 comparisons
    SVM, S vectors    kernel of each row and vector: F MACs
                          POLY     gamma * (.) + c, power       2; 1
                          RBF      exp(-gamma * |x - v|^2)      F + 1; 1
                          SIGMOID  tanh(gamma * (.) + c)        2; 1
                      regressor: S MACs, 1 addition; classifier: (C - 1) * S MACs, and for each
                      pair of classes an addition and a vote
    Scaler            (x - offset) * scale                      2 per element
    Binarizer, Imputer    one comparison                        1
    Normalizer        MAX: n - 1 and n divisions; L1: n magnitudes more; L2: n squares more, and
                      1 root per row

    post_transform    LOGISTIC 3; 1 per score     SOFTMAX as Softmax     PROBIT 0; 1
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from graphopt.cost.operator import MOVE, VIEW, Operator, Rule, Work
from graphopt.cost.quantity import Number, product
from graphopt.cost.rules.activation import SIGMOID
from graphopt.cost.rules.formulas import bytes_of, combining, fixed, softmax

_ML = "ai.onnx.ml"
_DEEPEST = "each tree counted to its deepest leaf: the way that is taken depends on the data"


_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
"""What the numbers of `post_transform` mean in TreeEnsemble; its predecessors have the names."""


def _scored(node: Operator, rows: Number, scores: Number) -> tuple[Number, Number]:
    """What `post_transform` does to so many scores of each row."""
    if node.op_type == "TreeEnsemble":
        transform = _TRANSFORMS[node.integer("post_transform", 0)]
    else:
        transform = node.text("post_transform", "NONE")
    if transform == "LOGISTIC":
        return SIGMOID.times(rows * scores)
    if transform in ("SOFTMAX", "SOFTMAX_ZERO"):
        return softmax(rows, scores)
    return 0, (rows * scores if transform == "PROBIT" else 0)


def _rows(node: Operator) -> tuple[Number, Number]:
    """Rows and features; a vector is one row."""
    dims = node.input().dims
    return product(dims[:-1]), product(dims[-1:])


def _classes(node: Operator) -> int:
    labels = ("classlabels_int64s", "classlabels_ints")
    named = [len(found) for name in labels if (found := node.integers(name))]
    return max([*named, len(node.texts("classlabels_strings"))])


def _deepest(root: int, children: Mapping[int, tuple[int, ...]]) -> int:
    """Comparisons from the root to the deepest leaf; a node without children is a leaf."""
    deepest = 0
    waiting = [(root, 0)]
    seen: set[int] = set()
    while waiting:
        place, depth = waiting.pop()
        deepest = max(deepest, depth)
        if place not in seen:
            seen.add(place)
            waiting += [(child, depth + 1) for child in children.get(place, ())]
    return deepest


def _forest(node: Operator, leaves: str) -> tuple[int, int]:
    """Comparisons and weights of one row's way through all trees of opsets 1 to 4."""
    trees = node.integers("nodes_treeids") or ()
    places = node.integers("nodes_nodeids") or ()
    yes = node.integers("nodes_truenodeids") or ()
    no = node.integers("nodes_falsenodeids") or ()
    children: dict[int, dict[int, tuple[int, ...]]] = defaultdict(dict)
    for tree, place, mode, left, right in zip(
        trees, places, node.texts("nodes_modes"), yes, no, strict=True
    ):
        children[tree][place] = () if mode == "LEAF" else (left, right)
    comparisons = sum(_deepest(next(iter(tree)), tree) for tree in children.values())
    weights: dict[tuple[int, int], int] = defaultdict(int)
    for leaf in zip(
        node.integers(f"{leaves}_treeids") or (),
        node.integers(f"{leaves}_nodeids") or (),
        strict=True,
    ):
        weights[leaf] += 1
    widest: dict[int, int] = {}
    for (tree, _), count in weights.items():
        widest[tree] = max(widest.get(tree, 0), count)
    return comparisons, sum(widest.values())


def tree_classifier(node: Operator) -> Work:
    """TreeEnsembleClassifier."""
    rows, _ = _rows(node)
    classes = _classes(node)
    comparisons, additions = _forest(node, "class")
    after = _scored(node, rows, classes)
    return Work(
        elementwise=rows * (comparisons + additions + max(0, classes - 1)) + after[0],
        transcendentals=after[1],
        note=_DEEPEST,
    )


def tree_regressor(node: Operator) -> Work:
    """TreeEnsembleRegressor."""
    rows, _ = _rows(node)
    comparisons, additions = _forest(node, "target")
    after = _scored(node, rows, node.integer("n_targets", 1))
    return Work(
        elementwise=rows * (comparisons + additions) + after[0],
        transcendentals=after[1],
        note=_DEEPEST,
    )


def tree_ensemble(node: Operator) -> Work:
    """TreeEnsemble, opset 5: nodes by their index, leaves apart, one weight each."""
    rows, _ = _rows(node)
    children: dict[int, tuple[int, ...]] = {}
    branches = ("nodes_truenodeids", "nodes_trueleafs", "nodes_falsenodeids", "nodes_falseleafs")
    lists = (node.integers(name) or () for name in branches)
    for place, (yes, yes_leaf, no, no_leaf) in enumerate(zip(*lists, strict=True)):
        children[place] = (-1 if yes_leaf else yes, -1 if no_leaf else no)
    roots = node.integers("tree_roots") or ()
    comparisons = sum(_deepest(root, children) for root in roots)
    after = _scored(node, rows, node.integer("n_targets", 1))
    return Work(
        elementwise=rows * (comparisons + len(roots)) + after[0],
        transcendentals=after[1],
        note=_DEEPEST,
    )


def linear_regressor(node: Operator) -> Work:
    """Features times coefficients, + intercepts."""
    rows, features = _rows(node)
    targets = node.integer("targets", 1)
    after = _scored(node, rows, targets)
    return Work(
        macs=rows * features * targets,
        elementwise=rows * targets + after[0],
        transcendentals=after[1],
    )


def linear_classifier(node: Operator) -> Work:
    """The same for each class; the largest score says the class."""
    rows, features = _rows(node)
    classes = _classes(node)
    after = _scored(node, rows, classes)
    return Work(
        macs=rows * features * classes,
        elementwise=rows * (classes + max(0, classes - 1)) + after[0],
        transcendentals=after[1],
    )


def _kernels(node: Operator, pairs: Number, features: Number) -> Work:
    """The kernel of so many pairs of a row and a support vector."""
    kind = node.text("kernel_type", "LINEAR")
    each = {"LINEAR": 0, "RBF": features + 1}.get(kind, 2)
    return Work(
        macs=pairs * features,
        elementwise=pairs * each,
        transcendentals=0 if kind == "LINEAR" else pairs,
    )


def support_vector_regressor(node: Operator) -> Work:
    """The sum of coefficient * kernel over the vectors, + rho; without vectors it is linear."""
    rows, features = _rows(node)
    vectors = node.integer("n_supports", 0)
    if not vectors:
        return Work(macs=rows * features, elementwise=rows)
    kernels = _kernels(node, rows * vectors, features)
    return Work(
        macs=kernels.macs + rows * vectors,
        elementwise=kernels.elementwise + rows,
        transcendentals=kernels.transcendentals,
    )


def support_vector_classifier(node: Operator) -> Work:
    """One decision for each pair of classes; without vectors one linear score per class."""
    rows, features = _rows(node)
    classes = _classes(node)
    vectors = sum(node.integers("vectors_per_class") or ())
    if not vectors:
        return Work(macs=rows * features * classes, elementwise=rows * (2 * classes - 1))
    kernels = _kernels(node, rows * vectors, features)
    decisions = classes * (classes - 1) // 2
    return Work(
        macs=kernels.macs + rows * vectors * (classes - 1),
        elementwise=kernels.elementwise + 2 * rows * decisions,
        transcendentals=kernels.transcendentals,
    )


def normalizer(node: Operator) -> Work:
    """Each row divided by its maximum, the sum of its magnitudes, or its length."""
    rows, features = _rows(node)
    size = rows * features
    norm = node.text("norm", "MAX")
    return Work(
        elementwise=size + combining(size, rows) + (0 if norm == "MAX" else size),
        transcendentals=rows if norm == "L2" else 0,
    )


def scaler(node: Operator) -> Work:
    """(x - offset) * scale."""
    return Work(elementwise=2 * node.input().size)


def one_comparison(node: Operator) -> Work:
    """With the threshold, or with the value that stands for a missing one."""
    return Work(elementwise=node.input().size)


def feature_extractor(node: Operator) -> Work:
    """Columns by their index."""
    picked = bytes_of(node.input(), node.output().size)
    return Work(reads=node.input(1).bytes + picked)


RULES = (
    Rule(_ML, "TreeEnsemble", tree_ensemble),
    Rule(_ML, "TreeEnsembleClassifier", tree_classifier),
    Rule(_ML, "TreeEnsembleRegressor", tree_regressor),
    Rule(_ML, "LinearClassifier", linear_classifier),
    Rule(_ML, "LinearRegressor", linear_regressor),
    Rule(_ML, "SVMClassifier", support_vector_classifier),
    Rule(_ML, "SVMRegressor", support_vector_regressor),
    Rule(_ML, "Normalizer", normalizer),
    Rule(_ML, "Scaler", scaler),
    Rule(_ML, "Binarizer", one_comparison),
    Rule(_ML, "Imputer", one_comparison),
    Rule(_ML, "ArrayFeatureExtractor", feature_extractor),
    *fixed(_ML, MOVE, "CastMap DictVectorizer FeatureVectorizer OneHotEncoder"),
    *fixed(_ML, VIEW, "ZipMap"),
    *fixed(
        _ML,
        Work(note="one look-up per element, not counted"),
        "CategoryMapper LabelEncoder",
    ),
)
