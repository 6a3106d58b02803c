"""fold-constants: its numpy kernels against ONNX Runtime, bounds, failures, and cost."""

import math
import sys
import time

import numpy as np
import onnx
import pytest
from graphopt_passes.fold_constants import FoldConstants, session

from graphopt.errors import RuntimeUnavailableError
from graphopt.graph import from_text, ir, load, patient_collector, to_bytes, to_text, verify
from graphopt.plugin import Journal, constant_array
from graphopt.runtime.evaluate import evaluate
from graphopt.shapes import infer_shapes

FLOATS = np.array([[0.5, -1.75, 3.0], [-0.0, 2.5e-3, 1e20]], np.float32)
INTS = np.array([[7, -7, 8], [-8, 1, 0]], np.int64)
DIVISORS = np.array([[2, 2, -3], [3, -5, 4]], np.int64)
BOOLS = np.array([[True, False, True], [False, False, True]])


def model_of(op_type, inputs, attributes=None, opset=21, outputs=1):
    """A model in which one node computes `y0`, `y1`, ... from constants."""
    values = [
        None
        if array is None
        else ir.Value(
            name=f"c{i}",
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array, name=f"c{i}"),
        )
        for i, array in enumerate(inputs)
    ]
    node = ir.node(op_type, values, attributes or {}, num_outputs=outputs)
    for i, value in enumerate(node.outputs):
        value.name = f"y{i}"
    graph = ir.Graph(
        [],
        node.outputs,
        nodes=[node],
        initializers=[value for value in values if value is not None],
        opset_imports={"": opset},
        name="g",
    )
    model = ir.Model(graph, ir_version=8)
    infer_shapes(model)
    return model


def fold(model, **options):
    journal = Journal("fold-constants")
    FoldConstants(**options).run(model, journal)
    assert verify(model) == []
    return journal


def int64(*numbers):
    return np.array(numbers, np.int64)


KERNELS = [
    ("Abs", [INTS], {}, 21, 1),
    ("Abs", [FLOATS], {}, 21, 1),
    ("Add", [FLOATS, FLOATS[0]], {}, 21, 1),
    ("Add", [np.array([2**62, 2**63 - 1]), int64(2**62, 1)], {}, 21, 1),
    ("And", [BOOLS, BOOLS[0]], {}, 21, 1),
    ("Cast", [np.array([-3.9, 3.9, 0.0], np.float32)], {"to": 7}, 21, 1),
    ("Cast", [FLOATS], {"to": 10}, 21, 1),
    ("Cast", [FLOATS], {"to": 11}, 21, 1),
    ("Cast", [np.array([0.1, 1e40, -1e-50])], {"to": 1}, 21, 1),
    ("Cast", [np.array([np.nan, 0.0, -0.0, 2.0], np.float32)], {"to": 9}, 21, 1),
    ("Cast", [np.array([2**24 + 1, -(2**53) - 1, 300])], {"to": 1}, 21, 1),
    ("Cast", [np.array([-1, 300, 2**40 + 5])], {"to": 2}, 21, 1),
    ("Cast", [np.array([-1, 300, 2**40 + 5])], {"to": 6}, 21, 1),
    ("Cast", [BOOLS], {"to": 7}, 21, 1),
    ("Ceil", [FLOATS], {}, 21, 1),
    ("Concat", [INTS, DIVISORS], {"axis": -1}, 21, 1),
    ("ConstantOfShape", [int64(2, 0, 3)], {}, 21, 1),
    ("ConstantOfShape", [int64(2, 2)], {"value": ir.tensor(int64(-4))}, 21, 1),
    ("Div", [INTS, DIVISORS], {}, 21, 1),
    ("Div", [FLOATS, np.array([3.0, 0.0, -7.0], np.float32)], {}, 21, 1),
    ("Div", [INTS.astype(np.int32), DIVISORS.astype(np.int32)], {}, 9, 1),
    ("Equal", [INTS, INTS[0]], {}, 21, 1),
    ("Expand", [FLOATS[:, :1], int64(3, 1, 2)], {}, 21, 1),
    ("Flatten", [np.arange(24).reshape(2, 3, 4)], {"axis": -1}, 21, 1),
    ("Flatten", [np.arange(24).reshape(2, 3, 4)], {"axis": 0}, 21, 1),
    ("Floor", [FLOATS], {}, 21, 1),
    ("Gather", [FLOATS, int64(-1, 0)], {"axis": 1}, 21, 1),
    ("Gather", [FLOATS, np.array(1)], {}, 21, 1),
    ("Greater", [FLOATS, FLOATS[0]], {}, 21, 1),
    ("GreaterOrEqual", [INTS, DIVISORS], {}, 21, 1),
    ("Identity", [FLOATS], {}, 21, 1),
    ("Less", [INTS, DIVISORS], {}, 21, 1),
    ("LessOrEqual", [FLOATS, FLOATS[1]], {}, 21, 1),
    ("Max", [INTS, DIVISORS, INTS[0]], {}, 21, 1),
    ("Min", [INTS, DIVISORS], {}, 21, 1),
    ("Mod", [INTS, DIVISORS], {}, 21, 1),
    ("Mod", [INTS, DIVISORS], {"fmod": 1}, 21, 1),
    ("Mul", [FLOATS, FLOATS[:, :1]], {}, 21, 1),
    ("Mul", [np.array([2**62, -3]), int64(4, 5)], {}, 21, 1),
    ("Neg", [FLOATS], {}, 21, 1),
    ("Not", [BOOLS], {}, 21, 1),
    ("Or", [BOOLS, BOOLS[1]], {}, 21, 1),
    ("Pad", [INTS, int64(1, 0, 0, 2), np.array(9)], {}, 21, 1),
    ("Pad", [FLOATS], {"pads": [1, 0, 0, 2], "value": 1.5}, 10, 1),
    ("Range", [np.array(7), np.array(-2), np.array(-2)], {}, 21, 1),
    ("Range", [np.array(7), np.array(9), np.array(-2)], {}, 21, 1),
    ("Reciprocal", [FLOATS], {}, 21, 1),
    ("ReduceMax", [INTS], {"axes": [-1], "keepdims": 0}, 13, 1),
    ("ReduceMin", [INTS, int64(0)], {}, 18, 1),
    ("ReduceProd", [INTS], {"keepdims": 0}, 13, 1),
    ("ReduceSum", [INTS, int64(1)], {}, 21, 1),
    ("ReduceSum", [INTS], {"noop_with_empty_axes": 1}, 21, 1),
    ("ReduceSum", [INTS.astype(np.int32)], {}, 21, 1),
    ("Reshape", [INTS, int64(0, -1, 1)], {}, 21, 1),
    ("Reshape", [np.zeros((0, 3), np.float32), int64(3, 0)], {"allowzero": 1}, 21, 1),
    ("Shape", [INTS], {}, 13, 1),
    ("Shape", [np.zeros((2, 3, 4), np.float32)], {"start": -2, "end": 5}, 21, 1),
    ("Size", [INTS], {}, 21, 1),
    ("Slice", [FLOATS], {"starts": [1], "ends": [-1], "axes": [1]}, 9, 1),
    ("Slice", [np.arange(10), int64(-1), int64(-(2**63)), int64(0), int64(-3)], {}, 21, 1),
    ("Slice", [np.arange(10), int64(-20), int64(2**63 - 1), None, int64(4)], {}, 21, 1),
    ("Slice", [np.arange(10), int64(20), int64(2), None, int64(-2)], {}, 21, 1),
    ("Split", [INTS], {"axis": 1, "split": [1, 2]}, 11, 2),
    ("Split", [INTS, int64(2, 1)], {"axis": -1}, 21, 2),
    ("Split", [np.arange(7)], {"num_outputs": 3}, 18, 3),
    ("Sqrt", [np.abs(FLOATS)], {}, 21, 1),
    ("Squeeze", [INTS[:1]], {"axes": [0]}, 11, 1),
    ("Squeeze", [INTS[:1, :1]], {}, 21, 1),
    ("Squeeze", [INTS[:, :1], int64(-1)], {}, 21, 1),
    ("Sub", [INTS, DIVISORS], {}, 21, 1),
    ("Tile", [INTS, int64(2, 3)], {}, 21, 1),
    ("Transpose", [np.arange(24).reshape(2, 3, 4)], {}, 21, 1),
    ("Transpose", [np.arange(24).reshape(2, 3, 4)], {"perm": [1, 2, 0]}, 21, 1),
    ("Unsqueeze", [INTS], {"axes": [0, 3]}, 11, 1),
    ("Unsqueeze", [INTS, int64(-1, 1)], {}, 21, 1),
    ("Where", [BOOLS, INTS, np.array(5)], {}, 21, 1),
    ("Xor", [BOOLS, BOOLS[0]], {}, 21, 1),
]


@pytest.mark.parametrize("case", KERNELS, ids=lambda case: f"{case[0]}-{case[3]}")
def test_kernel_has_the_bits_of_the_runtime(case, monkeypatch):
    op_type, inputs, attributes, opset, outputs = case
    model = model_of(op_type, inputs, attributes, opset, outputs)
    expected = evaluate(model.clone())
    monkeypatch.setattr(session, "evaluate", lambda model: pytest.fail("the runtime was asked"))

    fold(model)

    assert [node.op_type for node in model.graph] == ["Constant"] * outputs
    for value in model.graph.outputs:
        actual, wanted = constant_array(value), expected[value.name].numpy()
        assert (actual.dtype, actual.shape) == (wanted.dtype, wanted.shape)
        assert actual.tobytes() == wanted.tobytes()


INEXACT = [
    # Runtimes sum and multiply integers in double precision, and some saturate.
    ("ReduceSum", [np.array([2**31 - 1, 5], np.int32)], {}, 21),
    ("ReduceSum", [int64(2**53 + 1, 2)], {}, 21),
    ("ReduceProd", [int64(2**63 - 1, 3)], {}, 13),
    ("ReduceProd", [int64(2**53 + 1, 0, 1)], {}, 13),
]


def test_a_squeeze_of_no_axes_stays_as_runtimes_do_not_agree_on_it():
    model = model_of("Squeeze", [INTS[:1], int64()], {}, 21)
    fold(model)
    assert [node.op_type for node in model.graph] == ["Squeeze"]


@pytest.mark.parametrize("case", INEXACT, ids=lambda case: f"{case[0]}-{case[3]}")
def test_the_runtime_computes_what_numpy_would_compute_otherwise(case):
    model = model_of(*case)
    expected = evaluate(model.clone())["y0"].numpy()

    fold(model)

    assert [node.op_type for node in model.graph] == ["Constant"]
    actual = constant_array(model.graph.outputs[0])
    assert (actual.shape, actual.tobytes()) == (expected.shape, expected.tobytes())


def test_strings_keep_the_zero_bytes_at_their_ends():
    texts = ir.StringTensor([b"a\0", b"a"], shape=ir.Shape([2]), name="texts")
    model = from_text(
        """
        <ir_version: 9, opset_import: ["" : 19]>
        g () => (bool[2] y) <string[2] texts = {"a", "a"}, string[1] one = {"a"}> {
            y = Equal (texts, one)
        }
        """
    )
    model.graph.initializers["texts"].const_value = texts
    infer_shapes(model)

    fold(model)

    assert constant_array(model.graph.outputs[0]).tolist() == [False, True]


def test_every_kernel_is_compared_with_the_runtime():
    from graphopt_passes.fold_constants.arithmetic_kernels import ARITHMETIC
    from graphopt_passes.fold_constants.movement_kernels import MOVEMENT

    assert {case[0] for case in KERNELS} == {*ARITHMETIC, *MOVEMENT}


def test_shape_arithmetic_does_not_import_the_runtime(monkeypatch):
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,8] x) => (float[M,24] y) {
          shape = Shape(x)
          zero = Constant<value_int = 0>()
          batch = Gather(shape, zero)
          axes = Constant<value_ints = [0]>()
          batch1 = Unsqueeze(batch, axes)
          three = Constant<value_floats = [3.0]>()
          eight = Constant<value_floats = [8.0]>()
          product = Mul(three, eight)
          width = Cast<to = 7>(product)
          target = Concat<axis = 0>(batch1, width)
          y = Reshape(x, target)
        }"""
    )
    infer_shapes(model)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    fold(model)
    assert [node.op_type for node in model.graph] == [
        *("Shape", "Gather", "Unsqueeze", "Concat", "Reshape")
    ]


HUGE = [
    ("ConstantOfShape", [int64(2**20, 2**20)], {}),
    ("ConstantOfShape", [int64(2**40)], {"value": ir.tensor(np.array([1], np.int8))}),
    ("Expand", [np.zeros(1, np.float32), int64(2**20, 2**20)], {}),
    ("Tile", [np.zeros((1, 1), np.float32), int64(2**20, 2**20)], {}),
    ("Range", [np.array(0), np.array(2**40), np.array(1)], {}),
    ("Pad", [np.zeros(1, np.float32), int64(2**40, 0)], {}),
    ("Gather", [np.zeros((1, 2**20), np.float32), np.zeros(2**20, np.int64)], {}),
    ("Add", [np.zeros((2**20, 1), np.float32), np.zeros((1, 2**20), np.float32)], {}),
    ("OneHot", [np.zeros(2**20, np.int64), np.array(2**20), np.array([0, 1])], {}),
]


@pytest.mark.parametrize("case", HUGE, ids=lambda case: case[0])
def test_a_huge_result_is_declined_before_it_is_allocated(case):
    model = model_of(*case)
    start = time.perf_counter()
    journal = fold(model)
    assert time.perf_counter() - start < 2
    assert journal.rewrites == []
    assert any(
        "more than limit" in entry.reason or "size of its result" in entry.reason
        for entry in journal.declined
    )


def test_the_product_of_a_huge_constant_is_not_computed_either():
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g () => (float y) <int64[2] shape = {1048576, 1048576}> {
          big = ConstantOfShape(shape)
          y = ReduceSum<keepdims = 0>(big)
        }"""
    )
    infer_shapes(model)
    assert fold(model).rewrites == []


def test_the_limit_counts_what_the_result_replaces():
    weight = np.ones((512, 600), np.float32)
    model = model_of("Transpose", [weight], {"perm": [1, 0]})
    assert len(fold(model, limit=0).rewrites) == 1
    assert list(model.graph.initializers) == []


def shared_weight(*consumers):
    """A weight of 1.2 MB and what is made of it."""
    lines = "\n".join(f"y{i} = {call}" for i, call in enumerate(consumers))
    outputs = ", ".join(f"float[A{i},B{i}] y{i}" for i in range(len(consumers)))
    model = from_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,512] x) => ({outputs})
        <float[1,1] w = {{0}}, int64[1] begin = {{0}}, int64[1] middle = {{256}},
         int64[1] end = {{512}}> {{ {lines} }}"""
    )
    weight = model.graph.initializers["w"]
    weight.const_value = ir.tensor(np.arange(512 * 600, dtype=np.float32).reshape(512, 600))
    weight.shape = ir.Shape([512, 600])
    infer_shapes(model)
    return model


def test_the_transpose_of_a_weight_that_others_use_is_declined():
    model = shared_weight("Transpose<perm = [1, 0]>(w)", "MatMul(x, w)")
    journal = fold(model)
    assert journal.rewrites == []
    assert "more than limit=1048576" in journal.declined[0].reason


def test_a_weight_cut_in_pieces_counts_for_all_of_them():
    model = shared_weight("Slice(w, begin, middle)", "Slice(w, middle, end)")
    assert len(fold(model, limit=0).rewrites) == 2
    assert list(model.graph.initializers) == []


def test_a_weight_cut_in_pieces_counts_for_nothing_where_one_piece_stays():
    model = shared_weight("Slice(w, begin, middle)", "Slice(w, middle, end)", "MatMul(x, w)")
    assert fold(model, limit=100_000).rewrites == []


def test_two_copies_of_a_weight_count_as_growth():
    calls = ("Identity(w)", "Transpose<perm = [1, 0]>(w)")
    assert fold(shared_weight(*calls)).rewrites == []
    assert len(fold(shared_weight(*calls), limit=2**20 + 2**18).rewrites) == 2


def test_one_node_without_a_kernel_does_not_keep_the_others(monkeypatch):
    calls = []

    def refusing(model):
        calls.append([node.op_type for node in model.graph])
        if any(node.op_type == "Sinh" for node in model.graph):
            raise RuntimeUnavailableError("no kernel for Sinh")
        return evaluate(model)

    monkeypatch.setattr(session, "evaluate", refusing)
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) <float[2] c = {0.5, 1.0}> {
          a = Exp(c)
          b = Sinh(a)
          d = Tanh(b)
          e = Erf(c)
          f = Add(x, d)
          y = Add(f, e)
        }"""
    )
    infer_shapes(model)
    journal = fold(model)
    assert [node.op_type for node in model.graph] == ["Sinh", "Tanh", "Add", "Add"]
    assert "ONNX Runtime cannot evaluate it: no kernel for Sinh" in [
        entry.reason for entry in journal.declined
    ]
    assert calls[0] == ["Exp", "Sinh", "Tanh", "Erf"]


def test_the_whole_model_takes_one_session(monkeypatch):
    calls = []
    monkeypatch.setattr(
        session, "evaluate", lambda model: (calls.append(len(model.graph)), evaluate(model))[1]
    )
    body = "\n".join(
        f"a{i} = Exp(c)\n b{i} = Mul(x{i}, a{i})\n x{i + 1} = Tanh(b{i})" for i in range(20)
    )
    model = from_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x0) => (float[2] x20) <float[2] c = {{0.5, 1.0}}> {{ {body} }}"""
    )
    infer_shapes(model)
    assert len(fold(model).rewrites) == 20
    assert calls == [20]


def test_half_precision_is_rounded_once():
    numbers = np.random.default_rng(0).standard_normal(64).astype(np.float16)
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g () => (float16[64] y) {
          a = Constant<value = float16[64] {...}>()
          product = Mul(a, a)
          y = Add(product, a)
        }""".replace("...", ", ".join(str(bits) for bits in numbers.view(np.uint16)))
    )
    infer_shapes(model)
    fold(model)
    wide = numbers.astype(np.float32)
    expected = (wide * wide + wide).astype(np.float16)
    assert constant_array(model.graph.outputs[0]).tobytes() == expected.tobytes()


def test_bfloat16_goes_through_the_runtime_in_float32():
    dtype = ir.DataType.BFLOAT16.numpy()
    numbers = np.array([0.5, 1.25, -3.0, 0.0], np.float32).astype(dtype)
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g () => (bfloat16[4] y) {
          a = Constant<value = bfloat16[4] {...}>()
          raised = Exp(a)
          narrow = Cast<to = 16>(raised)
          y = Mul(narrow, a)
        }""".replace("...", ", ".join(str(bits) for bits in numbers.view(np.uint16)))
    )
    infer_shapes(model)
    fold(model)
    assert [node.op_type for node in model.graph] == ["Constant"]
    actual = constant_array(model.graph.outputs[0])
    wide = numbers.astype(np.float32)
    rounded = np.exp(wide).astype(dtype).astype(np.float32)
    assert actual.dtype == dtype
    np.testing.assert_allclose(actual.astype(np.float32), rounded * wide, rtol=2**-8)


UNUSUAL_TYPES = [
    *("BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2", "INT4", "UINT4", "COMPLEX64", "COMPLEX128"),
    *("UINT8", "INT16", "UINT64", "BOOL", "FLOAT16"),
]


@pytest.mark.parametrize("name", UNUSUAL_TYPES)
def test_constants_of_every_type_are_lifted_and_moved(name):
    dtype = ir.DataType[name]
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype.numpy())
    held = ir.node("Constant", [], {"value": ir.tensor(array)})
    moved = ir.node("Transpose", held.outputs)
    users = [ir.node("Opaque", node.outputs, domain="vendor") for node in (held, moved)]
    nodes = [held, moved, *users]
    for number, node in enumerate(nodes):
        node.outputs[0].name = f"v{number}"
    graph = ir.Graph(
        [],
        [user.outputs[0] for user in users],
        nodes=nodes,
        opset_imports={"": 21, "vendor": 1},
        name="g",
    )
    model = ir.Model(graph, ir_version=10)
    infer_shapes(model)
    FoldConstants().run(model, Journal("fold-constants"))
    constants = load(to_bytes(model)).graph.initializers
    assert list(constants) == ["v1", "v0"]
    for label, expected in (("v0", array), ("v1", array.T)):
        tensor = constants[label].const_value
        assert tensor.dtype == dtype
        assert tensor.tobytes() == ir.tensor(np.ascontiguousarray(expected)).tobytes()


def test_a_sparse_constant_stays():
    values = onnx.helper.make_tensor("v", onnx.TensorProto.FLOAT, [1], [2.0])
    indices = onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [1], [1])
    sparse = onnx.helper.make_sparse_tensor(values, indices, [3])
    node = onnx.helper.make_node("Constant", [], ["c"], sparse_value=sparse)
    add = onnx.helper.make_node("Add", ["x", "c"], ["y"])
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3]) for name in "xy"]
    graph = onnx.helper.make_graph([node, add], "g", info[:1], info[1:])
    opset = onnx.helper.make_opsetid("", 17)
    model = load(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8))
    infer_shapes(model)
    assert fold(model).rewrites == []


def test_integer_division_by_zero_stays_in_the_model():
    journal = fold(model := model_of("Div", [int64(1, 2), int64(1, 0)]))
    assert [node.op_type for node in model.graph] == ["Div"]
    assert [entry.reason for entry in journal.declined] == ["it divides an integer by zero"]


def test_a_pass_that_may_not_act_at_a_site_leaves_that_one():
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) <float[2] c = {0.5, 1.0}> {
          a = Neg(c)
          b = Abs(c)
          d = Add(x, a)
          y = Add(d, b)
        }"""
    model = from_text(text)
    infer_shapes(model)
    journal = Journal("fold-constants", skip=frozenset({"Neg -> a"}))
    FoldConstants().run(model, journal)
    assert [node.op_type for node in model.graph] == ["Neg", "Add", "Add"]
    limited = from_text(text)
    infer_shapes(limited)
    FoldConstants().run(limited, Journal("fold-constants", limit=1))
    assert [node.op_type for node in limited.graph] == ["Abs", "Add", "Add"]


def test_the_same_model_gives_the_same_text():
    texts = set()
    for _ in range(2):
        model = model_of("Exp", [FLOATS[:1]])
        fold(model)
        texts.add(to_text(model))
    assert len(texts) == 1


def chain(length):
    """`length` Constants and Adds of them to a running sum, a fold at every tenth."""
    nodes = []
    total = ir.Value(name="x", shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT))
    graph_input = total
    for i in range(length // 3):
        held = ir.node("Constant", [], {"value": ir.tensor(np.ones(2, np.float32))})
        negated = ir.node("Neg", held.outputs)
        added = ir.node("Add", [total, negated.outputs[0]])
        for node, name in ((held, "c"), (negated, "n"), (added, "s")):
            node.outputs[0].name = f"{name}{i}"
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            node.outputs[0].shape = ir.Shape([2])
        nodes += [held, negated, added]
        total = added.outputs[0]
    graph = ir.Graph([graph_input], [total], nodes=nodes, opset_imports={"": 17}, name="g")
    return ir.Model(graph, ir_version=8)


def test_the_cost_grows_linearly():
    def seconds(length):
        best = math.inf
        for _ in range(2):
            model = chain(length)
            # As the pipeline runs a pass: else what other tests left in memory counts too.
            with patient_collector():
                start = time.process_time()
                FoldConstants().run(model, Journal("fold-constants"))
                best = min(best, time.process_time() - start)
            assert len(model.graph) == length // 3
        return best

    assert seconds(6_000) < 20 * seconds(600)


def test_external_data_is_not_read_for_a_view(tmp_path):
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    model = model_of("Reshape", [weight, int64(3, 2)])
    ir.save(model, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    loaded = load(tmp_path / "m.onnx")
    infer_shapes(loaded)
    fold(loaded)
    np.testing.assert_array_equal(constant_array(loaded.graph.outputs[0]), weight.reshape(3, 2))
