"""Changing the layout of a model, at its interface and inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

import graphopt
from graphopt.errors import EquivalenceError, UsageError
from graphopt.graph import ir, load, verify
from graphopt.graph.border import InputConversion
from graphopt.pipeline import layout as pipeline
from graphopt.report import CheckStatus, InterfaceChange
from graphopt.runtime import Session
from tests.zoo_models import batches, zoo_models


def model(text: str, opset: int = 17) -> ir.Model:
    """A model from its text."""
    return load(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}'))


def weight(name: str, *dims: int, seed: int = 0) -> str:
    """An initializer with random numbers, in the text of a model."""
    numbers = np.random.default_rng(seed).normal(size=dims).round(3).reshape(-1)
    shape = ",".join(map(str, dims))
    return f"float[{shape}] {name} = {{{','.join(map(str, numbers))}}}"


def operators(made: ir.Model) -> list[str]:
    return [node.op_type for node in made.graph]


def shapes(made: ir.Model) -> dict[str, str]:
    values = (*made.graph.inputs, *made.graph.outputs)
    return {value.name or "": str(value.shape) for value in values}


def changes(result: graphopt.Result) -> dict[str, InterfaceChange]:
    return {change.name: change for change in result.report.interface}


# A picture and a mask that attention would take, a residual, a picture and a vector out.
NET = f"""
g (float[N,3,H,W] image, float[N,1,T,T] mask) => (float[N,4,H,W] map, float[N,4] vector,
   float[N,1,T,T] masked)
<{weight("w", 4, 3, 3, 3)}, {weight("k", 4, 4, 1, 1)}>
{{
   a = Conv <pads = [1,1,1,1]> (image, w)
   b = Relu (a)
   c = Conv (b, k)
   map = Add (b, c)
   p = GlobalAveragePool (map)
   vector = Flatten (p)
   masked = Softmax <axis = -1> (mask)
}}
"""


def agree(before: ir.Model, after: ir.Model, feed: dict[str, np.ndarray]) -> None:
    """Run both; rank 4 pictures are transposed by hand."""
    pictures = {
        value.name: tuple(value.shape or ())
        for value in (*before.graph.inputs, *before.graph.outputs)
    }
    changed = {
        value.name
        for value in (*after.graph.inputs, *after.graph.outputs)
        if tuple(value.shape or ()) != pictures[value.name]
    }
    given = {n: v.transpose(0, 2, 3, 1) if n in changed else v for n, v in feed.items()}
    expected, found = Session(before).run(feed), Session(after).run(given)
    for name, value in expected.items():
        wanted = value.transpose(0, 2, 3, 1) if name in changed else value
        assert found[name].shape == wanted.shape
        np.testing.assert_allclose(found[name], wanted, atol=1e-5)


def test_pictures_are_converted_and_the_rest_is_left_with_a_reason() -> None:
    net = model(NET)
    result = graphopt.layout(net, to="nhwc", io="convert")
    assert result.report.check.status is CheckStatus.VERIFIED
    assert verify(result.model) == []
    assert shapes(result.model) == {
        "image": "[N,H,W,3]",
        "mask": "[N,1,T,T]",
        "map": "[N,H,W,4]",
        "vector": "[N,4]",
        "masked": "[N,1,T,T]",
    }
    told = changes(result)
    assert told["image"].before == "FLOAT[N,3,H,W]"
    assert told["image"].after == "FLOAT[N,H,W,3]"
    assert told["mask"].after is None
    assert "no operator tells" in told["mask"].reason
    assert told["vector"].reason == "it has rank 2"
    random = np.random.default_rng(1)
    feed = {
        "image": random.normal(size=(2, 3, 5, 7)).astype(np.float32),
        "mask": random.normal(size=(2, 1, 4, 4)).astype(np.float32),
    }
    agree(net, result.model, feed)


def test_there_and_back_is_where_it_was() -> None:
    net = model(NET)
    there = graphopt.layout(net, to="nhwc", io="convert").model
    back = graphopt.layout(there, to="nchw", io="convert").model
    assert operators(back) == operators(net)
    assert shapes(back) == shapes(net)


def test_what_has_the_layout_is_left() -> None:
    result = graphopt.layout(model(NET), to="nchw", io="convert")
    assert operators(result.model) == operators(model(NET))
    assert changes(result)["image"].reason.startswith("already nchw at Conv")


TENSORFLOW = f"""
g (float[N,H,W,3] image) => (float[N,H,W,4] y)
<{weight("w", 4, 3, 1, 1)}, {weight("k", 4, 4, 1, 1)}, float[4] c = {{1.0, 2.0, 3.0, 4.0}}>
{{
   a = Transpose <perm = [0,3,1,2]> (image)
   b = Conv (a, w)
   d = Transpose <perm = [0,2,3,1]> (b)
   e = Add (d, c)
   f = Relu (e)
   h = Transpose <perm = [0,3,1,2]> (f)
   i = Conv (h, k)
   j = Transpose <perm = [0,2,3,1]> (i)
   y = Relu (j)
}}
"""


def test_an_export_that_was_wrapped_in_transposes_loses_them() -> None:
    result = graphopt.layout(model(TENSORFLOW), to="nchw", io="convert")
    assert operators(result.model) == ["Conv", "Add", "Relu", "Conv", "Relu"]
    assert shapes(result.model) == {"image": "[N,3,H,W]", "y": "[N,4,H,W]"}
    assert result.ok


def test_who_asks_for_the_shape_does_not_keep_a_transpose() -> None:
    net = model(f"""
    g (float[N,H,W,3] x) => (float[N,4] y)
    <{weight("w", 4, 3, 1, 1)}, int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] rest = {{-1}}>
    {{
       t = Transpose <perm = [0,3,1,2]> (x) c = Conv (t, w) p = GlobalAveragePool (c)
       s = Shape (x) n = Slice (s, zero, one) target = Concat <axis = 0> (n, rest)
       y = Reshape (p, target)
    }}
    """)
    result = graphopt.layout(net, to="nchw", io="convert")
    assert "Transpose" not in operators(result.model)
    assert result.report.check.status is CheckStatus.VERIFIED


@pytest.mark.parametrize(("to", "last"), [("nchw", "Transpose"), ("nhwc", "Relu")])
def test_a_kept_interface_has_its_inside_moved_towards_the_layout(to: str, last: str) -> None:
    net = model(TENSORFLOW)
    result = graphopt.layout(net, to=to)
    assert shapes(result.model) == shapes(net)
    assert result.report.interface == []
    kinds = operators(result.model)
    assert kinds.count("Transpose") == 2
    assert kinds[-1] == last
    assert result.report.check.status is CheckStatus.VERIFIED


def test_signals_and_volumes() -> None:
    text = f"""
    g (float[N,2,T] signal, float[N,2,D,H,W] volume) => (float[N,3,T] s, float[N,2,D,H,W] v)
    <{weight("w", 3, 2, 1)}> {{ s = Conv (signal, w)
      v = MaxPool <kernel_shape = [1,1,1]> (volume) }}
    """
    result = graphopt.layout(model(text), to="nhwc", io="convert")
    assert shapes(result.model) == {
        "signal": "[N,T,2]",
        "volume": "[N,D,H,W,2]",
        "s": "[N,T,3]",
        "v": "[N,D,H,W,2]",
    }
    assert result.report.check.status is CheckStatus.VERIFIED


def test_only_what_is_named() -> None:
    result = graphopt.layout(model(NET), to="nhwc", io="convert", only=["map", "masked"])
    assert shapes(result.model)["image"] == "[N,3,H,W]"
    assert shapes(result.model)["map"] == "[N,H,W,4]"
    assert (
        shapes(result.model)["masked"] == "[N,T,T,1]"
    )  # where no operator says, who names it does
    assert changes(result)["image"].reason == "not named"
    assert changes(result)["masked"].reason == "named"
    assert result.report.check.status is CheckStatus.VERIFIED


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vector", "rank 2"),
        ("maps", "no input or output 'maps'. Did you mean 'map'"),
    ],
)
def test_what_is_named_and_cannot_be_is_an_error(name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        graphopt.layout(model(NET), to="nhwc", io="convert", only=[name])


def test_a_contradiction_is_told_unless_it_is_settled() -> None:
    text = """
    g (float[N,4,4,4] x) => (float[N,4,1,1] y, float[N,4,1,1] z)
    { y = GlobalMaxPool (x) a = Transpose <perm = [0,3,1,2]> (x) z = GlobalAveragePool (a) }
    """
    result = graphopt.layout(model(text), to="nhwc", io="convert")
    assert changes(result)["x"].after is None
    assert "nchw at GlobalMaxPool 'y' but nhwc at" in changes(result)["x"].reason
    named = graphopt.layout(model(text), to="nhwc", io="convert", only="x")
    assert changes(named)["x"].after is not None
    assert named.report.check.status is CheckStatus.VERIFIED


def test_awkward_outputs() -> None:
    # One is given twice, one is read inside too, one is an input as it is.
    text = """
    g (float[N,2,3,4] x, float[N,2,3,4] z) => (float[N,2,1,1] y, float[N,2,1,1] y, float[N,2,1,1] u,
       float[N,2,3,4] x)
    { y = GlobalMaxPool (x) u = Relu (y) v = GlobalMaxPool (z) }
    """
    result = graphopt.layout(model(text), to="nhwc", io="convert")
    assert [str(value.shape) for value in result.model.graph.outputs] == [
        "[N,1,1,2]",
        "[N,1,1,2]",
        "[N,1,1,2]",
        "[N,2,3,4]",
    ]
    assert changes(result)["x"].reason == "it is an input and an output"
    assert result.report.check.status is CheckStatus.VERIFIED


def test_an_input_with_a_default_is_left() -> None:
    net = model(
        NET.replace("image, float[N,1,T,T] mask)", "image, float[N,1,T,T] mask, float[4,4,1,1] k)")
    )
    assert "k" not in changes(graphopt.layout(net, to="nhwc", io="convert"))
    with pytest.raises(UsageError, match="'k' cannot be made nhwc: it has a default"):
        graphopt.layout(net, to="nhwc", io="convert", only=["k"])


def test_nothing_to_convert_is_an_error() -> None:
    text = "g (float[N,8,T,16] q) => (float[N,8,T,16] y) { y = Relu (q) }"
    with pytest.raises(UsageError, match="no input or output is known to hold pictures"):
        graphopt.layout(model(text), to="nhwc", io="convert")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"to": "nchw16c"}, "no layout 'nchw16c'"),
        ({"to": "nhwc", "io": "change"}, "io cannot be 'change'"),
        ({"to": "nhwc", "only": ["map"]}, "interface is to be kept"),
    ],
)
def test_wrong_options(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        graphopt.layout(model(NET), **options)


def test_a_wrong_conversion_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Height and width change places: shapes fit, numbers do not.
    def wrong(net: ir.Model, *_: object) -> ir.Model:
        return convert(net, [InputConversion("x", (0, 3, 2, 1))])

    convert = pipeline.convert_border
    monkeypatch.setattr(pipeline, "convert_border", wrong)
    net = model(
        f"g (float[N,2,4,4] x) => (float[N,3] y) <{weight('w', 3, 2, 4, 3)}> "
        "{ a = Conv (x, w) b = GlobalMaxPool (a) y = Flatten (b) }"
    )
    target = tmp_path / "out.onnx"
    with pytest.raises(EquivalenceError, match="nothing was written"):
        graphopt.layout(net, to="nhwc", io="convert", output=target)
    assert not target.exists()


def test_the_kind_that_was_given_comes_back_and_is_not_changed() -> None:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {NET}')
    before = proto.SerializeToString()
    made = graphopt.layout(proto, to="nhwc", io="convert").model
    assert isinstance(made, onnx.ModelProto)
    assert proto.SerializeToString() == before
    onnx.checker.check_model(made, full_check=True)


def test_dims_and_data_are_used() -> None:
    data = [{"image": np.ones((2, 6, 5, 3), np.float32), "mask": np.ones((2, 1, 3, 3), np.float32)}]
    result = graphopt.layout(model(NET), to="nhwc", io="convert", dims={"H": 6}, input_data=data)
    assert shapes(result.model)["image"] == "[N,6,W,3]"
    assert result.report.check.inputs_tried == 1


ZOO_MODELS = {
    "fastestdet": "nhwc",
    "lprnet": "nhwc",
    "ultraface_rfb320": "nhwc",
    "cifar_resnet20": "nhwc",
    "chineseocr_dbnet": "nhwc",
    "mlperf_resnet8": "nchw",
    "deeplabv3_mnv2_dm05_pascal_deq": "nchw",
}


@pytest.mark.parametrize("name", ZOO_MODELS)
def test_zoo_models_on_their_data(zoo: Path, name: str) -> None:
    path = next(item.path for item in zoo_models(zoo) if item.name == name)
    to = ZOO_MODELS[name]
    result = graphopt.layout(path, to=to, io="convert")
    assert result.report.check.status is CheckStatus.VERIFIED
    told = changes(result)
    original, converted = Session(load(path)), Session(result.model)
    order = (0, 2, 3, 1) if to == "nhwc" else (0, 3, 1, 2)

    def turned(name: str, value: np.ndarray) -> np.ndarray:
        return value.transpose(order) if name in told and told[name].after else value

    for feed, _ in batches(zoo, name, 2):
        types = {value.name: value.dtype for value in load(path).graph.inputs}
        given = {n: np.asarray(v, types[n].numpy()) for n, v in feed.items() if n in types}
        expected = original.run(given)
        found = converted.run({n: turned(n, v) for n, v in given.items()})
        for output, value in expected.items():
            scale = max(float(np.abs(value).max()), 1e-6)
            np.testing.assert_allclose(found[output], turned(output, value), atol=1e-4 * scale)


@pytest.mark.parametrize("name", ["stories260k", "silero_vad_16k_op15", "magika_v3_3"])
def test_what_has_no_pictures_is_refused(zoo: Path, name: str) -> None:
    path = next(item.path for item in zoo_models(zoo) if item.name == name)
    with pytest.raises(UsageError, match="no input or output is known to hold pictures"):
        graphopt.layout(path, to="nhwc", io="convert")
