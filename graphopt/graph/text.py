"""Models as ONNX text: small models written by hand, and golden files.

    to_text(from_text(to_text(model))) == to_text(model)

Two limits of the notation: metadata and doc strings of nodes are not printed, and initializers
of 4-bit and narrower types print but do not parse.
"""

import onnx
import onnx.parser
import onnx.printer

from graphopt.errors import UnreadableModelError
from graphopt.graph._onnx_ir import ir
from graphopt.graph.load import load
from graphopt.graph.problem import one_line
from graphopt.graph.proto import graph_protos
from graphopt.graph.save import to_proto


def to_text(model: ir.Model) -> str:
    """The model as deterministic ONNX text, without node names.

    The type of an initializer is not repeated as that of a value.
    """
    proto = to_proto(model)
    for graph in graph_protos(proto):
        initialized = {tensor.name for tensor in graph.initializer}
        kept = [info for info in graph.value_info if info.name not in initialized]
        del graph.value_info[:]
        graph.value_info.extend(kept)
        for node in graph.node:
            node.ClearField("name")
    for function in proto.functions:
        for node in function.node:
            node.ClearField("name")
    return onnx.printer.to_text(proto)


def from_text(text: str) -> ir.Model:
    """The model that ONNX text describes.

    Raises:
        UnreadableModelError: the text does not parse; the message holds the parser's line.
        InvalidModelError: it parses, but names are undefined, defined twice, or cyclic.
    """
    try:
        proto = onnx.parser.parse_model(text)
    except onnx.parser.ParseError as error:
        # The parser's message is bytes, which str() would show with a b and quotes.
        (raw,) = error.args
        message = raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
        reason = one_line(" ".join(message.split()))
        raise UnreadableModelError(f"the ONNX text does not parse: {reason}") from None
    return load(proto)
