"""Convolutions, products, recurrent layers, attention and quantization, against counting loops.

Each case is one node. The loops of `brute_force` compute it and count; that they compute the
operator is shown by ONNX Runtime, or by ONNX's reference where ONNX Runtime has no kernel; and
the rule has to give the loops' three figures, to the integer.
"""

import onnx
import pytest
from onnx import helper

from graphopt.cost import estimate_cost
from graphopt.cost.operator import Operator, Tensor, UnknownShapeError
from graphopt.cost.quantity import Quantity, evaluated, free
from graphopt.cost.rules import rules
from graphopt.graph import ir
from tests.cost.contraction_cases import CONTRACTIONS
from tests.cost.one_node import Case, check
from tests.cost.quantized_cases import QUANTIZED

CASES = (*CONTRACTIONS, *QUANTIZED)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rules_count_what_the_loops_do(case: Case) -> None:
    check(case)


SYMBOLIC = (
    ("Conv", {"pads": [1] * 4, "strides": [2, 2]}, "N,4,H,W 8,4,3,3 8"),
    ("Conv", {"group": 4, "auto_pad": "SAME_UPPER"}, "N,4,H,W 4,1,3,3"),
    ("ConvTranspose", {"strides": [2, 2]}, "N,4,H,W 4,2,3,3 2"),
    ("DeformConv", {"pads": [1] * 4}, "N,4,H,W 2,4,3,3 N,18,H,W"),
    ("ConvInteger", {}, "u8:N,4,H,W u8:2,4,3,3 u8:"),
    ("MatMul", {}, "N,1,S,16 H,16,T"),
    ("MatMul", {}, "S N,S,4"),
    ("Gemm", {"alpha": 2.0}, "S,16 16,T S,1"),
    ("Einsum", {"equation": "bhid,bhjd->bhij"}, "N,2,S,8 N,2,T,8"),
    ("Einsum", {"equation": "bi,ijk,bj->bk"}, "N,S S,H,T N,H"),
    ("Einsum", {"equation": "...ij->...j"}, "N,S,T,4"),
    ("Det", {}, "N,S,S"),
    ("LSTM", {"hidden_size": 4}, "S,N,3 1,16,3 1,16,4 1,32"),
    ("GRU", {"hidden_size": 4, "linear_before_reset": 1}, "S,N,3 1,12,3 1,12,4 1,24"),
    ("RNN", {"hidden_size": 4, "layout": 1}, "N,S,3 1,4,3 1,4,4"),
    ("Attention", {}, "N,2,S,8 N,2,T,8 N,2,T,6"),
    ("Attention", {"is_causal": 1}, "N,2,S,8 N,2,S,8 N,2,S,8"),
    ("Attention", {"is_causal": 1}, "N,2,S,8 N,2,T,8 N,2,T,8"),
    ("Attention", {"is_causal": 1}, "N,2,S,8 N,2,S,8 N,2,S,8 - N,2,T,8 N,2,T,8"),
    (
        "Attention",
        {"q_num_heads": 4, "kv_num_heads": 2, "softcap": 3.0},
        "N,S,32 N,T,16 N,T,16 S,T",
    ),
    ("RotaryEmbedding", {}, "N,2,S,8 N,S,4 N,S,4"),
    ("QuantizeLinear", {}, "N,S f: u8:"),
    ("DynamicQuantizeLinear", {}, "N,S"),
)
SETTINGS = (
    {"N": 1, "H": 5, "W": 4, "S": 3, "T": 7},
    {"N": 2, "H": 6, "W": 9, "S": 5, "T": 2},
    {"N": 3, "H": 8, "W": 7, "S": 6, "T": 6},
)


def model_with_shapes(op_type, attributes, shapes, sizes=None):
    """One node; `shapes` has an entry per input, - where it is left out, a type before a colon."""
    inputs, names = [], []
    for index, text in enumerate(shapes.split(" ")):
        names.append("" if text == "-" else f"in{index}")
        if text == "-":
            continue
        kind, _, dims = text.rpartition(":")
        dims = [
            int(dim) if dim.isdigit() else (sizes or {}).get(dim, dim)
            for dim in dims.split(",")
            if dim
        ]
        dtype = onnx.TensorProto.UINT8 if kind == "u8" else onnx.TensorProto.FLOAT
        inputs.append(helper.make_tensor_value_info(names[-1], dtype, dims))
    node = helper.make_node(op_type, names, ["out"], **attributes)
    graph = helper.make_graph([node], "case", inputs, [onnx.ValueInfoProto(name="out")])
    opset = [helper.make_opsetid("", 23)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


@pytest.mark.parametrize(("op_type", "attributes", "shapes"), SYMBOLIC)
def test_free_dims_give_what_their_sizes_give(op_type, attributes, shapes):
    (row,) = estimate_cost(model_with_shapes(op_type, attributes, shapes)).by_node
    assert row.counted, row.note
    assert isinstance(row.flops, Quantity)
    for sizes in SETTINGS:
        (expected,) = estimate_cost(model_with_shapes(op_type, attributes, shapes, sizes)).by_node
        assert evaluated(row.macs, sizes) == expected.macs
        assert evaluated(row.flops, sizes) == expected.flops
        assert evaluated(row.transcendentals, sizes) == expected.transcendentals


@pytest.mark.parametrize(
    ("op_type", "attributes", "shapes", "macs"),
    [
        ("Gemm", {"transB": 1}, "batch,16 8,16", "128*batch"),
        ("Attention", {}, "N,2,S,64 N,2,S,64 N,2,S,64", "256*N*S**2"),
        ("Attention", {"is_causal": 1}, "N,2,S,64 N,2,S,64 N,2,S,64", "128*N*S**2 + 128*N*S"),
    ],
)
def test_free_counts_are_written_as_polynomials(op_type, attributes, shapes, macs):
    (row,) = estimate_cost(model_with_shapes(op_type, attributes, shapes)).by_node
    assert str(row.macs) == macs


def test_a_chain_of_products_says_where_the_order_of_the_runtime_costs_more():
    model = model_with_shapes("Einsum", {"equation": "ij,jk,kl->il"}, "60,50 50,40 40,2")
    (row,) = estimate_cost(model).by_node
    assert row.macs == 50 * 40 * 2 + 60 * 50 * 2
    assert row.note == f"from left to right it takes {60 * 50 * 40 + 60 * 40 * 2} MACs"


def test_an_equation_that_does_not_fit_is_uncounted():
    node = ir.Node("", "Einsum", [], [ir.AttrString("equation", "ij,jk->ik")])
    data = Tensor("x", ir.DataType.FLOAT, (2, 3, 4))
    operator = Operator(node, 12, [data, data], [data])
    with pytest.raises(UnknownShapeError, match="does not fit"):
        rules()["", "Einsum"].count(operator)


@pytest.mark.parametrize(
    ("name", "free_dims"),
    [
        ("GroupQueryAttention-plain", ["1,S,64", "1,S,32", "1,S,32", "1,2,P,16", "1,2,P,16"]),
        ("Attention-causal projection", ["N,S,8", "8,24", "24", "", "2,N,2,P,4"]),
        ("MultiHeadAttention-cross", ["N,S,8", "N,P,8", "N,P,8"]),
    ],
)
def test_attention_of_the_runtime_with_free_dims(name, free_dims):
    """The rule on symbols, evaluated, is the rule on sizes, which the loops confirm."""
    (case,) = (case for case in CASES if str(case) == name)
    node = ir.from_proto(case.model()).graph[0]

    def count(sizes):
        inputs = [
            Tensor("", ir.DataType.FLOAT, tuple(_dim(dim, sizes) for dim in dims.split(",")))
            if dims
            else None
            for dims in free_dims
        ]
        output = Tensor("", ir.DataType.FLOAT, inputs[0].shape)
        return rules()[case.domain, case.op_type].count(Operator(node, 1, inputs, [output]))

    work = count({})
    assert isinstance(work.macs, Quantity)
    own = {}
    for dims, array in zip(free_dims, case.inputs, strict=False):
        if dims:
            names = zip(dims.split(","), array.shape, strict=True)
            own |= {dim: size for dim, size in names if not dim.isdigit()}
    for sizes in (own, {"N": 1, "S": 1, "P": 9}, {"N": 3, "S": 6, "P": 2}):
        expected = count(sizes)
        for figure in ("macs", "elementwise", "transcendentals"):
            assert evaluated(getattr(work, figure), sizes) == getattr(expected, figure)


def _dim(text, sizes):
    return int(text) if text.isdigit() else sizes.get(text, free(text))
