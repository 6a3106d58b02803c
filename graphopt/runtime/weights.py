"""Lends the weights of a large model to ONNX Runtime where they already are.

A protobuf holds 2 GiB at most, and a weight inside one is copied several times on its way into
a session. So the model goes to the runtime with stubs in place of its large weights, and the
weights beside it. What ONNX Runtime (1.31, and as far back as 1.20) offers for that:

- `add_initializer` uses the caller's memory as it is, provided that no kernel packs the weight
  into a layout of its own first (packing is switched off here: it is a second copy). Nothing
  reads the stub, but the file that it names has to exist. Graph optimizations do read it, so
  this is for sessions without.
- `add_external_initializers` replaces the stubs before anything reads them, so optimizations
  see the weights; it copies them once. It reaches the main graph only.

Weights of nested graphs are therefore moved to the main graph, whose values they may use.
"""

import contextlib
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graphopt.graph import ir
from graphopt.graph.carried import SparseTensor
from graphopt.graph.external import DataFile, EmbeddedTensor, MappedTensor
from graphopt.graph.save import to_proto
from graphopt.graph.scratch import outside
from graphopt.graph.walk import nested_graphs
from graphopt.runtime.ort_values import to_ort_value

_STUB_FILE = "weights"
# Below this a model is serialized whole: simpler, ONNX Runtime may pack its weights, and the few
# copies that it makes are small.
_LARGE_MODEL = 16 << 20
# A tensor smaller than this stays in the protobuf, where shape inference can read it.
_LARGE_TENSOR = 64 << 10
# At the speed of memory, some 50 MB become resident in this time.
_RELEASE_SECONDS = 0.005
_FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS = 4
# Sessions of the original, of its candidates and of what is timed share one copy.
_copies: weakref.WeakKeyDictionary[ir.TensorProtocol, ir.TensorProtocol] = (
    weakref.WeakKeyDictionary()
)


class Weights:
    """A model and those of its weights that are not serialized with it."""

    def __init__(self, model: ir.Model, lent: dict[str, ir.TensorProtocol], folder: str) -> None:
        self._model: ir.Model | None = model
        self._tensors = lent
        self._folder = folder
        self._values: list[Any] = []

    def to_proto(self) -> onnx.ModelProto:
        """The model, its large weights replaced by stubs. Can be called once."""
        model, self._model = self._model, None
        if model is None:
            raise ValueError("the weights of a session are serialized once")
        proto = to_proto(model)
        for initializer in proto.graph.initializer:
            tensor = self._tensors.get(initializer.name)
            if tensor is not None:
                _make_stub(initializer, tensor)
        return proto

    def lend(self, runtime: Any, options: Any) -> None:
        """Register the weights with the session options; they must outlive the session."""
        if not self._tensors:
            return
        self._values = [to_ort_value(runtime, tensor) for tensor in self._tensors.values()]
        if not self._folder:
            options.add_external_initializers(list(self._tensors), self._values)
            return
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", self._folder
        )
        for name, value in zip(self._tensors, self._values, strict=True):
            options.add_initializer(name, value)

    @contextlib.contextmanager
    def paged(self) -> Iterator[None]:
        """While it is open, keep giving pages of mapped weights back to the system.

        Reading a weight makes its pages resident. Nothing but memory pressure takes them away
        again, so without this a run ends with all weights resident, however large. Dropped
        pages stay in the system's file cache: to read one again costs little.
        """
        files = self._files()
        if not files or not self._folder:
            yield
            return
        done = threading.Event()

        def release() -> None:
            while not done.wait(_RELEASE_SECONDS):
                _forget(files)

        thread = threading.Thread(target=release, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.release()

    def release(self) -> None:
        """Give the pages of mapped weights back to the system; to use one reads it again."""
        _forget(self._files())

    def _files(self) -> set[DataFile]:
        kinds = (MappedTensor, EmbeddedTensor)
        return {tensor.file for tensor in self._tensors.values() if isinstance(tensor, kinds)}


@contextlib.contextmanager
def share_weights(model: ir.Model, *, in_place: bool) -> Iterator[Weights]:
    """Split a large model into a small one and the weights to lend.

    Args:
        model: the model; it is not changed.
        in_place: whether the session uses the weights as they lie in memory, which a session
            that optimizes, or is not on the CPU, cannot.
    """
    if sum(tensor.nbytes for tensor in _large_tensors(model)) < _LARGE_MODEL:
        yield Weights(model, {}, "")
        return
    with contextlib.ExitStack() as stack:
        folder = ""
        if in_place:
            # Where nothing can be written, the weights are copied as for other sessions.
            with contextlib.suppress(OSError):
                made = stack.enter_context(tempfile.TemporaryDirectory(prefix="graphopt-"))
                # Empty on purpose: were the stub read after all, that fails instead of giving
                # zeros.
                (Path(made) / _STUB_FILE).touch()
                folder = made
        clone = model.clone()
        yield Weights(clone, _take_out(clone), folder)


def _is_large(value: ir.Value) -> bool:
    tensor = value.const_value
    return (
        tensor is not None
        and tensor.dtype != ir.DataType.STRING
        and not isinstance(tensor, SparseTensor)
        and tensor.nbytes >= _LARGE_TENSOR
    )


def _large_tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in nested_graphs(model.graph):
        for value in graph.initializers.values():
            if _is_large(value) and value.const_value is not None:
                yield value.const_value


def _take_out(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Take the large weights out of `model`, all to its main graph; returns them by name."""
    main = model.graph
    if (model.ir_version or 0) < _FIRST_IR_WITH_OVERRIDABLE_INITIALIZERS:
        # Such a model lists its weights among its inputs, where they cannot be overridden.
        for value in [value for value in main.inputs if value.is_initializer()]:
            main.inputs.remove(value)
    names = {value.name for graph in nested_graphs(main) for value in graph.inputs}
    for graph in nested_graphs(main):
        names.update(output.name for node in graph for output in node.outputs)
        names.update(graph.initializers)
    lent: dict[str, ir.TensorProtocol] = {}
    for graph in nested_graphs(main):
        for name, value in list(graph.initializers.items()):
            tensor = value.const_value
            nested = graph is not main
            if not _is_large(value) or tensor is None or value.is_graph_input():
                continue
            if nested and value.is_graph_output():
                continue
            if not value.uses() and not value.is_graph_output():
                # ONNX Runtime drops it before it looks for what is lent by this name.
                del graph.initializers[name]
                continue
            if nested:
                del graph.initializers[name]
                while name in names:
                    name += "_"
                names.add(name)
                value.name = name
                main.initializers[name] = value
            lent[name] = _aligned(tensor)
            value.const_value = ir.tensor(np.zeros(0, np.uint8), name=name)
    return lent


def _forget(files: Iterable[DataFile]) -> None:
    for file in files:
        file.forget(0, file.size)


def _aligned(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The tensor where kernels can use it: what lies in a model file may lie at any byte."""
    if not isinstance(tensor, EmbeddedTensor) or tensor.is_aligned:
        return tensor
    known = _copies.get(tensor)
    if known is None:
        known = _copies[tensor] = outside(tensor)
    return known


def _make_stub(initializer: onnx.TensorProto, tensor: ir.TensorProtocol) -> None:
    """Make a proto that says what the weight is and refers to a file for its contents."""
    name = initializer.name
    initializer.Clear()
    initializer.name = name
    initializer.data_type = int(tensor.dtype)
    initializer.dims.extend(tensor.shape.numpy())
    initializer.data_location = onnx.TensorProto.EXTERNAL
    places = {"location": _STUB_FILE, "offset": "0", "length": str(tensor.nbytes)}
    for key, text in places.items():
        entry = initializer.external_data.add()
        entry.key, entry.value = key, text
