"""Trains a network to give the outputs of its teachers; no labels.

Adam, its rate warmed up over the first steps and then falling as a half cosine, gradients cut to a
norm of 5. After each epoch the loss on held-out feeds is measured; the numbers of the best epoch
are kept, those before training among the candidates, so that training cannot make a model worse by
that measure. Held-out feeds are changed at random as those of the training are, by one draw for
all epochs: a teacher often was trained on the same images, and what it knows of them by heart
tells nothing of others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphopt.distillation.batches import batches, shuffled
from graphopt.distillation.losses import Targets
from graphopt.distillation.network import Network
from graphopt.errors import OutputError, UsageError, reason_of
from graphopt.runtime.augmentation import Augment, augmented

Teacher = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Feed -> the tensors that are compared, by name."""

_WARM_UP = 0.05
_LARGEST_NORM = 5.0
_FORMAT = 2


@dataclass(frozen=True)
class Epoch:
    """One pass over the data.

    Attributes:
        number: from 1; 0 is the network before training.
        loss: the mean loss while training; NaN for number 0.
        held_out: the loss on held-out feeds, afterwards.
        agreement: the share of held-out samples whose top class is the teachers', NaN where the
            outputs are no class scores.
        metric: the figure of the judge, NaN without one.
    """

    number: int
    loss: float
    held_out: float
    agreement: float
    metric: float = math.nan


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the data.
        batch: samples in one step.
        rate: the largest learning rate.
        augmentations: random changes of each batch, those held out among them.
        seed: of the order and of the changes.
    """

    epochs: int = 5
    batch: int = 64
    rate: float = 1e-4
    augmentations: Sequence[Augment] = field(default=(), repr=False)
    seed: int = 0


class Trainer:
    """Trains one network.

    Args:
        network: what is trained, in place.
        teachers: each with its weight.
        targets: which tensors are compared, and how.
        recipe: how long and how fast.
        steps: batches in one epoch.
        joined: whether samples can be joined into batches; otherwise each is a run of its own,
            and a step sums the gradients of a batch of them.
        key: what else makes this training another one than one whose state is kept.
        judge: gives a figure of the network as it is, higher is better, by which the best epoch is
            chosen; None to choose by the held-out loss.
        views: the teachers are asked about each image, and about it changed by each of these; the
            mean of their answers is learnt (arXiv 1712.04440). Inner tensors are of the image.
    """

    def __init__(
        self,
        network: Network,
        teachers: Sequence[tuple[Teacher, float]],
        targets: Targets,
        recipe: Recipe,
        *,
        steps: int,
        joined: bool,
        key: str = "",
        judge: Callable[[], float] | None = None,
        views: Sequence[Augment] = (),
    ) -> None:
        self._network = network
        self._teachers = teachers
        self._targets = targets
        self._recipe = recipe
        self._joined = joined
        self._judge = judge
        self._views = views
        self._optimizer = torch.optim.Adam(list(network.weights.values()), lr=recipe.rate)
        total = max(steps * recipe.epochs, 1)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: _rate(step, total)
        )
        self.epochs: list[Epoch] = []
        self._best = network.state()
        self._judged_on = 0
        self._recipe_text = f"{recipe} {targets} {[weight for _, weight in teachers]} {key}"
        self._started_from = _digest(self._best)

    def run(
        self,
        feeds: Iterable[dict[str, Any]],
        held_out: Sequence[dict[str, Any]],
        *,
        state_file: str | os.PathLike[str] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Epoch:
        """Train to the end, and leave the network with the numbers of the best epoch.

        Args:
            feeds: single samples, read anew in each epoch.
            held_out: feeds that are not among them.
            state_file: written after each epoch; if it is there, training goes on from it.
            progress: called with a line now and then.

        Returns:
            The best epoch.

        Raises:
            OutputError: the state cannot be written.
            UsageError: the state is of another training, or the loss is not finite.
        """
        tell = progress or (lambda _: None)
        self._judged_on = len(held_out)
        if state_file is not None and Path(state_file).exists():
            self._load(Path(state_file))
        if not self.epochs:
            self.epochs.append(self._measured(0, float("nan"), held_out))
            if not math.isfinite(self.epochs[0].held_out):
                raise UsageError("the outputs of the models, or their distance, are not finite")
        for number in range(len(self.epochs), self._recipe.epochs + 1):
            loss = self._epoch(number, feeds, tell)
            self.epochs.append(self._measured(number, loss, held_out))
            if self.epochs[-1] is self.best:
                self._best = self._network.state()
            if state_file is not None:
                self._save(Path(state_file))
        self._network.restore(self._best)
        return self.best

    @property
    def best(self) -> Epoch:
        """The latest epoch that the judge likes as well as any, or the one with the least loss.

        Whoever comes close to a teacher repeats its mistakes: a judge who has labels may like an
        epoch that the loss does not. A share of n samples is known to sqrt(p (1 - p) / n) only: of
        epochs that differ by less the later one is taken, for the rate falls to the end; but none
        that is not better than the start.
        """
        if self._judge is None:
            return min(self.epochs, key=lambda epoch: epoch.held_out)
        best, start = self.epochs[0], self.epochs[0].metric
        highest = start
        for epoch in self.epochs[1:]:
            if math.isnan(epoch.metric) or epoch.metric <= start:
                continue
            if not epoch.metric < highest - self._doubt(highest):
                best = epoch
            highest = epoch.metric if math.isnan(highest) else max(highest, epoch.metric)
        return best

    def _doubt(self, metric: float) -> float:
        """The standard error of a share, or of a mean of figures between 0 and 1, at most."""
        if not 0 <= metric <= 1 or not self._judged_on:
            return 0.0
        return math.sqrt(metric * (1 - metric) / self._judged_on)

    def _epoch(
        self, number: int, feeds: Iterable[dict[str, Any]], tell: Callable[[str], None]
    ) -> float:
        random = np.random.default_rng([self._recipe.seed, number])
        self._network.training = True
        losses = []
        some: list[dict[str, Any]] = []
        size = self._recipe.batch
        mixed = shuffled(feeds, random)
        steps = ([feed] for feed in batches(mixed, size)) if self._joined else _grouped(mixed, size)
        for some in steps:
            self._optimizer.zero_grad()
            for feed in some:
                changed = augmented(feed, self._recipe.augmentations, random)
                loss = self._loss(changed, random) / len(some)
                loss.backward()
                losses.append(loss.item() * len(some))
            torch.nn.utils.clip_grad_norm_(list(self._network.weights.values()), _LARGEST_NORM)
            self._optimizer.step()
            self._schedule.step()
            of = f"epoch {number} of {self._recipe.epochs}"
            tell(f"{of}, step {len(losses)}: loss {np.mean(losses[-50:]):.4f}")
        return float(np.mean(losses)) if losses else float("nan")

    def _loss(self, feed: dict[str, Any], random: np.random.Generator) -> torch.Tensor:
        student = self._network(_tensors(feed), self._targets.inner)
        return self._targets.loss(student, self._taught(feed, random))

    def _taught(self, feed: dict[str, Any], random: np.random.Generator) -> dict[str, torch.Tensor]:
        seen = [feed, *(augmented(feed, [view], random, every=True) for view in self._views)]
        total = sum(weight for _, weight in self._teachers) * len(seen)
        mean: dict[str, torch.Tensor] = {}
        for teacher, weight in self._teachers:
            for number, found in enumerate(map(teacher, seen)):
                for name in self._targets.names:
                    inner = name in self._targets.inner
                    if name not in found or (inner and number):
                        continue  # inner tensors are those of the first teacher, of the first view
                    value = self._targets.soften(name, torch.from_numpy(np.array(found[name])))
                    share = 1.0 if inner else weight / total
                    mean[name] = value * share + mean[name] if name in mean else value * share
        return mean

    def _measured(self, number: int, loss: float, held_out: Sequence[dict[str, Any]]) -> Epoch:
        self._network.training = False
        losses, agreeing, samples = [], 0, 0
        random = np.random.default_rng(self._recipe.seed)
        with torch.no_grad():
            for given in batches(held_out, self._recipe.batch) if self._joined else held_out:
                feed = augmented(given, self._recipe.augmentations, random)
                target = self._taught(feed, random)
                student = self._network(_tensors(feed), self._targets.inner)
                losses.append(float(self._targets.loss(student, target)))
                for name in self._targets.scores[:1]:
                    same = student[name].argmax(-1) == target[name].argmax(-1)
                    agreeing, samples = agreeing + int(same.sum()), samples + same.numel()
        agreement = agreeing / samples if samples else float("nan")
        metric = self._judge() if self._judge is not None else math.nan
        return Epoch(number, loss, float(np.mean(losses)), agreement, metric)

    def _save(self, path: Path) -> None:
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        state = {
            "format": _FORMAT,
            "key": self._key(),
            "epochs": [dataclasses.astuple(e) for e in self.epochs],
            "network": self._network.state(),
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }
        try:
            torch.save(state, beside)
            beside.replace(path)
        except (OSError, RuntimeError) as error:
            raise OutputError(f"cannot write '{path}': {reason_of(error)}") from error
        finally:
            beside.unlink(missing_ok=True)

    def _load(self, path: Path) -> None:
        try:
            state = torch.load(path, weights_only=True)
        except Exception as error:
            raise UsageError(
                f"'{path}' is no state of a training: delete it, or name another"
            ) from error
        known = isinstance(state, dict) and state.get("format") == _FORMAT
        if not known or state.get("key") != self._key():
            raise UsageError(f"'{path}' is of another training: delete it, or name another")
        self.epochs = [Epoch(*values) for values in state["epochs"]]
        self._network.restore(state["network"])
        self._best = state["best"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict({**state["schedule"], "lr_lambdas": [None]})

    def _key(self) -> list[Any]:
        return [self._recipe_text, self._started_from]


def _digest(state: Mapping[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        found.update(name.encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()


def _grouped(feeds: Iterable[dict[str, Any]], size: int) -> Iterable[list[dict[str, Any]]]:
    some: list[dict[str, Any]] = []
    for feed in feeds:
        some.append(feed)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def _rate(step: int, total: int) -> float:
    """The share of the largest learning rate."""
    warm = max(_WARM_UP * total, 1.0)
    if step < warm:
        return (step + 1) / (warm + 1)
    # Feeds of several sizes make more, smaller batches than were planned.
    done = min((step - warm) / max(total - warm, 1.0), 1.0)
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _tensors(feed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in feed.items()}
    # Channels last, as PyTorch's convolutions on CPUs like images: a fifth less time.
    return {
        name: value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
        for name, value in tensors.items()
    }
