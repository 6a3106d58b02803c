"""Whatever bytes are given: one clear line, soon, and without allocating what they claim."""

import random
import time
import tracemalloc

import numpy as np
import onnx
import pytest
from graph_models import chain, linear, nested, parse
from onnx import TensorProto, helper, numpy_helper

from graphopt.errors import GraphoptError, InvalidModelError, ModelError, UnreadableModelError
from graphopt.graph import constant_array, load, to_bytes, verify, verify_proto


def line_of(source, kind=ModelError):
    """The message that loading gives: one line."""
    with pytest.raises(kind) as raised:
        load(source)
    message = str(raised.value)
    assert message
    assert "\n" not in message
    assert len(message) < 500
    return message


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"garbage",
        b"\xff" * 1000,
        b"{}",
        b"ir_version: 8\ngraph {\n  name: 'text'\n}\n",
        b"\x08\x08",
        bytes(100),
        b"\x18\x00\x00\x00ORTM" + bytes(100),
    ],
)
def test_bytes_that_are_no_model(contents, tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(contents)
    line_of(contents, UnreadableModelError)
    assert str(path) in line_of(path, UnreadableModelError)


def test_a_model_cut_anywhere():
    whole = linear().SerializeToString()
    for length in range(len(whole)):
        line_of(whole[:length])


def test_paths_that_are_no_file(tmp_path):
    assert "no such file" in line_of(tmp_path / "absent.onnx", UnreadableModelError)
    assert "is a folder" in line_of(tmp_path, UnreadableModelError)
    line_of("nul\0byte", UnreadableModelError)
    loop = tmp_path / "loop.onnx"
    loop.symlink_to(loop)
    line_of(loop, UnreadableModelError)


def test_a_device_is_not_read():
    assert "no regular file" in line_of("/dev/zero", UnreadableModelError)


def test_a_file_past_the_limit_is_not_read(tmp_path):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    assert "external data" in line_of(path, UnreadableModelError)


def test_a_proto_without_graph():
    assert "no graph" in line_of(onnx.ModelProto(ir_version=8), UnreadableModelError)


def test_a_proto_without_opset():
    proto = linear()
    del proto.opset_import[:]
    assert "no operator set" in line_of(proto, InvalidModelError)


@pytest.mark.parametrize(
    "dims",
    [[-1], [-5, 3], [2**40], [2**62, 2**62], [2**63 - 1, 2**63 - 1, 2**63 - 1], [7], [2, 2]],
)
@pytest.mark.parametrize("field", ["raw_data", "float_data", "nothing"])
def test_dims_that_the_data_does_not_have(dims, field):
    proto = linear()
    tensor = proto.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    if field != "raw_data":
        tensor.ClearField("raw_data")
    if field == "float_data":
        tensor.float_data.extend(range(6))
    tracemalloc.start()
    assert "initializer 'w'" in line_of(proto, InvalidModelError)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("dims", [[-2], [3, -7], [2**62, 2**62]])
def test_dims_of_values_that_cannot_be(dims):
    proto = linear()
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, dims))
    assert "'x'" in line_of(proto, InvalidModelError)


def test_unknown_element_types():
    proto = linear()
    proto.graph.input[0].type.tensor_type.elem_type = 99
    assert "unknown element type 99" in line_of(proto)
    proto = linear()
    proto.graph.initializer[0].data_type = 99
    assert "unknown element type 99" in line_of(proto)


@pytest.mark.parametrize("code", [TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1])
def test_packed_data_of_the_wrong_size(code):
    proto = linear()
    tensor = proto.graph.initializer[0]
    tensor.data_type = code
    tensor.raw_data = bytes(6)
    assert "has 6 bytes of data" in line_of(proto)
    tensor.raw_data = bytes(3)
    assert load(proto).graph.initializers["w"].const_value.numpy().shape == (2, 3)


def test_a_tensor_in_an_attribute_is_checked():
    proto = parse("g () => (float[2] y) { y = Constant <value = float[2] {1, 2}> () }")
    tensor = proto.graph.node[0].attribute[0].t
    del tensor.dims[:]
    tensor.dims.append(2**50)
    assert "attribute 'value' of Constant that makes 'y'" in line_of(proto)


def test_strings_cannot_be_raw():
    proto = linear()
    proto.graph.initializer[0].data_type = TensorProto.STRING
    assert "strings as raw data" in line_of(proto)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("g (float x) => (float y) { y = Neg (gone) }", "Neg that makes 'y' uses 'gone'"),
        ("g (float x) => (float y) { }", "nothing in the graph makes its output 'y'"),
        ("g (float x) => (float y) { y = Neg (x) y = Abs (x) }", "makes 'y', which is made"),
        ("g (float x) => (float x) { x = Neg (x) }", "makes 'x', which is made"),
        ("g (float x, float x) => (float y) { y = Neg (x) }", "two inputs are named 'x'"),
        ("g (float x) => (float y) { y = Neg (y) }", "cycle: Neg that makes 'y' -> Neg"),
        (
            "g (float x) => (float y) { a = Add (x, c) b = Neg (a) c = Abs (b) y = Neg (c) }",
            "cycle: ",
        ),
        (
            (
                "g (float x, bool c) => (float y) { y = If (c) <"
                "then_branch = t () => (float p) { p = Neg (gone) },"
                "else_branch = e () => (float q) { q = Neg (x) }> }"
            ),
            "uses 'gone', which nothing makes",
        ),
        (
            (
                "g (float x, bool c) => (float y) { y = If (c) <"
                "then_branch = t () => (float p) { p = Neg (y) },"
                "else_branch = e () => (float q) { q = Neg (x) }> }"
            ),
            "cycle: If",
        ),
        (
            (
                "g (float x, bool c) => (float y) { y = If (c) <"
                "then_branch = t () => (float x) { },"
                "else_branch = e () => (float q) { q = Neg (x) }> }"
            ),
            "nothing in the graph makes its output 'x'",
        ),
        (
            (
                "g (float x, bool c) => (float z) { y = If (c) <"
                "then_branch = t () => (float p) { p = Neg (x) },"
                "else_branch = e () => (float q) { q = Neg (x) }> z = Neg (p) }"
            ),
            "Neg that makes 'z' uses 'p'",
        ),
    ],
)
def test_names(body, wanted):
    assert wanted in line_of(parse(body), InvalidModelError)


def test_names_given_twice_that_onnx_ir_would_hide():
    proto = linear()
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((2, 3), np.float32), "w"))
    assert "two initializers are named 'w'" in line_of(proto)
    proto = linear()
    proto.graph.initializer[0].name = ""
    assert "an initializer has no name" in line_of(proto)
    proto = parse("g (float[2] x) => (float[2] y) { y = Softmax <axis = 0> (x) }")
    proto.graph.node[0].attribute.append(helper.make_attribute("axis", -1))
    assert "'axis' of Softmax that makes 'y' is given twice" in line_of(proto)
    proto = linear()
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 13))
    assert "imported in two versions" in line_of(proto)
    proto = linear()
    for _ in range(2):
        proto.functions.add(name="f", domain="d", opset_import=[helper.make_opsetid("", 17)])
    assert "two functions are named d.f" in line_of(proto)


def test_every_problem_is_listed():
    proto = linear()
    proto.graph.node[0].input[0] = "lost"
    proto.graph.node[1].input[0] = "gone"
    with pytest.raises(InvalidModelError, match=r"\(and 1 more\)") as raised:
        load(proto)
    assert len(raised.value.problems) == 2
    assert [problem.node for problem in verify_proto(proto)] == ["product", "positive"]


def test_a_long_cycle_is_found_soon_and_shown_short():
    proto = chain(20_000)
    proto.graph.node[0].input[0] = "v20000"
    began = time.monotonic()
    message = line_of(proto)
    assert time.monotonic() - began < 20
    assert "(19994 more)" in message


def test_bytes_of_a_model_nested_too_deep():
    # Protobuf cannot write what is too deep, so the levels are wrapped by hand.
    contents = nested(1).graph.SerializeToString()
    for _ in range(60):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # AttributeProto.g, NodeProto.attribute, .node
            contents = tag + _varint(len(contents)) + contents
    whole = b"\x08\x08\x3a" + _varint(len(contents)) + contents + b"\x42\x02\x10\x11"
    assert "deeper than protobuf can hold" in line_of(whole)


def _varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def test_names_that_are_not_utf8():
    contents = linear().SerializeToString().replace(b"product", b"prod\xff\xfet")
    assert "UTF-8" in line_of(contents)


def test_damaged_bytes_never_give_another_error():
    whole = parse(
        """g (float[N, 2] x, bool c) => (float[N, 2] y) <float[2] w = {1, 2}> {
            a = Add (x, w)
            y = If (c) <
                then_branch = t () => (float[N, 2] p) { p = Neg (a) },
                else_branch = e () => (float[N, 2] q) { q = Softmax <axis = 1> (a) }
            >
        }"""
    ).SerializeToString()
    source = random.Random(0)
    loaded = 0
    messages = []
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(source.choice((1, 1, 2, 8))):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        try:
            model = load(bytes(damaged))
        except GraphoptError as error:
            messages.append(str(error))
            continue
        loaded += 1
        verify(model)
        for value in model.graph.initializers.values():
            constant_array(value)
        try:
            to_bytes(model)
        except InvalidModelError as error:
            # A doc string or a dim that is not UTF-8.
            messages.append(str(error))
    assert not [message for message in messages if "\n" in message or len(message) > 500]
    assert 0 < loaded < 3000
