"""How far a student's outputs are from the teachers'.

    class scores   T^2 * KL(softmax(t / T) || softmax(s / T))     Hinton et al., arXiv 1503.02531
    other outputs  mean((s - t)^2) / variance(t)
    inner tensors  mean((s - t)^2) / variance(t), of tensors that both models have

Class scores are outputs [batch, classes] of floats; where a Softmax makes them, its input's
differences are had back by the logarithm. With several teachers the target is the weighted mean:
of their softened probabilities, or of their values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from graphopt.graph import ir

_SCORES_RANK = 2
_LEAST = 1e-12


@dataclass(frozen=True)
class Targets:
    """Which loss each tensor has.

    Attributes:
        scores: outputs that are class scores.
        probabilities: those of them that a Softmax made.
        values: other outputs of floats.
        inner: tensors inside both models.
        temperature: T, which softens class scores.
        inner_weight: how much the inner tensors count, together, beside the outputs.
    """

    scores: tuple[str, ...]
    probabilities: frozenset[str]
    values: tuple[str, ...]
    inner: tuple[str, ...]
    temperature: float = 4.0
    inner_weight: float = 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors that are compared."""
        return (*self.scores, *self.values, *self.inner)

    def soften(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """What is averaged over teachers: softened probabilities, or the values."""
        if name not in self.scores:
            return value
        return torch.softmax(self._logits(name, value) / self.temperature, dim=-1)

    def loss(
        self, student: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """The mean over outputs, and over inner tensors; `target` as `soften` gives it."""
        parts = [self._scores(name, student[name], target[name]) for name in self.scores]
        parts += [_relative(student[name], target[name]) for name in self.values]
        total = torch.stack(parts).mean()
        if self.inner:
            inner = [_relative(student[name], target[name]) for name in self.inner]
            total = total + self.inner_weight * torch.stack(inner).mean()
        return total

    def _scores(self, name: str, value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        logs = torch.log_softmax(self._logits(name, value) / self.temperature, dim=-1)
        divergence = functional.kl_div(logs, target, reduction="batchmean")
        return divergence * self.temperature**2

    def _logits(self, name: str, value: torch.Tensor) -> torch.Tensor:
        return value.clamp_min(_LEAST).log() if name in self.probabilities else value


def targets_of(
    model: ir.Model,
    inner: Sequence[str],
    *,
    temperature: float = 4.0,
    inner_weight: float = 1.0,
) -> Targets:
    """The losses that a model's outputs ask for; `inner` names further tensors."""
    scores, probabilities, values = [], set(), []
    for value in model.graph.outputs:
        name = value.name or ""
        if value.dtype is None or not value.dtype.is_floating_point() or not value.producer():
            continue  # nothing that training could change
        rank = None if value.shape is None else len(value.shape)
        last = None if not rank or value.shape is None else value.shape[-1]
        if rank != _SCORES_RANK or last == 1:
            values.append(name)
            continue
        scores.append(name)
        producer = value.producer()
        if producer is not None and producer.op_type == "Softmax":
            probabilities.add(name)
    return Targets(
        tuple(scores),
        frozenset(probabilities),
        tuple(values),
        tuple(inner),
        temperature,
        inner_weight,
    )


def _relative(value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(value, target) / target.var().clamp_min(_LEAST)
