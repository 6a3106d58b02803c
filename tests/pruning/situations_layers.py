"""Groups, norms, shared weights, gates and products: items 5 to 10 of section C."""

import numpy as np

from tests.pruning.pruning_models import Situation, model
from tests.pruning.situation_parts import IMAGE, PADS, ROWS, STEM, conv, ints, rows

SITUATIONS = {
    # 5 groups
    "depthwise": lambda: conv(
        f"r = Conv<{PADS}, group=8>(h, wd, bd)",
        weights={"wd": (8, 1, 3, 3), "bd": (8,)},
        left={"wd": (6, 1, 3, 3), "bd": (6,)},
    ),
    "depthwise with a multiplier": lambda: conv(
        f"r = Conv<{PADS}, group=8>(h, wd)",
        weights={"wd": (16, 1, 3, 3), "w2": (4, 16, 1, 1)},
        left={"wd": (12, 1, 3, 3), "w2": (4, 12, 1, 1)},
    ),
    "groups that go whole": lambda: conv(
        "r = Conv<group=4>(h, wg)",
        channels=4,
        remove=(1, 2),
        weights={"wg": (8, 2, 1, 1)},
        left={"wg": (4, 2, 1, 1), "w2": (4, 4, 1, 1)},
    ),
    "the same channels of each group": lambda: conv(
        "r = Conv<group=2>(h, wg)",
        channels=4,
        remove=(0, 2),
        weights={"wg": (8, 4, 1, 1)},
        left={"wg": (8, 2, 1, 1), "w1": (4, 3, 3, 3)},
    ),
    "outputs of a grouped convolution": lambda: _group_outputs(),
    # 6 ConvTranspose
    "ConvTranspose as the consumer": lambda: conv(
        "r = ConvTranspose(h, wt)", weights={"wt": (8, 8, 2, 2)}, left={"wt": (6, 8, 2, 2)}
    ),
    "ConvTranspose as the producer": lambda: Situation(
        model(
            IMAGE,
            "float y",
            "h = ConvTranspose(x, w1, b1)\nr = Relu(h)\ny = Conv(r, w2)",
            {"w1": (3, 8, 2, 2), "b1": (8,), "w2": (4, 8, 1, 1)},
        ),
        "h",
        8,
        (3,),
        left={"w1": (3, 7, 2, 2)},
    ),
    "depthwise ConvTranspose": lambda: conv(
        "r = ConvTranspose<group=8>(h, wt)", weights={"wt": (8, 1, 2, 2)}, left={"wt": (6, 1, 2, 2)}
    ),
    "grouped ConvTranspose": lambda: conv(
        "r = ConvTranspose<group=4>(h, wt)",
        channels=4,
        remove=(0,),
        weights={"wt": (8, 2, 2, 2)},
        left={"wt": (6, 2, 2, 2)},
    ),
    # 7 vectors and norms
    "BatchNormalization": lambda: conv(
        "r = BatchNormalization(h, s, b, m, v)",
        weights={"s": (8,), "b": (8,), "m": (8,), "v": np.linspace(1, 2, 8, dtype=np.float32)},
        left={"s": (6,), "v": (6,)},
    ),
    "InstanceNormalization": lambda: conv(
        "r = InstanceNormalization(h, s, b)", weights={"s": (8,), "b": (8,)}, left={"s": (6,)}
    ),
    "GroupNormalization loses groups": lambda: conv(
        "r = GroupNormalization<num_groups=4>(h, s, b)",
        channels=4,
        remove=(2,),
        opset=21,
        weights={"s": (8,), "b": (8,)},
        left={"s": (6,)},
    ),
    "group norm written with InstanceNormalization": lambda: conv(
        """g = Reshape(h, grouped)
        n = InstanceNormalization(g, one, none)
        u = Reshape(n, whole)
        v = Mul(u, s)
        r = Add(v, b)""",
        channels=4,
        remove=(2,),
        weights={
            "grouped": ints(0, 4, -1),
            "whole": ints(1, 8, 6, 6),
            "one": np.ones(4, np.float32),
            "none": np.zeros(4, np.float32),
            "s": (8, 1, 1),
            "b": (8, 1, 1),
        },
        left={"s": (6, 1, 1), "one": (3,)},
    ),
    "slopes of PRelu": lambda: conv(
        "r = PRelu(h, slope)", weights={"slope": (8, 1, 1)}, left={"slope": (6, 1, 1)}
    ),
    "one slope for all": lambda: conv(
        "r = PRelu(h, slope)", weights={"slope": (1,)}, left={"slope": (1,)}
    ),
    "scale and shift": lambda: conv(
        "m = Mul(s, h)\nr = Add(m, b)",
        weights={"s": (1, 8, 1, 1), "b": (8, 1, 1)},
        left={"s": (1, 6, 1, 1), "b": (6, 1, 1)},
    ),
    "LpNormalization": lambda: Situation(
        model(
            ROWS,
            "float y",
            "h = MatMul(x, w1)\nn = LpNormalization(h)\ny = MatMul(n, w2)",
            {"w1": (5, 8), "w2": (8, 3)},
        ),
        "h",
        8,
        (2, 3),
        zero={"w1": (1, (2, 3))},
        left={"w2": (6, 3)},
    ),
    # 8 shared constants
    "a weight used twice": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            a = Relu(h)
            c = Conv<{PADS}>(a, w3)
            d = Relu(c)
            e = Conv<{PADS}>(d, w3)
            y = Conv(e, w2)""",
            {**STEM, "w3": (8, 8, 3, 3)},
        ),
        "h",
        8,
        (1, 6),
        left={"w3": (6, 6, 3, 3)},
    ),
    "a vector shared by unlike channels": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            a = Relu(h)
            k = Conv<{PADS}>(a, w3, b1)
            y = Conv(k, w2)""",
            {**STEM, "w3": (8, 8, 3, 3)},
        ),
        "h",
        8,
        (1, 6),
        left={"b1": (8,), "w3": (8, 6, 3, 3), "w2": (4, 8, 1, 1)},
    ),
    # 9 gates
    "squeeze and excite": lambda: conv(
        """p = GlobalAveragePool(h)
        d = Conv(p, wd)
        e = Relu(d)
        u = Conv(e, wu)
        g = Sigmoid(u)
        r = Mul(h, g)""",
        weights={"wd": (2, 8, 1, 1), "wu": (8, 2, 1, 1)},
        left={"wd": (2, 6, 1, 1), "wu": (6, 2, 1, 1)},
    ),
    "squeeze and excite with rows": lambda: conv(
        """p = GlobalAveragePool(h)
        f = Flatten(p)
        d = Gemm<transB=1>(f, wd)
        e = Relu(d)
        u = Gemm<transB=1>(e, wu)
        g = HardSigmoid(u)
        g4 = Reshape(g, four)
        r = Mul(g4, h)""",
        weights={"wd": (2, 8), "wu": (8, 2), "four": ints(-1, 8, 1, 1)},
        left={"wd": (2, 6), "wu": (6, 2)},
    ),
    # 10 products
    "MatMul": lambda: rows("r = Relu(h)", left={"w1": (5, 6), "w2": (6, 3)}),
    "Gemm with bias, transB": lambda: Situation(
        model(
            ROWS,
            "float y",
            "h = Gemm<transB=1>(x, w1, b1)\nr = Tanh(h)\ny = Gemm(r, w2)",
            {"w1": (8, 5), "b1": (8,), "w2": (8, 3)},
        ),
        "h",
        8,
        (0, 5),
        left={"w1": (6, 5), "b1": (6,), "w2": (6, 3)},
    ),
    "Gemm with transA and a bias for every row": lambda: Situation(
        model(
            "float[5,2] x",
            "float y",
            "h = Gemm<transA=1>(x, w1, b1)\nr = Tanh(h)\ny = Gemm(r, w2)",
            {"w1": (5, 8), "b1": (2, 8), "w2": (8, 3)},
        ),
        "h",
        8,
        (0, 5),
        left={"b1": (2, 6)},
    ),
    "weights on the left": lambda: Situation(
        model(
            "float[5,2] x",
            "float y",
            "h = MatMul(w1, x)\nr = Relu(h)\ny = MatMul(w2, r)",
            {"w1": (8, 5), "w2": (3, 8)},
        ),
        "h",
        8,
        (0, 5),
        left={"w1": (6, 5), "w2": (3, 6)},
    ),
    "a stack of weights": lambda: Situation(
        model(
            "float[3,2,5] x",
            "float y",
            "h = MatMul(x, w1)\nr = Relu(h)\ny = MatMul(r, w2)",
            {"w1": (3, 5, 8), "w2": (3, 8, 2)},
        ),
        "h",
        8,
        (0, 5),
        left={"w1": (3, 5, 6), "w2": (3, 6, 2)},
    ),
    "gated feed forward": lambda: rows(
        "k = MatMul(x, w3)\ns = Sigmoid(k)\nr = Mul(h, s)",
        weights={"w3": (5, 8)},
        left={"w1": (5, 6), "w3": (5, 6), "w2": (6, 3)},
    ),
    "a half that gates the other": lambda: Situation(
        model(
            ROWS,
            "float y",
            """
            h = MatMul(x, w1)
            a, b = Split<axis=-1>(h, sizes)
            s = Sigmoid(a)
            r = Mul(s, b)
            y = MatMul(r, w2)""",
            {"w1": (5, 8), "w2": (4, 3), "sizes": ints(4, 4)},
        ),
        "h",
        4,
        (1,),
        left={"w1": (5, 6), "w2": (3, 3)},
    ),
    "Einsum": lambda: Situation(
        model(
            "float[2,4,5] x",
            "float y",
            """
            h = Einsum<equation="bsi,io->bso">(x, w1)
            r = Relu(h)
            y = Einsum<equation="bso,op->bsp">(r, w2)""",
            {"w1": (5, 8), "w2": (8, 3)},
        ),
        "h",
        8,
        (0, 5),
        left={"w1": (5, 6), "w2": (6, 3)},
    ),
}


def _group_outputs() -> Situation:
    found = conv("k = Conv<group=2>(h, wg)\nr = Relu(k)", weights={"wg": (8, 4, 1, 1)})
    return Situation(found.model, "k", 4, (1,), left={"wg": (6, 4, 1, 1), "w2": (4, 6, 1, 1)})
