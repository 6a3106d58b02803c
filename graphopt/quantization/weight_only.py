"""Weight-only quantization: weights become integers of 4 or 8 bits, activations stay float.

    MatMul(x, W)    ->  MatMulNBits(x, W_q, s, z)                  form "matmulnbits"
    MatMul(x, W)    ->  MatMul(x, DequantizeLinear(W_q, s, z))     form "dequantize", opset 21
    Gather(E, ids)  ->  GatherBlockQuantized(E_q, ids, s, z)       an embedding table

For decoders, which read every weight once for each token: the fewer bytes, the faster. The
first form is ONNX Runtime's own operator (com.microsoft), the second is standard ONNX, which
ONNX Runtime turns into the first where the weight has 4 bits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np

from graphopt.errors import UsageError
from graphopt.graph import all_nodes, constant_array, ir, opset_version
from graphopt.quantization.blocks import Blocks, quantize_in_blocks
from graphopt.quantization.repair.linear_layer import LinearLayer, linear_layer, linear_layers
from graphopt.quantization.repair.weight_rounding import Grid, Place, round_to_grids
from graphopt.rewrite import Journal, NotApplicable, Rewriter
from graphopt.rewrite.journal import site_of
from graphopt.runtime import Feed

Form = Literal["matmulnbits", "dequantize"]

_BLOCKED_OPSET = 21
_CONTRIB = "com.microsoft"


@dataclass(frozen=True)
class BlockFormat:
    """How weights are held.

    Attributes:
        bits: 4 or 8.
        size: how many inputs make a block: a power of 2 from 16 on.
        symmetric: whether the zero point is the middle of the range, and so not stored.

    Raises:
        UsageError: there is no kernel for it.
    """

    bits: int = 4
    size: int = 32
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise UsageError(f"weights of {self.bits} bits have no kernel: use 4 or 8")
        if self.size < 16 or self.size & (self.size - 1):
            raise UsageError(f"blocks of {self.size} have no kernel: use 16, 32, 64 or 128")

    def blocks(self, matrix: np.ndarray) -> Blocks:
        """A matrix [outputs, inputs], rounded to nearest."""
        return quantize_in_blocks(matrix, bits=self.bits, size=self.size, symmetric=self.symmetric)


def quantize_weights(
    model: ir.Model,
    journal: Journal,
    kind: BlockFormat,
    *,
    form: Form = "matmulnbits",
    nodes: Collection[str] | None = None,
    minimum_elements: int = 1 << 12,
    embeddings: bool = True,
    integers_inside: bool = False,
    rounded: Mapping[Place, Blocks] | None = None,
) -> None:
    """Let MatMul, Gemm and Gather read weights of few bits, in place.

    When: on the prepared float model; nothing else of the pipeline is needed, and no data
    unless for `round_blocks`, whose result is `rounded`.

    Args:
        model: the model.
        journal: asked before each change, told after it; says why a node was left alone.
        kind: bits, block size, symmetry.
        form: ONNX Runtime's operator, or standard ONNX.
        nodes: the nodes to change, by the name of their first output; None for all.
        minimum_elements: leave smaller weights as they are.
        embeddings: whether tables that Gather reads become integers too.
        integers_inside: whether the kernel may round activations to 8 bits as it multiplies
            (`accuracy_level` 4): faster, and less accurate.
        rounded: blocks that replace those rounded to nearest.
    """
    rewriter = Rewriter(model, journal)
    tied = _tied_tables(model)
    for node in list(all_nodes(model)):
        name = (node.outputs[0].name or "") if node.outputs else ""
        wanted = node.op_type in ("MatMul", "Gemm") or (embeddings and node.op_type == "Gather")
        if not wanted or node.domain not in ("", "ai.onnx") or (nodes and name not in nodes):
            continue
        site = site_of(node)
        if not journal.permits(site):
            continue
        rewriter.begin(node)
        try:
            _check_opset(node, model, form)
            if node.op_type == "Gather":
                _replace_table(node, rewriter, kind, form, minimum_elements, tied)
            else:
                layer = eligible(node, minimum_elements)
                given = None if rounded is None else rounded.get((name, 1))
                blocks = kind.blocks(layer.rows()[0]) if given is None else given
                if form == "matmulnbits":
                    _replace_by_kernel(layer, blocks, rewriter, 4 if integers_inside else 0)
                else:
                    _replace_by_standard(layer, blocks, rewriter)
        except NotApplicable as refusal:
            rewriter.discard()
            journal.decline(site, str(refusal))
    if any(node.domain == _CONTRIB for node in all_nodes(model)):
        model.opset_imports.setdefault(_CONTRIB, 1)


def round_blocks(
    model: ir.Model,
    feeds: Iterable[Feed],
    kind: BlockFormat,
    *,
    minimum_elements: int = 1 << 12,
    rows_per_feed: int | None = 512,
    seed: int = 0,
    max_bytes: int = 1 << 29,
    threads: int = 0,
) -> dict[Place, Blocks]:
    """Blocks of every weight that `quantize_weights` would change, by second-order rounding.

    Args:
        model: the float model. Not changed.
        feeds: calibration data; iterated again where the moments do not fit in `max_bytes`.
        kind: bits, block size, symmetry.
        minimum_elements: as for `quantize_weights`.
        rows_per_feed: so many rows of each feed are taken; None for all.
        seed: which ones.
        max_bytes: memory for the moments of one run over the data.
        threads: threads of the runs.
    """
    nearest: dict[Place, Blocks] = {}
    grids: dict[Place, Grid] = {}
    layers: dict[Place, LinearLayer] = {}
    for found in linear_layers(model.graph):
        try:
            layer = eligible(found.node, minimum_elements)
        except NotApplicable:
            continue
        place = (layer.name, layer.weight_index)
        blocks = kind.blocks(layer.rows()[0])
        scale, zero = (layer.stored(array[None]) for array in blocks.element_parameters())
        nearest[place], layers[place] = blocks, layer
        grids[place] = Grid(scale, zero, 0, (1 << kind.bits) - 1)
    done = round_to_grids(
        model,
        grids,
        feeds,
        rows_per_feed=rows_per_feed,
        seed=seed,
        max_bytes=max_bytes,
        threads=threads,
    )
    for place, integers in done.integers.items():
        matrix = np.ascontiguousarray(layers[place].rows(integers)[0])
        nearest[place] = nearest[place].with_integers(matrix)
    return nearest


def _check_opset(node: ir.Node, model: ir.Model, form: Form) -> None:
    if form == "dequantize" and opset_version(node, model) < _BLOCKED_OPSET:
        raise NotApplicable(f"DequantizeLinear has blocks from opset {_BLOCKED_OPSET} on")


def eligible(node: ir.Node, minimum_elements: int) -> LinearLayer:
    """The layer of a MatMul or Gemm whose weight can be held in blocks.

    Raises:
        NotApplicable: it cannot.
    """
    if node.op_type not in ("MatMul", "Gemm"):
        raise NotApplicable(f"{node.op_type} has no kernel for weights in blocks")
    layer = linear_layer(node)
    if layer.weight_index != 1:
        raise NotApplicable("the weight is on the left")
    if node.op_type == "Gemm" and node.attributes.get_int("transA", 0) != 0:
        raise NotApplicable("Gemm transposes its input")
    if layer.weight.size < minimum_elements:
        raise NotApplicable(f"the weight has {layer.weight.size} elements: it is small")
    return layer


def _replace_by_kernel(
    layer: LinearLayer, blocks: Blocks, rewriter: Rewriter, accuracy_level: int
) -> None:
    node = layer.node
    alpha, bias = _alpha_and_bias(node, layer.outputs)
    name = layer.weight_value.name or "weight"
    outputs, inputs = blocks.integers.shape
    operands: list[ir.Value | None] = [
        layer.data,
        rewriter.initializer(blocks.packed_integers(), f"{name}_blocks"),
        rewriter.initializer(blocks.scale * np.float32(alpha), f"{name}_scales"),
    ]
    if not blocks.is_symmetric:
        zeros = rewriter.initializer(blocks.packed_zero_points(), f"{name}_zero_points")
        operands.append(zeros)
    if bias is not None:
        operands += [None] * (5 - len(operands))
        operands.append(rewriter.initializer(bias, f"{name}_bias"))
    attributes = {
        "K": inputs,
        "N": outputs,
        "bits": blocks.bits,
        "block_size": blocks.size,
        "accuracy_level": accuracy_level,
    }
    rewriter.replace(node, rewriter.node("MatMulNBits", operands, attributes, domain=_CONTRIB))


def _replace_by_standard(layer: LinearLayer, blocks: Blocks, rewriter: Rewriter) -> None:
    node = layer.node
    name = layer.weight_value.name or "weight"
    if blocks.integers.shape[1] % blocks.size:
        raise NotApplicable(f"its inputs do not divide into blocks of {blocks.size}")
    dtype = np.dtype(ml_dtypes.int4 if blocks.bits == 4 else np.int8)
    middle = 1 << (blocks.bits - 1)
    arrays = [
        (blocks.integers - middle).astype(dtype),
        blocks.scale,
        (blocks.zero_point - middle).astype(dtype),
    ]
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) != 0
    stored = [np.ascontiguousarray(array if transposed else array.T) for array in arrays]
    suffixes = ("blocks", "scales", "zero_points")
    kept = stored[:2] if blocks.is_symmetric else stored
    operands = [
        rewriter.initializer(array, f"{name}_{suffix}")
        for array, suffix in zip(kept, suffixes, strict=False)
    ]
    attributes = {"axis": 1 if transposed else 0, "block_size": blocks.size}
    weight = rewriter.node("DequantizeLinear", operands, attributes)
    inputs = [node.inputs[0], weight.outputs[0], *node.inputs[2:]]
    again = rewriter.node(node.op_type, inputs, list(node.attributes.values()))
    rewriter.replace(node, again, f"{node.op_type} weight -> DequantizeLinear")


def _replace_table(
    node: ir.Node,
    rewriter: Rewriter,
    kind: BlockFormat,
    form: Form,
    minimum_elements: int,
    tied: set[str],
) -> None:
    table = constant_array(node.inputs[0])
    value = node.inputs[0]
    if table is None or value is None:
        raise NotApplicable("Gather reads no constant table")
    if table.dtype != np.float32 or table.ndim != 2 or node.attributes.get_int("axis", 0) != 0:
        raise NotApplicable("Gather reads no rows of a float32 matrix")
    if table.size < minimum_elements:
        raise NotApplicable(f"the table has {table.size} elements: it is small")
    if value.name in tied:
        raise NotApplicable("the table is used as something else too: it would be stored twice")
    if form == "dequantize":
        raise NotApplicable("dequantizing a whole table for a few of its rows would not pay")
    blocks = kind.blocks(table)
    packed = blocks.packed_integers().reshape(table.shape[0], -1)
    if table.shape[1] % kind.size:
        raise NotApplicable(f"its rows do not divide into blocks of {kind.size}")
    operands = [
        rewriter.initializer(packed, f"{value.name}_blocks"),
        node.inputs[1],
        rewriter.initializer(blocks.scale, f"{value.name}_scales"),
    ]
    if not blocks.is_symmetric:
        zeros = rewriter.initializer(blocks.packed_zero_points(), f"{value.name}_zero_points")
        operands.append(zeros)
    attributes = {
        "gather_axis": 0,
        "quantize_axis": 1,
        "bits": kind.bits,
        "block_size": kind.size,
    }
    gather = rewriter.node("GatherBlockQuantized", operands, attributes, domain=_CONTRIB)
    rewriter.replace(node, gather)


def _alpha_and_bias(node: ir.Node, outputs: int) -> tuple[float, np.ndarray | None]:
    if node.op_type == "MatMul":
        return 1.0, None
    alpha = node.attributes.get_float("alpha", 1.0)
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return alpha, None
    bias = constant_array(value)
    if bias is None or bias.size not in (1, outputs) or (bias.ndim == 2 and bias.shape[0] != 1):
        raise NotApplicable("Gemm bias is no constant with one number for each output")
    scaled = bias.astype(np.float64).reshape(-1) * node.attributes.get_float("beta", 1.0)
    return alpha, np.ascontiguousarray(np.broadcast_to(scaled, (outputs,)), np.float32)


def _tied_tables(model: ir.Model) -> set[str]:
    """Names of constants that a Gather reads and something else too."""

    def constants() -> Iterator[ir.Value]:
        for node in all_nodes(model):
            if node.op_type == "Gather" and node.inputs and node.inputs[0] is not None:
                yield node.inputs[0]

    return {value.name or "" for value in constants() if len(value.uses()) > 1}
