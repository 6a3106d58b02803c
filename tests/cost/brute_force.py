"""Operators as plain loops that count what they do: the ground truth of the cost rules.

Each function takes a `Tally`, the inputs of an ONNX node and its attributes, and gives the node's
outputs. Every multiply-accumulate, every other operation on an element and every transcendental
goes through the tally where it happens; nothing is counted by a formula. These are the operators
that contract, whose loops run over arrays of plain numbers; the loops of all others are written
with the scalars of `counted`, which count by themselves. `one_node.check` takes both.
"""

import itertools
import math

import numpy as np

from tests.cost.brute_force_tally import Tally

# Convolutions ------------------------------------------------------------------------------------


def convolution(
    tally,
    x,
    w,
    b=None,
    added=None,
    *,
    group=1,
    strides=None,
    pads=None,
    dilations=None,
    auto_pad="NOTSET",
    activation="",
    activation_params=(),
    kernel_shape=None,
):
    kernel = w.shape[2:]
    axes = len(kernel)
    strides, dilations = strides or [1] * axes, dilations or [1] * axes
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = _pads(x.shape[2:], reach, strides, pads, auto_pad)
    held = np.pad(x, [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)])
    room = zip(held.shape[2:], reach, strides, strict=True)
    size = [(total - extent) // stride + 1 for total, extent, stride in room]
    result = np.zeros((x.shape[0], w.shape[0], *size), np.result_type(x, w))
    for n, channel, *place in np.ndindex(result.shape):
        first = channel // (w.shape[0] // group) * w.shape[1]
        value = result.dtype.type(0)
        for inner, *tap in np.ndindex(w.shape[1:]):
            position = zip(place, strides, tap, dilations, strict=True)
            source = tuple(p * s + t * d for p, s, t, d in position)
            value = tally.multiply_accumulate(
                value, held[(n, first + inner, *source)], w[(channel, inner, *tap)]
            )
        if b is not None:
            value = tally.step(value + b[channel])
        if added is not None:
            value = tally.step(value + added[(n, channel, *place)])
        result[(n, channel, *place)] = tally.activated(activation, value, *activation_params)
    return result


def _pads(sizes, reach, strides, pads, auto_pad):
    if not auto_pad.startswith("SAME"):
        return pads or [0] * 2 * len(sizes)
    needed = [
        max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
        for size, extent, stride in zip(sizes, reach, strides, strict=True)
    ]
    small, large = [n // 2 for n in needed], [n - n // 2 for n in needed]
    return small + large if auto_pad == "SAME_UPPER" else large + small


def transposed_convolution(
    tally,
    x,
    w,
    b=None,
    *,
    group=1,
    strides=None,
    pads=None,
    dilations=None,
    output_padding=None,
):
    kernel = w.shape[2:]
    axes = len(kernel)
    strides, dilations = strides or [1] * axes, dilations or [1] * axes
    pads, more = pads or [0] * 2 * axes, output_padding or [0] * axes
    sizes = [
        (size - 1) * stride + (k - 1) * dilation + 1 + extra
        for size, stride, k, dilation, extra in zip(
            x.shape[2:], strides, kernel, dilations, more, strict=True
        )
    ]
    whole = np.zeros((x.shape[0], w.shape[1] * group, *sizes), x.dtype)
    for n, channel, *place in np.ndindex(x.shape):
        first = channel // (x.shape[1] // group) * w.shape[1]
        for outer, *tap in np.ndindex(w.shape[1:]):
            position = zip(place, strides, tap, dilations, strict=True)
            target = (n, first + outer, *(p * s + t * d for p, s, t, d in position))
            whole[target] = tally.multiply_accumulate(
                whole[target], x[(n, channel, *place)], w[(channel, outer, *tap)]
            )
    spans = zip(pads[:axes], pads[axes:], sizes, strict=True)
    result = whole[(..., *(slice(begin, size - end) for begin, end, size in spans))]
    if b is not None:
        shift = b.reshape(1, -1, *[1] * axes)
        result = tally.each(lambda value, bias: tally.step(value + bias), result, shift)
    return result


def deformable_convolution(
    tally, x, w, offset, b=None, mask=None, *, pads, strides=(1, 1), group=1, offset_group=1
):
    rows, columns = w.shape[2:]
    taps = rows * columns
    shared = x.shape[1] // offset_group
    size = offset.shape[2:]
    sampled = np.zeros((x.shape[0], x.shape[1], taps, *size), x.dtype)
    for n, part, tap, i, j in itertools.product(
        range(x.shape[0]), range(offset_group), range(taps), *map(range, size)
    ):
        first = (part * taps + tap) * 2
        y = tally.step(i * strides[0] - pads[0] + tap // columns + offset[n, first, i, j])
        z = tally.step(j * strides[1] - pads[1] + tap % columns + offset[n, first + 1, i, j])
        top, left = tally.step(math.floor(y)), tally.step(math.floor(z))
        down, right = tally.step(y - top), tally.step(z - left)
        up, back = tally.step(1 - down), tally.step(1 - right)
        weights = [tally.step(a * c) for a, c in itertools.product((up, down), (back, right))]
        for channel in range(part * shared, (part + 1) * shared):
            values = [
                x[n, channel, top + a, left + c]
                if 0 <= top + a < x.shape[2] and 0 <= left + c < x.shape[3]
                else 0.0
                for a, c in itertools.product((0, 1), (0, 1))
            ]
            products = [tally.step(u * v) for u, v in zip(weights, values, strict=True)]
            value = tally.total(products)
            if mask is not None:
                value = tally.step(value * mask[n, part * taps + tap, i, j])
            sampled[n, channel, tap, i, j] = value
    result = np.zeros((x.shape[0], w.shape[0], *size), x.dtype)
    for n, channel, i, j in np.ndindex(result.shape):
        first = channel // (w.shape[0] // group) * w.shape[1]
        value = tally.dot(
            sampled[n, first : first + w.shape[1], :, i, j].ravel(), w[channel].ravel()
        )
        result[n, channel, i, j] = value if b is None else tally.step(value + b[channel])
    return result


def causal_convolution(tally, x, w, b=None, past=None, *, activation="none"):
    length = w.shape[2]
    past = np.zeros((*x.shape[:2], length - 1), x.dtype) if past is None else past
    held = np.concatenate([past, x], axis=2)
    result = np.zeros_like(x)
    for n, channel, place in np.ndindex(x.shape):
        value = tally.dot(held[n, channel, place : place + length], w[channel, 0])
        if b is not None:
            value = tally.step(value + b[channel])
        result[n, channel, place] = tally.activated("Silu" if activation == "silu" else "", value)
    return result


# Matrix products ---------------------------------------------------------------------------------


def matrix_product(tally, a, b):
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, (*batch, *left.shape[-2:]))
    right = np.broadcast_to(right, (*batch, *right.shape[-2:]))
    result = np.zeros((*batch, left.shape[-2], right.shape[-1]), np.result_type(a, b))
    for place in np.ndindex(result.shape):
        *at, row, column = place
        result[place] = tally.dot(left[(*at, row)], right[(*at, slice(None), column)])
    if a.ndim == 1:
        result = result[..., 0, :]
    return result[..., 0] if b.ndim == 1 else result


def general_matrix_product(
    tally,
    a,
    b,
    c=None,
    *,
    transA=0,  # noqa: N803
    transB=0,  # noqa: N803
    alpha=1.0,
    beta=1.0,
    activation="",
):
    result = matrix_product(tally, a.T if transA else a, b.T if transB else b)
    if alpha != 1.0:
        result = tally.each(lambda x: tally.step(x * np.float32(alpha)), result)
    if c is not None:
        if beta != 1.0:
            c = tally.each(lambda x: tally.step(x * np.float32(beta)), c)
        result = tally.each(lambda x, y: tally.step(x + y), result, c)
    return tally.each(lambda x: tally.activated(activation, x), result)


def fused_matrix_product(tally, a, b, *, transA=0, transB=0, transBatchA=0, alpha=1.0):  # noqa: N803
    if transBatchA:
        a = np.moveaxis(a, 0, -2)
    a = np.swapaxes(a, -1, -2) if transA else a
    b = np.swapaxes(b, -1, -2) if transB else b
    result = matrix_product(tally, a, b)
    return tally.each(lambda x: tally.step(x * np.float32(alpha)), result) if alpha != 1 else result


def einsum(tally, *operands, equation):
    """Tries every order of contracting two at a time, and counts the one of fewest MACs."""
    terms, output = _spelled_out(equation, [operand.ndim for operand in operands])
    reduced = []
    for position, (term, operand) in enumerate(zip(terms, operands, strict=True)):
        others = output + "".join(terms[:position] + terms[position + 1 :])
        reduced.append(_summed(tally, term, operand, others))
    best = min(_orders(reduced, output), key=lambda found: found[0].macs, default=None)
    tally.macs += best[0].macs
    term, result = best[1]
    return result.transpose([term.index(index) for index in output])


def _spelled_out(equation, ranks):
    """Terms with a capital letter for each dim behind an ellipsis."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms, longest = [], ""
    for term, rank in zip(left.split(","), ranks, strict=True):
        hidden = "ZYXW"[: rank - len(term.replace("...", ""))][::-1]
        longest = max(longest, hidden if "..." in term else "", key=len)
        terms.append(term.replace("...", hidden))
    if not arrow:
        once = (index for index in sorted(set(left) - set(".,")) if left.count(index) == 1)
        output = "..." + "".join(once)
    return terms, output.replace("...", longest)


def _summed(tally, term, operand, others):
    """The diagonal of repeated indices, and the sum over those that nobody else has."""
    for index in sorted(set(term)):
        while term.count(index) > 1:
            first, second = term.index(index), term.rindex(index)
            operand = np.diagonal(operand, axis1=first, axis2=second)
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + index
    kept = "".join(index for index in term if index in others)
    gone = [axis for axis, index in enumerate(term) if index not in others]
    rest = [axis for axis, index in enumerate(term) if index in others]
    rows = operand.transpose(rest + gone)
    rows = rows.reshape(*rows.shape[: len(rest)], -1)
    result = np.empty(rows.shape[:-1], operand.dtype)
    for place in np.ndindex(result.shape):
        result[place] = tally.total(rows[place])
    return kept, result


def _orders(held, output):
    """For each order of contracting: the tally, and the term and array at its end."""
    if len(held) == 1:
        yield Tally(), held[0]
        return
    for first, second in itertools.combinations(range(len(held)), 2):
        rest = [held[index] for index in range(len(held)) if index not in (first, second)]
        wanted = output + "".join(term for term, _ in rest)
        tally = Tally()
        joined = _contracted(tally, held[first], held[second], wanted)
        for later, end in _orders([*rest, joined], output):
            later.macs += tally.macs
            yield later, end


def _contracted(tally, one, other, wanted):
    (left, a), (right, b) = one, other
    indices = "".join(dict.fromkeys(left + right))
    sizes = dict(zip(right, b.shape, strict=True))
    for index, size in zip(left, a.shape, strict=True):
        sizes[index] = max(size, sizes.get(index, 1))
    term = "".join(index for index in indices if index in wanted)
    result = np.zeros([sizes[index] for index in term], np.result_type(a, b))
    for place in np.ndindex(*(sizes[index] for index in indices)):
        at = dict(zip(indices, place, strict=True))
        target = tuple(at[index] for index in term)
        result[target] = tally.multiply_accumulate(
            result[target], a[_held(left, a, at)], b[_held(right, b, at)]
        )
    return term, result


def _held(term, array, at):
    """Where an operand has the indices `at`; one of size 1 is stretched."""
    return tuple(
        at[index] if size > 1 else 0 for index, size in zip(term, array.shape, strict=True)
    )


def determinant(tally, x):
    result = np.empty(x.shape[:-2], x.dtype)
    for place in np.ndindex(result.shape):
        m, n, sign = x[place].astype(np.float64), x.shape[-1], 1
        for k in range(n - 1):
            pivot = k
            for row in range(k + 1, n):
                pivot = row if tally.step(abs(m[row, k]) > abs(m[pivot, k])) else pivot
            if pivot != k:
                m[[k, pivot]], sign = m[[pivot, k]], -sign
            for row in range(k + 1, n):
                factor = tally.step(m[row, k] / m[k, k])
                for column in range(k + 1, n):
                    m[row, column] = tally.multiply_accumulate(
                        m[row, column], -factor, m[k, column]
                    )
        value = m[0, 0]
        for k in range(1, n):
            value = tally.step(value * m[k, k])
        result[place] = sign * value
    return result


def inverse(tally, x):
    """Gauss-Jordan elimination in place; exchanged rows are exchanged columns at the end."""
    result = np.empty(x.shape, x.dtype)
    for place in np.ndindex(x.shape[:-2]):
        m, n, exchanged = x[place].astype(np.float64), x.shape[-1], []
        for k in range(n):
            pivot = k
            for row in range(k + 1, n):
                pivot = row if tally.step(abs(m[row, k]) > abs(m[pivot, k])) else pivot
            m[[k, pivot]] = m[[pivot, k]]
            exchanged.append((k, pivot))
            reciprocal = tally.step(1 / m[k, k])
            others = [i for i in range(n) if i != k]
            for column in others:
                m[k, column] = tally.step(m[k, column] * reciprocal)
            for row in others:
                for column in others:
                    m[row, column] = tally.multiply_accumulate(
                        m[row, column], -m[row, k], m[k, column]
                    )
            for row in others:
                m[row, k] = tally.step(m[row, k] * -reciprocal)
            m[k, k] = reciprocal
        for first, second in reversed(exchanged):
            m[:, [first, second]] = m[:, [second, first]]
        result[place] = m
    return result


def pairwise_distances(tally, a, b, *, metric):
    result = np.empty((len(a), len(b)), a.dtype)
    for i, j in np.ndindex(result.shape):
        between = np.array([tally.step(x - y) for x, y in zip(a[i], b[j], strict=True)], a.dtype)
        value = tally.dot(between, between)
        result[i, j] = tally.function(math.sqrt(value)) if metric == "euclidean" else value
    return result


def transposed_convolution_with_dynamic_pads(tally, x, w, pads, b=None, **attributes):
    return transposed_convolution(tally, x, w, b, pads=pads.tolist(), **attributes)
