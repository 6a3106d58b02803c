"""Recurrent layers and attention as loops that count, in the arithmetic of `brute_force`."""

import itertools
import math

import numpy as np

from tests.cost import brute_force


def _directions(direction, steps):
    order = list(range(steps))
    return {
        "forward": [order],
        "reverse": [order[::-1]],
        "bidirectional": [order, order[::-1]],
    }[direction]


def _layer(run, x, w, r, h0, direction, hidden_size, layout):
    """Runs one direction after the other; gives Y and Y_h.

    `run` takes direction, batch entry, the step's input and the state, and gives the new state.
    """
    x = x.swapaxes(0, 1) if layout else x
    orders = _directions(direction, x.shape[0])
    outputs = np.zeros((x.shape[0], len(orders), x.shape[1], hidden_size), np.float32)
    last = np.zeros((len(orders), x.shape[1], hidden_size), np.float32)
    for side, order in enumerate(orders):
        for n in range(x.shape[1]):
            h = np.zeros(hidden_size, np.float32) if h0 is None else h0[side, n]
            for t in order:
                h = run(side, n, x[t, n], h)
                outputs[t, side, n] = h
            last[side, n] = h
    return outputs.transpose(2, 0, 1, 3) if layout else outputs, last.swapaxes(
        0, 1
    ) if layout else last


def _gate(tally, row, x, recurrent_row, h, biases, clip=None, peephole=None):
    """W x + R h in one sum, the bias, and what a peephole adds."""
    value = np.float32(0)
    for a, b in [*zip(row, x, strict=True), *zip(recurrent_row, h, strict=True)]:
        value = tally.multiply_accumulate(value, a, b)
    if biases is not None:
        value = tally.step(value + biases)
    if peephole is not None:
        value = tally.step(value + tally.step(peephole[0] * peephole[1]))
    if clip is not None:
        value = tally.step(max(tally.step(min(value, clip)), -clip))
    return value


def rnn(
    tally,
    x,
    w,
    r,
    b=None,
    _=None,
    h0=None,
    *,
    hidden_size,
    direction="forward",
    activations=None,
    layout=0,
):
    names = activations or ["Tanh"] * 2

    def run(side, n, value, h):
        new = np.empty_like(h)
        for unit in range(hidden_size):
            bias = None if b is None else b[side, unit] + b[side, hidden_size + unit]
            gate = _gate(tally, w[side, unit], value, r[side, unit], h, bias)
            new[unit] = tally.activated(names[side], gate)
        return new

    return _layer(run, x, w, r, h0, direction, hidden_size, layout)


def gru(
    tally, x, w, r, b=None, _=None, h0=None, *, hidden_size, direction="forward",
    activations=None, linear_before_reset=0, layout=0, clip=None,
):  # fmt: skip
    names = activations or ["Sigmoid", "Tanh"] * 2
    size = hidden_size

    def run(side, n, value, h):
        f, g = names[2 * side : 2 * side + 2]
        wb = None if b is None else b[side, : 3 * size].reshape(3, size)
        rb = None if b is None else b[side, 3 * size :].reshape(3, size)

        def gate(index, unit):
            row = index * size + unit
            bias = None if b is None else wb[index, unit] + rb[index, unit]
            return tally.activated(
                f, _gate(tally, w[side, row], value, r[side, row], h, bias, clip)
            )

        update = [gate(0, unit) for unit in range(size)]
        reset = [gate(1, unit) for unit in range(size)]
        new = np.empty_like(h)
        if not linear_before_reset:
            kept = np.array([tally.step(a * c) for a, c in zip(reset, h, strict=True)], np.float32)
        for unit in range(size):
            row = 2 * size + unit
            if linear_before_reset:
                inner = tally.dot(r[side, row], h)
                inner = inner if b is None else tally.step(inner + rb[2, unit])
                inner = tally.step(reset[unit] * inner)
                outer = tally.dot(w[side, row], value)
                outer = outer if b is None else tally.step(outer + wb[2, unit])
                held = tally.step(outer + inner)
                if clip is not None:
                    held = tally.step(max(tally.step(min(held, clip)), -clip))
            else:
                bias = None if b is None else wb[2, unit] + rb[2, unit]
                held = _gate(tally, w[side, row], value, r[side, row], kept, bias, clip)
            held = tally.activated(g, held)
            z = update[unit]
            new[unit] = tally.step(tally.step(tally.step(1 - z) * held) + tally.step(z * h[unit]))
        return new

    return _layer(run, x, w, r, h0, direction, hidden_size, layout)


def lstm(
    tally, x, w, r, b=None, _=None, h0=None, c0=None, p=None, *, hidden_size, direction="forward",
    activations=None, layout=0, clip=None, input_forget=0, activation_alpha=(), activation_beta=(),
):  # fmt: skip
    names = activations or ["Sigmoid", "Tanh", "Tanh"] * 2
    size = hidden_size
    cells = {}

    def run(side, n, value, h):
        f, g, last = names[3 * side : 3 * side + 3]
        first = np.zeros(size, np.float32) if c0 is None else c0[side, n]
        cell = cells.get((side, n), first)
        new_cell, new = np.empty_like(h), np.empty_like(h)
        for unit in range(size):

            def gate(index, name, peephole=None, unit=unit):
                row = index * size + unit
                bias = None if b is None else b[side, row] + b[side, 4 * size + row]
                seen = _gate(tally, w[side, row], value, r[side, row], h, bias, clip, peephole)
                return tally.activated(name, seen)

            def looks(index, seen, unit=unit):
                return None if p is None else (p[side, index * size + unit], seen)

            i = gate(0, f, looks(0, cell[unit]))
            if input_forget:
                gate(2, "", looks(2, cell[unit]))
                forget = tally.step(1 - i)
            else:
                forget = gate(2, f, looks(2, cell[unit]))
            candidate = gate(3, g)
            new_cell[unit] = tally.step(tally.step(forget * cell[unit]) + tally.step(i * candidate))
            o = gate(1, f, looks(1, new_cell[unit]))
            new[unit] = tally.step(o * tally.activated(last, new_cell[unit]))
        cells[side, n] = new_cell
        return new

    y, last_h = _layer(run, x, w, r, h0, direction, hidden_size, layout)
    last_c = np.array(
        [
            [cells[side, n] for n in range(last_h.shape[0 if layout else 1])]
            for side in range(2 if direction == "bidirectional" else 1)
        ]
    )
    return y, last_h, last_c.swapaxes(0, 1) if layout else last_c


# Attention ---------------------------------------------------------------------------------------


def scores(tally, q, k, v, *, visible=None, bias=None, masks=0, softcap=0.0, scale=None, sink=None):
    """Of arrays (batch, heads, positions, size); each key serves a group of queries' heads.

    Args:
        visible: says whether query i sees key j; those that it does not are never computed.
        bias: is added to the scores; None for none.
        masks: how many further masks of zeros are added.
        sink: per head, a score that takes part in the softmax only.
    """
    batch, heads, queries, size = q.shape
    group = heads // k.shape[1]
    factor = np.float32(scale or 1 / math.sqrt(size))
    result = np.zeros((batch, heads, queries, v.shape[3]), np.float32)
    for n, head, i in np.ndindex(batch, heads, queries):
        seen = [j for j in range(k.shape[2]) if visible is None or visible(i, j)]
        row = []
        for j in seen:
            value = tally.step(factor * tally.dot(q[n, head, i], k[n, head // group, j]))
            if softcap:
                value = tally.step(softcap * tally.function(math.tanh(tally.step(value / softcap))))
            if bias is not None:
                value = tally.step(value + bias[n, head, i, j])
            for _ in range(masks):
                value = tally.step(value + 0.0)
            row.append(value)
        shares = tally.softmax(row + ([] if sink is None else [sink[head]]))
        if sink is not None:
            tally.elementwise -= 1  # nobody divides the sink's own share
        for place in range(v.shape[3]):
            value = np.float32(0)
            for share, j in zip(shares, seen, strict=False):
                value = tally.multiply_accumulate(value, share, v[n, head // group, j, place])
            result[n, head, i, place] = value
    return result


def _split(x, heads):
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _merged(x):
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def attention(
    tally, q, k, v, mask=None, past_key=None, past_value=None, *, is_causal=0, softcap=0.0,
    q_num_heads=None, kv_num_heads=None, scale=None, left_window_size=-1, right_window_size=-1,
):  # fmt: skip
    flat = q.ndim == 3
    if flat:
        q, k, v = _split(q, q_num_heads), _split(k, kv_num_heads), _split(v, kv_num_heads)
    past = 0
    if past_key is not None:
        past = past_key.shape[2]
        k, v = np.concatenate([past_key, k], axis=2), np.concatenate([past_value, v], axis=2)

    def visible(i, j):
        place = i + past
        return not (
            (is_causal and j > place)
            or (left_window_size >= 0 and j < place - left_window_size)
            or (right_window_size >= 0 and j > place + right_window_size)
        )

    shape = (*q.shape[:3], k.shape[2])
    bias = None if mask is None else np.broadcast_to(mask, shape)
    if bias is not None and bias.dtype == bool:
        bias = np.where(bias, 0.0, -np.inf)
    result = scores(tally, q, k, v, visible=visible, bias=bias, softcap=softcap, scale=scale)
    return _merged(result) if flat else result


def projected_attention(
    tally, x, w, b=None, mask=None, past=None, bias=None, **attributes
):  # fmt: skip
    joined = brute_force.matrix_product(tally, x, w)
    if b is not None:
        joined = tally.each(lambda value, shift: tally.step(value + shift), joined, b)
    return attention_of_projections(tally, joined, mask, past, bias, **attributes)


def attention_of_projections(
    tally, joined, mask=None, past=None, bias=None, *, num_heads, unidirectional=0,
    qkv_hidden_sizes=None,
):  # fmt: skip
    sizes = qkv_hidden_sizes or [joined.shape[2] // 3] * 3
    q, k, v = (_split(part, num_heads) for part in np.split(joined, np.cumsum(sizes)[:2], axis=2))
    before = 0
    if past is not None:
        before = past.shape[3]
        k, v = np.concatenate([past[0], k], axis=2), np.concatenate([past[1], v], axis=2)
    visible = (lambda i, j: j <= i + before) if unidirectional else None
    masks = int(mask is not None)
    return _merged(scores(tally, q, k, v, visible=visible, bias=bias, masks=masks))


def multi_head_attention(
    tally, q, k, v, b=None, mask=None, bias=None, past_key=None, past_value=None, *, num_heads,
    unidirectional=0,
):  # fmt: skip
    if b is not None:
        ends = np.cumsum([q.shape[2], k.shape[2]])
        parts = zip((q, k, v), np.split(b, ends), strict=True)
        q, k, v = (tally.each(lambda x, y: tally.step(x + y), part, s) for part, s in parts)
    before = 0
    q = _split(q, num_heads)
    k, v = (x if x.ndim == 4 else _split(x, num_heads) for x in (k, v))
    if past_key is not None:
        before = past_key.shape[2]
        k, v = np.concatenate([past_key, k], axis=2), np.concatenate([past_value, v], axis=2)
    visible = (lambda i, j: j <= i + before) if unidirectional else None
    masks = int(mask is not None)
    return _merged(scores(tally, q, k, v, visible=visible, bias=bias, masks=masks))


def decoder_multi_head_attention(
    tally, q, k, v, mask=None, bias=None, past_key=None, past_value=None, length=None, *, num_heads,
    past_present_share_buffer=0,
):  # fmt: skip
    if past_present_share_buffer:
        past_key, past_value = past_key[:, :, : length[0]], past_value[:, :, : length[0]]
    return multi_head_attention(
        tally, q, k, v, None, mask, bias, past_key, past_value, num_heads=num_heads
    )


def group_query_attention(
    tally, q, k, v, past_key, past_value, lengths, total, cosines=None, sines=None, positions=None,
    bias=None, sink=None, *, num_heads, kv_num_heads, do_rotary=0, local_window_size=-1,
    softcap=0.0, causal=1,
):  # fmt: skip
    before = past_key.shape[2]
    q, k, v = _split(q, num_heads), _split(k, kv_num_heads), _split(v, kv_num_heads)
    if do_rotary:
        places = np.arange(before, before + q.shape[2])[None].repeat(len(q), axis=0)
        q = rotary_embedding(tally, q, cosines, sines, places)
        k = rotary_embedding(tally, k, cosines, sines, places)
    k, v = np.concatenate([past_key, k], axis=2), np.concatenate([past_value, v], axis=2)

    def visible(i, j):
        place = i + before
        window = local_window_size > 0 and j <= place - local_window_size
        return not causal or (j <= place and not window)

    result = scores(tally, q, k, v, visible=visible, bias=bias, softcap=softcap, sink=sink)
    return _merged(result)


def rotary_embedding(
    tally, x, cosines, sines, positions=None, *, num_heads=0, interleaved=0, rotary_embedding_dim=0
):
    flat = x.ndim == 3
    half = rotary_embedding_dim // 2 or cosines.shape[-1]
    result = (_split(x, num_heads or x.shape[2] // (2 * half)) if flat else x).copy()
    for n, head, i in np.ndindex(result.shape[:3]):
        at = (n, i) if positions is None else (positions[n, i],)
        cos, sin = cosines[at], sines[at]
        for place in range(half):
            first, second = (2 * place, 2 * place + 1) if interleaved else (place, place + half)
            a, b = result[n, head, i, first], result[n, head, i, second]
            result[n, head, i, first] = tally.step(
                tally.step(a * cos[place]) - tally.step(b * sin[place])
            )
            result[n, head, i, second] = tally.step(
                tally.step(a * sin[place]) + tally.step(b * cos[place])
            )
    return _merged(result) if flat else result


def rotary_embedding_of_runtime(tally, x, positions, cosines, sines, **attributes):
    return rotary_embedding(tally, x, cosines, sines, positions, **attributes)


def sectioned_rotary_embedding(
    tally, x, positions, cosines, sines, *, mrope_section, num_heads, rotary_embedding_dim
):
    """Each section of the tables is looked up at a position of its own."""
    ends = np.cumsum([0, *mrope_section])
    spans = [slice(begin, end) for begin, end in itertools.pairwise(ends)]
    joined = [
        np.concatenate([table[positions[i]][..., span] for i, span in enumerate(spans)], axis=-1)
        for table in (cosines, sines)
    ]
    return rotary_embedding(
        tally, x, *joined, num_heads=num_heads, rotary_embedding_dim=rotary_embedding_dim
    )


def linear_attention(
    tally, q, k, v, past=None, decay=None, beta=None, *, q_num_heads, kv_num_heads,
    update_rule="gated_delta", scale=0.0,
):  # fmt: skip
    gated, delta = "gated" in update_rule, "delta" in update_rule
    batch, tokens, _ = q.shape
    q, k, v = _split(q, q_num_heads), _split(k, kv_num_heads), _split(v, kv_num_heads)
    size, width = q.shape[3], v.shape[3]
    factor = np.float32(scale or 1 / math.sqrt(size))
    state = (
        np.zeros((batch, kv_num_heads, size, width), np.float32) if past is None else past.copy()
    )
    result = np.zeros((batch, q_num_heads, tokens, width), np.float32)
    group = q_num_heads // kv_num_heads
    for n, t in np.ndindex(batch, tokens):
        for head in range(kv_num_heads):
            s, key, value = state[n, head], k[n, head, t], v[n, head, t]
            if gated:
                rates = decay[n, t].reshape(kv_num_heads, -1)[head]
                fade = [tally.function(math.exp(rate)) for rate in rates]
                for a, c in np.ndindex(s.shape):
                    s[a, c] = tally.step(s[a, c] * fade[a if len(fade) > 1 else 0])
            if delta:
                rate = beta[n, t, head if beta.shape[2] > 1 else 0]
                known = [tally.dot(s[:, c], key) for c in range(width)]
                value = [
                    tally.step(rate * tally.step(new - old))
                    for new, old in zip(value, known, strict=True)
                ]
            for a, c in np.ndindex(s.shape):
                s[a, c] = tally.multiply_accumulate(s[a, c], key[a], value[c])
        for head in range(q_num_heads):
            for c in range(width):
                read = tally.dot(q[n, head, t], state[n, head // group][:, c])
                result[n, head, t, c] = tally.step(factor * read)
    return _merged(result), state


def _gated(tally, gate, value, alpha, beta, limit):
    step = tally.step
    if limit is not None:
        gate = step(min(gate, limit))
        value = step(max(step(min(value, limit)), -limit))
    opened = step(gate * tally.activated("Sigmoid", step(alpha * gate)))
    return step(opened * step(value + beta))


def mixture_of_experts(
    tally, x, router, w1, b1, w2, b2, *, k, activation_type, normalize_routing_weights=0,
    swiglu_fusion=0, activation_alpha=1.0, activation_beta=0.0, swiglu_limit=None,
):  # fmt: skip
    result = np.zeros_like(x)
    for token in range(len(x)):
        shares = tally.softmax(router[token])
        left = dict(enumerate(shares))
        chosen = []
        for _ in range(k):
            best = None
            for expert in range(len(shares)):  # a scan of all for each choice
                tally.step(0)
                if expert in left and (best is None or left[expert] > left[best]):
                    best = expert
            chosen.append((best, left.pop(best)))
        if normalize_routing_weights:
            whole = tally.total([share for _, share in chosen])
            chosen = [(expert, tally.step(share / whole)) for expert, share in chosen]
        held = None
        for expert, share in chosen:
            inner = [
                tally.step(tally.dot(w1[expert, unit], x[token]) + b1[expert, unit])
                for unit in range(w1.shape[1])
            ]
            if activation_type == "swiglu":  # gates and values alternate
                settings = activation_alpha, activation_beta, swiglu_limit
                pairs = zip(inner[::2], inner[1::2], strict=True)
                inner = [_gated(tally, gate, value, *settings) for gate, value in pairs]
            else:
                inner = [tally.activated("Relu", value) for value in inner]
            inner = np.array(inner, np.float32)
            for place in range(x.shape[1]):
                value = tally.step(tally.dot(w2[expert, place], inner) + b2[expert, place])
                value = tally.step(share * value)
                if held is not None:
                    value = tally.step(result[token, place] + value)
                result[token, place] = value
            held = expert
    return result
