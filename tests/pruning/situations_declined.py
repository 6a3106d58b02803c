"""What cannot be pruned, and the reason that is true of it."""

import numpy as np

from tests.pruning.pruning_models import Situation, model
from tests.pruning.situation_parts import IMAGE, PADS, STEM, conv, ints, rows

SITUATIONS = {
    "residual on the input": lambda: Situation(
        model(
            "float[1,8,6,6] x",
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1)
            s = Add(h, x)
            y = Conv(s, w2)""",
            {"w1": (8, 8, 3, 3), "w2": (4, 8, 1, 1)},
        ),
        "h",
        8,
        frozen="graph input 'x'",
    ),
    "the last layer": lambda: Situation(
        model(IMAGE, "float y", "y = Conv(x, w1)", {"w1": (8, 3, 3, 3)}),
        "y",
        8,
        frozen="graph output 'y'",
    ),
    "an inner tensor that is an output": lambda: Situation(
        model(
            IMAGE,
            "float y, float h",
            "h = Conv(x, w1)\ny = Conv(h, w2)",
            {"w1": (8, 3, 3, 3), "w2": (4, 8, 1, 1)},
        ),
        "h",
        8,
        frozen="graph output 'h'",
    ),
    "Softmax over channels": lambda: conv(
        "r = Softmax<axis=1>(h)", frozen="Softmax 'r' normalizes over it"
    ),
    "Softmax from an axis on": lambda: conv(
        "r = Softmax<axis=1>(h)", opset=12, frozen="Softmax 'r' normalizes over it"
    ),
    "ArgMax over channels": lambda: Situation(
        model(IMAGE, "int64 y", "h = Conv(x, w1)\ny = ArgMax<axis=1>(h)", {"w1": (8, 3, 3, 3)}),
        "h",
        8,
        frozen="ArgMax 'y' compares along it",
    ),
    "TopK over channels": lambda: Situation(
        model(
            IMAGE,
            "float y, int64 i",
            "h = Conv(x, w1)\ny, i = TopK<axis=1>(h, two)",
            {"w1": (8, 3, 3, 3), "two": ints(2)},
        ),
        "h",
        8,
        frozen="TopK 'y' sorts it",
    ),
    "ReduceMean over channels": lambda: Situation(
        model(
            IMAGE, "float y", "h = Conv(x, w1)\ny = ReduceMean<axes=[1]>(h)", {"w1": (8, 3, 3, 3)}
        ),
        "h",
        8,
        frozen="ReduceMean 'y' reduces it",
    ),
    "ReduceMax over channels": lambda: Situation(
        model(
            IMAGE, "float y", "h = Conv(x, w1)\ny = ReduceMax<axes=[1]>(h)", {"w1": (8, 3, 3, 3)}
        ),
        "h",
        8,
        frozen="ReduceMax 'y' reduces it",
    ),
    "LayerNormalization over channels": lambda: rows(
        "r = LayerNormalization(h, s, b)",
        weights={"s": (8,), "b": (8,)},
        frozen="LayerNormalization 'r' takes its statistics over it",
    ),
    "LRN": lambda: conv("r = LRN<size=3>(h)", frozen="LRN 'r' divides"),
    "Resize of the channels": lambda: conv(
        'r = Resize<mode="nearest">(h, , scales)',
        weights={"scales": np.array([1, 2, 1, 1], np.float32), "w2": (4, 16, 1, 1)},
        frozen="Resize 'r' resamples it",
    ),
    "Pad that reflects channels": lambda: conv(
        'r = Pad<mode="reflect">(h, pads)',
        weights={"pads": ints(0, 1, 0, 0, 0, 1, 0, 0), "w2": (4, 10, 1, 1)},
        frozen="Pad 'r' pads it",
    ),
    "CumSum over channels": lambda: conv(
        "r = CumSum(h, one)",
        weights={"one": np.array(1, np.int64)},
        frozen="CumSum 'r' accumulates along it",
    ),
    "a size that is read": lambda: Situation(
        model(
            IMAGE,
            "float y, int64 n",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            n = Shape(h)
            y = Conv(h, w2)""",
            STEM,
        ),
        "h",
        8,
        frozen="Shape 'n' reads its size",
    ),
    "an index picked at run time": lambda: Situation(
        model(
            f"{IMAGE}, int64 i",
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            y = Gather<axis=1>(h, i)""",
            {"w1": (8, 3, 3, 3), "b1": (8,)},
        ),
        "h",
        8,
        frozen="Gather 'y' picks from it by position",
    ),
    "captured by a branch": lambda: Situation(
        model(
            f"{IMAGE}, bool c",
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            r = If(c) <
                then_branch = t () => (float t) {{ t = Relu(h) }},
                else_branch = e () => (float e) {{ e = Neg(h) }}
            >
            y = Conv(r, w2)""",
            STEM,
        ),
        "h",
        8,
        frozen="the body of If 'r' uses it",
    ),
    "captured by a loop": lambda: Situation(
        model(
            f"{IMAGE}, int64 n, bool c",
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            r = Loop(n, c, h) <
                body = b (int64 i, bool on, float[1,8,6,6] a) => (bool off, float s) {{
                    off = Identity(on)
                    s = Add(a, h)
                }}
            >
            y = Conv(r, w2)""",
            STEM,
        ),
        "h",
        8,
        frozen="the body of Loop 'r' uses it",
    ),
    "an operator of ONNX Runtime's own": lambda: conv(
        "r = com.microsoft.QuickGelu(h)", frozen="operator of domain 'com.microsoft' without"
    ),
    "an operator that is not known": lambda: conv(
        "r = com.example.Mystery(h)", frozen="operator of domain 'com.example' without a rule"
    ),
    "GroupNormalization with one group": lambda: conv(
        "r = GroupNormalization<num_groups=1>(h, s, b)",
        opset=21,
        weights={"s": (8,), "b": (8,)},
        frozen="GroupNormalization 'r' takes its statistics over it",
    ),
    "positions of a MaxPool": lambda: Situation(
        model(
            IMAGE,
            "float y, int64 i",
            """
            h = Conv(x, w1)
            y, i = MaxPool<kernel_shape=[2,2]>(h)""",
            {"w1": (8, 3, 3, 3)},
        ),
        "h",
        8,
        frozen="MaxPool 'y'",
    ),
    "a weight that is an input": lambda: Situation(
        model(
            f"{IMAGE}, float[8,3,3,3] w1",
            "float y",
            "h = Conv(x, w1)\ny = Conv(h, w2)",
            {"w2": (4, 8, 1, 1)},
        ),
        "y:input",
        8,
        frozen="graph input 'w1'",
    ),
    "one channel": lambda: Situation(
        model(
            IMAGE,
            "float y",
            "h = Conv(x, w1)\ny = Conv(h, w2)",
            {"w1": (1, 3, 3, 3), "w2": (4, 1, 1, 1)},
        ),
        "h",
        1,
        frozen="a single channel",
    ),
    "a weight shared with the last layer": lambda: Situation(
        model(
            "float[1,8,6,6] x",
            "float y",
            """
            h = Conv(x, w1)
            r = Relu(h)
            y = Conv(r, w1)""",
            {"w1": (8, 8, 1, 1)},
        ),
        "h",
        8,
        frozen="graph",
    ),
    "Reshape across channels": lambda: conv(
        "r = Reshape(h, shape)",
        weights={"shape": ints(1, 12, 6, 4), "w2": (4, 12, 1, 1)},
        frozen="joins and cuts",
    ),
}
