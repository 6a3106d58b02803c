"""Normalizations and softmaxes, at inference.

Over a row (a group) of n elements: elementwise operations and, after a semicolon,
transcendentals. A mean of n is n - 1 additions and a division.

    Softmax              n - 1 comparisons, subtract, exp, n - 1 additions, divide     4n - 2; n
    LogSoftmax           the same up to the sum, its log, subtract                     4n - 2; n + 1
    Hardmax              comparisons                                                   n - 1
    LayerNormalization, GroupNormalization
                         by mean and deviation, * scale (, + bias)              6n (7n) + 2; 1
    InstanceNormalization    the same, but scale / sqrt(...) is one number per row     6n + 2; 1
    RMSNormalization     by its RMS, * scale                                           4n + 1; 1
    MeanVarianceNormalization
                         mean, its square, squares, mean, subtract, sqrt, + 1e-9,
                         x - mean, divide                                              5n + 3; 1
    LpNormalization      |x| (p = 1) or x*x (p = 2), sum, (sqrt,) divide               3n - 1 (; 1)
    BatchNormalization   scale and shift are constants per channel                     2 per element
    LRN over s channels  square, s - 1 additions, * alpha/s, + bias, pow, divide       s + 3; 1
                         per element, channels past the edge counted as zeros

The Skip... fusions add what is skipped (and a bias) first. `formulas.normalized` says what a
normalized row takes. Axes are settled before the run.
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.quantity import Number, product
from graphopt.cost.rules.activation import SIGMOID, activation
from graphopt.cost.rules.formulas import bytes_of, combining, normalized, softmax, split_at


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


def layer_normalization(node: Operator) -> Work:
    """Over all dims from `axis` on."""
    rows, length = _trailing(node, node.integer("axis", -1))
    return Work(0, *normalized(rows * length, rows, centred=True, shift=node.has_input(2)))


def group_normalization(node: Operator) -> Work:
    """Over the channels of a group and all places."""
    data = node.input()
    rows = data.dims[0] * node.integer("num_groups", 1)
    return Work(0, *normalized(data.size, rows, centred=True, shift=True))


def instance_normalization(node: Operator) -> Work:
    """A row is one channel of one sample; the scale tells how many channels there are."""
    data = node.input()
    rows = data.dims[0] * node.input(1).size
    return Work(0, *normalized(data.size, rows, centred=True, scale=False, shift=True))


def batch_normalization(node: Operator) -> Work:
    """One scale and shift per channel, folded from four vectors when a model is loaded."""
    note = "counted as at inference" if node.integer("training_mode", 0) else ""
    return Work(elementwise=2 * node.input().size, note=note)


def rms_normalization(node: Operator) -> Work:
    """Over all dims from `axis` on."""
    rows, length = _trailing(node, node.integer("axis", -1))
    return Work(0, *normalized(rows * length, rows, centred=False))


def skip_layer_normalization(node: Operator) -> Work:
    """LayerNormalization of x + skip (+ bias) over the last dim, its shift where there is one."""
    rows, length = _trailing(node, -1)
    size = rows * length
    steps, roots = normalized(size, rows, centred=True, shift=node.has_input(3))
    return Work(elementwise=(1 + node.has_input(4)) * size + steps, transcendentals=roots)


def skip_rms_normalization(node: Operator) -> Work:
    """RMSNormalization of x + skip (+ bias) over the last dim."""
    rows, length = _trailing(node, -1)
    size = rows * length
    steps, roots = normalized(size, rows, centred=False)
    return Work(elementwise=(1 + node.has_input(3)) * size + steps, transcendentals=roots)


def gated_rms_normalization(node: Operator) -> Work:
    """RMSNormalization in groups as long as the scale, times sigmoid(gate) or gate * that."""
    size, length = node.input().size, node.input(1).size
    steps, roots = normalized(size, size // length, centred=False)
    # "swish" is another name of the silu here; the product with the gate is one step more.
    gate = SIGMOID if node.text("activation", "silu") == "sigmoid" else activation("Silu")
    more, exponentials = gate.with_steps(1).times(size)
    return Work(elementwise=steps + more, transcendentals=roots + exponentials)


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
    steps, roots = normalized(output.size, ids.size, centred=True, shift=True)
    elementwise = (tables - 1) * output.size + steps
    reads = tables * bytes_of(node.input(2), output.size) + 2 * bytes_of(node.input(5), hidden)
    for index in (0, 1, 7, 8):
        if node.has_input(index):
            reads = reads + node.input(index).bytes
    if node.has_input(7):
        mask = node.input(7)
        elementwise = elementwise + combining(mask.size, product(mask.dims[:1]))
    return Work(elementwise=elementwise, transcendentals=roots, reads=reads)


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
    Rule("com.microsoft", "SkipLayerNormalization", skip_layer_normalization),
    Rule("com.microsoft", "SkipSimplifiedLayerNormalization", skip_rms_normalization),
    Rule("com.microsoft", "GatedRMSNorm", gated_rms_normalization),
    Rule("com.microsoft", "EmbedLayerNormalization", embed_layer_normalization),
)
