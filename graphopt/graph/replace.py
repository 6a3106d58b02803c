"""Puts the content of one model in the place of another's."""

from graphopt.graph._onnx_ir import ir


def replace_content(model: ir.Model, content: ir.Model) -> None:
    """Make `model` hold what `content` holds; `content` must not be used afterwards.

    For rewrites that return a new model where the caller keeps the old object.
    """
    model.graph = content.graph
    functions = dict(content.functions)
    model.functions.clear()
    model.functions.update(functions)
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version"):
        setattr(model, name, getattr(content, name))
    model.doc_string = content.doc_string
    model.device_configurations = content.device_configurations
    for target, source in (
        (model.metadata_props, content.metadata_props),
        (model.meta, content.meta),
    ):
        kept = dict(source)
        target.clear()
        target.update(kept)
