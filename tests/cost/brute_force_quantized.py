"""Quantized operators as loops that count, in the arithmetic of `brute_force`."""

import numpy as np

from tests.cost import brute_force, brute_force_sequences


def centred(tally, x, zero_point):
    if zero_point is None:
        return x.astype(np.int64)
    return tally.each(lambda a, b: tally.step(int(a) - int(b)), x.astype(np.int64), zero_point)


def dequantized(tally, x, scale, zero_point):
    shifted = centred(tally, x, zero_point).astype(np.float32)
    return tally.each(lambda a, s: tally.step(a * s), shifted, scale)


def quantized(tally, x, scale, zero_point, dtype=None, rescale=False):
    """Divided by the scale (or multiplied, where it is a quotient of scales), then rounded."""
    info = np.iinfo(zero_point.dtype if zero_point is not None else dtype or np.uint8)

    def one(value, by, shift):
        value = tally.step(np.rint(tally.step(value * by if rescale else value / by)))
        if zero_point is not None:
            value = tally.step(value + shift)
        return tally.step(max(tally.step(min(value, info.max)), info.min))

    shift = np.float32(0 if zero_point is None else zero_point)
    return tally.each(one, np.asarray(x, np.float32), scale, shift).astype(info.dtype)


def quantize(tally, x, scale, zero_point=None, *, axis=1):
    spread = [1] * x.ndim
    if scale.ndim:
        spread[axis] = -1
        scale = scale.reshape(spread)
        zero_point = None if zero_point is None else zero_point.reshape(spread)
    return quantized(tally, x, scale, zero_point)


def dequantize(tally, x, scale, zero_point=None, *, axis=1):
    spread = [1] * x.ndim
    if scale.ndim:
        spread[axis] = -1
        scale = scale.reshape(spread)
        zero_point = None if zero_point is None else zero_point.reshape(spread)
    return dequantized(tally, x, scale, zero_point)


def dynamic_quantize(tally, x):
    values = x.ravel()
    high = tally.step(max(tally.largest(values), 0))
    low = values[0]
    for value in values[1:]:
        low = tally.step(min(low, value))
    low = tally.step(min(low, 0))
    scale = np.float32(tally.step(tally.step(high - low) / 255))
    shift = tally.step(0 - tally.step(low / scale))
    shift = tally.step(min(tally.step(max(tally.step(np.rint(shift)), 0)), 255))
    zero_point = np.uint8(shift)
    return quantized(tally, x, scale, np.asarray(zero_point)), scale, zero_point


def convolution_integer(tally, x, w, x_zero=None, w_zero=None, **attributes):
    w = w.astype(np.int64) - (0 if w_zero is None else int(w_zero))
    return brute_force.convolution(tally, centred(tally, x, x_zero), w, **attributes)


def convolution(tally, x, xs, xz, w, ws, wz, ys, yz, b=None, **attributes):
    ws = ws.reshape(-1, *[1] * (x.ndim - 2)) if ws.ndim else ws
    w = w.astype(np.int64) - wz.astype(np.int64).reshape(-1, *[1] * (w.ndim - 1))
    sums = brute_force.convolution(tally, centred(tally, x, xz), w, b, **attributes)
    return quantized(tally, sums, xs * ws / ys, yz, rescale=True)


def matrix_product_integer(tally, a, b, a_zero=None, b_zero=None):
    b = b.astype(np.int64) - (0 if b_zero is None else b_zero.astype(np.int64))
    return brute_force.matrix_product(tally, centred(tally, a, a_zero), b)


def matrix_product(tally, a, a_scale, a_zero, b, bs, bz, ys, yz):
    sums = matrix_product_integer(tally, a, b, a_zero, bz)
    return quantized(tally, sums, a_scale * bs / ys, yz, rescale=True)


def matrix_product_to_float(tally, a, b, a_scale, b_scale, a_zero=None, b_zero=None, bias=None):
    sums = matrix_product_integer(tally, a, b, a_zero, b_zero)
    scale = tally.each(lambda x, y: tally.step(x * y), b_scale, a_scale)
    result = tally.each(lambda x, s: tally.step(np.float32(x * s)), sums.astype("f"), scale)
    if bias is not None:
        result = tally.each(lambda x, y: tally.step(x + y), result, bias)
    return result


def dynamic_matrix_product(tally, a, b, b_scale, b_zero=None, bias=None):
    quantized_a, scale, zero = dynamic_quantize(tally, a)
    return matrix_product_to_float(
        tally, quantized_a, b, scale, b_scale, np.asarray(zero), b_zero, bias
    )


def general_matrix_product(
    tally,
    a,
    a_scale,
    az,
    b,
    bs,
    bz,
    c=None,
    ys=None,
    yz=None,
    *,
    transA=0,  # noqa: N803
    transB=0,  # noqa: N803
    alpha=1.0,
):
    sums = matrix_product_integer(tally, a.T if transA else a, b.T if transB else b, az, bz)
    if c is not None:
        sums = tally.each(lambda x, y: tally.step(x + y), sums, c)
    scale = np.float32(alpha) * a_scale * bs
    if ys is None:
        return tally.each(lambda x, s: tally.step(x * s), sums.astype("f"), scale)
    return quantized(tally, sums, scale / ys, yz, rescale=True)


def packed_matrix_product(tally, a, b, scales, zero_points=None, _=None, bias=None, **attributes):
    """Weights of 4 bits, two in a byte, the lower first."""
    width, block = attributes["K"], attributes["block_size"]
    nibbles = np.stack([b & 15, b >> 4], axis=-1).reshape(attributes["N"], -1)[:, :width]
    scales = scales.reshape(attributes["N"], -1).repeat(block, axis=1)[:, :width]
    weights = dequantized(tally, nibbles, scales, np.asarray(8))
    result = brute_force.matrix_product(tally, a, weights.T)
    if bias is not None:
        result = tally.each(lambda x, y: tally.step(x + y), result, bias)
    return result


def binary(function):
    def run(tally, a, a_scale, az, b, bs, bz, cs, cz):
        left, right = dequantized(tally, a, a_scale, az), dequantized(tally, b, bs, bz)
        return quantized(
            tally, tally.each(lambda x, y: tally.step(function(x, y)), left, right), cs, cz
        )

    return run


def activation(name):
    def run(tally, x, xs, xz, ys, yz, **attributes):
        values = dequantized(tally, x, xs, xz)
        active = tally.each(lambda v: tally.activated(name, v, **attributes), values)
        return quantized(tally, active, ys, yz)

    return run


def softmax(tally, x, xs, xz, ys, yz, *, axis, opset):
    values = np.moveaxis(dequantized(tally, x, xs, xz), axis, -1)
    result = np.empty_like(values)
    for place in np.ndindex(values.shape[:-1]):
        result[place] = tally.softmax(values[place])
    return quantized(tally, np.moveaxis(result, -1, axis), ys, yz)


def concatenation(tally, ys, yz, *inputs, axis):
    parts = [dequantized(tally, *inputs[i : i + 3]) for i in range(0, len(inputs), 3)]
    return quantized(tally, np.concatenate(parts, axis=axis), ys, yz)


def average_pool(tally, x, xs, xz, ys, yz, *, kernel_shape):
    values = dequantized(tally, x, xs, xz)
    rows, columns = kernel_shape
    size = (x.shape[2] - rows + 1, x.shape[3] - columns + 1)
    result = np.empty((*x.shape[:2], *size), np.float32)
    for n, c, i, j in np.ndindex(result.shape):
        window = values[n, c, i : i + rows, j : j + columns].ravel()
        result[n, c, i, j] = tally.step(tally.total(window) / len(window))
    return quantized(tally, result, ys, yz)


def global_average_pool(tally, x, xs, xz, ys, yz, *, channels_last=0):
    return average_pool(tally, x, xs, xz, ys, yz, kernel_shape=x.shape[2:])


def choice(tally, condition, x, xs, xz, y, ys, yz, zs, zz):
    left, right = dequantized(tally, x, xs, xz), dequantized(tally, y, ys, yz)
    return quantized(tally, np.where(condition, left, right), zs, zz)


def quantized_attention(
    tally, x, w, b, x_scale, w_scale, mask=None, x_zero=None, w_zero=None, **attributes
):
    joined = matrix_product_to_float(tally, x, w, x_scale, w_scale, x_zero, w_zero, b)
    return brute_force_sequences.attention_of_projections(tally, joined, **attributes)


def convolution_channels_last(tally, x, *others, channels_last, **attributes):
    return convolution(tally, x.transpose(0, 3, 1, 2), *others, **attributes).transpose(0, 2, 3, 1)


def gather(tally, data, indices, scales, *, bits, block_size, gather_axis, quantize_axis):
    """Rows of 8-bit numbers around 128, a scale for each block of a row."""
    by_element = scales.repeat(block_size, axis=1)[indices]
    return dequantized(tally, data[indices], by_element, np.asarray(1 << bits - 1))


# The 16 levels of NF4: quantiles of a normal distribution, as its paper lists them.
LEVELS = np.array(
    [
        *(-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0),
        *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0),
    ],
    np.float32,
)  # fmt: skip


def normal_float_matrix_product(tally, a, b, largest, *, K, N, block_size, quant_type):  # noqa: N803
    """Weights of 4 bits, two in a byte, the higher first."""
    codes = np.stack([b >> 4, b & 15], axis=-1).ravel()
    scales = largest.repeat(block_size)
    weights = tally.each(lambda level, s: tally.step(level * s), LEVELS[codes], scales)
    return brute_force.matrix_product(tally, a, weights.reshape(N, K).T)


def mixture_of_experts(
    tally, x, router, w1, s1, b1, w2, s2, b2, *, expert_weight_bits, **attributes
):
    middle = 1 << expert_weight_bits - 1
    first, second = ((w.astype("f") - middle) * s[..., None] for w, s in ((w1, s1), (w2, s2)))
    return brute_force_sequences.mixture_of_experts(
        tally, x, router, first, b1, second, b2, **attributes
    )


def lstm(
    tally, x, w, r, b, _, h0, c0, p, w_scale, w_zero, r_scale, r_zero, *, hidden_size
):  # fmt: skip
    """One direction; a state of zeros has a scale that nobody looks at."""
    step, size = tally.step, hidden_size
    inputs, weights = w[0].astype(int) - int(w_zero[0]), r[0].astype(int) - int(r_zero[0])

    def centred_product(data, matrix, scale):
        with np.errstate(invalid="ignore", divide="ignore"):
            codes, by, zero_point = dynamic_quantize(tally, data)
        both = step(np.nan_to_num(by) * scale[0])
        sums = brute_force.matrix_product(
            tally, centred(tally, codes, np.asarray(zero_point)), matrix
        )
        return tally.each(lambda value: step(value * both), sums.astype(np.float32))

    from_inputs = centred_product(x.reshape(-1, x.shape[2]), inputs, w_scale)
    from_inputs = from_inputs.reshape(*x.shape[:2], -1)
    bias = b[0, : 4 * size] + b[0, 4 * size :]
    h, c, outputs = h0[0], c0[0].copy(), []
    for t in range(len(x)):
        from_state = centred_product(h, weights, r_scale)
        h = np.empty_like(h)
        for n, unit in np.ndindex(h.shape):

            def gate(index, name, n=n, unit=unit, t=t, state=from_state):
                place = index * size + unit
                value = step(from_inputs[t, n, place] + state[n, place])
                return tally.activated(name, step(value + bias[place]))

            i, o, f = (gate(index, "Sigmoid") for index in range(3))
            c[n, unit] = step(step(f * c[n, unit]) + step(i * gate(3, "Tanh")))
            h[n, unit] = step(o * tally.activated("Tanh", c[n, unit]))
        outputs.append(h)
    return np.stack(outputs)[:, None], h[None], c[None]


def embedding(
    tally, words, segments, table, places, kinds, scale, shift, mask, *quantities, epsilon
):  # fmt: skip
    scales, zeros = quantities[:5], quantities[5:]
    table, places, kinds, scale, shift = (
        (lambda rows, s=s, z=z: dequantized(tally, rows, s, z), data)
        for data, s, z in zip((table, places, kinds, scale, shift), scales, zeros, strict=True)
    )
    scale, shift = scale[0](scale[1]), shift[0](shift[1])
    result = np.empty((*words.shape, len(scale)), np.float32)
    for n, t in np.ndindex(words.shape):
        rows = [
            read(data[place])
            for (read, data), place in ((table, words[n, t]), (places, t), (kinds, segments[n, t]))
        ]
        values = [tally.total(column) for column in zip(*rows, strict=True)]
        result[n, t] = tally.normalized(values, scale, shift, epsilon)
    return result, np.array([tally.total(row) for row in mask], np.int32)
