"""Attention heads, blocks and shuffles: items 11 and 12 of section C."""

import numpy as np

from tests.pruning.pruning_models import Situation, model
from tests.pruning.situation_parts import conv, ints


def _attention(body: str, weights, group="q", channels=4, remove=(1,), opset=17, **rest):
    inputs = rest.pop("inputs", "float[1,5,16] x")
    return Situation(
        model(inputs, "float y", body, weights, opset=opset),
        group,
        channels,
        remove,
        **rest,
    )


def _separate_heads(kv: int = 4) -> Situation:
    """Queries, keys and values from weights of their own; with kv < 4 shared by queries."""
    repeat = (
        ""
        if kv == 4
        else (
            "ku = Unsqueeze(kt, two)\nke = Expand(ku, spread)\nkr = Reshape(ke, heads)\n"
            "vu = Unsqueeze(vt, two)\nve = Expand(vu, spread)\nvr = Reshape(ve, heads)"
        )
    )
    k, v = ("kt", "vt") if kv == 4 else ("kr", "vr")
    body = f"""
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        q4 = Reshape(q, qshape)
        k4 = Reshape(k, kshape)
        v4 = Reshape(v, kshape)
        qt = Transpose<perm=[0,2,1,3]>(q4)
        kt = Transpose<perm=[0,2,1,3]>(k4)
        vt = Transpose<perm=[0,2,1,3]>(v4)
        {repeat}
        kk = Transpose<perm=[0,1,3,2]>({k})
        s = MatMul(qt, kk)
        s2 = Mul(s, scale)
        p = Softmax<axis=-1>(s2)
        o = MatMul(p, {v})
        ot = Transpose<perm=[0,2,1,3]>(o)
        of = Reshape(ot, flat)
        y = MatMul(of, wo)"""
    weights = {
        "wq": (16, 16),
        "wk": (16, 4 * kv),
        "wv": (16, 4 * kv),
        "wo": (16, 6),
        "qshape": ints(1, 5, 4, 4),
        "kshape": ints(0, 5, kv, 4),
        "two": ints(2),
        "spread": ints(1, kv, 4 // kv, 5, 4),
        "heads": ints(1, 4, 5, 4),
        "flat": ints(1, -1, 16),
        "scale": np.array(0.5, np.float32),
    }
    left = {"wq": (16, 16 - 16 // kv), "wk": (16, 4 * kv - 4), "wo": (16 - 16 // kv, 6)}
    return _attention(body, weights, channels=kv, left=left)


_FUSED_TAIL = """
    kk = Transpose<perm=[0,1,3,2]>(k)
    s = MatMul(q, kk)
    p = Softmax<axis=-1>(s)
    o = MatMul(p, v)
    ot = Transpose<perm=[0,2,1,3]>(o)
    of = Reshape(ot, flat)
    y = MatMul(of, wo)"""


_FUSED = {"w": (16, 48), "b": (48,), "wo": (16, 6), "flat": ints(1, 5, 16)}


def _rotary() -> Situation:
    """The halves of each head are turned by a table that all heads share."""

    def turned(name: str) -> str:
        return f"""
        {name}4 = Reshape({name}, shape)
        {name}t = Transpose<perm=[0,2,1,3]>({name}4)
        {name}a = Slice({name}t, zero, two, last)
        {name}b = Slice({name}t, two, four, last)
        {name}n = Neg({name}b)
        {name}h = Concat<axis=-1>({name}n, {name}a)
        {name}c = Mul({name}t, cosine)
        {name}s = Mul({name}h, sine)
        {name}r = Add({name}c, {name}s)"""

    body = f"""
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        {turned("q")}
        {turned("k")}
        kk = Transpose<perm=[0,1,3,2]>(kr)
        s = MatMul(qr, kk)
        p = Softmax<axis=-1>(s)
        o = MatMul(p, qt)
        ot = Transpose<perm=[0,2,1,3]>(o)
        of = Reshape(ot, flat)
        y = MatMul(of, wo)"""
    weights = {
        "wq": (16, 16),
        "wk": (16, 16),
        "wo": (16, 6),
        "shape": ints(1, 5, 4, 4),
        "flat": ints(1, 5, 16),
        "zero": ints(0),
        "two": ints(2),
        "four": ints(4),
        "last": ints(3),
        "cosine": (5, 4),
        "sine": (5, 4),
    }
    return _attention(body, weights, remove=(0, 2), left={"wq": (16, 8), "cosine": (5, 4)})


SITUATIONS = {
    # 11 heads
    "heads of separate projections": lambda: _separate_heads(),
    "grouped queries": lambda: _separate_heads(kv=2),
    "heads of one projection, cut by Split": lambda: _attention(
        """
        h = MatMul(x, w)
        hb = Add(h, b)
        q3, k3, v3 = Split<axis=2>(hb, thirds)
        q4 = Reshape(q3, shape)
        k4 = Reshape(k3, shape)
        v4 = Reshape(v3, shape)
        q = Transpose<perm=[0,2,1,3]>(q4)
        k = Transpose<perm=[0,2,1,3]>(k4)
        v = Transpose<perm=[0,2,1,3]>(v4)"""
        + _FUSED_TAIL,
        {**_FUSED, "thirds": ints(16, 16, 16), "shape": ints(1, 5, 4, 4)},
        group="h",
        left={"w": (16, 36), "b": (36,), "wo": (12, 6)},
    ),
    "heads of one projection, cut by Reshape and Gather": lambda: _attention(
        """
        h = MatMul(x, w)
        hb = Add(h, b)
        h5 = Reshape(hb, shape)
        ht = Transpose<perm=[2,0,3,1,4]>(h5)
        q = Gather<axis=0>(ht, i0)
        k = Gather<axis=0>(ht, i1)
        v = Gather<axis=0>(ht, i2)"""
        + _FUSED_TAIL,
        {
            **_FUSED,
            "shape": ints(1, 5, 3, 4, 4),
            "i0": np.array(0, np.int64),
            "i1": np.array(1, np.int64),
            "i2": np.array(2, np.int64),
        },
        group="h",
        left={"w": (16, 36), "b": (36,), "wo": (12, 6)},
    ),
    "heads merged with the batch": lambda: _attention(
        """
        q1 = MatMul(x, wq)
        k1 = MatMul(x, wk)
        v1 = MatMul(x, wv)
        q4 = Reshape(q1, shape)
        k4 = Reshape(k1, shape)
        v4 = Reshape(v1, shape)
        qt = Transpose<perm=[0,2,1,3]>(q4)
        kt = Transpose<perm=[0,2,3,1]>(k4)
        vt = Transpose<perm=[0,2,1,3]>(v4)
        q = Reshape(qt, merged)
        k = Reshape(kt, merged_k)
        v = Reshape(vt, merged)
        s = MatMul(q, k)
        p = Softmax<axis=-1>(s)
        o = MatMul(p, v)
        o4 = Reshape(o, apart)
        ot = Transpose<perm=[0,2,1,3]>(o4)
        of = Reshape(ot, flat)
        y = MatMul(of, wo)""",
        {
            "wq": (16, 16),
            "wk": (16, 16),
            "wv": (16, 16),
            "wo": (16, 6),
            "shape": ints(2, 5, 4, 4),
            "merged": ints(8, 5, 4),
            "merged_k": ints(8, 4, 5),
            "apart": ints(2, 4, 5, 4),
            "flat": ints(2, 5, 16),
        },
        inputs="float[2,5,16] x",
        group="q1",
        left={"wq": (16, 12), "wo": (12, 6)},
    ),
    "rotary tables": _rotary,
    "Attention in one node": lambda: _attention(
        """
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        o = Attention<q_num_heads=4, kv_num_heads=2>(q, k, v)
        y = MatMul(o, wo)""",
        {"wq": (16, 16), "wk": (16, 8), "wv": (16, 8), "wo": (16, 6)},
        channels=2,
        opset=23,
        left={"wq": (16, 8), "wk": (16, 4), "wo": (8, 6)},
    ),
    "feed forward behind a norm": lambda: Situation(
        model(
            "float[1,5,16] x",
            "float y",
            """
            n = LayerNormalization<axis=-1>(x, g, b)
            h = MatMul(n, w1)
            hb = Add(h, b1)
            a = Erf(hb)
            m = MatMul(a, w2)
            y = Add(m, x)""",
            {"g": (16,), "b": (16,), "w1": (16, 32), "b1": (32,), "w2": (32, 16)},
        ),
        "h",
        32,
        (0, 7, 31),
        left={"w1": (16, 29), "b1": (29,), "w2": (29, 16)},
    ),
    # 12 blocks, shuffles
    "DepthToSpace, blocks first": lambda: conv(
        "r = DepthToSpace<blocksize=2>(h)",
        channels=2,
        remove=(1,),
        weights={"w2": (4, 2, 1, 1)},
        left={"w1": (4, 3, 3, 3)},
    ),
    "DepthToSpace, channels first": lambda: conv(
        'r = DepthToSpace<blocksize=2, mode="CRD">(h)',
        channels=2,
        remove=(0,),
        weights={"w2": (4, 2, 1, 1)},
        left={"w1": (4, 3, 3, 3)},
    ),
    "pixel shuffle written with Reshape": lambda: conv(
        """a = Reshape(h, apart)
        t = Transpose<perm=[0,1,4,2,5,3]>(a)
        r = Reshape(t, wide)""",
        channels=2,
        remove=(0,),
        weights={"w2": (4, 2, 1, 1), "apart": ints(1, 2, 2, 2, 6, 6), "wide": ints(1, 2, 12, 12)},
        left={"w1": (4, 3, 3, 3)},
    ),
    "SpaceToDepth": lambda: conv(
        "r = SpaceToDepth<blocksize=2>(h)",
        remove=(1,),
        weights={"w2": (4, 32, 1, 1)},
        left={"w2": (4, 28, 1, 1)},
    ),
    "channel shuffle": lambda: conv(
        """a = Reshape(h, apart)
        t = Transpose<perm=[0,2,1,3,4]>(a)
        r = Reshape(t, whole)""",
        channels=4,
        remove=(1,),
        weights={"apart": ints(1, 2, 4, 6, 6), "whole": ints(1, 8, 6, 6)},
        left={"w1": (6, 3, 3, 3)},
    ),
}
