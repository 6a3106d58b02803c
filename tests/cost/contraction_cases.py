"""The table of single nodes on which the rules for contractions are tested, in floats."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.cost import brute_force, brute_force_sequences
from tests.cost.one_node import MICROSOFT, Case


def explicit(
    name: str,
    inputs: tuple[np.ndarray | None, ...],
    loops: Callable[..., Any],
    attributes: dict[str, Any],
    domain: str = "",
    **more: Any,
) -> Case:
    """A case of the loops of `brute_force` and its kin.

    Args:
        name: the operator, and what is special about the case.
        inputs: arrays by position, None where an input is left out.
        loops: a function that takes a tally, the inputs and the attributes.
        attributes: of the node.
        domain: of the operator.
        more: further fields of the case.
    """
    op_type, _, label = name.partition(" ")
    return Case(
        op_type, loops, inputs, attributes, domain=domain, label=label, explicit=True, **more
    )


_random = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    return _random.standard_normal(shape).astype(np.float32)


def integers(dtype: type, *shape: int) -> np.ndarray:
    info = np.iinfo(dtype)
    # Of int8 the inner half: x86 kernels without VNNI add two products with uint8 in int16.
    part = 2 if dtype is np.int8 else 1
    return _random.integers(info.min // part, info.max // part + 1, shape).astype(dtype)


def convolutions() -> Iterator[Case]:
    def case(special: str, *inputs: np.ndarray, **attributes: Any) -> Case:
        return explicit(f"Conv {special}", inputs, brute_force.convolution, attributes)

    yield case("plain", floats(2, 3, 5, 6), floats(4, 3, 3, 2))
    yield case("padded", floats(1, 2, 5, 5), floats(3, 2, 3, 3), floats(3), pads=[1, 0, 2, 1])
    yield case("strided", floats(1, 2, 7, 8), floats(3, 2, 3, 3), strides=[2, 3])
    yield case("dilated", floats(1, 2, 8, 7), floats(2, 2, 3, 2), floats(2), dilations=[2, 3])
    yield case("of groups", floats(1, 6, 4, 4), floats(4, 3, 3, 3), group=2)
    yield case("depthwise", floats(1, 4, 5, 5), floats(8, 1, 3, 3), floats(8), group=4)
    yield case("1-D", floats(2, 3, 9), floats(4, 3, 4), floats(4), strides=[2])
    yield case("3-D", floats(1, 2, 3, 4, 5), floats(2, 2, 2, 3, 2), pads=[0, 1, 0, 1, 0, 1])
    same = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    yield case("same upper", floats(1, 2, 6, 5), floats(2, 2, 3, 2), **same)
    yield case("same lower", floats(1, 2, 6, 5), floats(2, 2, 2, 4), auto_pad="SAME_LOWER")
    yield case("valid", floats(1, 2, 6, 5), floats(2, 2, 3, 3), auto_pad="VALID")
    yield case("of nothing", floats(0, 2, 6, 5), floats(2, 2, 3, 3))

    def transposed(special: str, *inputs: np.ndarray, **attributes: Any) -> Case:
        loops = brute_force.transposed_convolution
        return explicit(f"ConvTranspose {special}", inputs, loops, attributes)

    yield transposed("plain", floats(1, 2, 3, 4), floats(2, 3, 3, 2), floats(3))
    yield transposed("strided", floats(1, 3, 3, 2), floats(3, 2, 2, 2), strides=[2, 2])
    half = {"group": 2, "pads": [1, 1, 1, 1]}
    yield transposed("of groups", floats(1, 4, 3, 3), floats(4, 3, 3, 3), floats(6), **half)
    odd = {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}
    yield transposed("output padding", floats(2, 2, 3, 3), floats(2, 1, 3, 3), **odd)
    wide = {"dilations": [2], "strides": [3]}
    yield transposed("1-D dilated", floats(1, 2, 5), floats(2, 3, 3), floats(3), **wide)

    pads = np.array([1, 0, 1, 1])
    yield explicit(
        "ConvTransposeWithDynamicPads",
        (floats(1, 2, 3, 3), floats(2, 3, 3, 3), pads, floats(3)),
        brute_force.transposed_convolution_with_dynamic_pads,
        {"strides": [2, 2]},
        MICROSOFT,
        constants=(2,),
    )

    def fused(special: str, *inputs: np.ndarray, **attributes: Any) -> Case:
        loops = brute_force.convolution
        return explicit(f"FusedConv {special}", inputs, loops, attributes, MICROSOFT)

    image, kernel, bias = floats(1, 2, 5, 5), floats(3, 2, 3, 3), floats(3)
    yield fused("add relu", image, kernel, bias, floats(1, 3, 3, 3), activation="Relu")
    yield fused("sigmoid", image, kernel, bias, activation="Sigmoid")
    leaky = {"activation": "LeakyRelu", "activation_params": [0.1]}
    yield fused("leaky relu", image, kernel, bias, **leaky)

    for special, mask in (("plain", None), ("masked", floats(1, 18, 2, 2))):
        yield explicit(
            f"DeformConv {special}",
            (floats(1, 4, 3, 3), floats(2, 2, 3, 3), floats(1, 36, 2, 2), floats(2), mask),
            brute_force.deformable_convolution,
            {"pads": [1, 1, 0, 0], "group": 2, "offset_group": 2},
            reference=True,
        )
    data, taps, past = floats(2, 3, 5), floats(3, 1, 4), floats(2, 3, 3)
    loops = brute_force.causal_convolution
    for special, inputs, attributes in (
        ("plain", (data, taps), {}),
        ("silu", (data, taps, floats(3), past), {"activation": "silu"}),
    ):
        yield explicit(
            f"CausalConvWithState {special}",
            inputs,
            loops,
            attributes,
            reference=True,
            opset=27,
            outputs=2,
        )
        yield explicit(
            f"CausalConvWithState {special} of the runtime",
            inputs,
            loops,
            attributes,
            MICROSOFT,
            outputs=2,
        )


def products() -> Iterator[Case]:
    def case(op_type: str, special: str, loops: Any, *inputs: Any, **attributes: Any) -> Case:
        domain = "" if op_type in ("MatMul", "Gemm", "Det", "Einsum") else MICROSOFT
        return explicit(f"{op_type} {special}", inputs, loops, attributes, domain)

    matmul, gemm = brute_force.matrix_product, brute_force.general_matrix_product
    yield case("MatMul", "matrices", matmul, floats(3, 4), floats(4, 5))
    yield case("MatMul", "stretched", matmul, floats(2, 1, 3, 4), floats(5, 4, 2))
    yield case("MatMul", "vector left", matmul, floats(4), floats(3, 4, 5))
    yield case("MatMul", "vector right", matmul, floats(3, 2, 4), floats(4))
    yield case("MatMul", "vectors", matmul, floats(4), floats(4))
    yield case("Gemm", "plain", gemm, floats(3, 4), floats(4, 5))
    turned = {"transA": 1, "transB": 1}
    yield case("Gemm", "turned", gemm, floats(4, 3), floats(5, 4), floats(5), **turned)
    scaled = {"alpha": 0.5, "beta": 2.0}
    yield case("Gemm", "scaled", gemm, floats(3, 4), floats(4, 5), floats(3, 1), **scaled)
    relu = {"transB": 1, "activation": "Relu"}
    yield case("FusedGemm", "relu", gemm, floats(3, 4), floats(5, 4), floats(5), **relu)
    fused = brute_force.fused_matrix_product
    yield case(
        "FusedMatMul", "scaled", fused, floats(2, 3, 4), floats(2, 5, 4), transB=1, alpha=0.3
    )
    yield case("FusedMatMul", "turned", fused, floats(2, 4, 3), floats(4, 5), transA=1)
    batch = {"transBatchA": 1, "transA": 0}
    yield case("FusedMatMul", "batch", fused, floats(3, 2, 4), floats(2, 4, 5), **batch)
    det = brute_force.determinant
    yield case("Det", "one", det, floats(4, 4))
    yield case("Det", "several", det, floats(2, 3, 3, 3))

    inverse, distances = brute_force.inverse, brute_force.pairwise_distances
    yield case("Inverse", "one", inverse, floats(4, 4))
    yield case("Inverse", "several", inverse, floats(2, 3, 3))
    for metric in ("euclidean", "sqeuclidean"):
        yield case("CDist", metric, distances, floats(3, 4), floats(5, 4), metric=metric)
    yield case("TransposeMatMul", "turned", fused, floats(2, 4, 3), floats(4, 5), transA=1)
    short = integers(np.int16, 3, 4) // 256, integers(np.int16, 4, 5) // 256
    yield case("MatMulInteger16", "plain", integer_matrix_product, *short)

    def einsum(equation: str, *operands: np.ndarray) -> Case:
        return case("Einsum", equation, brute_force.einsum, *operands, equation=equation)

    yield einsum("ij,jk->ik", floats(3, 4), floats(4, 5))
    yield einsum("bhid,bhjd->bhij", floats(2, 2, 3, 4), floats(2, 2, 5, 4))
    yield einsum("i,j->ij", floats(3), floats(4))
    yield einsum("ij,ij->", floats(3, 4), floats(3, 4))
    yield einsum("ij->ji", floats(3, 4))
    yield einsum("ij->i", floats(3, 4))
    yield einsum("ii->i", floats(3, 3))
    yield einsum("ij,kl->jl", floats(3, 4), floats(2, 5))
    yield einsum("...ij,jk", floats(2, 3, 4), floats(4, 5))
    yield einsum("...i,...i->...", floats(2, 3, 4), floats(1, 3, 4))
    yield einsum("ij,jk,kl->il", floats(6, 5), floats(5, 4), floats(4, 2))
    yield einsum("bi,ijk,bj->bk", floats(2, 3), floats(3, 4, 5), floats(2, 4))
    yield einsum("ij,jk,kl,lm->im", floats(2, 6), floats(6, 3), floats(3, 5), floats(5, 2))


def integer_matrix_product(tally: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return brute_force.matrix_product(tally, a.astype(np.int64), b.astype(np.int64))


def recurrent_layers() -> Iterator[Case]:
    def case(op_type: str, special: str, gates: int, sides: int, given: int, **attributes: Any):
        width, hidden, steps, batch = 3, 4, 3, 2
        first = (batch, sides) if attributes.get("layout") else (sides, batch)
        shape = (batch, steps) if attributes.get("layout") else (steps, batch)
        inputs = (
            floats(*shape, width),
            floats(sides, gates * hidden, width),
            floats(sides, gates * hidden, hidden),
            floats(sides, 2 * gates * hidden),
            None,
            floats(*first, hidden),
            floats(*first, hidden),
            floats(sides, 3 * hidden),
        )
        loops = getattr(brute_force_sequences, op_type.lower())
        attributes["hidden_size"] = hidden
        outputs = 3 if op_type == "LSTM" else 2
        return explicit(f"{op_type} {special}", inputs[:given], loops, attributes, outputs=outputs)

    yield case("RNN", "plain", 1, 1, 3)
    relu = {"direction": "bidirectional", "activations": ["Relu", "Tanh"]}
    yield case("RNN", "both ways", 1, 2, 6, **relu)
    yield case("GRU", "plain", 3, 1, 3)
    yield case("GRU", "backwards", 3, 1, 6, direction="reverse")
    yield case("GRU", "reset after", 3, 2, 6, direction="bidirectional", linear_before_reset=1)
    yield case("GRU", "reset after, no bias", 3, 1, 3, linear_before_reset=1)
    yield case("LSTM", "plain", 4, 1, 3)
    yield case("LSTM", "both ways", 4, 2, 7, direction="bidirectional")
    yield case("LSTM", "peepholes", 4, 1, 8)
    yield case("LSTM", "clipped", 4, 1, 4, clip=0.5)
    yield case("LSTM", "coupled", 4, 1, 4, input_forget=1)
    cheap = {
        "activations": ["HardSigmoid", "Softsign", "Tanh"],
        "activation_alpha": [0.2],
        "activation_beta": [0.5],
    }
    yield case("LSTM", "functions", 4, 1, 4, **cheap)


def attentions() -> Iterator[Case]:
    def case(special: str, *inputs: Any, opset: int = 23, **attributes: Any) -> Case:
        loops = brute_force_sequences.attention
        name = f"Attention {special}"
        outputs = 3 if len(inputs) > 4 else 1
        reference = opset > 23
        return explicit(
            name, inputs, loops, attributes, opset=opset, reference=reference, outputs=outputs
        )

    q, k, v = floats(2, 2, 4, 8), floats(2, 2, 5, 8), floats(2, 2, 5, 6)
    yield case("cross", q, k, v)
    yield case("masked", q, k, v, floats(4, 5))
    yield case("capped", q, k, v, softcap=2.0)
    yield case("causal", floats(1, 2, 4, 8), floats(1, 2, 4, 8), floats(1, 2, 4, 8), is_causal=1)
    yield case("causal, more keys", q, k, v, is_causal=1)
    few = floats(2, 2, 6, 8), floats(2, 2, 3, 8), floats(2, 2, 3, 6)
    yield case("causal, fewer keys", *few, is_causal=1)
    past = floats(2, 2, 3, 8), floats(2, 2, 3, 6)
    square = floats(2, 2, 4, 8), floats(2, 2, 4, 8), floats(2, 2, 4, 6)
    yield case("causal after a past", *square, None, *past, is_causal=1)
    grouped = {"q_num_heads": 4, "kv_num_heads": 2, "is_causal": 1}
    yield case("grouped heads", floats(2, 3, 32), floats(2, 3, 16), floats(2, 3, 16), **grouped)
    window = {"left_window_size": 2, "right_window_size": 1, "opset": 25}
    yield case("window", floats(1, 2, 6, 8), floats(1, 2, 6, 8), floats(1, 2, 6, 8), **window)
    left = {"left_window_size": 1, "is_causal": 1, "opset": 25}
    yield case("causal window", *square, None, *past, **left)

    def contrib(op_type: str, special: str, loops: Any, *inputs: Any, **attributes: Any) -> Case:
        # A past goes in only where somebody wants what it becomes.
        outputs = 2 if op_type == "Attention" and len(inputs) == 5 else 1
        name = f"{op_type} {special}"
        return explicit(name, inputs, loops, attributes, MICROSOFT, outputs=outputs)

    loops = brute_force_sequences.projected_attention
    x, w, b = floats(2, 3, 8), floats(8, 24), floats(24)
    yield contrib("Attention", "with projection", loops, x, w, b, num_heads=2)
    causal = {"num_heads": 2, "unidirectional": 1}
    memory = floats(2, 2, 2, 4, 4)
    yield contrib("Attention", "causal projection", loops, x, w, b, None, memory, **causal)
    sizes = {"num_heads": 2, "qkv_hidden_sizes": [8, 8, 12]}
    yield contrib("Attention", "wide values", loops, x, floats(8, 28), floats(28), **sizes)
    bias = floats(2, 2, 3, 3)
    yield contrib("Attention", "biased", loops, x, w, b, None, None, bias, num_heads=2)

    loops = brute_force_sequences.multi_head_attention
    q, k, v = floats(2, 3, 8), floats(2, 5, 8), floats(2, 5, 8)
    name = "MultiHeadAttention"
    yield contrib(name, "cross", loops, q, k, v, num_heads=2)
    yield contrib(name, "biased", loops, q, k, v, floats(24), None, floats(2, 2, 3, 5), num_heads=2)
    one = floats(2, 3, 8), floats(2, 3, 8), floats(2, 3, 8)
    yield contrib(name, "causal", loops, *one, num_heads=2, unidirectional=1)
    cache = floats(2, 2, 5, 4), floats(2, 2, 5, 4)
    yield contrib(name, "cached keys", loops, q, *cache, num_heads=2)

    loops = brute_force_sequences.decoder_multi_head_attention
    name = "DecoderMaskedMultiHeadAttention"
    token = floats(2, 1, 8), floats(2, 1, 8), floats(2, 1, 8)
    held = floats(2, 2, 6, 4), floats(2, 2, 6, 4)  # with room for one more, at its end
    known = np.array([5], np.int32)
    shared = {"num_heads": 2, "past_present_share_buffer": 1}
    plain = contrib(name, "itself", loops, *token, None, None, *held, known, **shared)
    yield dataclasses.replace(plain, outputs=3)
    extra = np.ones((2, 6), np.int32), floats(2, 2, 1, 6)
    biased = contrib(name, "masked", loops, *token, *extra, *held, known, **shared)
    yield dataclasses.replace(biased, outputs=3)
    yield contrib(name, "cross", loops, token[0], *held, num_heads=2)

    yield explicit(
        "FlexAttention plain",
        (floats(1, 4, 3, 8), floats(1, 2, 5, 8), floats(1, 2, 5, 6)),
        brute_force_sequences.attention,
        {},
        "ai.onnx.preview",
        reference=True,
    )

    loops = brute_force_sequences.group_query_attention
    name = "GroupQueryAttention"
    for special, attributes, more in (
        ("plain", {}, ()),
        ("window", {"local_window_size": 3}, ()),
        ("capped", {"softcap": 3.0}, ()),
        ("rotary", {"do_rotary": 1}, (floats(16, 8), floats(16, 8))),
        ("sink", {}, (None, None, None, None, floats(4))),
    ):
        inputs = (
            floats(1, 3, 64),
            floats(1, 3, 32),
            floats(1, 3, 32),
            floats(1, 2, 4, 16),
            floats(1, 2, 4, 16),
            np.array([6], np.int32),
            np.array(7, np.int32),
            *more,
        )
        heads = {"num_heads": 4, "kv_num_heads": 2}
        case_ = contrib(name, special, loops, *inputs, **heads, **attributes)
        yield dataclasses.replace(case_, outputs=3)

    rotary = brute_force_sequences.rotary_embedding
    tables = floats(2, 3, 2), floats(2, 3, 2)
    yield explicit("RotaryEmbedding whole", (floats(2, 2, 3, 4), *tables), rotary, {}, opset=23)
    part = {"num_heads": 2, "interleaved": 1, "rotary_embedding_dim": 4}
    places = _random.integers(0, 9, (2, 3))
    yield explicit(
        "RotaryEmbedding part",
        (floats(2, 3, 12), floats(9, 2), floats(9, 2), places),
        rotary,
        part,
        opset=23,
    )
    yield contrib(
        "RotaryEmbedding",
        "of the runtime",
        brute_force_sequences.rotary_embedding_of_runtime,
        floats(2, 3, 8),
        places,
        floats(9, 2),
        floats(9, 2),
    )

    sections = {"mrope_section": [1, 1, 0], "num_heads": 2, "rotary_embedding_dim": 4}
    yield contrib(
        "MRotaryEmbedding",
        "of three positions",
        brute_force_sequences.sectioned_rotary_embedding,
        floats(2, 3, 8),
        _random.integers(0, 9, (3, 2, 3)),
        floats(9, 2),
        floats(9, 2),
        **sections,
    )

    for rule in ("linear", "gated", "delta", "gated_delta"):
        inputs = (
            floats(2, 3, 8),
            floats(2, 3, 4),
            floats(2, 3, 6),
            floats(2, 1, 4, 6),
            -abs(floats(2, 3, 4)) if "gated" in rule else None,
            abs(floats(2, 3, 1)) if "delta" in rule else None,
        )
        yield explicit(
            f"LinearAttention {rule}",
            inputs,
            brute_force_sequences.linear_attention,
            {"q_num_heads": 2, "kv_num_heads": 1, "update_rule": rule},
            reference=True,
            opset=27,
            outputs=2,
        )
        yield explicit(
            f"LinearAttention {rule} of the runtime",
            inputs,
            brute_force_sequences.linear_attention,
            {"q_num_heads": 2, "kv_num_heads": 1, "update_rule": rule},
            MICROSOFT,
            outputs=2,
        )


def mixtures() -> Iterator[Case]:
    weights = floats(3, 5, 4), floats(3, 5), floats(3, 4, 5), floats(3, 4)
    for special, attributes in (
        ("of one", {"k": 1}),
        ("of two", {"k": 2, "normalize_routing_weights": 1}),
    ):
        yield explicit(
            f"MoE {special}",
            (floats(6, 4), floats(6, 3), *weights),
            brute_force_sequences.mixture_of_experts,
            {"activation_type": "relu", **attributes},
            MICROSOFT,
        )
    gated = floats(3, 10, 4), floats(3, 10), floats(3, 4, 5), floats(3, 4)
    swiglu = {"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1, "activation_alpha": 1.7}
    for special, more in (("gated", {}), ("gated and bounded", {"swiglu_limit": 1.0})):
        yield explicit(
            f"MoE {special}",
            (floats(6, 4), floats(6, 3), *gated),
            brute_force_sequences.mixture_of_experts,
            {**swiglu, "activation_beta": 1.0, **more},
            MICROSOFT,
        )


CONTRACTIONS = (
    *convolutions(),
    *products(),
    *recurrent_layers(),
    *attentions(),
    *mixtures(),
)
