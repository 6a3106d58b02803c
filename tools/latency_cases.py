"""The models that judge the latency prediction: the zoo and exports, in floats and quantized."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from tests.conftest import ZOO  # noqa: E402 - the line above finds it
from tests.zoo_models import batches, zoo_models  # noqa: E402 - the line above finds it

_PER_CHANNEL_OPSET = 13


@dataclass(frozen=True)
class Case:
    """One model, the input it is timed on, and where it comes from."""

    name: str
    path: Path
    group: str
    feed: dict[str, Any]
    precision: str = "fp32"

    @property
    def label(self) -> str:
        """The name, and the precision where that is not fp32."""
        return self.name if self.precision == "fp32" else f"{self.name} ({self.precision})"


def zoo_cases(zoo: Path = ZOO) -> Iterator[Case]:
    """The zoo's models, each with the first sample of its own data."""
    import onnx

    if not (zoo / "MANIFEST.json").is_file():
        return
    for model in zoo_models(zoo):
        feed, _ = next(batches(zoo, model.name, 1))
        graph = onnx.load(model.path, load_external_data=False).graph
        wanted = {
            value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in graph.input
        }
        feed = {name: np.asarray(x).astype(wanted[name]) for name, x in feed.items()}
        yield Case(model.name, model.path, "zoo", _one(graph, feed))


def _one(graph: Any, feed: dict[str, Any]) -> dict[str, Any]:
    """One sample of a batch, where the batch is free."""
    free = {
        value.name
        for value in graph.input
        if value.type.tensor_type.shape.dim and not value.type.tensor_type.shape.dim[0].dim_value
    }
    return {name: x[:1] if name in free else x for name, x in feed.items()}


def export_cases(folder: Path, unseen: bool) -> Iterator[Case]:
    """Exports of tools/export_models.py that are in `folder`, with seeded inputs."""
    from export_models import MODELS

    for model in MODELS:
        path = folder / f"{model.name}.onnx"
        if model.unseen != unseen or not path.is_file():
            continue
        random = np.random.default_rng(0)
        feed: dict[str, Any] = {}
        for name, dims in model.inputs.items():
            shape = [model.sizes[dim] if isinstance(dim, str) else dim for dim in dims]
            if name.startswith("int:"):
                high = 2 if "mask" in name else 8
                low = 1 if "mask" in name else 0
                feed[name.removeprefix("int:")] = random.integers(low, high, shape)
            else:
                feed[name] = random.standard_normal(shape).astype(np.float32)
        yield Case(model.name, path, "unseen" if unseen else "development", feed)


def quantized(case: Case, folder: Path) -> Case | None:
    """The case as int8 (QDQ, ONNX Runtime's static quantizer, its defaults); None if it fails.

    The file is kept in `folder`, and made only where it is not there yet.
    """
    path = folder / f"{case.name}.int8.onnx"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _quantize(case, path)
        except Exception as error:
            path.unlink(missing_ok=True)
            print(f"{case.name}: cannot be quantized: {str(error)[:120]}", file=sys.stderr)
            return None
    return replace(case, path=path, precision="int8")


def _quantize(case: Case, path: Path) -> None:
    import logging
    import tempfile

    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.disable(logging.WARNING)

    class Feeds(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = iter([case.feed, case.feed])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        model = onnx.load(case.path)
        opset = max(
            entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")
        )
        if opset < _PER_CHANNEL_OPSET:
            model = onnx.version_converter.convert_version(model, _PER_CHANNEL_OPSET)
        onnx.save(model, source)
        prepared = Path(folder) / "prepared.onnx"
        try:
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
        except Exception:
            prepared = source
        quantize_static(prepared, path, Feeds(), quant_format=QuantFormat.QDQ, per_channel=True)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options)
    session.run(None, case.feed)
