"""The arena of ONNX Runtime is read right, and the estimate agrees with it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphopt.cost.arena_plan import arena_use
from graphopt.errors import RuntimeUnavailableError
from graphopt.graph import clone, ir, load
from graphopt.runtime import Feed, Session, runnable_feeds
from graphopt.runtime.arena import ArenaPeak, arena_peak
from graphopt.runtime.executed import executed_model
from graphopt.shapes import infer_shapes
from tests.zoo_models import batches, zoo_models

ALLOWED = 0.15
HEADER = '<ir_version: 9, opset_import: ["" : 17]>\n'


def read(model: ir.Model, feed: Feed, threads: int = 1) -> ArenaPeak:
    """What the arena reports; skipped where this ONNX Runtime does not tell."""
    try:
        return arena_peak(model, feed, threads=threads)
    except RuntimeUnavailableError as error:
        if "cannot be read" in str(error):
            pytest.skip(str(error))
        raise


def check(model: ir.Model, feed: Feed, threads: int = 1) -> None:
    sized = clone(model)
    infer_shapes(sized, input_shapes={name: np.shape(value) for name, value in feed.items()})
    executed = executed_model(model, sized=sized, threads=threads)
    estimate = arena_use(executed, model, threads=threads)
    arena = read(model, feed, threads)
    assert not estimate.unsized
    assert estimate.requested_bytes == pytest.approx(arena.requested_bytes, rel=ALLOWED)
    if arena.peak_bytes is not None:
        assert estimate.peak_bytes == pytest.approx(arena.peak_bytes, rel=ALLOWED)
    assert estimate.requested_bytes <= estimate.peak_bytes


def test_weights_and_inputs_are_told_apart_from_activations() -> None:
    # None of these kernels runs in place; a row has 1 KiB, the weight 256 KiB.
    text = """chain (float[1, 256] x) => (float[1, 256] y) <float[256, 256] w> {
        a = Exp(x)
        b = MatMul(a, w)
        c = Neg(b)
        y = Exp(c)
    }"""
    proto = onnx.parser.parse_model(HEADER + text)
    weight = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    arena = read(load(proto), {"x": np.zeros((1, 256), np.float32)})
    assert [held for _, held in arena.timeline] == [1024, 2048, 2048, 2048]
    assert arena.requested_bytes == arena.peak_bytes == 2048


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "name",
    ["digits_mlp", "digits_resnet", "digits_resnet_dynamo", "digits_transformer",
     "digits_transformer_dynamo", "bn_conv_transpose", "dynamic_shapes", "qdq_int8"],
)  # fmt: skip
def test_fixtures(fixtures: Path, name: str, threads: int) -> None:
    model = load(fixtures / f"{name}.onnx")
    feeds = runnable_feeds(model, Session(model, threads=1), count=2, override_defaults=False)
    assert len(feeds) == 2
    check(model, feeds[1], threads)  # batches of one, and of two


@pytest.mark.parametrize(
    "name",
    ["mlperf_resnet8", "mlperf_vww_mbv1", "cifar_resnet20", "lprnet", "mnist_vit", "fastestdet",
     "ultraface_rfb320", "dtln_1", "magika_v3_3", "silero_vad_16k_op15", "mobilenetv2_tv_deq"],
)  # fmt: skip
def test_zoo(zoo: Path, name: str) -> None:
    paths = {model.name: model.path for model in zoo_models(zoo)}
    if name not in paths:
        pytest.skip(f"{name} is not in the zoo here")
    proto = onnx.load(paths[name])
    dtypes: dict[str, Any] = {
        value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        for value in proto.graph.input
    }
    given, _ = next(iter(batches(zoo, name, 1)))
    feed = {key: np.asarray(value).astype(dtypes[key]) for key, value in given.items()}
    check(load(proto), feed)


@pytest.mark.parametrize(
    ("kind", "gates", "outputs"), [("LSTM", 4, "y, h, c"), ("GRU", 3, "y, h"), ("GRU", 3, "y")]
)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_scratch_of_recurrent_layers(kind: str, gates: int, outputs: str, direction: str) -> None:
    steps, batch, inputs, hidden = 12, 3, 40, 48
    both = 2 if direction == "bidirectional" else 1
    text = f"""recurrent (float[{steps}, {batch}, {inputs}] x) => (float[a, b, c, d] y) {{
        t = Transpose <perm = [0, 1, 2]> (x)
        {outputs} = {kind} <hidden_size = {hidden}, direction = "{direction}"> (t, w, r, b)
    }}"""
    proto = onnx.parser.parse_model(HEADER + text)
    random = np.random.default_rng(0)
    shapes = {
        "w": (gates * hidden, inputs),
        "r": (gates * hidden, hidden),
        "b": (2 * gates * hidden,),
    }
    for name, shape in shapes.items():
        values = random.standard_normal((both, *shape)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    check(load(proto), {"x": random.standard_normal((steps, batch, inputs)).astype(np.float32)})


@pytest.mark.parametrize(
    ("kernel", "channels", "filters", "side"), [(3, 5, 6, 24), (3, 3, 90, 5), (1, 7, 9, 20)]
)
def test_scratch_of_convolutions_outside_the_blocked_layout(
    kernel: int, channels: int, filters: int, side: int
) -> None:
    text = f"""convolution (float[1, {channels}, {side}, {side}] x) => (float[a, b, c, d] y) {{
        t = Exp(x)
        s = Conv(t, w)
        y = Exp(s)
    }}"""
    proto = onnx.parser.parse_model(HEADER + text)
    random = np.random.default_rng(0)
    weight = random.standard_normal((filters, channels, kernel, kernel)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    check(load(proto), {"x": random.standard_normal((1, channels, side, side)).astype(np.float32)})


def test_a_feed_that_does_not_fit_is_one_line() -> None:
    model = load(
        onnx.parser.parse_model(HEADER + "one (float[4] x) => (float[4] y) { y = Exp(x) }")
    )
    with pytest.raises(RuntimeUnavailableError, match="cannot run the model") as raised:
        arena_peak(model, {"x": np.zeros((3, 3), np.float32)})
    assert "\n" not in str(raised.value)
