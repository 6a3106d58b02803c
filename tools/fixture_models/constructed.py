"""The constructed fixtures: each shows one construct, each is the same bytes on every machine.

Every function returns one model, its docstring's first line is its line in fixtures/README.md.
"""

from collections.abc import Callable

import numpy as np
import onnx
import onnx.helper

from fixture_models.building import batch_norm, from_text, weights

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'


def bn_conv() -> onnx.ModelProto:
    """Conv (no bias) + BN + Relu, then Conv (bias) + BN; dynamic batch and size."""
    return from_text(
        HEADER
        + """
        bn_conv (float[N,3,H,W] x) => (float[N,4,H,W] y) {
            c1 = Conv <pads = [1,1,1,1]> (x, w1)
            b1 = BatchNormalization <epsilon = 0.001> (c1, a_scale, a_bias, a_mean, a_var)
            r1 = Relu (b1)
            c2 = Conv <pads = [1,1,1,1]> (r1, w2, conv_bias)
            y = BatchNormalization (c2, b_scale, b_bias, b_mean, b_var)
        }""",
        {
            "w1": weights(1, 8, 3, 3, 3),
            "w2": weights(2, 4, 8, 3, 3),
            "conv_bias": weights(3, 4),
            **batch_norm(10, 8, "a"),
            **batch_norm(20, 4, "b"),
        },
    )


def bn_conv_grouped() -> onnx.ModelProto:
    """Grouped Conv + BN, then depthwise Conv (omitted bias written as "") + BN."""
    return from_text(
        HEADER
        + """
        bn_conv_grouped (float[N,4,8,8] x) => (float[N,8,6,6] y) {
            c1 = Conv <group = 2> (x, w1, conv_bias)
            b1 = BatchNormalization (c1, a_scale, a_bias, a_mean, a_var)
            c2 = Conv <group = 8, pads = [1,1,1,1]> (b1, w2, "")
            y = BatchNormalization (c2, b_scale, b_bias, b_mean, b_var)
        }""",
        {
            "w1": weights(1, 8, 2, 3, 3),
            "w2": weights(2, 8, 1, 3, 3),
            "conv_bias": weights(3, 8),
            **batch_norm(10, 8, "a"),
            **batch_norm(20, 8, "b"),
        },
    )


def bn_conv_transpose() -> onnx.ModelProto:
    """ConvTranspose + BN, then grouped ConvTranspose + BN (the scale is on weight axis 1)."""
    return from_text(
        HEADER
        + """
        bn_conv_transpose (float[N,4,5,5] x) => (float[N,6,O,P] y) {
            c1 = ConvTranspose <strides = [2,2]> (x, w1)
            b1 = BatchNormalization (c1, a_scale, a_bias, a_mean, a_var)
            c2 = ConvTranspose <group = 2> (b1, w2, conv_bias)
            y = BatchNormalization (c2, b_scale, b_bias, b_mean, b_var)
        }""",
        {
            "w1": weights(1, 4, 8, 2, 2),
            "w2": weights(2, 8, 3, 3, 3),
            "conv_bias": weights(3, 6),
            **batch_norm(10, 8, "a"),
            **batch_norm(20, 6, "b"),
        },
    )


def bn_gemm() -> onnx.ModelProto:
    """Gemm (transB, alpha, beta) + BN, Gemm (no C) + BN, MatMul + BN on rank 2."""
    return from_text(
        HEADER
        + """
        bn_gemm (float[N,6] x) => (float[N,3] y) {
            g1 = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, w1, c)
            b1 = BatchNormalization (g1, a_scale, a_bias, a_mean, a_var)
            g2 = Gemm (b1, w2)
            b2 = BatchNormalization (g2, b_scale, b_bias, b_mean, b_var)
            m = MatMul (b2, w3)
            y = BatchNormalization (m, c_scale, c_bias, c_mean, c_var)
        }""",
        {
            "w1": weights(1, 8, 6),
            "c": weights(2, 8),
            "w2": weights(3, 8, 5),
            "w3": weights(4, 5, 3),
            **batch_norm(10, 8, "a"),
            **batch_norm(20, 5, "b"),
            **batch_norm(30, 3, "c"),
        },
    )


def bn_shared_weights() -> onnx.ModelProto:
    """Two Convs share weight and bias, one has a BN; a third Conv's output is used twice."""
    return from_text(
        HEADER
        + """
        bn_shared_weights (float[N,4,8,8] x) => (float[N,4,8,8] y, float[N,4,8,8] raw) {
            c1 = Conv <pads = [1,1,1,1]> (x, w, conv_bias)
            b1 = BatchNormalization (c1, a_scale, a_bias, a_mean, a_var)
            c2 = Conv <pads = [1,1,1,1]> (b1, w, conv_bias)
            raw = Conv <pads = [1,1,1,1]> (c2, w)
            b2 = BatchNormalization (raw, b_scale, b_bias, b_mean, b_var)
            y = Add (b2, raw)
        }""",
        {
            "w": weights(1, 4, 4, 3, 3),
            "conv_bias": weights(2, 4),
            **batch_norm(10, 4, "a"),
            **batch_norm(20, 4, "b"),
        },
    )


def bn_half() -> onnx.ModelProto:
    """float16 Conv + BN: the fold must compute in float32 and round once."""
    parameters = {"w": weights(1, 4, 3, 3, 3), **batch_norm(10, 4)}
    return from_text(
        HEADER
        + """
        bn_half (float16[N,3,8,8] x) => (float16[N,4,6,6] y) {
            c = Conv (x, w)
            y = BatchNormalization (c, bn_scale, bn_bias, bn_mean, bn_var)
        }""",
        {name: array.astype(np.float16) for name, array in parameters.items()},
    )


def bn_decoys() -> onnx.ModelProto:
    """BNs that must not be folded: overridable parameters, and a BN before a padded Conv."""
    return from_text(
        HEADER
        + """
        bn_decoys (float[N,3,8,8] x, float[4] scale) => (float[N,4,8,8] y, float[N,4,8,8] z)
        <float[4] scale = {1.0, 2.0, 3.0, 4.0}> {
            c = Conv <pads = [1,1,1,1]> (x, w)
            y = BatchNormalization (c, scale, bn_bias, bn_mean, bn_var)
            before = BatchNormalization (x, pre_scale, pre_bias, pre_mean, pre_var)
            z = Conv <pads = [1,1,1,1]> (before, w)
        }""",
        {"w": weights(1, 4, 3, 3, 3), **batch_norm(10, 4), **batch_norm(20, 3, "pre")},
    )


def conv_channel_arithmetic() -> onnx.ModelProto:
    """Per-channel Mul, Add, Sub, Div after Conv, and a [W] vector that only looks per-channel."""
    return from_text(
        HEADER
        + """
        conv_channel_arithmetic (float[N,3,6,6] x) => (float[N,4,4,4] y, float[N,4,4,4] trap) {
            c = Conv (x, w)
            m = Mul (c, per_channel_a)
            a = Add (m, per_channel_b)
            s = Sub (a, per_channel_a)
            y = Div (s, per_channel_c)
            d = Conv (x, w)
            trap = Mul (d, per_column)
        }""",
        {
            "w": weights(1, 4, 3, 3, 3),
            "per_channel_a": weights(2, 4, 1, 1),
            "per_channel_b": weights(3, 1, 4, 1, 1),
            "per_channel_c": weights(4, 4, 1, 1, low=1.0, high=2.0),
            "per_column": weights(5, 4),
        },
    )


def if_constant() -> onnx.ModelProto:
    """If with a constant condition, a capture, a branch-local initializer, a name used twice."""
    return from_text(
        HEADER
        + """
        if_constant (float[N,4] x) => (float[N,4] y) {
            scaled = Mul (x, scale)
            condition = Constant <value = bool {1}> ()
            chosen = If (condition) <
                then_branch = then_graph () => (float[N,4] then_out)
                <float[4] local = {1.0, 2.0, 3.0, 4.0}> {
                    shifted = Add (scaled, local)
                    then_out = Relu (shifted)
                },
                else_branch = else_graph () => (float[N,4] else_out) {
                    else_out = Neg (scaled)
                }
            >
            shifted = Sub (chosen, scale)
            y = Add (shifted, scaled)
        }""",
        {"scale": weights(1, 4)},
    )


def if_dynamic() -> onnx.ModelProto:
    """If on data, nested, with outer values used only inside the branches."""
    return from_text(
        HEADER
        + """
        if_dynamic (float[N,4] x, bool flag) => (float[N,4] y) {
            only_then = Exp (x)
            only_else = Neg (x)
            y = If (flag) <
                then_branch = then_graph () => (float[N,4] then_out) {
                    total = ReduceSum <keepdims = 0> (only_then)
                    big = Greater (total, limit)
                    then_out = If (big) <
                        then_branch = big_graph () => (float[N,4] big_out) {
                            big_out = Div (only_then, total)
                        },
                        else_branch = small_graph () => (float[N,4] small_out) {
                            small_out = Identity (only_then)
                        }
                    >
                },
                else_branch = else_graph () => (float[N,4] else_out) {
                    else_out = Mul (only_else, w)
                }
            >
        }""",
        {"limit": np.float32(20.0).reshape(()), "w": weights(1, 4)},
    )


def loop() -> onnx.ModelProto:
    """Loop with a carried value, an outer weight, a scan output, and constants in its body."""
    return from_text(
        HEADER
        + """
        loop (float[2,3] x, int64 trips) => (float[2,3] last, float[T,2,3] history) {
            go = Constant <value = bool {1}> ()
            last, history = Loop (trips, go, x) <
                body = body_graph (int64 i, bool cond_in, float[2,3] state)
                    => (bool cond_out, float[2,3] next, float[2,3] seen) {
                    cond_out = Identity (cond_in)
                    half = Constant <value_float = 0.5> ()
                    quarter = Mul (half, half)
                    mixed = MatMul (state, w)
                    scaled = Mul (mixed, quarter)
                    next = Add (scaled, state)
                    seen = Identity (next)
                }
            >
        }""",
        {"w": weights(1, 3, 3)},
    )


def scan() -> onnx.ModelProto:
    """Scan: a running sum whose two body outputs are one value under two names."""
    return from_text(
        HEADER
        + """
        scan (float[3] start, float[T,3] steps) => (float[3] total, float[T,3] sums) {
            total, sums = Scan <num_scan_inputs = 1,
                body = body_graph (float[3] sum_in, float[3] step)
                    => (float[3] sum_out, float[3] sum_copy) {
                    scaled = Mul (step, w)
                    sum_out = Add (sum_in, scaled)
                    sum_copy = Identity (sum_out)
                }
            > (start, steps)
        }""",
        {"w": weights(1, 3)},
    )


def functions() -> onnx.ModelProto:
    """Local functions: attribute references, a nested call, one that shadows a standard op."""
    return from_text(
        """<ir_version: 10, opset_import: ["" : 18, "local" : 1]>
        functions (float[N,4] x) => (float[N,4] y) {
            a = local.Scaled <alpha = 0.25> (x)
            b = local.Twice <alpha = 3.0> (a)
            y = local.Relu (b)
        }
        <domain: "local", opset_import: ["" : 18]>
        Scaled <alpha> (v) => (out) {
            slope = Constant <value_float: float = @alpha> ()
            leaky = LeakyRelu <alpha: float = @alpha> (v)
            out = Mul (leaky, slope)
        }
        <domain: "local", opset_import: ["" : 18, "local" : 1]>
        Twice <alpha> (v) => (out) {
            first = local.Scaled <alpha: float = @alpha> (v)
            out = local.Scaled <alpha = 0.5> (first)
        }
        <domain: "local", opset_import: ["" : 18]>
        Relu (v) => (out) {
            out = Tanh (v)
        }"""
    )


def dynamic_shapes() -> onnx.ModelProto:
    """Shape arithmetic of a dynamic batch: Shape, Gather, Concat, Mul into Reshape and Expand."""
    return from_text(
        HEADER
        + """
        dynamic_shapes (float[N,T,8] x) => (float[N,T,8] y, float[M,2,4] heads) {
            shape = Shape (x)
            zero = Constant <value_int = 0> ()
            one = Constant <value_int = 1> ()
            batch = Gather <axis = 0> (shape, zero)
            length = Gather <axis = 0> (shape, one)
            rows = Mul (batch, length)
            axes = Constant <value_ints = [0]> ()
            rows1 = Unsqueeze (rows, axes)
            two = Constant <value_ints = [2]> ()
            width = Constant <value_ints = [4]> ()
            target = Concat <axis = 0> (rows1, two, width)
            heads = Reshape (x, target)
            batch1 = Unsqueeze (batch, axes)
            length1 = Unsqueeze (length, axes)
            minus = Constant <value_ints = [-1]> ()
            back = Concat <axis = 0> (batch1, length1, minus)
            relu = Relu (heads)
            flat = Reshape (relu, back)
            full = Shape (flat)
            ones = ConstantOfShape <value = float[1] {1.0}> (full)
            y = Mul (flat, ones)
        }"""
    )


def qdq_int8() -> onnx.ModelProto:
    """An int8 QDQ Conv + Gemm, per-channel weights: nothing here may be folded to float."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
        qdq_int8 (float[N,3,8,8] x) => (float[N,5] y) {
            xq = QuantizeLinear (x, x_scale, x_zero)
            xd = DequantizeLinear (xq, x_scale, x_zero)
            wd = DequantizeLinear <axis = 0> (w, w_scale, w_zero)
            bd = DequantizeLinear <axis = 0> (b, b_scale, b_zero)
            c = Conv <pads = [1,1,1,1]> (xd, wd, bd)
            r = Relu (c)
            rq = QuantizeLinear (r, r_scale, r_zero)
            rd = DequantizeLinear (rq, r_scale, r_zero)
            p = GlobalAveragePool (rd)
            f = Flatten (p)
            fq = QuantizeLinear (f, r_scale, r_zero)
            fd = DequantizeLinear (fq, r_scale, r_zero)
            vd = DequantizeLinear <axis = 1> (v, v_scale, v_zero)
            y = Gemm (fd, vd)
        }"""
    random = np.random.RandomState(7)
    return from_text(
        text,
        {
            "x_scale": np.float32(0.02).reshape(()),
            "x_zero": np.uint8(128).reshape(()),
            "w": random.randint(-127, 128, (4, 3, 3, 3)).astype(np.int8),
            "w_scale": weights(1, 4, low=0.002, high=0.01),
            "w_zero": np.zeros(4, np.int8),
            "b": random.randint(-1000, 1000, (4,)).astype(np.int32),
            "b_scale": weights(2, 4, low=0.0001, high=0.0002),
            "b_zero": np.zeros(4, np.int32),
            "r_scale": np.float32(0.03).reshape(()),
            "r_zero": np.uint8(0).reshape(()),
            "v": random.randint(-127, 128, (4, 5)).astype(np.int8),
            "v_scale": weights(3, 5, low=0.002, high=0.01),
            "v_zero": np.zeros(5, np.int8),
        },
    )


def sequences() -> onnx.ModelProto:
    """Sequences: SplitToSequence, SequenceInsert, SequenceAt; the sequence is also an output."""
    return from_text(
        HEADER
        + """
        sequences (float[6,4] x) => (float[A,4] y, seq(float[B,4]) parts) {
            two = Constant <value_int = 2> ()
            split = SplitToSequence <axis = 0> (x, two)
            negated = Neg (x)
            parts = SequenceInsert (split, negated)
            index = Constant <value_int = -1> ()
            picked = SequenceAt (parts, index)
            y = Relu (picked)
        }"""
    )


def optionals() -> onnx.ModelProto:
    """Optional values: OptionalHasElement decides an If around OptionalGetElement."""
    return from_text(
        """<ir_version: 9, opset_import: ["" : 18]>
        optionals (float[N,4] x) => (float[N,4] y) {
            wrapped = Optional (x)
            present = OptionalHasElement (wrapped)
            y = If (present) <
                then_branch = then_graph () => (float[N,4] then_out) {
                    inner = OptionalGetElement (wrapped)
                    then_out = Relu (inner)
                },
                else_branch = else_graph () => (float[N,4] else_out) {
                    else_out = Identity (x)
                }
            >
        }"""
    )


def opset9() -> onnx.ModelProto:
    """Opset 9: Conv + BN, Upsample, Clip and Squeeze with attributes, Softmax that flattens."""
    return from_text(
        """<ir_version: 4, opset_import: ["" : 9]>
        opset9 (float[1,3,4,4] x) => (float[1,4,8,8] y, float[1,4,8,8] p, float[4] means) {
            c = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w)
            b = BatchNormalization <momentum = 0.9> (c, bn_scale, bn_bias, bn_mean, bn_var)
            l = LeakyRelu <alpha = 0.1> (b)
            u = Upsample <mode = "nearest"> (l, scales)
            y = Clip <min = 0.0, max = 6.0> (u)
            p = Softmax <axis = 1> (u)
            m = GlobalAveragePool (y)
            means = Squeeze <axes = [0,2,3]> (m)
        }""",
        {
            "w": weights(1, 4, 3, 3, 3),
            "scales": np.array([1, 1, 2, 2], np.float32),
            **batch_norm(10, 4),
        },
    )


def overridable_initializers() -> onnx.ModelProto:
    """Initializers that are also graph inputs: defaults that a caller may override, never fold."""
    return from_text(
        HEADER
        + """
        overridable_initializers (float[N,4] x, float[4] scale, int64[2] target)
            => (float[A,B] y) <float[4] scale = {1.0, 1.0, 1.0, 1.0}, int64[2] target = {-1, 4}> {
            doubled = Add (scale, scale)
            m = Mul (x, doubled)
            y = Reshape (m, target)
        }"""
    )


def sparse_weight() -> onnx.ModelProto:
    """A sparse initializer and a sparse Constant."""
    tensor = onnx.helper.make_tensor
    kind = onnx.TensorProto
    sparse = onnx.helper.make_sparse_tensor(
        tensor("w", kind.FLOAT, [3], [1.0, -2.0, 0.5]),
        tensor("w_indices", kind.INT64, [3], [0, 5, 11]),
        [4, 3],
    )
    constant = onnx.helper.make_sparse_tensor(
        tensor("c", kind.FLOAT, [1], [3.0]), tensor("c_indices", kind.INT64, [1], [1]), [3]
    )
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["x", "w"], ["m"]),
            onnx.helper.make_node("Constant", [], ["c"], sparse_value=constant),
            onnx.helper.make_node("Add", ["m", "c"], ["y"]),
        ],
        "sparse_weight",
        [onnx.helper.make_tensor_value_info("x", kind.FLOAT, ["N", 4])],
        [onnx.helper.make_tensor_value_info("y", kind.FLOAT, ["N", 3])],
        sparse_initializer=[sparse],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    model.producer_name = "graphopt-fixtures"
    # Not in full: onnx's shape inference takes a sparse initializer for a scalar.
    onnx.checker.check_model(model)
    return model


def strings() -> onnx.ModelProto:
    """Strings: a string initializer, gathered by data, compared, and a string output."""
    return from_text(
        """<ir_version: 9, opset_import: ["" : 19]>
        strings (int64[N] index, string[N] asked) => (string[N] label, bool[N] same)
        <string[3] labels = {"cat", "dog", "bird"}> {
            label = Gather (labels, index)
            same = Equal (label, asked)
        }"""
    )


def aliased_outputs() -> onnx.ModelProto:
    """Outputs that are an input, an initializer, and one value under two names."""
    return from_text(
        HEADER
        + """
        aliased_outputs (float[N,4] x) => (float[N,4] x, float[4] w, float[N,4] y, float[N,4] z) {
            y = Mul (x, w)
            z = Identity (y)
        }""",
        {"w": weights(1, 4)},
    )


def random_ops() -> onnx.ModelProto:
    """Random ops: two equal RandomNormal nodes must stay two; outputs are deterministic."""
    return from_text(
        HEADER
        + """
        random_ops (float[N,4] x) => (float[N,4] y, float spread) {
            a = RandomNormal <shape = [64]> ()
            b = RandomNormal <shape = [64]> ()
            different = Sub (a, b)
            magnitude = Abs (different)
            largest = ReduceMax <keepdims = 0> (magnitude)
            zero = Constant <value_float = 0.0> ()
            distinct = Greater (largest, zero)
            spread = Cast <to = 1> (distinct)
            like = RandomUniformLike <low = 2.0, high = 2.0> (x)
            y = Mul (x, like)
        }"""
    )


def noops() -> onnx.ModelProto:
    """Identity, Dropout, no-op Cast, Transpose, Reshape, Pad, Slice, Expand, Concat; duplicates."""
    return from_text(
        HEADER
        + """
        noops (float[N,2,3] x) => (float[N,2,3] y) {
            a = Identity (x)
            b = Dropout (a)
            c = Cast <to = 1> (b)
            d = Transpose <perm = [0,1,2]> (c)
            minus_shape = Constant <value_ints = [0,2,3]> ()
            e = Reshape (d, minus_shape)
            pads = Constant <value_ints = [0,0,0,0,0,0]> ()
            f = Pad (e, pads)
            starts = Constant <value_ints = [0]> ()
            ends = Constant <value_ints = [9223372036854775807]> ()
            g = Slice (f, starts, ends)
            sizes = Constant <value_ints = [1,1,1]> ()
            h = Expand (g, sizes)
            i = Concat <axis = 1> (h)
            left = Exp (i)
            right = Exp (i)
            sum = Add (left, right)
            zero = Constant <value_float = 0.0> ()
            one = Constant <value_float = 1.0> ()
            j = Add (sum, zero)
            y = Mul (j, one)
        }"""
    )


CONSTRUCTED: tuple[Callable[[], onnx.ModelProto], ...] = (
    bn_conv,
    bn_conv_grouped,
    bn_conv_transpose,
    bn_gemm,
    bn_shared_weights,
    bn_half,
    bn_decoys,
    conv_channel_arithmetic,
    if_constant,
    if_dynamic,
    loop,
    scan,
    functions,
    dynamic_shapes,
    qdq_int8,
    sequences,
    optionals,
    opset9,
    overridable_initializers,
    sparse_weight,
    strings,
    aliased_outputs,
    random_ops,
    noops,
)
