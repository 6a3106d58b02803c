"""Replaces calls of a model's own functions by their bodies."""

from __future__ import annotations

import importlib

from graphopt.graph._onnx_ir import ir


def inline_functions(model: ir.Model) -> None:
    """Inline every call, those inside subgraphs and functions included; changes the model."""
    if model.functions:
        # By name, and after onnx_ir itself was imported the way that keeps sympy out.
        importlib.import_module("onnx_ir.passes.common").InlinePass()(model)
