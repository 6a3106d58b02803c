"""Resampling, padding, consumers, integers and recurrence: items 13 to 15 of section C."""

import numpy as np

from tests.pruning.pruning_models import Situation, model
from tests.pruning.situation_parts import IMAGE, PADS, ROWS, STEM, conv, ints


def _int8(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).integers(-90, 90, shape).astype(np.int8)


def _lstm(op: str, gates: int, *, remove=(1, 4)) -> Situation:
    body = f"""
        h, last = {op}<hidden_size=6>(x, w, r, b)
        s = Squeeze(h, one)
        y = MatMul(s, w2)"""
    weights = {
        "w": (1, gates * 6, 5),
        "r": (1, gates * 6, 6),
        "b": (1, 2 * gates * 6),
        "w2": (6, 3),
        "one": ints(1),
    }
    left = {"w": (1, gates * 4, 5), "r": (1, gates * 4, 4), "b": (1, gates * 8), "w2": (4, 3)}
    return Situation(model("float[4,2,5] x", "float y", body, weights), "h", 6, remove, left=left)


SITUATIONS = {
    # 13 Resize, Pad, reductions
    "Resize by scales": lambda: conv(
        'r = Resize<mode="nearest">(h, , scales)',
        weights={"scales": np.array([1, 1, 2, 2], np.float32)},
    ),
    "Resize to sizes": lambda: conv(
        'r = Resize<mode="linear">(h, , , sizes)', weights={"sizes": ints(1, 8, 9, 9)}
    ),
    "Resize of some axes": lambda: conv(
        'r = Resize<mode="linear", axes=[2,3]>(h, , , sizes)',
        opset=18,
        weights={"sizes": ints(9, 9)},
    ),
    "Upsample": lambda: conv(
        "r = Upsample(h, scales)", opset=9, weights={"scales": np.array([1, 1, 2, 2], np.float32)}
    ),
    "Pad of the picture": lambda: conv(
        'r = Pad<mode="reflect">(h, pads)', weights={"pads": ints(0, 0, 1, 1, 0, 0, 1, 1)}
    ),
    "Pad of the channels": lambda: conv(
        "r = Pad(h, pads)",
        remove=(0, 7),
        weights={"pads": ints(0, 2, 0, 0, 0, 1, 0, 0), "w2": (4, 11, 1, 1)},
        left={"w2": (4, 9, 1, 1)},
    ),
    "shortcut that pads its channels": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            p = Pad(h, pads)
            k = Conv<{PADS}>(h, w3)
            s = Add(k, p)
            y = Conv(s, w2)""",
            {
                "w1": (8, 3, 3, 3),
                "b1": (8,),
                "w3": (12, 8, 3, 3),
                "w2": (4, 12, 1, 1),
                "pads": ints(0, 2, 0, 0, 0, 2, 0, 0),
            },
        ),
        "k",
        4,
        (0, 3),
        left={"w3": (10, 8, 3, 3), "w2": (4, 10, 1, 1)},
    ),
    "ReduceSum over channels": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            y = ReduceSum<keepdims=0>(h, one)""",
            {"w1": (8, 3, 3, 3), "b1": (8,), "one": ints(1)},
        ),
        "h",
        8,
        (1, 6),
        zero={"w1": (0, (1, 6)), "b1": (0, (1, 6))},
        left={"w1": (6, 3, 3, 3)},
    ),
    "ReduceMean over the picture": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            m = ReduceMean<axes=[2,3], keepdims=0>(h)
            y = MatMul(m, w2)""",
            {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 3)},
        ),
        "h",
        8,
        (1, 6),
        left={"w2": (6, 3)},
    ),
    "Expand of a vector": lambda: conv(
        "e = Expand(s, shape)\nr = Mul(h, e)",
        weights={"s": (8, 1, 1), "shape": ints(1, 8, 6, 6)},
        left={"s": (6, 1, 1)},
    ),
    "Tile of the channels": lambda: conv(
        "r = Tile(h, repeats)",
        weights={"repeats": ints(1, 2, 1, 1), "w2": (4, 16, 1, 1)},
        left={"w2": (4, 12, 1, 1)},
    ),
    # 14 several consumers, captures
    "two consumers": lambda: Situation(
        model(
            IMAGE,
            "float y, float z",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            y = Conv(h, w2)
            z = Conv(h, w3)""",
            {**STEM, "w3": (5, 8, 1, 1)},
        ),
        "h",
        8,
        (1, 6),
        left={"w2": (4, 6, 1, 1), "w3": (5, 6, 1, 1)},
    ),
    # 15 quantization, pooling, recurrent
    "weights stored as int8": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            d1 = DequantizeLinear<axis=0>(q1, s1, z1)
            h = Conv<{PADS}>(x, d1)
            r = Relu(h)
            d2 = DequantizeLinear<axis=0>(q2, s2)
            y = Conv(r, d2)""",
            {
                "q1": _int8((8, 3, 3, 3)),
                "s1": (8,),
                "z1": np.zeros(8, np.int8),
                "q2": _int8((4, 8, 1, 1)),
                "s2": (4,),
            },
        ),
        "h",
        8,
        (1, 6),
        zero={"q2": (1, (1, 6))},
        left={"q1": (6, 3, 3, 3), "s1": (6,), "z1": (6,), "q2": (4, 6, 1, 1), "s2": (4,)},
    ),
    "activations in int8": lambda: conv(
        "q = QuantizeLinear(h, s, z)\nr = DequantizeLinear(q, s, z)",
        weights={"s": np.array(0.05, np.float32), "z": np.array(3, np.int8)},
    ),
    "QLinearConv": lambda: Situation(
        model(
            "uint8[1,3,6,6] x",
            "uint8 y",
            """
            h = QLinearConv(x, s, z, q1, s1, z1, s, z, b1)
            y = QLinearConv(h, s, z, q2, s, z2, s, z)""",
            {
                "s": np.array(0.05, np.float32),
                "z": np.array(128, np.uint8),
                "q1": _int8((8, 3, 3, 3)),
                "s1": np.full(8, 0.01, np.float32),
                "z1": np.zeros(8, np.int8),
                "b1": np.arange(8, dtype=np.int32),
                "q2": _int8((4, 8, 1, 1)),
                "z2": np.array(0, np.int8),
            },
        ),
        "h",
        8,
        (1, 6),
        left={"q1": (6, 3, 3, 3), "s1": (6,), "b1": (6,), "q2": (4, 6, 1, 1)},
    ),
    "weights in blocks": lambda: Situation(
        model(
            ROWS,
            "float y",
            """
            h = MatMul(x, w1)
            d2 = DequantizeLinear<axis=0, block_size=4>(q2, s2)
            y = MatMul(h, d2)""",
            {"w1": (5, 8), "q2": _int8((8, 3)), "s2": (2, 3)},
            opset=21,
        ),
        "h",
        2,
        (1,),
        zero={"q2": (0, (4, 5, 6, 7))},
        left={"w1": (5, 4), "s2": (1, 3)},
    ),
    "MaxPool and AveragePool": lambda: conv(
        "m = MaxPool<kernel_shape=[2,2]>(h)\nr = AveragePool<kernel_shape=[2,2]>(m)"
    ),
    "LSTM": lambda: _lstm("LSTM", 4),
    "GRU": lambda: _lstm("GRU", 3),
    "RNN": lambda: _lstm("RNN", 1),
    "embedding": lambda: Situation(
        model(
            "int64[2,3] x",
            "float y",
            "h = Gather(table, x)\nr = Tanh(h)\ny = MatMul(r, w2)",
            {"table": (10, 8), "w2": (8, 3)},
        ),
        "h",
        8,
        (0, 5),
        left={"table": (10, 6), "w2": (6, 3)},
    ),
    "weights that a Transpose turns": lambda: Situation(
        model(
            ROWS,
            "float y",
            """
            t = Transpose(w1)
            h = MatMul(x, t)
            r = Relu(h)
            y = MatMul(r, w2)""",
            {"w1": (8, 5), "w2": (8, 3)},
        ),
        "h",
        8,
        (0, 5),
        left={"w1": (6, 5), "w2": (6, 3)},
    ),
}
