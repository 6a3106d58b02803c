"""Compares two models tensor by tensor: at which layer does a changed model go wrong?

    SQNR = 10 log10(sum a^2 / sum (b - a)^2) dB over all data

A tensor of one model is found in the other by its name; else through the provenance that passes
leave on the nodes they make (a node made of several stands for the last of them); else as
`NAME_quantized`, which is how ONNX Runtime's quantizer names the integers of NAME. What is
compared is what the tensor's consumers get: where all of them get it rounded, that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.errors import RuntimeUnavailableError
from graphopt.graph import ModelSource, constant_array, ir
from graphopt.pipeline.check import Checker
from graphopt.pipeline.model_files import load_valid
from graphopt.pipeline.task_metric import decibels
from graphopt.rewrite.rewriter import ORIGIN_KEY
from graphopt.shapes import infer_shapes

if TYPE_CHECKING:
    from graphopt.runtime import Feed

_INTEGERS = "_quantized"

GOOD_SQNR = 20.0
"""Decibels; below it the error is more than a tenth of the signal."""


@dataclass(frozen=True)
class TensorComparison:
    """One tensor in both models.

    Attributes:
        name: its name in the first model.
        other: its name in the second.
        op_type: the operator that computes it in the first model; "input" for an input.
        sqnr: in dB; inf where both are equal, NaN where they could not be compared.
        loss: how much lower that is than at the worst of the layer's inputs; 0 where it is not.
        max_abs_error: the largest error.
        reason: why they could not be compared; empty otherwise.
    """

    name: str
    other: str
    op_type: str
    sqnr: float
    loss: float
    max_abs_error: float
    reason: str = ""


@dataclass(frozen=True)
class TensorReport:
    """All tensors that both models have.

    Attributes:
        tensors: in the first model's order of execution.
        unmatched: tensors of the first model that the second does not have.
        least: the SQNR in dB below which a tensor is bad.
    """

    tensors: tuple[TensorComparison, ...]
    unmatched: tuple[str, ...]
    least: float = GOOD_SQNR

    @property
    def first_bad(self) -> TensorComparison | None:
        """The first tensor in the order of execution that is bad."""
        return next((item for item in self.tensors if item.sqnr < self.least), None)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data; a figure that is not finite is null."""
        bad = self.first_bad
        return {
            "least_sqnr": self.least,
            "first_bad": None if bad is None else bad.name,
            "compared": [
                {
                    key: None if isinstance(held, float) and not math.isfinite(held) else held
                    for key, held in dataclasses.asdict(item).items()
                }
                for item in self.tensors
            ],
            "unmatched": list(self.unmatched),
        }


def compare_tensors(
    expected: ModelSource,
    actual: ModelSource,
    *,
    input_shapes: Mapping[str, Sequence[int | str | None]] | None = None,
    dims: Mapping[str, int] | None = None,
    input_data: Any = None,
    count: int | None = None,
    seed: int = 0,
    least: float = GOOD_SQNR,
    progress: Callable[[int], None] | None = None,
) -> TensorReport:
    """Compare every tensor that two models share, on the same inputs, in bounded memory.

    Args:
        expected: the model that is right.
        actual: the model in question.
        input_shapes: shapes of the inputs, as for `graphopt.optimize`.
        dims: sizes of symbolic dims.
        input_data: the inputs; None for seeded ones.
        count: how many of them.
        seed: of the seeded inputs.
        least: the SQNR in dB below which a tensor is bad.
        progress: called after each feed with the number of feeds done.

    Raises:
        UnreadableModelError: a source is no model.
        InvalidModelError: a source breaks the rules of ONNX.
        RuntimeUnavailableError: ONNX Runtime cannot run one of the models.
    """
    first, second = load_valid(expected), load_valid(actual)
    infer_shapes(first, input_shapes=input_shapes, dims=dims)
    checker = Checker(first, input_data=input_data, count=count, seed=seed)
    if checker.unavailable is not None:
        raise RuntimeUnavailableError(f"the models cannot be compared: {checker.unavailable}")
    return tensors_of(first, second, checker.feeds(), least=least, progress=progress)


def matching_tensors(first: ir.Model, second: ir.Model) -> dict[str, str]:
    """Float tensors of the first model's main graph -> their names in the second's.

    Constants and what is computed from constants alone are left out.
    """
    others = {output.name: output for node in second.graph for output in node.outputs}
    by_origin = _by_origin(first, second)
    pairs: dict[str, str] = {}
    absorbing: list[ir.Value] = []
    for node in _fed_nodes(first):
        for value in node.outputs:
            name = value.name or ""
            found = others.get(name) or others.get(by_origin.get(name, ""))
            found = found or others.get(f"{name}{_INTEGERS}")
            if not name or found is None or not found.name or not _is_float(value):
                continue
            read = _as_read(found)
            if read is not None and read.name:
                pairs[name] = read.name
                if read is not found or not _is_float(read):
                    absorbing.append(value)
    for value in absorbing:
        # Integers without negative values are a Relu, which is then dropped.
        uses = tuple(value.uses())
        clip = uses[0].node if len(uses) == 1 and not value.is_graph_output() else None
        if clip is not None and clip.op_type in ("Relu", "Clip"):
            name = clip.outputs[0].name or ""
            if name and name not in pairs:
                pairs[name] = pairs.pop(value.name or "")
    return pairs


def _as_read(value: ir.Value) -> ir.Value | None:
    """The value in the form in which its consumers get it: rounded, if they all get that.

    None for integers whose scale is not known.
    """
    if not _is_float(value):
        return value if _dequantizer_of(value) is not None else None
    uses = tuple(value.uses())
    if value.is_graph_output() or len(uses) != 1 or uses[0].node.op_type != "QuantizeLinear":
        return value
    integers = uses[0].node.outputs[0]
    reads = [usage.node for usage in integers.uses()]
    if integers.is_graph_output() or any(node.op_type != "DequantizeLinear" for node in reads):
        return value
    return reads[0].outputs[0] if reads else value


def tensors_of(
    first: ir.Model,
    second: ir.Model,
    feeds: Iterable[Feed],
    *,
    least: float = GOOD_SQNR,
    progress: Callable[[int], None] | None = None,
) -> TensorReport:
    """What `compare_tensors` does, with models and feeds at hand."""
    from graphopt.runtime import tapped_pairs

    pairs = matching_tensors(first, second)
    others = {output.name: output for node in second.graph for output in node.outputs}
    sums = {name: _Sums(_dequantizer_of(others[other])) for name, other in pairs.items()}
    pairs_of_feeds = tapped_pairs(
        first,
        second,
        pairs,
        _counted(feeds, progress),
    )
    for name, value, other in pairs_of_feeds:
        sums[name].add(value, other)
    found: dict[str, TensorComparison] = {}
    unmatched = []
    for node in _fed_nodes(first):
        before = min((_sqnr(found, value) for value in node.inputs), default=math.inf)
        for value in node.outputs:
            name = value.name or ""
            if name in pairs:
                sqnr = sums[name].sqnr
                # Out of unmatched or integer inputs nothing can be said of the layer itself.
                loss = before - sqnr if math.isfinite(before) and before > sqnr else 0.0
                found[name] = TensorComparison(
                    name,
                    pairs[name],
                    node.op_type,
                    sqnr,
                    loss,
                    sums[name].max_abs_error,
                    sums[name].reason,
                )
            elif name and _is_float(value):
                unmatched.append(name)
    return TensorReport(tuple(found.values()), tuple(unmatched), least)


class _Sums:
    """Signal and noise of one tensor."""

    def __init__(self, dequantize: Callable[[np.ndarray], np.ndarray] | None) -> None:
        self._dequantize = dequantize
        self._signal = 0.0
        self._noise = 0.0
        self._seen = False
        self.max_abs_error = 0.0
        self.reason = ""

    @property
    def sqnr(self) -> float:
        if self.reason or not self._seen:
            return math.nan
        return decibels(self._signal, self._noise)

    def add(self, expected: Any, actual: Any) -> None:
        if not isinstance(expected, np.ndarray) or not isinstance(actual, np.ndarray):
            self.reason = "it is no tensor"
            return
        if expected.shape != actual.shape:
            self.reason = f"its shape is {list(expected.shape)}, and {list(actual.shape)}"
            return
        if self._dequantize is not None:
            actual = self._dequantize(actual)
        self._seen = True
        finite = np.isfinite(expected.astype(np.float32, copy=False))
        # A mask of infinities is no signal; one that is finite in the other model is noise.
        signal = np.where(finite, expected, 0.0).astype(np.float64).reshape(-1)
        error = np.where(finite, actual, 0.0).astype(np.float64).reshape(-1) - signal
        self._signal += float(signal @ signal)
        self._noise += float(error @ error)
        if error.size:
            self.max_abs_error = max(self.max_abs_error, float(np.abs(error).max()))


def _sqnr(found: Mapping[str, TensorComparison], value: ir.Value | None) -> float:
    item = None if value is None else found.get(value.name or "")
    return math.inf if item is None or math.isnan(item.sqnr) else item.sqnr


def _counted(feeds: Iterable[Feed], progress: Callable[[int], None] | None) -> Iterator[Feed]:
    for number, feed in enumerate(feeds, start=1):
        yield feed
        if progress is not None:
            progress(number)


def _fed_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """The nodes of the main graph whose results depend on the data."""
    fed = {value for value in model.graph.inputs if not value.is_initializer()}
    for node in model.graph:
        inner = (held for held in node.attributes.values() if held.type in _GRAPHS)
        if any(value in fed for value in node.inputs) or any(True for _ in inner):
            fed.update(node.outputs)
            yield node


_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _is_float(value: ir.Value) -> bool:
    if value.dtype is None:  # the output of an operator that nobody can infer
        return not (value.name or "").endswith(_INTEGERS)
    return value.dtype.is_floating_point()


def _by_origin(first: ir.Model, second: ir.Model) -> dict[str, str]:
    """Outputs of nodes of the first model -> outputs of the nodes made of them."""
    order: dict[str, tuple[int, str]] = {}
    for number, node in enumerate(first.graph):
        output = next((value.name for value in node.outputs if value.name), "")
        order[node.name or f"{node.op_type}:{output}"] = (number, output)
    found: dict[str, str] = {}
    for node in second.graph:
        origins = node.metadata_props.get(ORIGIN_KEY, "").split(", ")
        known = [order[origin] for origin in origins if origin in order]
        if known and node.outputs and node.outputs[0].name:
            # Of several nodes made of the same ones the last computes what they did.
            found[max(known)[1]] = node.outputs[0].name
    return found


def _dequantizer_of(value: ir.Value) -> Callable[[np.ndarray], np.ndarray] | None:
    """What makes floats of the integers that ONNX Runtime's quantizer names NAME_quantized."""
    bare = (value.name or "").removesuffix(_INTEGERS)
    graph = value.graph
    if bare == value.name or graph is None:
        return None
    step = constant_array(graph.initializers.get(f"{bare}_scale"))
    offset = constant_array(graph.initializers.get(f"{bare}_zero_point"))
    if step is None or offset is None:
        return None
    scale, zero = np.float32(step), np.float32(offset)
    return lambda array: (array.astype(np.float32) - zero) * scale
