"""Lets an ONNX Runtime that is older than the model's versions run it, where that is sound.

Exporters stamp models with the newest IR version and operator set that they know. A runtime
refuses a stamp it does not know, whether or not anything in the model depends on it.
"""

import re
from collections.abc import Iterable, Iterator

import onnx

_NEWEST_IR = re.compile(r"max supported IR version: (\d+)")
_NEWEST_OPSET = re.compile(r"official support for domain ai\.onnx is till opset (\d+)")


def lower_versions(proto: onnx.ModelProto, complaint: str) -> bool:
    """Restamp `proto` with the newest versions that ONNX Runtime reads, if it means the same.

    The IR version is the file format's: a model that was read can be written in an older one.
    The operator set is lowered only when no operator of the model has changed since.

    Args:
        proto: the model; changed in place.
        complaint: what ONNX Runtime said when it refused the model.

    Returns:
        Whether anything was changed, so that another try makes sense.
    """
    newest_ir = _NEWEST_IR.search(complaint)
    if newest_ir and int(newest_ir[1]) < proto.ir_version:
        proto.ir_version = int(newest_ir[1])
        return True
    newest_opset = _NEWEST_OPSET.search(complaint)
    if not newest_opset:
        return False
    newest = int(newest_opset[1])
    known = onnx.defs.onnx_opset_version()
    changed = False
    for imports, nodes in _scopes(proto):
        for entry in imports:
            if entry.domain in ("", "ai.onnx") and entry.version > newest:
                if entry.version > known or any(
                    _since(node, entry.version) > newest for node in _all_nodes(nodes)
                ):
                    return False
                entry.version = newest
                changed = True
    return changed


def _scopes(
    proto: onnx.ModelProto,
) -> Iterator[tuple[Iterable[onnx.OperatorSetIdProto], Iterable[onnx.NodeProto]]]:
    yield proto.opset_import, proto.graph.node
    for function in proto.functions:
        yield function.opset_import, function.node


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        for attribute in node.attribute:
            stack.extend(attribute.g.node)
            for graph in attribute.graphs:
                stack.extend(graph.node)


def _since(node: onnx.NodeProto, version: int) -> int:
    """The version of the operator set in which the node's operator last changed."""
    if node.domain not in ("", "ai.onnx"):
        return 0
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "")
    except onnx.defs.SchemaError:
        return 0  # a function of the model, or nothing that any version knows
    return int(schema.since_version)
