"""The ONNX backend test suite as cases: a model, its feeds, and the outputs it expects."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper
import onnx.version_converter

from tests.generate import interface_changes

OLDEST_OPSET = 7
"""The oldest opset that graphopt takes; it refuses what is older, in one line."""
UPGRADED_OPSET = 13

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")


@dataclass
class Case:
    """One model of the suite. Each data set is (inputs in order, expected outputs in order)."""

    name: str
    model: onnx.ModelProto
    data_sets: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float


def cases(kind: str) -> Iterator[Case]:
    """Every case of one kind. `real` gives the large nets whose weights are made by their graph."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        found = sorted(load_model_tests(kind=kind), key=lambda case: str(case.name))
    for case in found:
        if case.model is not None:
            yield Case(case.name, _upgraded(case.model), list(case.data_sets), case.rtol, case.atol)
        elif case.model_dir is not None:
            yield _from_folder(case)
        else:
            path = Path(onnx.__file__).parent.parent / case.url
            if path.is_file():
                yield _light(case, path)


def _from_folder(case: Any) -> Case:
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    data_sets = []
    for data in sorted(folder.glob("test_data_set_*")):
        inputs = [
            _load(data / f"input_{i}.pb", model.graph.input[i].type)
            for i in range(len(list(data.glob("input_*.pb"))))
        ]
        outputs = [
            _load(data / f"output_{i}.pb", model.graph.output[i].type)
            for i in range(len(list(data.glob("output_*.pb"))))
        ]
        data_sets.append((inputs, outputs))
    return Case(case.name, _upgraded(model), data_sets, case.rtol, case.atol)


def _upgraded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model; converted to a newer opset, where it is older than graphopt takes."""
    if not _is_too_old(model):
        return model
    try:
        return onnx.version_converter.convert_version(model, UPGRADED_OPSET)
    except Exception:
        return model  # the converter knows no way: the case will count as refused


def _is_too_old(model: onnx.ModelProto) -> bool:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return bool(versions) and min(versions) < OLDEST_OPSET


def _light(case: Any, path: Path) -> Case:
    """A ramp as input, as the suite's own runner feeds these; outputs lie beside the model."""
    model = onnx.load(path)
    initialized = {tensor.name for tensor in model.graph.initializer}
    inputs = []
    for value in model.graph.input:
        if value.name not in initialized:
            shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
            count = int(np.prod(shape))
            inputs.append((np.arange(count).reshape(shape) / count).astype(np.float32))
    outputs = [
        _load(path.with_name(f"{path.stem}_output_{i}.pb"), value.type)
        for i, value in enumerate(model.graph.output)
    ]
    return Case(case.name, model, [(inputs, outputs)], case.rtol, case.atol)


def _load(path: Path, kind: onnx.TypeProto) -> Any:
    content = path.read_bytes()
    if kind.HasField("sequence_type"):
        sequence = onnx.SequenceProto.FromString(content)
        return onnx.numpy_helper.to_list(sequence)
    if kind.HasField("optional_type"):
        return onnx.numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
    return onnx.TensorProto.FromString(content)


def _plain(value: Any) -> Any:
    """As numpy: TensorProto read, Python and numpy scalars made arrays."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None else np.asarray(value)


class Runner:
    """A model in ONNX Runtime, its own optimizations off."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.names = [output.name for output in self.session.get_outputs()]

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Outputs in order; dtypes that numpy lacks go through OrtValues both ways."""
        feed: dict[str, Any] = {}
        for declared, value in zip(self.session.get_inputs(), inputs, strict=False):
            feed[declared.name] = _plain(value)
        arrays = [value for value in feed.values() if isinstance(value, np.ndarray)]
        foreign = any(_is_foreign(array) for array in arrays) or any(
            word in output.type
            for output in self.session.get_outputs()
            for word in ("bfloat16", "float8", "int4", "float4", "int2")
        )
        if not foreign:
            return list(self.session.run(None, feed))
        given = {name: _ort_value(array) for name, array in feed.items() if array is not None}
        results = self.session.run_with_ort_values(None, given)
        return [_from_ort_value(result) for result in results]


def _is_foreign(array: np.ndarray) -> bool:
    return array.dtype.kind == "V" or array.dtype.name not in np.sctypeDict


def _ort_value(array: np.ndarray) -> Any:
    import onnxruntime

    if not _is_foreign(array):
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    bits = np.uint16 if array.dtype.itemsize == 2 else np.uint8
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(bits), kind)


def _from_ort_value(value: Any) -> Any:
    if not value.is_tensor():
        return value.numpy()
    kind = value.element_type()
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    array = value.numpy()
    if array.dtype != dtype and array.dtype.itemsize == dtype.itemsize:
        return array.view(dtype)
    return array


def difference(expected: Any, actual: Any, rtol: float, atol: float) -> str | None:
    """How two outputs differ beyond the suite's tolerances, or None."""
    left, right = _plain(expected), _plain(actual)
    if left is None or right is None:
        return None if left is None and right is None else "one of them is None"
    if isinstance(left, list) or isinstance(right, list):
        if not (isinstance(left, list) and isinstance(right, list) and len(left) == len(right)):
            return "sequences of other lengths"
        pairs = zip(left, right, strict=True)
        return next((d for a, b in pairs if (d := difference(a, b, rtol, atol))), None)
    if left.shape != right.shape:
        return f"shape {left.shape} became {right.shape}"
    if left.dtype.kind in "OUS":
        return None if np.array_equal(left.astype(object), right.astype(object)) else "strings"
    if left.dtype != right.dtype:
        return f"dtype {left.dtype} became {right.dtype}"
    if left.dtype.name == "bfloat16":
        rtol = max(rtol, 2**-6)  # as the suite's runner has it: two units in the last place
    if _is_foreign(left):
        left, right = left.astype(np.float32), right.astype(np.float32)
    if np.allclose(left, right, rtol=rtol, atol=atol, equal_nan=True):
        return None
    with np.errstate(all="ignore"):
        worst = np.nanmax(np.abs(left.astype(np.complex128) - right.astype(np.complex128)))
    return f"off by up to {worst:.3g}"


def differences(expected: Sequence[Any], actual: Sequence[Any], case: Case) -> str | None:
    """The first difference among the outputs of one data set, or None."""
    if len(expected) != len(actual):
        return f"{len(expected)} outputs became {len(actual)}"
    for index, (left, right) in enumerate(zip(expected, actual, strict=True)):
        found = difference(left, right, case.rtol, case.atol)
        if found:
            return f"output {index}: {found}"
    return None


@dataclass(frozen=True)
class Verdict:
    """How a case went.

    Attributes:
        reference: what the result was held against: `suite`, `original` where ONNX Runtime's own
            result differs from the suite's, `shapes` where it is random, `none` where the
            original does not run, `refused` where the model is older than what graphopt takes.
        failure: crash, invalid, interface or wrong, with the reason; empty when all is well.
    """

    case: str
    reference: str
    failure: str = ""


def judge(case: Case, optimize: Any) -> Verdict:
    """Optimize one case's model and hold the result against the suite's expectations."""
    try:
        reference, wanted = _wanted(case)
    except Exception:
        reference, wanted = "none", []
    before = case.model.SerializeToString()
    try:
        optimized = optimize(case.model)
    except Exception as error:
        if _is_refusal(case.model, error):
            return Verdict(case.name, "refused")
        return Verdict(case.name, reference, f"crash: {type(error).__name__}: {error}")
    if case.model.SerializeToString() != before:
        return Verdict(case.name, reference, "argument changed")
    if reference == "none":
        return Verdict(case.name, reference)
    problem = _invalid(case.model, optimized)
    if problem:
        return Verdict(case.name, reference, f"invalid: {problem}")
    changes = interface_changes(case.model, optimized)
    if changes:
        return Verdict(case.name, reference, f"interface: {changes[0]}")
    try:
        runner = Runner(optimized)
        for (inputs, _), outputs in zip(case.data_sets, wanted, strict=True):
            got = runner.run(inputs)
            if reference == "shapes":
                outputs, got = _shapes(outputs), _shapes(got)
            found = differences(outputs, got, case)
            if found:
                return Verdict(case.name, reference, f"wrong: {found}")
    except Exception as error:
        return Verdict(case.name, reference, f"wrong: does not run: {error}")
    return Verdict(case.name, reference)


def _is_refusal(model: onnx.ModelProto, error: Exception) -> bool:
    """Whether this is graphopt saying that the model's opset is too old for it."""
    from graphopt.errors import InvalidModelError

    refused = isinstance(error, InvalidModelError) and "opset" in str(error)
    return refused and _is_too_old(model)


def _wanted(case: Case) -> tuple[str, list[list[Any]]]:
    """The outputs to hold the result against, and where they are from; raises if it cannot run."""
    runner = Runner(case.model)
    first = [runner.run(inputs) for inputs, _ in case.data_sets]
    expected = [list(outputs) for _, outputs in case.data_sets]
    pairs = zip(expected, first, strict=True)
    if not any(differences(wanted, got, case) for wanted, got in pairs):
        return "suite", expected
    again = [Runner(case.model).run(inputs) for inputs, _ in case.data_sets]
    if any(differences(a, b, case) for a, b in zip(first, again, strict=True)):
        return "shapes", first
    return "original", first


def _shapes(outputs: Sequence[Any]) -> list[Any]:
    return [np.array(np.shape(output)) for output in outputs]


def _invalid(original: onnx.ModelProto, optimized: onnx.ModelProto) -> str:
    """What the checker says of the result; what it says of the original as well does not count."""
    for full in (True, False):
        try:
            onnx.checker.check_model(original, full_check=full)
        except Exception:
            continue
        try:
            onnx.checker.check_model(optimized, full_check=full)
        except Exception as error:
            return str(error)
        return ""
    return ""
