"""Small models whose shapes hang on input dims, in the idioms that exporters write."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SymbolicModel:
    """A graph in ONNX text, the shapes expected of some values, and sizes to run it at.

    `sizes` has for each symbol the sizes to try; a run takes one of each.
    """

    text: str
    shapes: dict[str, str]
    sizes: dict[str, tuple[int, ...]]
    opset: int = 17


MODELS: dict[str, SymbolicModel] = {
    "flatten by gathering the batch": SymbolicModel(
        """g (float[B,3,4,4] x) => (float[?,?] y) {
            s = Shape (x)
            zero = Constant <value_int=0> ()
            b = Gather <axis=0> (s, zero)
            axes = Constant <value_ints=[0]> ()
            b1 = Unsqueeze (b, axes)
            rest = Constant <value_ints=[-1]> ()
            target = Concat <axis=0> (b1, rest)
            flat = Reshape (x, target)
            y = Relu (flat)
        }""",
        {"y": "[B,48]", "flat": "[B,48]"},
        {"B": (0, 1, 2, 5)},
    ),
    "flatten by the product of dims": SymbolicModel(
        """g (float[B,S,6,2] x) => (float[?,?] y) {
            s = Shape <start=0, end=2> (x)
            bs = ReduceProd <keepdims=1> (s)
            twelve = Constant <value_ints=[12]> ()
            target = Concat <axis=0> (bs, twelve)
            y0 = Reshape (x, target)
            back = Constant <value_ints=[-1,6,2]> ()
            y1 = Reshape (y0, back)
            y = Flatten <axis=1> (y1)
        }""",
        {"y0": "[B*S,12]", "y1": "[B*S,6,2]", "y": "[B*S,12]"},
        {"B": (1, 2, 3), "S": (1, 4, 7)},
    ),
    "a range from a float cast like the length": SymbolicModel(
        """g (float[B,6] x) => (float[?,?] y) {
            s = Shape <start=0, end=1> (x)
            axis = Constant <value_ints=[0]> ()
            n = Squeeze (s, axis)
            first = Constant <value_float=0.0> ()
            step = Constant <value_float=1.0> ()
            first_n = CastLike (first, n)
            step_n = CastLike (step, n)
            places = Range (first_n, n, step_n)
            y = Gather (x, places)
        }""",
        {"places": "[B]", "y": "[B,6]"},
        {"B": (0, 1, 4)},
    ),
    "attention": SymbolicModel(
        """g (float[B,S,24] x, float[24,72] w) => (float[?,?,?] y) {
            qkv = MatMul (x, w)
            q, k, v = Split <axis=-1, num_outputs=3> (qkv)
            s = Shape (x)
            i0 = Constant <value_int=0> ()
            i1 = Constant <value_int=1> ()
            axes = Constant <value_ints=[0]> ()
            b = Gather (s, i0)
            n = Gather (s, i1)
            bu = Unsqueeze (b, axes)
            nu = Unsqueeze (n, axes)
            heads = Constant <value_ints=[4, 6]> ()
            view = Concat <axis=0> (bu, nu, heads)
            q4 = Reshape (q, view)
            k4 = Reshape (k, view)
            v4 = Reshape (v, view)
            qt = Transpose <perm=[0,2,1,3]> (q4)
            kt = Transpose <perm=[0,2,3,1]> (k4)
            vt = Transpose <perm=[0,2,1,3]> (v4)
            scores = MatMul (qt, kt)
            weights = Softmax <axis=-1> (scores)
            mixed = MatMul (weights, vt)
            mt = Transpose <perm=[0,2,1,3]> (mixed)
            minus = Constant <value_ints=[-1]> ()
            merged = Concat <axis=0> (bu, nu, minus)
            m = Reshape (mt, merged)
            y = Add (m, x)
        }""",
        {"q4": "[B,S,4,6]", "scores": "[B,4,S,S]", "y": "[B,S,24]", "kt": "[B,4,6,S]"},
        {"B": (1, 2, 3), "S": (1, 5, 7)},
        18,
    ),
    "key-value cache and positions": SymbolicModel(
        """g (float[B,2,P,4] past, float[B,2,S,4] new, float[64,4] table) => (float[?,?,?] y) {
            keys = Concat <axis=2> (past, new)
            ps = Shape (past)
            two = Constant <value_int=2> ()
            p = Gather (ps, two)
            ks = Shape (keys)
            total = Gather (ks, two)
            zero = Constant <value_int=0> ()
            one = Constant <value_int=1> ()
            every = Range (zero, total, one)
            fresh = Range (p, total, one)
            axes = Constant <value_ints=[0]> ()
            begin = Unsqueeze (p, axes)
            end = Unsqueeze (total, axes)
            rows = Slice (table, begin, end, axes)
            rows_by_gather = Gather <axis=0> (table, fresh)
            y = Add (new, rows_by_gather)
        }""",
        {"keys": "[B,2,P + S,4]", "every": "[P + S]", "fresh": "[S]", "y": "[B,2,S,4]"},
        {"B": (1, 2), "P": (0, 3, 5), "S": (1, 4)},
    ),
    "table cut to the length": SymbolicModel(
        """g (int64[B,S] ids, float[100,8] words, float[32,8] table) => (float[?,?,?] y) {
            s = Shape (ids)
            one = Constant <value_ints=[1]> ()
            zero = Constant <value_ints=[0]> ()
            n = Gather (s, one)
            cut = Slice (table, zero, n, zero)
            e = Gather (words, ids)
            y = Add (e, cut)
        }""",
        {"cut": "[Min(32, S),8]", "y": "[B,S,8]"},
        {"B": (1, 3), "S": (1, 2, 32)},
    ),
    "expand with -1 replaced": SymbolicModel(
        """g (float[B,S,4] x, float[1,1,4] token) => (float[?,?,?] y) {
            s = Shape (x)
            i0 = Constant <value_ints=[0]> ()
            b = Gather (s, i0)
            tail = Constant <value_ints=[-1,-1]> ()
            wanted = Concat <axis=0> (b, tail)
            three = Constant <value_ints=[3]> ()
            ones = ConstantOfShape <value=int64[1]{1}> (three)
            minus = Constant <value_int=-1> ()
            negated = Mul (ones, minus)
            is_minus = Equal (wanted, negated)
            target = Where (is_minus, ones, wanted)
            tokens = Expand (token, target)
            y = Concat <axis=1> (tokens, x)
        }""",
        {"tokens": "[B,1,4]", "y": "[B,S + 1,4]"},
        {"B": (0, 1, 2, 3), "S": (0, 1, 4)},
    ),
    "pixel shuffle by hand": SymbolicModel(
        """g (float[B,12,H,W] x) => (float[?,?,?,?] y, float[?,?,?,?] z) {
            s = Shape (x)
            b, c, h, w = Split <axis=0, num_outputs=4> (s)
            two = Constant <value_ints=[2]> ()
            four = Constant <value_ints=[4]> ()
            c4 = Div (c, four)
            six = Concat <axis=0> (b, c4, two, two, h, w)
            x6 = Reshape (x, six)
            t = Transpose <perm=[0,1,4,2,5,3]> (x6)
            h2 = Mul (h, two)
            w2 = Mul (w, two)
            out = Concat <axis=0> (b, c4, h2, w2)
            y = Reshape (t, out)
            z = DepthToSpace <blocksize=2> (x)
        }""",
        {"x6": "[B,3,2,2,H,W]", "y": "[B,3,2*H,2*W]", "z": "[B,3,2*H,2*W]"},
        {"B": (1, 2), "H": (1, 3), "W": (2, 5)},
        18,
    ),
    "padding to whole windows": SymbolicModel(
        """g (float[B,H,W,3] x) => (float[?,?,?,?,?,?] y) {
            s = Shape (x)
            eight = Constant <value_ints=[8]> ()
            i0 = Constant <value_ints=[0]> ()
            i1 = Constant <value_ints=[1]> ()
            i2 = Constant <value_ints=[2]> ()
            b = Gather (s, i0)
            h = Gather (s, i1)
            w = Gather (s, i2)
            hm = Mod (h, eight)
            hs = Sub (eight, hm)
            hp = Mod (hs, eight)
            wm = Mod (w, eight)
            ws = Sub (eight, wm)
            wp = Mod (ws, eight)
            none = Constant <value_ints=[0]> ()
            pads = Concat <axis=0> (none, none, none, none, none, hp, wp, none)
            padded = Pad (x, pads)
            ps = Shape (padded)
            ph = Gather (ps, i1)
            pw = Gather (ps, i2)
            nh = Div (ph, eight)
            nw = Div (pw, eight)
            three = Constant <value_ints=[3]> ()
            target = Concat <axis=0> (b, nh, eight, nw, eight, three)
            y = Reshape (padded, target)
        }""",
        {},
        {"B": (1, 2), "H": (1, 8, 13), "W": (7, 16)},
    ),
    "u-net": SymbolicModel(
        """g (float[B,3,H,W] x, float[4,3,3,3] w1, float[4,4,3,3] w2, float[4,4,2,2] w3)
            => (float[?,?,?,?] y, float[?,?,?,?] z) {
            a = Conv <pads=[1,1,1,1]> (x, w1)
            d = Conv <pads=[1,1,1,1], strides=[2,2]> (a, w2)
            m = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (a)
            both = Add (d, m)
            up = ConvTranspose <strides=[2,2]> (both, w3)
            s = Shape (a)
            begin = Constant <value_ints=[0,0]> ()
            axes = Constant <value_ints=[2,3]> ()
            end = Slice (s, axes_begin, axes_end)
            cropped = Slice (up, begin, end, axes)
            y = Concat <axis=1> (cropped, a)
            e = Conv <pads=[0,1,2,1], dilations=[1,2], kernel_shape=[3,3]> (a, w2)
            none = Constant <value_floats=[1.0,1.0,2.0,2.0]> ()
            z = Resize <mode="nearest"> (e, , none)
        }""".replace("axes_begin", "two")
        .replace("axes_end", "four")
        .replace(
            "s = Shape (a)",
            "s = Shape (a)\n two = Constant <value_ints=[2]> ()\n"
            " four = Constant <value_ints=[4]> ()",
        ),
        {
            "d": "[B,4,floor((H + 1)/2),floor((W + 1)/2)]",
            "both": "[B,4,floor((H + 1)/2),floor((W + 1)/2)]",
            "up": "[B,4,2*floor((H + 1)/2),2*floor((W + 1)/2)]",
        },
        {"B": (1, 2), "H": (4, 5, 9), "W": (6, 7)},
    ),
    "slices of every kind": SymbolicModel(
        """g (float[N,M] x) => (float[?,?] y) {
            a0 = Constant <value_ints=[0]> ()
            a1 = Constant <value_ints=[1]> ()
            one = Constant <value_ints=[1]> ()
            two = Constant <value_ints=[2]> ()
            m1 = Constant <value_ints=[-1]> ()
            m2 = Constant <value_ints=[-2]> ()
            m3 = Constant <value_ints=[-3]> ()
            top = Constant <value_ints=[9223372036854775807]> ()
            low = Constant <value_ints=[-9223372036854775807]> ()
            y = Relu (x)
            head = Slice (x, a0, two, a0)
            tail = Slice (x, m3, top, a0)
            but_last = Slice (x, a0, m1, a0)
            odd = Slice (x, one, top, a0, two)
            back = Slice (x, m1, low, a0, m1)
            back2 = Slice (x, m1, low, a0, m2)
            back_from = Slice (x, two, a0, a0, m1)
            middle = Slice (x, one, m1, a0)
            s = Shape (x)
            n = Slice (s, a0, one)
            half = Div (n, two)
            first_half = Slice (x, a0, half, a0)
            second_half = Slice (x, half, top, a0)
            from_end = Neg (half)
            last = Slice (x, from_end, top, a0)
            shifted = Sub (half, two)
            unsure = Slice (x, shifted, top, a0)
        }""",
        {"head": "[Min(2, N),M]", "but_last": "[Max(0, N - 1),M]", "first_half": "[floor(N/2),M]"},
        {"N": (0, 1, 2, 3, 4, 7), "M": (2,)},
    ),
    "numbers": SymbolicModel(
        """g (float[N,M] x, float[K] k) => (int64[?] y) {
            s = Shape (x)
            i0 = Constant <value_int=0> ()
            i1 = Constant <value_int=1> ()
            n = Gather (s, i0)
            m = Gather (s, i1)
            size = Size (x)
            three = Constant <value_int=3> ()
            seven = Constant <value_int=7> ()
            minus = Constant <value_int=-2> ()
            d1 = Sub (n, three)
            d2 = Div (d1, three)
            d3 = Div (n, minus)
            d4 = Mod (d1, three)
            d5 = Mod (n, minus)
            d6 = Max (d1, i0)
            d7 = Min (n, seven)
            d8 = Abs (d1)
            d9 = Mul (d1, m)
            less = Less (n, i0)
            more = Greater (n, m)
            not_less = Not (less)
            picked = Where (not_less, n, m)
            other = Where (more, n, m)
            n32 = Cast <to=6> (n)
            big = Constant <value=int32 {1073741824}> ()
            wrapped = Mul (n32, big)
            n8 = Cast <to=3> (size)
            f = Cast <to=1> (size)
            d = Cast <to=11> (n)
            fs = Cast <to=7> (f)
            half = Constant <value=double {0.5}> ()
            dh = Mul (d, half)
            df = Floor (dh)
            di = Cast <to=7> (df)
            sc = Constant <value_float=0.3> ()
            ten = Constant <value_float=10.0> ()
            sf = Mul (sc, ten)
            si = Cast <to=7> (sf)
            p = Pow (n, three)
            sc0 = Concat <axis=0> (s, s)
            idx = Constant <value=int64[2,1]{3,0}> ()
            upd = Constant <value_ints=[9,8]> ()
            scattered = ScatterND (sc0, idx, upd)
            tiled = Tile (s, rep)
            first, second = Split <axis=0> (tiled)
            total = ReduceSum <keepdims=0> (tiled)
            largest = ReduceMax <keepdims=0> (tiled)
            y = Identity (scattered)
        }""".replace("tiled = Tile", "rep = Constant <value_ints=[2]> ()\n tiled = Tile"),
        {},
        {"N": (0, 1, 2, 3, 5, 8, 130), "M": (0, 1, 3, 7), "K": (1,)},
    ),
    "counts from dims": SymbolicModel(
        """g (float[N,C] x, float[K] k, float[4] four) => (float[?,?] y, int64[?] z) {
            s = Shape (x)
            axes = Constant <value_ints=[0]> ()
            i1 = Constant <value_ints=[1]> ()
            n1 = Gather (s, axes)
            limit = Constant <value_ints=[3]> ()
            kk = Min (n1, limit)
            best, at = TopK <axis=0> (x, kk)
            ks = Shape (k)
            kscalar = Squeeze (ks, axes)
            labels = Cast <to=7> (four)
            onoff = Constant <value_floats=[0.0,1.0]> ()
            hot = OneHot (labels, kscalar, onoff)
            reps = Concat <axis=0> (n1, ks)
            row = Constant <value=float[1,2]{1.0,2.0}> ()
            tiled = Tile (row, reps)
            zeros = ConstantOfShape (reps)
            stack = Concat <axis=0> (x, x)
            left, right = Split <axis=0> (stack)
            y = Add (left, right)
            z = Identity (reps)
        }""",
        {
            "best": "[Min(3, N),C]",
            "hot": "[4,K]",
            "tiled": "[N,2*K]",
            "left": "[N,C]",
            "y": "[N,C]",
        },
        {"N": (0, 1, 2, 3, 5), "C": (2,), "K": (1, 4)},
    ),
    "reshapes that must not be misread": SymbolicModel(
        """g (float[A,B] x, float[2,3] c, float[K] k) => (float[?,?] y) {
            s = Shape (x)
            i0 = Constant <value_ints=[0]> ()
            i1 = Constant <value_ints=[1]> ()
            a = Gather (s, i0)
            b = Gather (s, i1)
            swapped = Concat <axis=0> (b, a)
            y = Reshape (x, swapped)
            minus = Constant <value_ints=[-1]> ()
            copied = Constant <value_ints=[0,-1]> ()
            y1 = Reshape (x, copied)
            keep = Constant <value_ints=[0,0,1]> ()
            y2 = Reshape (x, keep)
            ks = Shape (k)
            three = Constant <value_ints=[3]> ()
            doubtful = Concat <axis=0> (ks, three)
            y3 = Reshape (c, doubtful)
            less = Sub (ks, three)
            maybe_minus = Concat <axis=0> (less, three)
            y4 = Reshape (c, maybe_minus)
            y7 = Reshape <allowzero=1> (c, maybe_minus)
            y5 = Reshape <allowzero=1> (x, swapped)
            flat = Reshape (x, minus)
            y6 = Reshape (flat, s)
        }""",
        {"y": "[B,A]", "y1": "[A,B]", "y2": "[A,B,1]", "flat": "[A*B]", "y6": "[A,B]"},
        {"A": (0, 1, 2, 4), "B": (0, 1, 3), "K": (0, 2, 5)},
    ),
    "broadcasting": SymbolicModel(
        """g (float[A,1] x, float[B] y, float[A,5] five, float[C,1] z) => (float[?,?] out) {
            out = Add (x, y)
            same = Mul (out, x)
            stretched = Sub (z, five)
            all = Max (x, y, z)
            cond = Greater (x, y)
            chosen = Where (cond, x, y)
        }""",
        {"out": "[A,B]", "same": "[A,B]", "chosen": "[A,B]", "cond": "[A,B]"},
        {"A": (0, 1, 3), "B": (0, 1, 4), "C": (1, 3)},
    ),
}
