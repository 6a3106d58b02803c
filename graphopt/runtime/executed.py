"""The graph as ONNX Runtime will run it, after its own fusions and changes of layout.

ONNX Runtime writes the optimized graph to a file when a session is made. It contains operators
of its own: `com.microsoft` (fusions), `com.microsoft.nchwc` (convolutions on blocks of channels)
and `com.ms.internal.nhwc` (channels last). Their schemas are in no copy of ONNX, and ONNX
Runtime does not write the shapes of what they make, so these are completed here.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from graphopt.errors import InvalidModelError
from graphopt.graph import ir
from graphopt.runtime.executed_shapes import complete_shapes
from graphopt.runtime.session import import_onnxruntime, make_session, proto_of, provider_names
from graphopt.runtime.weights import share_weights

_QUIET = 4
# Constants above this are written beside the optimized model, and never read back: of a weight
# only the shape matters here.
_LARGE_CONSTANT = 1024


def executed_model(
    model: ir.Model,
    *,
    sized: ir.Model | None = None,
    threads: int = 0,
    provider: str = "cpu",
) -> ir.Model:
    """The optimized graph of a session of `model`: every node is a kernel that will run.

    Args:
        model: the model as its user runs it. Not changed.
        sized: a copy of it whose shapes are inferred at the sizes of interest, where `model` has
            free dims. It is read for shapes alone: to fix the dims of `model` itself would let
            ONNX Runtime fold what it has to compute when they are free.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        provider: "cpu", or another that this build of ONNX Runtime has.

    Returns:
        A model to look at, not to run or save: its large constants have a shape and no contents.
        Every node of it has a name, the one that ONNX Runtime's profiler knows it by. Values
        have the shapes that follow from the inputs; those that depend on data have none.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot load the model here; one line says why.
    """
    runtime = import_onnxruntime()
    providers = provider_names(runtime, provider)
    options = runtime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory(prefix="graphopt-") as folder:
        path = Path(folder) / "executed.onnx"
        write_executed(options, path)
        with share_weights(model, in_place=False) as weights:
            weights.lend(runtime, options)
            proto = proto_of(weights, ())
            name_nodes(proto)
            make_session(runtime, proto, options, providers)
        return read_executed(path, sized or model)


def write_executed(options: Any, path: Path) -> None:
    """Have a session with these options write its optimized graph to `path`."""
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", f"{path.name}.weights"
    )
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(_LARGE_CONSTANT)
    )


def name_nodes(proto: onnx.ModelProto) -> None:
    """Give every node of the main graph and of nested ones a name that no other node has."""
    seen: set[str] = set()
    for graph in _graphs(proto.graph):
        for node in graph.node:
            name = base = node.name or node.op_type
            count = 1
            while name in seen:
                count += 1
                name = f"{base}_{count}"
            node.name = name
            seen.add(name)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def read_executed(path: Path, source: ir.Model) -> ir.Model:
    """The graph that a session wrote, with the shapes that the source and the rules give.

    Args:
        path: the file that was written.
        source: the model of the session, with shapes.

    Raises:
        InvalidModelError: what ONNX Runtime wrote cannot be read.
    """
    proto = onnx.load(path, load_external_data=False)
    try:
        executed = ir.serde.deserialize_model(proto)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidModelError(
            f"ONNX Runtime's optimized graph is not readable: {error}"
        ) from error
    complete_shapes(executed, source)
    return executed
