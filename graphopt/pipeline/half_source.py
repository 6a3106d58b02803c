"""Loads a model for conversion to half precision, and prepares it by exact rewrites."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

from graphopt.errors import InvalidModelError
from graphopt.graph import ModelSource, all_graphs, clone, inline_functions, ir, save
from graphopt.pipeline.execute import execute
from graphopt.pipeline.model_files import load_valid
from graphopt.pipeline.run import make_plan
from graphopt.shapes import infer_shapes

_LARGE = 128 << 20


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


def prepared_for_half(original: ir.Model, level: int) -> ir.Model:
    """The model after the passes of a level, functions inlined where they can be."""
    passes = make_plan(level, None)
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
