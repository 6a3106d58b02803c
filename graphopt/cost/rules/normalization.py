"""Normalizations and softmaxes, at inference.

Over a row (a group) of n elements: elementwise operations and, after a semicolon,
transcendentals. A mean of n is n - 1 additions and a division.

    Softmax              n - 1 comparisons, subtract, exp, n - 1 additions, divide     4n - 2; n
    LogSoftmax           the same up to the sum, its log, subtract                     4n - 2; n + 1
    Hardmax              comparisons                                                   n - 1
    LayerNormalization, GroupNormalization
                         mean, x - mean, square, mean, + epsilon, sqrt, 1 / that,
                         times that, * scale (, + bias)                         6n (7n) + 2; 1
    InstanceNormalization    the same, but scale / sqrt(...) is one number per row     6n + 2; 1
    RMSNormalization     square, mean, + epsilon, sqrt, divide, * scale                4n + 1; 1
    MeanVarianceNormalization
                         mean, its square, squares, mean, subtract, sqrt, + 1e-9,
                         x - mean, divide                                              5n + 3; 1
    LpNormalization      |x| (p = 1) or x*x (p = 2), sum, (sqrt,) divide               3n - 1 (; 1)
    BatchNormalization   scale and shift are constants per channel                     2 per element
    LRN over s channels  square, s - 1 additions, * alpha/s, + bias, pow, divide       s + 3; 1
                         per element, channels past the edge counted as zeros

The Skip... fusions add what is skipped (and a bias) first. Axes are settled before the run.
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.quantity import Number, product
from graphopt.cost.rules.formulas import SIGMOID, bytes_of, combining, softmax, split_at

_NHWC = "com.ms.internal.nhwc"


def _trailing(node: Operator, axis: int) -> tuple[Number, Number]:
    """Rows and their length, where a row is all dims of the input from `axis` on."""
    dims = node.input().dims
    return split_at(dims, range(axis % len(dims), len(dims)) if dims else ())


def _softmax_rows(node: Operator) -> tuple[Number, Number]:
    """One axis since opset 13; before that, all dims from `axis` on."""
    if node.version < 13:
        return _trailing(node, node.integer("axis", 1))
    return split_at(node.input().dims, (node.integer("axis", -1),))


def softmax_rule(node: Operator) -> Work:
    """Softmax over the rows that the opset says."""
    elementwise, transcendentals = softmax(*_softmax_rows(node))
    return Work(elementwise=elementwise, transcendentals=transcendentals)


def log_softmax(node: Operator) -> Work:
    """A row less its maximum and less the log of the sum of exp of that."""
    rows, length = _softmax_rows(node)
    elementwise, transcendentals = softmax(rows, length)
    return Work(elementwise=elementwise, transcendentals=transcendentals + rows)


def hardmax(node: Operator) -> Work:
    """1 where the row's first maximum is, 0 elsewhere."""
    rows, length = _softmax_rows(node)
    return Work(elementwise=combining(rows * length, rows))


def bias_softmax(node: Operator) -> Work:
    """Softmax of x + bias, over all dims from `axis` on."""
    elementwise, transcendentals = softmax(*_trailing(node, node.integer("axis", 1)))
    return Work(elementwise=elementwise + node.input().size, transcendentals=transcendentals)


def _centred(rows: Number, size: Number, *, bias: bool) -> Number:
    """Elementwise operations of a LayerNormalization of `size` elements in `rows` rows."""
    return (7 if bias else 6) * size + 2 * rows


def layer_normalization(node: Operator) -> Work:
    """Over all dims from `axis` on."""
    rows, length = _trailing(node, node.integer("axis", -1))
    return Work(
        elementwise=_centred(rows, rows * length, bias=node.has_input(2)), transcendentals=rows
    )


def group_normalization(node: Operator) -> Work:
    """Over the channels of a group and all places, of ONNX or com.microsoft.

    The latter may be followed by x * sigmoid(x).
    """
    data = node.input()
    groups = node.integer("num_groups" if node.domain == "" else "groups", 1)
    rows = data.dims[0] * groups
    silu = node.integer("activation", 0)
    return Work(
        elementwise=_centred(rows, data.size, bias=True) + silu * (SIGMOID[0] + 1) * data.size,
        transcendentals=rows + silu * SIGMOID[1] * data.size,
    )


def skip_group_normalization(node: Operator) -> Work:
    """GroupNorm of x + skip (+ bias)."""
    after = group_normalization(node)
    added = (1 + node.has_input(4)) * node.input().size
    return Work(elementwise=after.elementwise + added, transcendentals=after.transcendentals)


def instance_normalization(node: Operator) -> Work:
    """A row is one channel of one sample; the scale tells how many channels there are."""
    data = node.input()
    rows = data.dims[0] * node.input(1).size
    return Work(elementwise=6 * data.size + 2 * rows, transcendentals=rows)


def batch_normalization(node: Operator) -> Work:
    """One scale and shift per channel, folded from four vectors when a model is loaded."""
    note = "counted as at inference" if node.integer("training_mode", 0) else ""
    return Work(elementwise=2 * node.input().size, note=note)


def rms_normalization(node: Operator) -> Work:
    """Over all dims from `axis` on."""
    rows, length = _trailing(node, node.integer("axis", -1))
    return Work(elementwise=4 * rows * length + rows, transcendentals=rows)


def skip_layer_normalization(node: Operator) -> Work:
    """LayerNormalization of x + skip (+ bias) over the last dim, its shift where there is one."""
    rows, length = _trailing(node, -1)
    size = rows * length
    added = (1 + node.has_input(4)) * size
    return Work(
        elementwise=_centred(rows, size, bias=node.has_input(3)) + added, transcendentals=rows
    )


def skip_rms_normalization(node: Operator) -> Work:
    """RMSNormalization of x + skip (+ bias) over the last dim."""
    rows, length = _trailing(node, -1)
    size = rows * length
    return Work(elementwise=(5 + node.has_input(3)) * size + rows, transcendentals=rows)


def gated_rms_normalization(node: Operator) -> Work:
    """RMSNormalization in groups as long as the scale, times sigmoid(gate) or gate * that."""
    size, length = node.input().size, node.input(1).size
    rows = size // length
    gate = SIGMOID[0] + (1 if node.text("activation", "silu") == "sigmoid" else 2)
    return Work(elementwise=(4 + gate) * size + rows, transcendentals=rows + SIGMOID[1] * size)


def branch_rms_normalization(node: Operator) -> Work:
    """RMSNormalization of each branch, (..., C, H) or flattened (..., C * H)."""
    rows, length = _trailing(node, -1)
    size = rows * length
    rows = rows * (node.integer("num_branches", 0) or 1)
    return Work(elementwise=(3 + node.has_input(1)) * size + rows, transcendentals=rows)


def engram_gate(node: Operator) -> Work:
    """With d = RMS(key) . RMS(query) / c, the gate is sigmoid(sign(d) * sqrt(max(|d|, 1e-6))).

    The gate multiplies the value; an RMSNormalization of that may follow.
    """
    rows, length = _trailing(node, -1)
    size = rows * length
    norms = 3 if node.has_output(1) else 2
    return Work(
        macs=size,
        elementwise=norms * (4 * size + rows) + (6 + SIGMOID[0]) * rows + size,
        transcendentals=(norms + 1 + SIGMOID[1]) * rows,
    )


def mean_variance_normalization(node: Operator) -> Work:
    """(x - mean) / (sqrt(mean of squares - mean^2) + 1e-9) over `axes`, channels kept."""
    rows, length = split_at(node.input().dims, node.integers("axes") or (0, 2, 3))
    return Work(elementwise=5 * rows * length + 3 * rows, transcendentals=rows)


def lp_normalization(node: Operator) -> Work:
    """Each line along `axis` divided by its 1-norm or 2-norm."""
    rows, length = split_at(node.input().dims, (node.integer("axis", -1),))
    size = rows * length
    roots = rows if node.integer("p", 2) == 2 else 0
    return Work(elementwise=2 * size + combining(size, rows), transcendentals=roots)


def local_response_normalization(node: Operator) -> Work:
    """Divide by (bias + alpha / s * the sum of squares over s channels) ** beta."""
    size = node.input().size
    return Work(elementwise=(node.integer("size", 1) + 3) * size, transcendentals=size)


def embed_layer_normalization(node: Operator) -> Work:
    """Rows of the tables for words, positions and segments are added, then normalized.

    The mask, where given, is summed to a length per sample.
    """
    ids, output = node.input(), node.output()
    hidden = node.input(2).dims[-1]
    tables = 2 + node.has_input(4)
    elementwise = (tables - 1) * output.size + _centred(ids.size, output.size, bias=True)
    reads = tables * bytes_of(node.input(2), output.size) + 2 * bytes_of(node.input(5), hidden)
    for index in (0, 1, 7, 8):
        if node.has_input(index):
            reads = reads + node.input(index).bytes
    if node.has_input(7):
        mask = node.input(7)
        elementwise = elementwise + combining(mask.size, product(mask.dims[:1]))
    return Work(elementwise=elementwise, transcendentals=ids.size, reads=reads)


RULES = (
    Rule("", "Softmax", softmax_rule),
    Rule("", "LogSoftmax", log_softmax),
    Rule("", "Hardmax", hardmax),
    Rule("", "LayerNormalization", layer_normalization),
    Rule("", "GroupNormalization", group_normalization),
    Rule("", "InstanceNormalization", instance_normalization),
    Rule("", "BatchNormalization", batch_normalization),
    Rule("", "RMSNormalization", rms_normalization),
    Rule("", "SimplifiedLayerNormalization", rms_normalization),
    Rule("", "MeanVarianceNormalization", mean_variance_normalization),
    Rule("", "LpNormalization", lp_normalization),
    Rule("", "LRN", local_response_normalization),
    Rule(_NHWC, "InstanceNormalization", instance_normalization),
    Rule(_NHWC, "BatchNormalization", batch_normalization),
    Rule(_NHWC, "LRN", local_response_normalization),
    Rule("com.microsoft", "BiasSoftmax", bias_softmax),
    Rule("com.microsoft", "GroupNorm", group_normalization),
    Rule("com.microsoft", "SkipGroupNorm", skip_group_normalization),
    Rule("com.microsoft", "SkipLayerNormalization", skip_layer_normalization),
    Rule("com.microsoft", "SkipSimplifiedLayerNormalization", skip_rms_normalization),
    Rule("com.microsoft", "GatedRMSNorm", gated_rms_normalization),
    Rule("com.microsoft", "BranchwiseRMSNorm", branch_rms_normalization),
    Rule("com.microsoft", "EngramGate", engram_gate),
    Rule("com.microsoft", "EmbedLayerNormalization", embed_layer_normalization),
)
