"""Loads a model for conversion to half precision, and prepares it by exact rewrites."""

from __future__ import annotations

import gc
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from graphopt.catalog import spec_of
from graphopt.errors import InvalidModelError, UsageError
from graphopt.graph import (
    ModelSource,
    all_graphs,
    all_nodes,
    clone,
    inline_functions,
    ir,
    raise_opset,
    save,
)
from graphopt.pipeline.execute import execute
from graphopt.pipeline.half_options import HalfOptions
from graphopt.pipeline.model_files import load_valid
from graphopt.pipeline.run import make_plan
from graphopt.precision import kernels_of
from graphopt.precision.regions import FIRST_HALF_SCALES
from graphopt.rewrite.journal import site_of
from graphopt.rewrite.rewriter import ORIGIN_KEY
from graphopt.shapes import infer_shapes

_QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
_LARGE = 128 << 20
_GROWTH = 100
"""A folded constant may add this part of the weights, within these bounds in bytes."""
_SMALL = 1 << 12
_LARGEST_GROWTH = 1 << 20


def loaded(source: ModelSource) -> tuple[ir.Model, bool | None]:
    """The model, and whether its result is to have a data file (None: as its size wants it).

    Large weights that lie in memory go to a file that is mapped, and removed when nobody reads
    it any more: ONNX Runtime would copy them for each session, and uses mapped ones as they are.
    """
    model = load_valid(source)
    tensors = [
        value.const_value
        for graph in all_graphs(model)
        for value in graph.initializers.values()
        if value.const_value is not None
    ]
    if any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors):
        return model, True
    if sum(tensor.nbytes for tensor in tensors) < _LARGE or isinstance(source, ir.Model):
        return model, None
    with tempfile.TemporaryDirectory(prefix="graphopt-") as folder:
        path = Path(folder) / "model.onnx"
        save(model, path, external_data=True)
        del model, tensors
        gc.collect()  # a graph is a cycle, and the collector is told to be patient
        return load_valid(path), False


def prepared_for_half(original: ir.Model, options: HalfOptions) -> ir.Model:
    """The model after the passes of its level, functions inlined where they can be.

    For a provider whose integer kernels take half, a quantized model is raised to the operator
    set where QuantizeLinear and DequantizeLinear do: no Cast is needed around them.
    """
    model = _after_passes(original, options.level)
    quantized = any(node.op_type in _QUANTIZING for node in all_nodes(model))
    half_scales = kernels_of(options.provider).half_scales and not options.storage_only
    if not quantized or not half_scales:
        return model
    try:
        raised = raise_opset(model, FIRST_HALF_SCALES)
    except UsageError:
        return model  # they stay float32
    infer_shapes(raised)
    return raised


def _after_passes(original: ir.Model, level: int) -> ir.Model:
    specs = [spec_of(item) for item in make_plan(level, None)]
    passes = make_plan(level, [_sparing(spec, original) for spec in specs])
    model = execute(original, passes)[0] if passes else clone(original)
    if model.functions:
        inlined = clone(model)
        try:
            inline_functions(inlined)
        except InvalidModelError:
            return model  # their calls stay float32
        infer_shapes(inlined)
        return inlined
    return model


def _sparing(spec: str, model: ir.Model) -> str:
    """The pass; folding constants may not add what half precision is to save.

    An embedding that is read transposed as well, say, would be there twice.
    """
    if spec != "fold-constants":
        return spec
    tensors = [value.const_value for value in model.graph.initializers.values()]
    size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    return f"{spec}{{limit={min(max(size // _GROWTH, _SMALL), _LARGEST_GROWTH)}}}"


def blocked_sites(
    original: ir.Model, prepared: ir.Model, op_types: Sequence[str], patterns: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """What has become of the nodes on the block lists: a rewrite may have put others in place.

    Returns:
        Site in `prepared` -> why it is blocked, for nodes that stand for one on a list, and the
        entries of the lists that name nothing in either model.
    """
    expressions = {pattern: re.compile(pattern) for pattern in patterns}
    unused = dict.fromkeys([*op_types, *patterns])
    origins: dict[str, str] = {}
    for model in (original, prepared):
        for node in all_nodes(model):
            if node.op_type in op_types:
                unused.pop(node.op_type, None)
                origins[_origin(node)] = node.op_type
            names = [node.name, *(value.name for value in node.outputs)]
            for pattern, expression in expressions.items():
                if any(expression.fullmatch(name) for name in names if name):
                    unused.pop(pattern, None)
                    origins[_origin(node)] = f"'{pattern}'"
    found = {}
    for node in all_nodes(prepared):
        for origin in node.metadata_props.get(ORIGIN_KEY, "").split(", "):
            if origin in origins:
                found[site_of(node)] = f"it stands for {origins[origin]}, on the block list"
    return found, list(unused)


def _origin(node: ir.Node) -> str:
    """How a node is called in the metadata of those that take its place."""
    output = next((value.name for value in node.outputs if value.name), "")
    return node.name or f"{node.op_type}:{output}"
