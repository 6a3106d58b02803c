"""distill: load, turn into PyTorch, prove that it is the same, train, write back, prove again.

    student <- argmin over its weights of the distance of its outputs to the teachers'

The student is any float model, a pruned one most often; a teacher is the model that it was made of,
or a better one. Only weights change: names, shapes and the graph stay.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.errors import EquivalenceError, OutputError, UsageError
from graphopt.graph import ModelSource, clone, ir, to_bytes
from graphopt.pipeline.guard import interface_of
from graphopt.pipeline.model_files import (
    check_output,
    described_values,
    forget_inferred,
    give_back,
    load_valid,
)
from graphopt.pipeline.task_metric import TaskMetric, read_metric
from graphopt.runtime.augmentation import check_images, read_augmentations
from graphopt.shapes import infer_shapes

if TYPE_CHECKING:
    from graphopt.distillation.losses import Targets
    from graphopt.distillation.training import Epoch, Teacher
    from graphopt.runtime import Feed

RATE = 1e-4
RATE_WITH_NORMS = 1e-3

HELD_OUT = 16
"""Every so many-th sample is not trained on but measured."""
MOST_HELD_OUT = 512
_OBSERVED = 256
"""So many samples tell the means and variances that batch norms start with."""
_NORMS_SINCE = 7
"""The opset from which BatchNormalization has no attribute that says how it is used."""
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_VECTOR = 2
"""The rank of outputs that do not move with the image: [batch, n]."""
_CLOSE = 1e-3
"""How far PyTorch may be from ONNX Runtime, relative to an output's largest magnitude."""


@dataclass(slots=True)
class DistillReport:
    """What training did.

    Attributes:
        epochs: number, training loss, held-out loss and agreement with the teachers; number 0
            is the student before training.
        best: the number of the epoch whose weights were kept.
        samples: trained on, and held out.
        weights: how many tensors were trained.
        inner: tensors inside the models that were compared too.
        metric: its name, and the student's figure before and after; None where none was asked.
    """

    epochs: list[Epoch]
    best: int
    samples: tuple[int, int]
    weights: int
    inner: tuple[str, ...] = ()
    metric: tuple[str, float, float] | None = None
    seconds: float = 0.0
    output: str | None = None
    file_bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; NaN becomes null."""
        found = dataclasses.asdict(self)
        for epoch in found["epochs"]:
            for key, value in epoch.items():
                epoch[key] = None if isinstance(value, float) and math.isnan(value) else value
        return found


@dataclass(frozen=True)
class DistillResult:
    """What `distill` gives back: the model, of the kind that was given, and the report."""

    model: Any
    report: DistillReport


@dataclass(frozen=True)
class Training:
    """How to train; see `graphopt.distillation.training.Recipe`.

    Attributes:
        rate: the largest learning rate; None for `RATE_WITH_NORMS` where at least half of the
            layers have a batch norm while training, and `RATE` elsewhere.
        temperature: what class scores are divided by; higher lets the lesser classes count more.
        inner: names of tensors inside both models, of the same shape, to compare too.
        inner_weight: how much these count beside the outputs.
        fixed: initializers that are not trained.
        augment: "mirror", "shift=N": random changes of images.
    """

    epochs: int = 5
    batch: int = 64
    rate: float | None = None
    temperature: float = 4.0
    inner: Sequence[str] = ()
    inner_weight: float = 1.0
    fixed: Sequence[str] = ()
    augment: Sequence[str] = ()
    seed: int = 0
    threads: int = 0


@dataclass(frozen=True)
class _Data:
    """The feeds of an epoch, and those held out."""

    reader: Any
    limit: int | None
    held_out: list[Feed] = field(default_factory=list)

    def __iter__(self) -> Any:
        for index, feed in enumerate(itertools.islice(iter(self.reader), self.limit)):
            if index % HELD_OUT or index // HELD_OUT >= MOST_HELD_OUT:
                yield feed


def distill(
    source: ModelSource,
    teachers: Mapping[Any, float] | Sequence[ModelSource] | ModelSource,
    data: Any,
    *,
    output: str | os.PathLike[str] | None = None,
    training: Training | None = None,
    samples: int | None = None,
    views: Sequence[str] = (),
    metric: str | Callable[..., float] | None = None,
    state_file: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    external_data: bool | None = None,
    progress: Callable[[str], None] | None = None,
) -> DistillResult:
    """Train a model's weights until its outputs are those of its teachers, as far as they can be.

    Args:
        source: the student: a path, the bytes of a model, an `onnx.ModelProto` or an `ir.Model`.
        teachers: models of the same interface; a mapping gives each a weight.
        data: unlabelled inputs: what `read_feeds` takes, repeatable.
        output: where to write the result.
        training: how to train.
        samples: how many samples to read; None for all.
        views: "mirror", "shift=N": further views of each image that the teachers are asked about;
            the mean of their answers is learnt.
        metric: `module:function` or a function of `run`, measured after each epoch: the best
            epoch is then the one that it likes best.
        state_file: where training keeps its state after each epoch, and goes on from.
        overwrite: let `output` replace a file.
        external_data: keep weights in a file of their own; None decides by size and source.
        progress: called with a line about what is being done.

    Raises:
        UsageError: PyTorch is missing, an option is wrong, the data is too small or cannot be
            read again, or the model cannot be trained.
        EquivalenceError: PyTorch computes something else than ONNX Runtime.
        OutputError: the result cannot be written.
    """
    started = time.perf_counter()
    tell = progress or (lambda _: None)
    how = training or Training()
    for number in (how.rate, how.temperature):
        if number is not None and not (number > 0 and math.isfinite(number)):
            raise UsageError(f"the rate and the temperature must be finite and above 0: {number}")
    if state_file is not None and not Path(state_file).absolute().parent.is_dir():
        raise OutputError(f"the folder of '{state_file}' does not exist; make it first")
    parts = _import_torch()
    if output is not None:
        check_output(source, output, overwrite)
        output = Path(output).absolute()
    tell("loading")
    student = load_valid(source)
    described = described_values(student)
    infer_shapes(student)
    models = _teachers(teachers, student)
    feeds = _read(data, student, samples)
    count = sum(1 for _ in feeds)
    if not count or not feeds.held_out:
        raise UsageError(f"{count} samples are too few to train on and to hold some out; give more")
    augmentations = read_augmentations(how.augment)
    looks = read_augmentations(views, "--view")
    check_images(feeds.held_out[0], augmentations)
    check_images(feeds.held_out[0], looks, "--view")
    parts.torch.manual_seed(how.seed)
    if how.threads:
        parts.torch.set_num_threads(how.threads)
    joined = all(_is_batched(model) for model in (student, *(model for model, _ in models)))
    norms = []
    if joined and student.opset_imports.get("", 1) >= _NORMS_SINCE:
        norms = parts.normalization.insert_norms(
            student, feeds.held_out[:_OBSERVED], fixed=(*how.fixed, *how.inner)
        )
    # What a norm takes away again has no gradient, and Adam would walk it at random.
    taken_away = [parts.normalization.bias_before(norm) for norm in norms]
    network = parts.network.Network(student, fixed=(*how.fixed, *taken_away))
    inner = _inner(student, models[0][0], how.inner)
    targets = parts.losses.targets_of(
        student, inner, temperature=how.temperature, inner_weight=how.inner_weight
    )
    if not targets.scores and not targets.values:
        raise UsageError("the model has no outputs of floats, so there is nothing to train towards")
    if looks:
        _check_invariant(student, targets)
    tell("comparing PyTorch with ONNX Runtime")
    _compare(network, student, feeds.held_out[0], parts.torch)
    outputs = [name for name in targets.names if name not in inner]
    # Inner tensors are those of the first teacher: others may have them in another shape.
    runs = [
        (_run(model, outputs, () if number else inner), weight)
        for number, (model, weight) in enumerate(models)
    ]
    task = _task(metric, student)

    def trained() -> ir.Model:
        copied = clone(student)
        network.write_back(copied)
        names = {norm.outputs[0].name for norm in norms}
        parts.normalization.fold_norms(
            copied, [node for node in copied.graph if node.outputs[0].name in names]
        )
        return copied

    recipe = parts.training.Recipe(
        how.epochs,
        how.batch,
        how.rate or (RATE_WITH_NORMS if _is_normed(student) else RATE),
        augmentations,
        how.seed,
    )
    steps = -(-count // how.batch)
    trainer = parts.training.Trainer(
        network,
        runs,
        targets,
        recipe,
        steps=steps,
        joined=joined,
        key=_key(how, models, feeds.held_out[0], views) + ("" if task is None else task.name),
        judge=None if task is None else lambda: task.measure(trained()),
        views=looks,
    )
    best = trainer.run(feeds, feeds.held_out, state_file=state_file, progress=tell)
    if best.number:
        network.write_back(student)
        parts.normalization.fold_norms(student, norms)
    else:
        parts.normalization.remove_norms(student, norms)
    tell("comparing PyTorch with ONNX Runtime")
    _compare(network, student, feeds.held_out[0], parts.torch)
    report = DistillReport(
        trainer.epochs,
        best.number,
        (count, len(feeds.held_out)),
        len(network.weights) - len(norms),  # a norm has two, and stands for the bias before it
        inner,
    )
    if task is not None:
        report.metric = (task.name, trainer.epochs[0].metric, best.metric)
    forget_inferred(student, described)
    given, report.file_bytes = give_back(student, source, output, overwrite, external_data, tell)
    report.output = None if output is None else os.fspath(output)
    report.seconds = time.perf_counter() - started
    return DistillResult(given, report)


@dataclass(frozen=True)
class _Parts:
    torch: Any
    losses: Any
    network: Any
    normalization: Any
    training: Any


def _import_torch() -> _Parts:
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            "distilling needs PyTorch: pip install 'graphopt[distill]' (or torch itself)"
        ) from error
    from graphopt.distillation import losses, network, normalization, training

    return _Parts(torch, losses, network, normalization, training)


def _teachers(given: Any, student: ir.Model) -> list[tuple[ir.Model, float]]:
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, list | tuple):
        pairs = [(teacher, 1.0) for teacher in given]
    else:
        pairs = [(given, 1.0)]
    if not pairs or any(not (weight > 0 and math.isfinite(weight)) for _, weight in pairs):
        raise UsageError("give at least one teacher, and finite weights above 0")
    loaded = []
    for source, weight in pairs:
        teacher = load_valid(source)
        infer_shapes(teacher)
        ours, theirs = interface_of(student), interface_of(teacher)
        names = [
            [{name for name, _ in s.inputs}, {name for name, _ in s.outputs}]
            for s in (ours, theirs)
        ]
        if names[0] != names[1]:
            raise UsageError("a teacher must have the inputs and outputs of the student, by name")
        loaded.append((teacher, float(weight)))
    return loaded


def _read(data: Any, student: ir.Model, limit: int | None) -> _Data:
    from graphopt.runtime import read_feeds

    reader = read_feeds(data, model=student)
    if not reader.repeatable:
        raise UsageError(
            "training reads the data once per epoch: give a file, a list or a function"
        )
    every = itertools.islice(iter(reader), limit)
    held = itertools.islice(every, 0, HELD_OUT * MOST_HELD_OUT, HELD_OUT)
    return _Data(reader, limit, list(held))


def _is_batched(model: ir.Model) -> bool:
    """Whether all inputs have a free first dim, so that samples can be joined."""
    return all(
        value.shape is not None and len(value.shape) > 0 and not isinstance(value.shape[0], int)
        for value in model.graph.inputs
        if not value.is_initializer()
    )


def _is_normed(model: ir.Model) -> bool:
    """Whether at least half of the layers with weights have a batch norm behind them."""
    counts = Counter(node.op_type for node in model.graph)
    return 0 < sum(counts[name] for name in _LAYERS) <= 2 * counts["BatchNormalization"]


def _inner(student: ir.Model, teacher: ir.Model, names: Sequence[str]) -> tuple[str, ...]:
    sides = [
        {value.name: value for node in model.graph for value in node.outputs}
        for model in (student, teacher)
    ]
    outputs = {value.name for value in student.graph.outputs}
    for name in names:
        if name in outputs:
            raise UsageError(f"'{name}' is an output, and is compared already")
        first, second = (side.get(name) for side in sides)
        if first is None or second is None:
            raise UsageError(f"both models must have the tensor '{name}'")
        if first.shape is None or second.shape is None or str(first.shape) != str(second.shape):
            raise UsageError(
                f"the tensor '{name}' is {first.shape} in the student and {second.shape} in the "
                "teacher: only tensors of one shape can be compared"
            )
    return tuple(dict.fromkeys(names))


def _run(model: ir.Model, outputs: Sequence[str], inner: Sequence[str]) -> Teacher:
    from graphopt.runtime import Session

    # One thread: between runs more would wait actively, on the cores that PyTorch needs.
    session = Session(model, optimized=True, threads=1, outputs=inner)
    return lambda feed: session.run(feed, [*outputs, *inner])


def _compare(network: Any, model: ir.Model, feed: Feed, torch: Any) -> None:
    from graphopt.runtime import Session, compare_outputs

    expected = Session(model).run(feed)
    network.training = False
    with torch.no_grad():
        found = network({name: torch.from_numpy(np.array(v)) for name, v in feed.items()})
    actual = {name: value.detach().numpy() for name, value in found.items()}
    for one in compare_outputs(expected, actual, rtol=_CLOSE):
        if not one.ok:
            raise EquivalenceError(
                f"PyTorch gives another '{one.name}' than ONNX Runtime: it cannot be trained"
            )


def _check_invariant(model: ir.Model, targets: Targets) -> None:
    """Refuse views where what is learnt moves with the image."""
    for value in model.graph.outputs:
        rank = None if value.shape is None else len(value.shape)
        if value.name in targets.values and (rank is None or rank > _VECTOR):
            raise UsageError(
                f"--view averages answers to changed images, but the output '{value.name}' may "
                "change with the image; views are for outputs [batch, n]"
            )


def _key(
    how: Training, models: Sequence[tuple[ir.Model, float]], feed: Feed, views: Sequence[str]
) -> str:
    """What tells one training from another: all that was asked, teachers and data."""
    found = hashlib.sha256(repr(how).encode())
    found.update("".join(f" view {text}" for text in views).encode())
    for model, _ in models:
        found.update(to_bytes(model))
    for name, value in sorted(feed.items()):
        found.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return found.hexdigest()


def _task(metric: str | Callable[..., float] | None, model: ir.Model) -> TaskMetric | None:
    if metric is None:
        return None
    if not callable(metric) and ":" not in metric:
        raise UsageError(f"the metric '{metric}' is no module:function")
    return read_metric(metric, original=model, data=())
