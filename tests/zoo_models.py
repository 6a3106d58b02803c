"""The zoo of trained models: its loader, comparing two models on its data, counting nodes."""

import copy
import importlib.util
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


@dataclass(frozen=True)
class ZooModel:
    """One model: its file, its task, and the measure of its task (`-` where it has none)."""

    name: str
    path: Path
    task: str


def zoo_models(zoo: Path) -> list[ZooModel]:
    """Every model of the manifest whose file is there."""
    manifest = json.loads((zoo / "MANIFEST.json").read_text())
    models = [ZooModel(m["name"], zoo / m["file"], m["task"]) for m in manifest["models"]]
    return [model for model in models if model.path.is_file()]


def loader(zoo: Path) -> Any:
    """The zoo's own loader module: batches(name, n), evaluate(name, session, n)."""
    spec = importlib.util.spec_from_file_location("zoo_loader", zoo / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def batches(zoo: Path, name: str, samples: int | None) -> Iterator[tuple[dict[str, Any], Any]]:
    """(feed, labels) pairs; `samples` bounds the samples, or the pairs where a model has no n."""
    return itertools.islice(loader(zoo).batches(name, samples), samples)


def session(model: onnx.ModelProto | bytes, *, threads: int = 0) -> Any:
    """An ONNX Runtime session with its own optimizations off."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def count_nodes(model: onnx.ModelProto) -> int:
    """Nodes in the main graph, in every subgraph and in every function."""

    def in_nodes(nodes: Any) -> int:
        return sum(
            1
            + sum(
                in_nodes(attribute.g.node)
                for attribute in node.attribute
                if attribute.type == onnx.AttributeProto.GRAPH
            )
            for node in nodes
        )

    return in_nodes(model.graph.node) + sum(in_nodes(f.node) for f in model.functions)


def keeps_defaults(model: onnx.ModelProto) -> bool:
    """Whether initializers among the inputs are defaults; PyTorch before 1.3 listed them all."""
    old = model.producer_name == "pytorch" and model.producer_version in ("1.0", "1.1", "1.2")
    return not old


@dataclass
class Agreement:
    """How two models compare on the same data.

    Attributes:
        error: the largest float error, relative to the scale of its output on its batch.
        integer_differences: elements of integer, bool and string outputs that differ.
        samples: how many samples were run.
        changed: how many answers (the top-1 class, the decoded plate) differ; None without labels.
        correct: right answers of the first and of the second model; None without labels.
    """

    error: float = 0.0
    integer_differences: int = 0
    samples: int = 0
    changed: int | None = None
    correct: tuple[int, int] | None = None
    shapes: list[str] = field(default_factory=list)


def compare(zoo: Path, name: str, first: Any, second: Any, samples: int | None) -> Agreement:
    """Run two sessions over a zoo model's data and compare outputs and answers."""
    module = loader(zoo)
    measure = module.B[name][1]
    found = Agreement()
    names = [output.name for output in first.get_outputs()]
    dtypes = {i.name: _DTYPES[i.type] for i in first.get_inputs()}
    for given, labels in batches(zoo, name, samples):
        feed = {key: given[key].astype(dtype) for key, dtype in dtypes.items()}
        left, right = first.run(names, feed), second.run(names, feed)
        for output, a, b in zip(names, left, right, strict=True):
            if a.shape != b.shape or a.dtype != b.dtype:
                found.shapes.append(f"{output}: {a.dtype}{a.shape} became {b.dtype}{b.shape}")
            elif a.dtype.kind == "f":
                scale = max(float(np.abs(a).max(initial=0.0)), 1e-12)
                error = np.abs(a.astype(np.float64) - b).max(initial=0.0) / scale
                # A NaN that was none before must not pass for agreement.
                found.error = max(found.error, float("inf") if np.isnan(error) else float(error))
            else:
                found.integer_differences += int((a != b).sum())
        found.samples += len(next(iter(feed.values()))) if labels is not None else 1
        if measure in ("top1", "plate"):
            _count_answers(found, module, measure, labels, left[0], right[0])
    return found


def _count_answers(
    found: Agreement, module: Any, measure: str, labels: Any, left: np.ndarray, right: np.ndarray
) -> None:
    def answers(output: np.ndarray) -> list[Any]:
        if measure == "plate":
            return [module.ctc(scores.argmax(0)) for scores in output]
        return list(output.reshape(len(labels), -1).argmax(1))

    a, b = answers(left), answers(right)
    found.changed = (found.changed or 0) + sum(bool(x != y) for x, y in zip(a, b, strict=True))
    before = found.correct or (0, 0)
    right_now = [sum(x == y for x, y in zip(got, labels, strict=True)) for got in (a, b)]
    found.correct = (before[0] + int(right_now[0]), before[1] + int(right_now[1]))


def rival_nodes(model: onnx.ModelProto) -> dict[str, int]:
    """Node counts after onnxsim and onnxslim, of those that are installed and manage the model."""
    counts = {}
    try:
        import onnxsim

        simplified, _ = onnxsim.simplify(copy.deepcopy(model))
        counts["onnxsim"] = count_nodes(simplified)
    except Exception as error:
        print(f"onnxsim: {error}")
    try:
        import onnxslim

        counts["onnxslim"] = count_nodes(onnxslim.slim(copy.deepcopy(model)))
    except Exception as error:
        print(f"onnxslim: {error}")
    return counts
