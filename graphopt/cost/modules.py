"""Where in the source model a node comes from: `encoder/layer.3/attention`.

PyTorch's newer exporter writes a node's module path into its metadata; its older one, and
TensorFlow's converters, put it into the node's name, between slashes. A name without either
says nothing, and the node stands at the root.
"""

from __future__ import annotations

import ast

from graphopt.graph import ir

_SCOPES = "pkg.torch.onnx.name_scopes"


def module_of(node: ir.Node) -> str:
    """The path of the module that made `node`, levels joined by `/`; "" at the root.

    A level that repeats the one above it (`layer1/layer1.0`) is written without it
    (`layer1/0`), so that both of PyTorch's exporters give one tree.
    """
    scopes = node.metadata_props.get(_SCOPES)
    levels = _read_scopes(scopes) if scopes else None
    return module_of_name(node.name or "") if levels is None else _joined(levels)


def module_of_name(name: str) -> str:
    """The module path that stands in a node's name alone; "" where none does."""
    # TensorFlow's converter joins the names of all it fused; the first is as good as any.
    return _joined(name.split(";", 1)[0].split("/")[:-1])


def _read_scopes(text: str) -> list[str] | None:
    """The levels of a list such as `['', 'layer1', 'layer1.0', 'conv2d']` less the last.

    The last entry names the operation, not a module. None where the text is no such list.
    """
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        return None
    return [scope for scope in scopes[:-1] if not scope.startswith("_empty_nn_module_stack")]


def _joined(levels: list[str]) -> str:
    shown = []
    above = ""
    for level in filter(None, levels):
        shown.append(level.removeprefix(f"{above}.") if above else level)
        above = level
    return "/".join(shown)
