"""Each operator's form in PyTorch gives what ONNX Runtime gives."""

import numpy as np
import onnx
import onnx.parser
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from graphopt.distillation.network import Network  # noqa: E402 - after the skip
from graphopt.distillation.operators import FORMS  # noqa: E402
from graphopt.errors import UsageError  # noqa: E402
from graphopt.graph import load  # noqa: E402
from graphopt.runtime import Session, seeded_feeds  # noqa: E402

SCALE = "float[4] s = {1, 2, 0.5, -1}, float[4] t = {0, 1, -1, 2}"
# fmt: off
UNARY = [
    "Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "LogSoftmax", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
    "Sign", "Sin", "Softmax", "Softplus", "Softsign", "Tanh", "Gelu",
]
# fmt: on
BINARY = ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum"]
COMPARISONS = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]
REDUCTIONS = ["ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"]
INT = "<int64[%d] i = {%s}>"

# name -> (initializers, nodes that make y of x, opset)
CASES: dict[str, tuple[str, str, int]] = {
    **{op: ("", f"y = {op}(x)", 20 if op == "Gelu" else 18) for op in UNARY},
    **{op: ("<float[4,1,1] c = {1, -2, 3, 0.5}>", f"y = {op}(x, c)", 18) for op in BINARY},
    **{op: ("<float c = {0.1}>", f"z = {op}(x, c) y = Where(z, x, c)", 18) for op in COMPARISONS},
    **{op: (INT % (2, "1, 3"), f"y = {op}<keepdims = 0>(x, i)", 18) for op in REDUCTIONS},
    "ReduceSum-all": ("", "y = ReduceSum(x)", 18),
    "ReduceMean-old": ("", "y = ReduceMean<axes = [2, 3]>(x)", 13),
    "Log": ("", "a = Abs(x) y = Log(a)", 18),
    "Sqrt": ("", "a = Abs(x) y = Sqrt(a)", 18),
    "Pow": ("<float c = {2}>", "y = Pow(x, c)", 18),
    "And-Or-Not": (
        "<float c = {0.1}>",
        "p = Greater(x, c) q = Not(p) a = And(p, p) o = Or(a, q) n = And(o, p) y = Cast<to = 1>(n)",
        18,
    ),
    "Clip": ("<float l = {-0.5}, float h = {0.5}>", "y = Clip(x, l, h)", 18),
    "Clip-low": ("<float l = {-0.5}>", "y = Clip(x, l)", 18),
    "Clip-old": ("", "y = Clip<min = -0.5, max = 0.5>(x)", 10),
    "Softmax-old": ("", "y = Softmax(x)", 11),
    "Gelu-tanh": ("", 'y = Gelu<approximate = "tanh">(x)', 20),
    "PRelu": ("<float[4,1,1] c = {0.1, 0.2, -0.3, 2}>", "y = PRelu(x, c)", 18),
    "Dropout": ("", "y = Dropout(x)", 18),
    "CastLike": ("<int64 c = {1}>", "z = CastLike(x, c) y = Cast<to = 1>(z)", 18),
    "Conv": ("W2", "y = Conv<strides = [2, 1], pads = [1, 0, 0, 2], group = 2>(x, w, b)", 18),
    "Conv-same": ("W4", 'y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w, b)', 18),
    "Conv-same-lower": ("W4", 'y = Conv<auto_pad = "SAME_LOWER">(x, w, b)', 18),
    "ConvTranspose": ("T", "y = ConvTranspose<strides = [2, 2], pads = [1, 0, 0, 1]>(x, w)", 18),
    "BatchNormalization": (
        f"<{SCALE}, float[4] m = {{0, 1, 2, 3}}, float[4] v = {{1, 2, 3, 4}}>",
        "y = BatchNormalization(x, s, t, m, v)",
        18,
    ),
    "InstanceNormalization": (f"<{SCALE}>", "y = InstanceNormalization(x, s, t)", 18),
    "LayerNormalization": (
        "<float[5] s = {1, 2, 3, 4, 5}, float[5] t = {1, 0, 1, 0, 1}>",
        "y = LayerNormalization(x, s, t)",
        18,
    ),
    "LayerNormalization-axis": ("L", "y = LayerNormalization<axis = 1>(x, w)", 18),
    "MatMul": ("<float[5,2] w = {1,2,3,4,5,6,7,8,9,0}>", "y = MatMul(x, w)", 18),
    "Gemm": (
        "G",
        "z = Flatten<axis = 1>(x) y = Gemm<alpha = 0.01, beta = 2.0, transB = 1>(z, w, b)",
        18,
    ),
    "Einsum": ("", 'y = Einsum<equation = "nchw,nchv->nwv">(x, x)', 18),
    "MaxPool": (
        "",
        "y = MaxPool<kernel_shape = [3, 2], strides = [2, 1], pads = [1,0,0,1]>(x)",
        18,
    ),
    "MaxPool-ceil": (
        "",
        "y = MaxPool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(x)",
        18,
    ),
    "AveragePool": ("", "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)", 18),
    "AveragePool-counted": (
        "",
        "y = AveragePool<kernel_shape = [3, 3], pads = [0, 1, 1, 0], count_include_pad = 1>(x)",
        18,
    ),
    "GlobalAveragePool": ("", "y = GlobalAveragePool(x)", 18),
    "GlobalMaxPool": ("", "y = GlobalMaxPool(x)", 18),
    "Resize-nearest": (
        "<float[4] f = {1, 1, 2, 3}>",
        'y = Resize<coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(x,,f)',
        18,
    ),
    "Resize-linear": (INT % (4, "2, 4, 9, 11"), 'y = Resize<mode = "linear">(x,,,i)', 18),
    "Resize-corners": (
        INT % (4, "2, 4, 9, 11"),
        'y = Resize<mode = "linear", coordinate_transformation_mode = "align_corners">(x,,,i)',
        18,
    ),
    "Upsample": ("<float[4] f = {1, 1, 2, 2}>", "y = Upsample(x, f)", 9),
    "Reshape": (INT % (3, "0, -1, 5"), "y = Reshape(x, i)", 18),
    "Flatten": ("", "y = Flatten<axis = -2>(x)", 18),
    "Transpose": ("", "y = Transpose<perm = [0, 2, 3, 1]>(x)", 18),
    "Transpose-reverse": ("", "y = Transpose(x)", 18),
    "Squeeze-Unsqueeze": (INT % (2, "0, 3"), "z = Unsqueeze(x, i) y = Squeeze(z, i)", 18),
    "Concat": ("", "z = Neg(x) y = Concat<axis = 1>(x, z)", 18),
    "Split": (INT % (2, "1, 3"), "a, b = Split<axis = 1>(x, i) y = Concat<axis = 1>(b, a)", 18),
    "Split-even": ("", "a, c = Split<axis = 2, num_outputs = 2>(x) y = Sub(a, c)", 18),
    "Slice": (
        "<int64[2] s = {1, -1}, int64[2] e = {9, -99}, int64[2] a = {1, 2}, int64[2] k = {2, -2}>",
        "y = Slice(x, s, e, a, k)",
        18,
    ),
    "Slice-old": ("", "y = Slice<starts = [1], ends = [-1], axes = [2]>(x)", 9),
    "Gather": ("<int64[2,2] i = {0, 3, -1, 1}>", "y = Gather<axis = 1>(x, i)", 18),
    "Expand": (INT % (5, "3, 1, 4, 1, 1"), "y = Expand(x, i)", 18),
    "Tile": (INT % (4, "1, 2, 1, 2"), "y = Tile(x, i)", 18),
    "Pad": (INT % (8, "0, 0, 1, 2, 0, 0, 2, 1"), "y = Pad(x, i)", 18),
    "Pad-reflect": (INT % (8, "0, 0, 1, 2, 0, 0, 2, 1"), 'y = Pad<mode = "reflect">(x, i)', 18),
    "Pad-edge": (INT % (8, "0, 0, 1, 2, 0, 0, 2, 1"), 'y = Pad<mode = "edge">(x, i)', 18),
    "DepthToSpace": ("", "y = DepthToSpace<blocksize = 2>(x)", 18),
    "DepthToSpace-CRD": ("", 'y = DepthToSpace<blocksize = 2, mode = "CRD">(x)', 18),
    "Shape-Size-Range": (
        "<int64 zero = {0}, int64 one = {1}>",
        "s = Shape(x) n = Size(x) r = Range(zero, n, one) z = Gather(r, s) y = Cast<to = 1>(z)",
        18,
    ),
    "ConstantOfShape": (
        "",
        "s = Shape(x) c = ConstantOfShape<value = float[1] {1.5}>(s) y = Add(x, c)",
        18,
    ),
    "ArgMax": ("", "z = ArgMax<axis = 1, keepdims = 0>(x) y = Cast<to = 1>(z)", 18),
}


def _drawn(name: str, *shape: int) -> str:
    values = np.random.default_rng(0).standard_normal(shape).round(3).reshape(-1)
    return f"float[{','.join(map(str, shape))}] {name} = {{{', '.join(map(str, values))}}}"


_DRAWN = {
    "G": f"<{_drawn('w', 2, 120)}, {_drawn('b', 2)}>",
    "W2": f"<{_drawn('w', 6, 2, 3, 3)}, {_drawn('b', 6)}>",
    "W4": f"<{_drawn('w', 6, 4, 3, 3)}, {_drawn('b', 6)}>",
    "T": f"<{_drawn('w', 4, 2, 3, 3)}>",
    "L": f"<{_drawn('w', 4, 6, 5)}>",
}


@pytest.mark.parametrize("name", CASES)
def test_a_form_gives_what_onnx_runtime_gives(name: str) -> None:
    initializers, body, opset = CASES[name]
    weights = _DRAWN.get(initializers, initializers).strip("<>")
    # A weight in front, so that there is something to train in every case.
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[2,4,6,5] given) => (float y) '
        f"<float[5] front = {{1, 2, -1, 0.5, 3}}{', ' + weights if weights else ''}> "
        f"{{ x = Mul(given, front) {body} }}"
    )
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = load(proto)
    feed = next(iter(seeded_feeds(model, count=1)))
    expected = Session(model).run(feed)["y"]
    found = Network(model)({"given": torch.from_numpy(feed["given"])})["y"].detach().numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1.0)
    assert np.abs(expected).max() > 0


def test_every_form_is_tested() -> None:
    text = " ".join(body for _, body, _ in CASES.values())
    assert [op for op in FORMS if f"{op}(" not in text and f"{op}<" not in text] == []


def test_what_has_no_form_is_named() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[2] x) => (float[2] y) '
        "<float[2] w = {1, 2}> { z = Mul(x, w) y = Asinh(z) }"
    )
    with pytest.raises(UsageError, match="cannot be trained here: Asinh"):
        Network(load(proto))


def test_a_model_without_weights_is_refused() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
    )
    with pytest.raises(UsageError, match="no floating-point weights"):
        Network(load(proto))
