"""Sessions: what goes in and out, what ONNX Runtime says, and how large weights get there."""

import subprocess
import sys
import tempfile

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphopt.errors import RuntimeUnavailableError, UsageError
from graphopt.graph import from_text, ir, load, outside, save, to_bytes
from graphopt.runtime import Session, weights
from graphopt.runtime.ort_errors import runtime_reason
from graphopt.runtime.versions import lower_versions


def model_of(nodes, inputs, outputs, initializers=(), opset=17, ir_version=8, domains=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(*d) for d in domains)]
    return load(helper.make_model(graph, opset_imports=imports, ir_version=ir_version))


def identity_of(type_proto, opset=21):
    return model_of(
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_value_info("x", type_proto)],
        [helper.make_value_info("y", type_proto)],
        opset=opset,
    )


def test_idle_threads_leave_the_cores_to_others():
    session = Session(
        from_text('<ir_version: 8, opset_import: ["" : 17]> g (float x) => (float x) {}')
    )
    entry = session._session.get_session_options().get_session_config_entry
    assert entry("session.force_spinning_stop") == "1"


def test_outputs_come_by_name_and_further_values_on_request():
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y)'
        " { a = Neg(x) b = Abs(a) y = Sqrt(b) }"
    )
    before = to_bytes(model)
    session = Session(model, outputs=["a", "b", "y"])
    x = np.array([4.0, -9.0], np.float32)
    results = session.run({"x": x})
    assert session.input_names == ("x",)
    assert session.output_names == ("y", "a", "b")
    np.testing.assert_array_equal(results["a"], -x)
    np.testing.assert_array_equal(results["y"], [2.0, 3.0])
    assert list(session.run({"x": x}, ["b"])) == ["b"]
    assert to_bytes(model) == before


def test_values_of_unknown_type_can_be_given_back():
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (int64 y)'
        " { s = SequenceConstruct(x, x) y = SequenceLength(s) }"
    )
    x = np.ones(2, np.float32)
    results = Session(model, outputs=["s"]).run({"x": x})
    assert [part.tolist() for part in results["s"]] == [[1.0, 1.0], [1.0, 1.0]]


def test_a_value_that_does_not_exist_is_a_usage_error():
    model = identity_of(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    with pytest.raises(UsageError, match="no value 'nothing'"):
        Session(model, outputs=["nothing"])


def test_reference_sessions_are_not_optimized():
    model = identity_of(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    for optimized, level in ((False, levels.ORT_DISABLE_ALL), (True, levels.ORT_ENABLE_ALL)):
        options = Session(model, optimized=optimized)._session.get_session_options()
        assert options.graph_optimization_level == level


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]
)
def test_types_beyond_numpy_go_in_and_out(dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype))
    element = helper.np_dtype_to_tensor_dtype(dtype)
    session = Session(identity_of(helper.make_tensor_type_proto(element, [2, 2])))
    x = np.array([[1.5, -2.0], [0.0, 0.25]], dtype)
    y = session.run({"x": x})["y"]
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.view(np.uint8), x.view(np.uint8))


@pytest.mark.parametrize("dtype", ["int4", "uint4"])
def test_types_below_a_byte_go_in_and_out(dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype))
    element = helper.np_dtype_to_tensor_dtype(dtype)
    model = model_of(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["f"], ["y"], to=element),
        ],
        [helper.make_tensor_value_info("x", element, [3])],
        [
            helper.make_tensor_value_info("f", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("y", element, [3]),
        ],
        opset=21,
    )
    x = np.array([1, 7, 3], dtype)
    results = Session(model).run({"x": x})
    assert results["y"].dtype == dtype
    np.testing.assert_array_equal(results["y"], x)
    np.testing.assert_array_equal(results["f"], [1, 7, 3])


def test_strings_sequences_and_optionals():
    text = identity_of(helper.make_tensor_type_proto(TensorProto.STRING, [2]))
    assert Session(text).run({"x": np.array(["é", ""], object)})["y"].tolist() == ["é", ""]

    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [None])
    parts = [np.ones(2, np.float32), np.zeros(1, np.float32)]
    sequence = Session(identity_of(helper.make_sequence_type_proto(tensor)))
    assert [p.tolist() for p in sequence.run({"x": parts})["y"]] == [[1.0, 1.0], [0.0]]

    optional = helper.make_optional_type_proto(helper.make_sequence_type_proto(tensor))
    session = Session(identity_of(optional))
    assert session.run({"x": None})["y"] is None
    assert [p.tolist() for p in session.run({"x": parts})["y"]] == [[1.0, 1.0], [0.0]]


def test_maps_come_out_as_dicts():
    model = model_of(
        [
            helper.make_node(
                "ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_strings=["a", "b"]
            )
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [
            helper.make_value_info(
                "y",
                helper.make_sequence_type_proto(
                    helper.make_map_type_proto(
                        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
                    )
                ),
            )
        ],
        domains=[("ai.onnx.ml", 3)],
    )
    assert Session(model).run({"x": np.array([[0.25, 0.5]], np.float32)})["y"] == [
        {"a": 0.25, "b": 0.5}
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"" : 17, "my.domain" : 1]> g (float[N] x) => (float[N] y) { y = my.domain.Foo(x) }',
         ["my.domain:Foo", "custom library"]),
        ('"" : 21]> g (int4[N] x) => (int4[N] y) { y = Identity(x) }', ["no kernel", "Identity"]),
        ('"" : 17]> g (double[N] x) => (double[N] y) { y = Mish(x) }', ["Mish at opset 17"]),
        ('"" : 99]> g (float[N] x) => (float[N] y) { y = Relu(x) }', ["needs opset 99"]),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_loaded_says_why_in_one_line(text, words):
    proto = onnx.parser.parse_model("<ir_version: 10, opset_import: [" + text)
    with pytest.raises(RuntimeUnavailableError) as caught:
        # What no version of ONNX knows does not pass `load`.
        Session(ir.from_proto(proto))
    message = str(caught.value)
    assert "\n" not in message
    assert "[ONNXRuntimeError]" not in message
    assert ".cc:" not in message
    for word in words:
        assert word in message


def test_a_feed_that_does_not_fit_is_reported():
    session = Session(identity_of(helper.make_tensor_type_proto(TensorProto.FLOAT, [2])))
    for feed in ({}, {"x": np.ones(3, np.float32)}, {"x": np.ones(2)}):
        with pytest.raises(RuntimeUnavailableError, match="cannot run the model: "):
            session.run(feed)


def test_providers():
    import onnxruntime

    model = identity_of(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    with pytest.raises(UsageError, match="unknown provider 'tpu'"):
        Session(model, provider="tpu")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert Session(model, provider="cuda").run({"x": np.ones(1, np.float32)})["y"][0] == 1
    else:
        with pytest.raises(RuntimeUnavailableError, match="has no cuda provider"):
            Session(model, provider="cuda")


def test_reasons_lose_the_noise_of_the_runtime():
    text = (
        "[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: /src/a/b.cc:23 "
        "void ns::Make(const std::string&, int) [with T = float] it is\n not there"
    )
    assert runtime_reason(RuntimeError(text)) == "it is not there"
    plain = "[ONNXRuntimeError] : 1 : FAIL : /src/model.cc:2 ns::Model(a&&) Unsupported (9): x"
    assert runtime_reason(RuntimeError(plain)) == "Unsupported (9): x"
    assert runtime_reason(RuntimeError("")) == "RuntimeError"
    assert len(runtime_reason(RuntimeError("x" * 9999))) == 400


def weighted_model(ir_version=8, list_weights=False):
    """Weights in the main graph, and in both branches of an If under the same name."""
    rng = np.random.default_rng(0)

    def weight(name):
        array = rng.standard_normal((8, 8)).astype(np.float32)
        return onnx.numpy_helper.from_array(array, name)

    def branch(name):
        return helper.make_graph(
            [helper.make_node("MatMul", ["h", "w"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
            [weight("w")],
        )

    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    if list_weights:
        inputs.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, [8, 8]))
    return model_of(
        [
            helper.make_node("MatMul", ["x", "v"], ["h"]),
            helper.make_node("If", ["c"], ["y"], then_branch=branch("t"), else_branch=branch("e")),
        ],
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight("v")],
        opset=8 if ir_version == 3 else 17,
        ir_version=ir_version,
    )


@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("listed", [(8, False, 3), (8, True, 2), (3, True, 3)])
def test_large_weights_are_lent(monkeypatch, optimized, listed):
    ir_version, list_weights, lent = listed
    model = weighted_model(ir_version, list_weights)
    feeds = [
        {"x": np.arange(16, dtype=np.float32).reshape(2, 8), "c": np.array(condition)}
        for condition in (True, False)
    ]
    whole = Session(model)
    expected = [whole.run(feed)["y"] for feed in feeds]
    assert not np.allclose(expected[0], expected[1])
    before = to_bytes(model)
    monkeypatch.setattr(weights, "_LARGE_MODEL", 1)
    monkeypatch.setattr(weights, "_LARGE_TENSOR", 8 * 8 * 4)
    session = Session(model, optimized=optimized)
    assert len(session._weights._tensors) == lent
    for feed, values in zip(feeds, expected, strict=True):
        np.testing.assert_allclose(session.run(feed)["y"], values, rtol=1e-5)
    assert to_bytes(model) == before


@pytest.mark.parametrize("optimized", [False, True])
def test_large_weights_that_nothing_reads_are_not_lent(monkeypatch, optimized):
    array = np.arange(64, dtype=np.float32).reshape(8, 8)
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 8])],
        [onnx.numpy_helper.from_array(array, name) for name in ("w", "idle")],
    )
    before = to_bytes(model)
    monkeypatch.setattr(weights, "_LARGE_MODEL", 1)
    monkeypatch.setattr(weights, "_LARGE_TENSOR", 1)
    x = np.eye(8, dtype=np.float32)[:2]
    session = Session(model, optimized=optimized)
    np.testing.assert_array_equal(session.run({"x": x})["y"], array[:2])
    assert to_bytes(model) == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "int4"])
def test_large_weights_of_types_beyond_numpy_are_lent(monkeypatch, dtype):
    array = np.arange(-8, 8).astype(getattr(ml_dtypes, dtype)).reshape(4, 4)
    model = model_of(
        [helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
         helper.make_node("Add", ["f", "x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
        [onnx.numpy_helper.from_array(array, "w")],
        opset=21, ir_version=10,
    )  # fmt: skip
    monkeypatch.setattr(weights, "_LARGE_MODEL", 1)
    monkeypatch.setattr(weights, "_LARGE_TENSOR", 1)
    session = Session(model)
    assert list(session._weights._tensors) == ["w"]
    y = session.run({"x": np.array(0, np.float32)})["y"]
    np.testing.assert_array_equal(y, array.astype(np.float32))


def test_mapped_weights_are_used_in_place(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_LARGE_MODEL", 1)
    monkeypatch.setattr(weights, "_LARGE_TENSOR", 8 * 8 * 4)
    save(weighted_model(), tmp_path / "m.onnx", external_data=True)
    model = load(tmp_path / "m.onnx")
    feed = {"x": np.ones((2, 8), np.float32), "c": np.array(True)}
    expected = Session(weighted_model()).run(feed)["y"]
    session = Session(model)
    del model
    for _ in range(3):
        np.testing.assert_allclose(session.run(feed)["y"], expected, rtol=1e-5)


def test_large_weights_need_no_folder_to_write_to(monkeypatch):
    monkeypatch.setattr(weights, "_LARGE_MODEL", 1)
    monkeypatch.setattr(weights, "_LARGE_TENSOR", 8 * 8 * 4)
    feed = {"x": np.ones((2, 8), np.float32), "c": np.array(True)}
    expected = Session(weighted_model()).run(feed)["y"]
    monkeypatch.setattr(tempfile, "tempdir", "/there/is/no/such/folder")
    np.testing.assert_allclose(Session(weighted_model()).run(feed)["y"], expected, rtol=1e-5)


@pytest.mark.skipif(sys.platform == "win32", reason="there they are copied into memory")
def test_unaligned_weights_of_a_file_are_copied_once_for_all_sessions(tmp_path, monkeypatch):
    array = np.random.default_rng(0).standard_normal((3, 1 << 20)).astype(np.float32)
    model = model_of(
        [helper.make_node("Mul", ["x", "wide"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 1 << 20])],
        [onnx.numpy_helper.from_array(array, "wide")],
    )
    contents = to_bytes(model)
    for shift in range(4):
        # A longer name of the producer moves what follows by as many bytes.
        proto = onnx.ModelProto.FromString(contents)
        proto.producer_name = "p" * (1 + shift)
        (tmp_path / f"{shift}.onnx").write_bytes(proto.SerializeToString())
    monkeypatch.setattr(weights, "_LARGE_MODEL", 1)
    copied = []
    monkeypatch.setattr(weights, "outside", lambda t: copied.append(t) or outside(t))
    for shift in range(4):
        loaded = load(tmp_path / f"{shift}.onnx")
        for optimized in (False, True, False):
            session = Session(loaded, optimized=optimized)
            lent = session._weights._tensors["wide"].numpy()
            assert lent.flags.aligned
            y = session.run({"x": np.array(1, np.float32)})["y"]
            np.testing.assert_array_equal(y, array)
    assert len(copied) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_far_below_the_weights(tmp_path):
    script = f"""
import numpy as np, onnx
from onnx import helper, TensorProto
from graphopt.graph import load
from graphopt.runtime import Session
size, layers = 3000, 12
with open({str(tmp_path / "w")!r}, "wb") as file:
    file.truncate(layers * size * size * 4)
nodes, weights = [], []
for layer in range(layers):
    weight = TensorProto(name=f"w{{layer}}", data_type=1, dims=[size, size], data_location=1)
    places = dict(location="w", offset=layer * size * size * 4, length=size * size * 4)
    for key, value in places.items():
        weight.external_data.add(key=key, value=str(value))
    weights.append(weight)
    nodes.append(helper.make_node("MatMul", [f"x{{layer}}", f"w{{layer}}"], [f"x{{layer + 1}}"]))
value = helper.make_tensor_value_info
graph = helper.make_graph(nodes, "g", [value("x0", 1, [1, size])],
                          [value(f"x{{layers}}", 1, [1, size])], weights)
opset = [helper.make_opsetid("", 17)]
onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), {str(tmp_path / "m")!r})
session = Session(load({str(tmp_path / "m")!r}), threads=1)
def resident():
    fields = dict(line.split(":") for line in open("/proc/self/status"))
    return int(fields["RssAnon"].split()[0])
before = resident()
session.run({{"x0": np.ones((1, size), np.float32)}})
print(before, resident())
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after = (int(word) for word in run.stdout.split())
    assert before < 200 << 10  # kB, of 432 MB of weights
    assert after < 200 << 10


def test_a_newer_stamp_is_lowered_where_no_operator_has_changed_since():
    text = "g (float[N] x, bool c) => (float[N] y)"
    body = "{ y = If (c) <then_branch = t () => (a) { a = %s(x) }, else_branch = e () => (b)"
    body += " { b = Neg(x) }> }"
    header = '<ir_version: 8, opset_import: ["" : 17]> '
    x = np.array([-1.0, 2.0], np.float32)
    newest = helper.make_opsetid("", 27)
    proto = onnx.parser.parse_model(header + text + body % "Erf")
    lowered = onnx.ModelProto()
    lowered.CopyFrom(proto)
    lowered.opset_import[0].CopyFrom(newest)
    lowered.ir_version = 99
    complaints = (
        "Unsupported model IR version: 99, max supported IR version: 13",
        "Current official support for domain ai.onnx is till opset 26.",
    )
    for complaint in complaints:
        assert lower_versions(lowered, complaint)
    assert (lowered.ir_version, lowered.opset_import[0].version) == (13, 26)
    session = Session(load(lowered))
    assert session.run({"x": x, "c": np.array(False)})["y"].tolist() == [1.0, -2.0]


def test_a_newer_stamp_stays_where_an_operator_has_changed_since():
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x, bool c) => (float[N] y)'
        "{ y = If (c) <then_branch = t () => (a) { a = Mish(x) }, else_branch = e () => (b)"
        " { b = Neg(x) }> }"
    )
    proto.opset_import[0].version = 18
    # Mish is new in opset 18: a runtime that ends at 17 does not have it.
    assert not lower_versions(proto, "official support for domain ai.onnx is till opset 17.")
    assert proto.opset_import[0].version == 18


def test_the_runtime_is_not_imported_before_it_is_needed():
    script = "import graphopt.runtime, sys; print('onnxruntime' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_nothing_is_printed(capfd):
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { y = Foo(x) }'
    )
    with pytest.raises(RuntimeUnavailableError):
        Session(ir.from_proto(proto))
    session = Session(identity_of(helper.make_tensor_type_proto(TensorProto.FLOAT, [2])))
    with pytest.raises(RuntimeUnavailableError):
        session.run({"x": np.ones(3, np.float32)})
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
