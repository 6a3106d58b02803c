"""Sums, joins, cuts and reshapes: items 1 to 4 of section C."""

import numpy as np

from tests.pruning.pruning_models import Situation, model
from tests.pruning.situation_parts import IMAGE, PADS, STEM, conv, ints

SITUATIONS = {
    # 1 residual
    "residual sum": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            a = Relu(h)
            c = Conv<{PADS}>(a, w3)
            s = Add(c, a)
            y = Conv(s, w2)""",
            {**STEM, "w3": (8, 8, 3, 3)},
        ),
        "h",
        8,
        (1, 6),
        left={"w3": (6, 6, 3, 3), "w2": (4, 6, 1, 1)},
    ),
    "channel inside a residual block on the input": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            a = Relu(h)
            c = Conv(a, w3)
            y = Add(c, x)""",
            {"w1": (8, 3, 3, 3), "b1": (8,), "w3": (3, 8, 1, 1)},
        ),
        "h",
        8,
        (2,),
        left={"w3": (3, 7, 1, 1)},
    ),
    # 2 Concat
    "first part of a Concat": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            k = Conv(x, w3)
            c = Concat<axis=1>(h, k)
            y = Conv(c, w4)""",
            {**STEM, "w3": (5, 3, 1, 1), "w4": (4, 13, 1, 1)},
        ),
        "h",
        8,
        (0, 7),
        left={"w4": (4, 11, 1, 1)},
    ),
    "second part of a Concat beside the input": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            c = Concat<axis=-3>(x, h)
            y = Conv(c, w4)""",
            {"w1": (8, 3, 3, 3), "b1": (8,), "w4": (4, 11, 1, 1)},
        ),
        "h",
        8,
        (0, 3),
        left={"w4": (4, 9, 1, 1)},
    ),
    "one tensor twice in a Concat": lambda: conv(
        "c = Concat<axis=1>(h, h)\nr = Conv(c, w3)",
        weights={"w3": (8, 16, 1, 1)},
        left={"w3": (8, 12, 1, 1)},
    ),
    "densely connected": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            k = Conv<{PADS}>(h, w3)
            c = Concat<axis=1>(h, k)
            l = Conv<{PADS}>(c, w4)
            d = Concat<axis=1>(c, l)
            y = Conv(d, w5)""",
            {**STEM, "w3": (4, 8, 3, 3), "w4": (4, 12, 3, 3), "w5": (4, 16, 1, 1)},
        ),
        "h",
        8,
        (3, 5),
        left={"w3": (4, 6, 3, 3), "w4": (4, 10, 3, 3), "w5": (4, 14, 1, 1)},
    ),
    # 3 Split, Slice, Gather
    "Split with sizes as an input": lambda: conv(
        "a, b = Split<axis=1>(h, sizes)\nc = Relu(a)\nr = Concat<axis=1>(c, b)",
        channels=3,
        remove=(1,),
        weights={"sizes": ints(3, 5)},
    ),
    "second output of a Split": lambda: _second_of_split(),
    "Split with sizes as an attribute": lambda: conv(
        "a, b = Split<axis=1, split=[3,5]>(h)\nc = Relu(a)\nr = Concat<axis=1>(c, b)",
        channels=3,
        remove=(1,),
        opset=11,
    ),
    "Split into equal parts without sizes": lambda: conv(
        "a, b = Split<axis=1>(h)\nr = Mul(a, b)",
        channels=4,
        remove=(2,),
        weights={"w2": (4, 4, 1, 1)},
        opset=13,
        left={"w1": (6, 3, 3, 3)},
    ),
    "Split into num_outputs uneven parts": lambda: Situation(
        model(
            IMAGE,
            "float y, float z",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            a, b, c = Split<axis=1, num_outputs=3>(h)
            y = Conv(c, w2)
            s = Add(a, b)
            z = Conv(s, w3)""",
            {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (4, 2, 1, 1), "w3": (4, 3, 1, 1)},
            opset=18,
        ),
        "h",
        3,
        (1,),
        left={"w1": (6, 3, 3, 3), "w2": (4, 2, 1, 1)},
    ),
    "Slice of a range": lambda: conv(
        "r = Slice(h, starts, ends, axes)",
        group="h#2",
        channels=5,
        remove=(0, 3),
        weights={"w2": (4, 5, 1, 1), "starts": ints(2), "ends": ints(7), "axes": ints(1)},
    ),
    "Slice with negative bounds": lambda: conv(
        "r = Slice(h, starts, ends, axes)",
        group="h#2",
        channels=5,
        remove=(0, 3),
        weights={"w2": (4, 5, 1, 1), "starts": ints(-6), "ends": ints(-1), "axes": ints(-3)},
    ),
    "Slice backwards": lambda: conv(
        "r = Slice(h, starts, ends, axes, steps)",
        remove=(0, 3),
        weights={
            "starts": ints(-1),
            "ends": ints(-(2**63)),
            "axes": ints(1),
            "steps": ints(-1),
        },
    ),
    "Slice of every other channel": lambda: conv(
        "r = Slice(h, starts, ends, axes, steps)",
        group="h#2",
        channels=4,
        remove=(1,),
        weights={
            "w2": (4, 4, 1, 1),
            "starts": ints(0),
            "ends": ints(8),
            "axes": ints(1),
            "steps": ints(2),
        },
    ),
    "Slice with attributes": lambda: conv(
        "r = Slice<starts=[1], ends=[6], axes=[1]>(h)",
        group="h#2",
        channels=5,
        remove=(4,),
        opset=9,
        weights={"w2": (4, 5, 1, 1)},
    ),
    "Gather that permutes": lambda: conv(
        "r = Gather<axis=1>(h, order)", weights={"order": ints(3, -1, 0, 2, 1, 6, 5, 4)}
    ),
    "Gather that repeats": lambda: conv(
        "r = Gather<axis=1>(h, order)",
        channels=2,
        remove=(1,),
        weights={"order": ints(3, 3, 0, 0), "w2": (4, 4, 1, 1)},
    ),
    # 4 Flatten, Reshape
    "Flatten": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            f = Flatten(h)
            y = Gemm(f, w2)""",
            {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (288, 4)},
        ),
        "h",
        8,
        (1, 6),
        left={"w2": (216, 4)},
    ),
    "Flatten into a transposed Gemm": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            f = Flatten(h)
            y = Gemm<transB=1>(f, w2)""",
            {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (4, 288)},
        ),
        "h",
        8,
        (1, 6),
        left={"w2": (4, 216)},
    ),
    "Reshape to a constant shape": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            f = Reshape(h, shape)
            y = Gemm(f, w2)""",
            {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (288, 4), "shape": ints(1, 288)},
        ),
        "h",
        8,
        (1, 6),
        left={"w2": (216, 4)},
    ),
    "Reshape that flattens the picture": lambda: _reshaped_picture(ints(0, 8, -1)),
    "Reshape with a dynamic batch": lambda: _reshaped_picture(ints(-1, 8, 36), batch="N"),
    "Reshape to a shape that is computed": lambda: Situation(
        model(
            "float[N,3,6,6] x",
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            s = Shape<end=1>(x)
            t = Concat<axis=0>(s, rest)
            f = Reshape(h, t)
            y = Gemm(f, w2)""",
            {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (288, 4), "rest": ints(288)},
        ),
        "h",
        8,
        (1, 6),
        left={"w2": (216, 4)},
    ),
    "channels last behind a Transpose": lambda: Situation(
        model(
            IMAGE,
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            t = Transpose<perm=[0,2,3,1]>(h)
            f = Flatten(t)
            y = Gemm(f, w2)""",
            {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (288, 4)},
        ),
        "h",
        8,
        (1, 6),
        left={"w2": (216, 4)},
    ),
}


def _second_of_split() -> Situation:
    found = SITUATIONS["Split with sizes as an input"]()
    return Situation(found.model, "h#2", 5, (0, 4), left={"w1": (6, 3, 3, 3)})


def _reshaped_picture(shape: np.ndarray, batch: str = "1") -> Situation:
    return Situation(
        model(
            f"float[{batch},3,6,6] x",
            "float y",
            f"""
            h = Conv<{PADS}>(x, w1, b1)
            f = Reshape(h, shape)
            t = Transpose<perm=[0,2,1]>(f)
            y = MatMul(t, w2)""",
            {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 3), "shape": shape},
        ),
        "h",
        8,
        (1, 6),
        left={"w2": (6, 3)},
    )
