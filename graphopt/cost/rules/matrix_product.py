"""Matrix products: one MAC for each output element and each contracted position.

    operator                  MACs                        beyond them
    MatMul  (.., M, K, N)     prod(batch) * M * K * N
    Gemm    A (M, K), B (K, N)  M * K * N                 alpha: M * N, beta: size of C, C: M * N
    Det     (.., n, n)        (n - 1) n (2n - 1) / 6      by elimination: n (n - 1) / 2 divisions
                                                          and comparisons, n - 1 products
    Inverse (.., n, n)        n * (n - 1) ** 2            by elimination in place: n times a
                                                          reciprocal and 2 (n - 1) products,
                                                          n (n - 1) / 2 comparisons
    CDist   (M, N), (K, N)    M * K * N                   M * K * N subtractions, M * K roots

The left operand's zero point is taken off each of its elements once (1); the right operand's is
not counted, for it holds weights, whose zero points are worked off at load. A 32-bit sum becomes
a float by one multiplication with the product of both scales (as many as the scales of B), and
an integer by multiplying, rounding, adding a zero point and bounding twice (5).

Weights that are stored in 2, 4 or 8 bits and used as floats are decoded in every run: a
subtraction and a multiplication for each (2); only a multiplication where they have no zero point.
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.quantity import Number, product
from graphopt.cost.rules.activation import activation
from graphopt.cost.rules.quantization import REQUANTIZATION, dynamic_range_steps


def matrix_product(node: Operator) -> Work:
    """`MatMul`, `MatMulInteger16`: as numpy's matmul, vectors included."""
    return Work(macs=node.output().size * _contracted(node, 0, 1))


def integer_matrix_product(node: Operator) -> Work:
    """`MatMulInteger`: A, B and their zero points, into 32-bit sums."""
    centred = node.input().size if node.has_input(2) else 0
    return Work(macs=node.output().size * _contracted(node, 0, 1), elementwise=centred)


def quantized_matrix_product(node: Operator) -> Work:
    """`QLinearMatMul`: A, B and Y, each with scale and zero point."""
    output = node.output().size
    return Work(
        macs=output * _contracted(node, 0, 3),
        elementwise=node.input().size + output * REQUANTIZATION,
    )


def integer_matrix_product_to_float(node: Operator) -> Work:
    """`MatMulIntegerToFloat`: A, B, their scales, their zero points, bias."""
    output = node.output().size
    centred = node.input().size if node.has_input(4) else 0
    return Work(
        macs=output * _contracted(node, 0, 1),
        elementwise=centred + node.input(3).size + output * (1 + node.has_input(6)),
    )


def dynamically_quantized_matrix_product(node: Operator) -> Work:
    """`DynamicQuantizeMatMul`: A is quantized first; A, B, scale and zero point of B, bias."""
    output, size = node.output().size, node.input().size
    return Work(
        macs=output * _contracted(node, 0, 1),
        elementwise=dynamic_range_steps(size)
        + size
        + node.input(2).size
        + output * (1 + node.has_input(4)),
    )


def fused_matrix_product(node: Operator) -> Work:
    """`FusedMatMul`: either side may be transposed; alpha and an activation may follow."""
    output = node.output().size
    function = activation(node.text("activation"))
    return Work(
        macs=output * _inner(node),
        elementwise=output * (function.elementwise + _scaled(node, "alpha")),
        transcendentals=output * function.transcendentals,
    )


def general_matrix_product(node: Operator) -> Work:
    """`Gemm`, `FusedGemm`: activation(alpha * A * B + beta * C)."""
    output = node.output().size
    steps = _scaled(node, "alpha")
    elementwise: Number = 0
    if node.has_input(2):
        steps += 1
        elementwise = node.input(2).size * _scaled(node, "beta")
    function = activation(node.text("activation"))
    return Work(
        macs=output * _gemm_inner(node, 0),
        elementwise=elementwise + output * (function.elementwise + steps),
        transcendentals=output * function.transcendentals,
    )


def quantized_general_matrix_product(node: Operator) -> Work:
    """`QGemm`: A and B with scale and zero point, C, scale and zero point of Y if quantized."""
    output = node.output().size
    per_output = (REQUANTIZATION if node.has_input(7) else 1) + node.has_input(6)
    return Work(
        macs=output * _gemm_inner(node, 0),
        elementwise=node.input().size + output * per_output,
    )


def packed_matrix_product(node: Operator) -> Work:
    """`MatMulNBits`: weights of a few bits in blocks, with scales and zero points; bias."""
    bias = node.output().size if node.has_input(5) else 0
    return _with_packed_weights(node, decoding=2, more=bias)


def normal_float_matrix_product(node: Operator) -> Work:
    """`MatMulBnb4`: weights out of a table of 16 floats, times the block's scale."""
    return _with_packed_weights(node, decoding=1)


def determinant(node: Operator) -> Work:
    """`Det`: elimination with pivots."""
    n = node.input().dims[-1]
    count = product(node.input().dims[:-2])
    return Work(
        macs=count * (n - 1) * n * (2 * n - 1) // 6,
        elementwise=count * (n * (n - 1) + n - 1),
        note="by elimination with pivots",
    )


def inverse(node: Operator) -> Work:
    """`Inverse`: Gauss-Jordan elimination in place, with pivots."""
    n = node.input().dims[-1]
    count = product(node.input().dims[:-2])
    return Work(
        macs=count * n * (n - 1) * (n - 1),
        elementwise=count * (n * (2 * n - 1) + n * (n - 1) // 2),
        note="by Gauss-Jordan elimination with pivots",
    )


def pairwise_distances(node: Operator) -> Work:
    """`CDist`: euclidean or its square, of the rows of A to those of B."""
    output = node.output().size
    roots = 0 if node.text("metric", "sqeuclidean") == "sqeuclidean" else output
    products = output * node.input().dims[-1]
    return Work(macs=products, elementwise=products, transcendentals=roots)


def _with_packed_weights(node: Operator, decoding: int, more: Number = 0) -> Work:
    """The last axes of A and of the output are the weights' two axes."""
    inner, outer = node.input().dims[-1], node.output().dims[-1]
    return Work(
        macs=node.output().size * inner,
        elementwise=inner * outer * decoding + more,
    )


def _contracted(node: Operator, left: int, right: int) -> Number:
    """How many positions a matmul sums over; whichever side knows it as a number."""
    a, b = node.input(left).dims, node.input(right).dims
    inner = b[-2] if len(b) > 1 else b[-1]
    return inner if isinstance(inner, int) else a[-1]


def _inner(node: Operator) -> Number:
    """The axis of A that `transA` and `transBatchA` bring last; vectors are not transposed."""
    dims = node.input().dims
    if len(dims) == 1 or not node.integer("transA", 0):
        return dims[-1]
    return dims[0] if node.integer("transBatchA", 0) else dims[-2]


def _gemm_inner(node: Operator, left: int) -> Number:
    return node.input(left).dims[0 if node.integer("transA", 0) else 1]


def _scaled(node: Operator, name: str) -> int:
    """1 where the factor `name` is there to multiply with."""
    return int(node.number(name, 1.0) != 1.0)


_MICROSOFT = "com.microsoft"

RULES = (
    Rule("", "MatMul", matrix_product),
    Rule("", "MatMulInteger", integer_matrix_product),
    Rule("", "QLinearMatMul", quantized_matrix_product),
    Rule("", "Gemm", general_matrix_product),
    Rule("", "Det", determinant),
    Rule(_MICROSOFT, "MatMulInteger16", matrix_product),
    Rule(_MICROSOFT, "MatMulIntegerToFloat", integer_matrix_product_to_float),
    Rule(_MICROSOFT, "DynamicQuantizeMatMul", dynamically_quantized_matrix_product),
    Rule(_MICROSOFT, "FusedMatMul", fused_matrix_product),
    Rule(_MICROSOFT, "TransposeMatMul", fused_matrix_product),
    Rule(_MICROSOFT, "FusedGemm", general_matrix_product),
    Rule(_MICROSOFT, "QGemm", quantized_general_matrix_product),
    Rule(_MICROSOFT, "MatMulNBits", packed_matrix_product),
    Rule(_MICROSOFT, "MatMulBnb4", normal_float_matrix_product),
    Rule(_MICROSOFT, "Inverse", inverse),
    Rule(_MICROSOFT, "CDist", pairwise_distances),
)
