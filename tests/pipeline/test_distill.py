"""Training a pruned model towards the original's outputs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.graph import load, verify
from graphopt.pipeline.distill import Training, distill
from graphopt.pipeline.prune import prune
from graphopt.runtime import Session

QUICK = Training(epochs=2, batch=8, rate=3e-3, threads=1)


class StoppedError(Exception):
    """Stands for the key that interrupts a command."""


@pytest.fixture(scope="module")
def teacher(fixtures: Path) -> Path:
    return fixtures / "digits_resnet.onnx"


@pytest.fixture(scope="module")
def data(fixtures: Path) -> Path:
    return fixtures / "digits_test.npz"


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("distill") / "student.onnx"
    prune(teacher, output=target, ratio=0.5, repair=False)
    return target


def test_without_torch_it_says_what_to_install(
    student: Path, teacher: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UsageError, match=r"pip install 'graphopt\[distill\]'"):
        distill(student, teacher, data)


def test_the_student_comes_closer_and_keeps_its_form(
    student: Path, teacher: Path, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    target = tmp_path / "out.onnx"
    report = distill(student, teacher, data, output=target, training=QUICK).report
    before, *after = report.epochs
    assert min(epoch.held_out for epoch in after) < 0.7 * before.held_out
    assert report.best > 0
    old, new = load(student), load(target)
    assert verify(new) == []
    assert [n.op_type for n in old.graph] == [n.op_type for n in new.graph]
    assert {k: v.shape for k, v in old.graph.initializers.items()} == {
        k: v.shape for k, v in new.graph.initializers.items()
    }
    images = np.load(data)["image"][:100]
    runs = [Session(load(path)).run({"image": images}) for path in (teacher, student, target)]
    expected, *found = (next(iter(run.values())) for run in runs)
    errors = [float(np.square(one - expected).mean()) for one in found]
    assert errors[1] < errors[0]


def test_an_interrupted_training_goes_on_to_the_same_bytes(
    student: Path, teacher: Path, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    whole, resumed, state = (tmp_path / name for name in ("a.onnx", "b.onnx", "state"))
    distill(student, teacher, data, output=whole, training=QUICK)

    def stop(line: str) -> None:
        if line.startswith("epoch 2"):
            raise StoppedError

    with pytest.raises(StoppedError):
        distill(student, teacher, data, training=QUICK, state_file=state, progress=stop)
    distill(student, teacher, data, output=resumed, training=QUICK, state_file=state)
    assert whole.read_bytes() == resumed.read_bytes()
    others: list[Any] = [(Training(epochs=3), teacher), (QUICK, student)]
    for training, other in others:
        with pytest.raises(UsageError, match="of another training"):
            distill(student, other, data, training=training, state_file=state)


def test_training_that_makes_it_worse_is_not_kept(
    student: Path, teacher: Path, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    target = tmp_path / "out.onnx"
    wild = Training(epochs=1, batch=16, rate=30.0)
    report = distill(student, teacher, data, output=target, training=wild).report
    assert report.best == 0
    weights = [
        {k: v.const_value.numpy() for k, v in load(path).graph.initializers.items()}
        for path in (student, target)
    ]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_several_teachers_inner_tensors_and_fixed_weights(
    student: Path, teacher: Path, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    small = load(student)
    fixed = next(name for name, v in small.graph.initializers.items() if v.const_value.size > 100)
    target = tmp_path / "out.onnx"
    # The first teacher has the student's form, so that every tensor can be compared.
    inside = next(n.outputs[0].name for n in small.graph if n.op_type == "Relu")
    training = Training(epochs=1, batch=16, inner=(inside, inside), fixed=(fixed,))
    report = distill(
        student, {student: 1.0, teacher: 2.0}, data, output=target, training=training
    ).report
    assert report.inner == (inside,)
    before, after = (load(p).graph.initializers[fixed].const_value for p in (student, target))
    assert (before.numpy() == after.numpy()).all()
    moved = next(name for name in small.graph.initializers if name != fixed and "weight" in name)
    first, second = (load(p).graph.initializers[moved].const_value for p in (student, target))
    assert (first.numpy() != second.numpy()).any() or report.best == 0


def test_held_out_images_change_as_those_of_the_training_do(
    student: Path, teacher: Path, data: Path
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")

    def before(*augment: str) -> float:
        training = Training(epochs=1, batch=64, augment=augment, threads=1)
        return distill(student, teacher, data, training=training).report.epochs[0].held_out

    assert before("shift=2") == before("shift=2")
    assert before("shift=2") != pytest.approx(before(), rel=1e-3)


def test_teachers_answer_to_views_and_the_mean_is_learnt(
    student: Path, teacher: Path, data: Path, tmp_path: Path
) -> None:
    """The student is the teacher too: without views there is nothing to learn."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    quick, state = Training(epochs=1, batch=64, threads=1), tmp_path / "state"
    images = np.load(data)["image"]

    def before(feed: np.ndarray, *views: str) -> float:
        found = distill(teacher, teacher, {"image": feed}, training=quick, views=views)
        return found.report.epochs[0].held_out

    run = Session(load(teacher)).run
    held = images[::16]

    def softened(feed: np.ndarray) -> np.ndarray:
        (scores,) = run({"image": feed}).values()
        powers = np.exp((scores - scores.max(-1, keepdims=True)) / quick.temperature)
        return np.asarray(powers / powers.sum(-1, keepdims=True), np.float64)

    own = softened(held)
    mean = (own + softened(np.ascontiguousarray(held[..., ::-1]))) / 2
    divergence = float((mean * np.log(mean / own)).sum(-1).mean()) * quick.temperature**2
    assert before(images) == pytest.approx(0.0, abs=1e-5)
    assert before(images, "mirror") == pytest.approx(divergence, rel=0.02)
    symmetric = (images + images[..., ::-1]) / 2
    assert before(symmetric, "mirror") == pytest.approx(0.0, abs=1e-5)
    distill(student, teacher, data, training=quick, state_file=state)
    with pytest.raises(UsageError, match="of another training"):
        distill(student, teacher, data, training=quick, views=["mirror"], state_file=state)


def test_inner_tensors_are_of_the_image_as_it_is(teacher: Path, data: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    inside = next(n.outputs[0].name or "" for n in load(teacher).graph if n.op_type == "Relu")
    feed = {"image": np.load(data)["image"][:64]}

    def before(inner: tuple[str, ...], weight: float) -> float:
        training = Training(epochs=1, inner=inner, inner_weight=weight, threads=1)
        report = distill(teacher, teacher, feed, training=training, views=["mirror"]).report
        return report.epochs[0].held_out

    assert before((inside,), 1e3) == pytest.approx(before((), 1.0), rel=1e-4)


def test_views_are_not_for_outputs_that_move_with_the_image(
    student: Path, teacher: Path, data: Path
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    maps = load(teacher)
    maps.graph.outputs.append(next(n.outputs[0] for n in maps.graph if n.op_type == "Relu"))
    with pytest.raises(UsageError, match=r"views are for outputs \[batch, n\]"):
        distill(maps, maps, data, views=["mirror"])
    with pytest.raises(UsageError, match="--view 'turn' is neither"):
        distill(student, teacher, data, views=["turn"])


def test_a_metric_chooses_the_epoch(student: Path, teacher: Path, data: Path) -> None:
    """One that likes what the loss does not: the model farthest from the one that came in."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    images = np.load(data)["image"][:32]
    first = next(iter(Session(load(student)).run({"image": images}).values()))
    figures: list[float] = []

    def distance(run: Any) -> float:
        (found,) = run({"image": images}).values()
        figures.append(float(np.abs(found - first).max()))
        return figures[-1]

    wild = Training(epochs=2, batch=16, rate=0.5, threads=1)
    report = distill(student, teacher, data, training=wild, metric=distance).report
    assert [epoch.metric for epoch in report.epochs] == figures
    assert figures[0] < 1e-3
    assert report.best == int(np.argmax(figures)) > 0
    assert report.metric == ("distance", figures[0], max(figures))
    assert report.epochs[report.best].held_out > report.epochs[0].held_out


def test_a_figure_that_is_no_number_chooses_nothing() -> None:
    training = pytest.importorskip("graphopt.distillation.training", reason="needs PyTorch")
    trainer = training.Trainer.__new__(training.Trainer)
    trainer._judge, trainer._judged_on = (lambda: 0.0), 100
    trainer.epochs = [
        training.Epoch(number, 1.0, 1.0, 1.0, figure)
        for number, figure in enumerate((float("nan"), 2.0, 3.0, float("nan")))
    ]
    assert trainer.best.number == 2


@pytest.mark.parametrize(
    ("figures", "best"),
    [
        ((0.6, 0.8, 0.7), 1),  # 0.8 of 100 is known to 0.04
        ((0.6, 0.8, 0.77), 2),
        ((0.6, 0.8, 0.77, 0.74), 2),  # no step of its own from 0.8 to 0.74
        ((0.79, 0.8, 0.79), 1),  # no better than the start
        ((0.8, 0.7, 0.79), 0),
        ((30.0, 31.0, 30.99), 1),  # no share: taken as it is
        ((30.0, 31.0, 31.0), 2),
    ],
)
def test_of_epochs_that_a_share_cannot_tell_apart_the_later_one_is_kept(
    figures: tuple[float, ...], best: int
) -> None:
    training = pytest.importorskip("graphopt.distillation.training", reason="needs PyTorch")
    trainer = training.Trainer.__new__(training.Trainer)
    trainer._judge, trainer._judged_on = (lambda: 0.0), 100
    trainer.epochs = [
        training.Epoch(number, 1.0, 1.0, 1.0, figure) for number, figure in enumerate(figures)
    ]
    assert trainer.best.number == best


def test_norms_are_there_for_the_training_alone(
    student: Path, teacher: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from graphopt.distillation import training

    rates, kinds = [], []

    class Seen(training.Trainer):
        def __init__(self, network: Any, *rest: Any, **named: Any) -> None:
            super().__init__(network, *rest, **named)
            rates.append(rest[2].rate)
            kinds.append([step.op_type for step in network._steps])

    monkeypatch.setattr(training, "Trainer", Seen)
    result = distill(student, teacher, data, training=Training(epochs=1, threads=1))
    fixed = [name for name in load(student).graph.initializers if "weight" in name]
    distill(student, teacher, data, training=Training(epochs=1, threads=1, fixed=fixed))
    assert rates == [1e-3, 1e-4]
    assert ["BatchNormalization" in kind for kind in kinds] == [True, False]
    assert "BatchNormalization" not in [node.op_type for node in load(result.model).graph]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inner": ("nothing",)}, "both models must have the tensor 'nothing'"),
        ({"augment": ("rotate",)}, "neither 'mirror' nor 'shift=N'"),
        ({"rate": float("nan")}, "finite and above 0"),
        ({"temperature": float("inf")}, "finite and above 0"),
    ],
)
def test_what_is_asked_wrongly(
    student: Path, teacher: Path, data: Path, changes: dict[str, Any], reason: str
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    with pytest.raises(UsageError, match=reason):
        distill(student, teacher, data, training=Training(**changes))


def test_another_interface_is_no_teacher(student: Path, teacher: Path, data: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    other = load(teacher)
    other.graph.outputs[0].name = "something_else"
    with pytest.raises(UsageError, match="inputs and outputs of the student"):
        distill(student, other, data)
