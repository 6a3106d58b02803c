"""What load reads, what it leaves as it was, and that nothing is shared with its argument."""

import onnx
import pytest
from graph_models import HEADER, chain, linear, nested, parse
from onnx import helper

from graphopt.errors import InvalidModelError, UnreadableModelError
from graphopt.graph import all_nodes, ir, load, to_bytes, to_proto, verify


def test_path_bytes_proto_and_model_give_the_same(tmp_path):
    proto = linear()
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    results = {
        to_bytes(load(source))
        for source in (path, str(path), path.read_bytes(), proto, ir.from_proto(proto))
    }
    assert results == {proto.SerializeToString(deterministic=True)}


def test_a_proto_is_not_shared():
    proto = linear()
    before = proto.SerializeToString(deterministic=True)
    model = load(proto)
    model.graph.initializers["w"].name = "renamed"
    model.graph.node(0).name = "other"
    to_bytes(model)
    assert proto.SerializeToString(deterministic=True) == before
    proto.graph.initializer[0].raw_data = bytes(24)
    assert model.graph.initializers["renamed"].const_value.numpy().any()


def test_a_model_is_cloned_with_its_metadata():
    source = load(linear())
    source.meta["kept"] = 1
    model = load(source)
    assert model.meta["kept"] == 1
    assert model.graph is not source.graph
    assert not set(all_nodes(model)) & set(all_nodes(source))
    tensor = source.graph.initializers["w"].const_value
    assert model.graph.initializers["w"].const_value is tensor
    model.graph.remove(model.graph.node(1))
    assert len(source.graph) == 2


def test_an_invalid_model_argument_is_refused():
    source = load(linear())
    source.graph.node(0).replace_input_with(0, ir.Value(name="nowhere"))
    with pytest.raises(InvalidModelError, match="MatMul 'product' uses 'nowhere'"):
        load(source)


def test_another_argument_is_refused():
    with pytest.raises(UnreadableModelError, match="not int"):
        load(3)


def test_nodes_out_of_order_are_sorted():
    proto = chain(50)
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    model = load(proto)
    assert [node.name for node in model.graph] == [f"n{i}" for i in range(50)]
    assert verify(model) == []


def test_order_seen_from_a_nested_graph():
    proto = parse(
        """g (float[2] x, bool c) => (float[2] y) {
            y = If (c) <
                then_branch = t () => (float[2] p) { p = Neg (late) },
                else_branch = e () => (float[2] q) { q = Abs (x) }
            >
            late = Relu (x)
        }"""
    )
    model = load(proto)
    assert [node.op_type for node in model.graph] == ["Relu", "If"]
    assert verify(model) == []


def test_a_model_without_ir_version_gets_one_that_suits_it():
    proto = linear()
    proto.ClearField("ir_version")
    model = load(proto)
    assert model.ir_version == 8
    onnx.checker.check_model(to_proto(model))


def test_before_ir_version_4_initializers_are_constants():
    proto = linear()
    proto.ir_version = 3
    proto.opset_import[0].version = 8
    proto.graph.input.append(helper.make_tensor_value_info("w", 1, [2, 3]))
    model = load(proto)
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert model.ir_version == 4
    onnx.checker.check_model(to_proto(model))


def test_from_ir_version_4_such_an_input_stays():
    proto = linear()
    proto.graph.input.append(helper.make_tensor_value_info("w", 1, [2, 3]))
    model = load(proto)
    assert [value.name for value in model.graph.inputs] == ["x", "w"]
    assert to_bytes(model) == proto.SerializeToString(deterministic=True)


def test_attributes_without_type_get_the_type_of_their_value():
    proto = parse("g (float[2,3] x) => (float[3,2] y) { y = Transpose <perm = [1, 0]> (x) }")
    proto.graph.node[0].attribute[0].ClearField("type")
    model = load(proto)
    assert model.graph.node(0).attributes.get_ints("perm") == (1, 0)


def test_a_dim_of_minus_one_is_read_as_unknown_by_every_runtime_and_kept():
    proto = linear()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert to_bytes(load(proto)) == proto.SerializeToString(deterministic=True)


@pytest.mark.parametrize("version", [7, 13, onnx.defs.onnx_opset_version()])
def test_every_opset_from_7_loads(version):
    header = f'<ir_version: 4, opset_import: ["" : {version}]>'
    model = load(parse("g (float[2] x) => (float[2] y) { y = Relu (x) }", header))
    assert model.opset_imports == {"": version}


def test_an_older_opset_says_what_to_do():
    header = '<ir_version: 4, opset_import: ["" : 6]>'
    with pytest.raises(InvalidModelError, match=r"opset 6 is older than 7.*version_converter"):
        load(parse("g (float[2] x) => (float[2] y) { y = Relu (x) }", header))


@pytest.mark.parametrize("domain", ["ai.onnx", "ai.onnx.ml"])
def test_a_newer_opset_says_what_to_do(domain):
    proto = linear()
    if domain == "ai.onnx":
        proto.opset_import[0].version = 999
    else:
        proto.opset_import.append(helper.make_opsetid(domain, 999))
    with pytest.raises(InvalidModelError, match=f"opset 999 of {domain} is newer.*upgrade onnx"):
        load(proto)


def test_a_custom_domain_may_have_any_version():
    proto = parse(
        "g (float[2] x) => (float[2] y) { y = far.away.Thing <k = 1> (x) }",
        '<ir_version: 8, opset_import: ["" : 17, "far.away" : 12345]>',
    )
    assert verify(load(proto)) == []


def test_a_hundred_thousand_nodes():
    model = load(chain(100_000))
    assert len(model.graph) == 100_000


@pytest.mark.parametrize("depth", [1, 20, 31])
def test_nested_graphs_load_and_are_written(depth):
    proto = nested(depth)
    model = load(proto)
    assert verify(model) == []
    assert to_bytes(load(model)) == proto.SerializeToString(deterministic=True)


@pytest.mark.parametrize("depth", [33, 250, 2000])
def test_graphs_nested_deeper_than_protobuf_can_hold_give_one_line(depth):
    with pytest.raises(InvalidModelError, match=f"nested {depth} deep, protobuf can hold 31"):
        load(nested(depth))


def test_such_a_model_in_memory_gives_one_line():
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    condition = ir.Value(name="c", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    inner = ir.node("Identity", [value])
    for level in range(300):
        graph = ir.Graph([], list(inner.outputs), nodes=[inner], name=f"g{level}")
        other = ir.node("Neg", [value])
        branch = ir.Graph([], list(other.outputs), nodes=[other], name=f"e{level}")
        branches = {"then_branch": graph, "else_branch": branch}
        inner = ir.node("If", [condition], branches)
    graph = ir.Graph([value, condition], list(inner.outputs), nodes=[inner], opset_imports={"": 17})
    model = ir.Model(graph, ir_version=8)
    for write in (load, to_proto):
        with pytest.raises(InvalidModelError, match="nested 300 deep"):
            write(model)
    assert isinstance(verify(model), list)


def test_a_function_model_keeps_its_functions():
    proto = parse(
        """g (float[2] x) => (float[2] y) { y = local.twice <k = 2.0> (x) }
        <opset_import: ["" : 17], domain: "local">
        twice <k> (a) => (b) { c = Constant <value_float : float = @k> () b = Mul (a, c) }
        """,
        '<ir_version: 8, opset_import: ["" : 17, "local" : 1]>',
    )
    model = load(proto)
    assert list(model.functions) == [("local", "twice", "")]
    assert verify(model) == []
    assert to_bytes(load(to_bytes(model))) == to_bytes(model)


def test_header_is_one_that_loads():
    assert load(parse("g (float x) => (float y) { y = Neg (x) }", HEADER)).ir_version == 8
