"""Makes the quantized model for any choice of groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.graph import ir
from graphopt.quantization.backends import Backend
from graphopt.quantization.groups import Placement
from graphopt.quantization.insertion import quantized
from graphopt.quantization.plan import Plan, make_plan
from graphopt.quantization.ranges import Ranges

ALONE = "it is measured by itself"


@dataclass(frozen=True)
class Candidates:
    """The float model, and all that decides its quantized forms but the choice of groups.

    Attributes:
        model: the float model that is quantized; shapes are inferred.
        placement: its groups.
        ranges: of their activations.
        backend: the backend.
        fixed: groups that stay float in any case -> why.
        rounded: weights whose integers are not the nearest ones.
    """

    model: ir.Model
    placement: Placement
    ranges: Ranges
    backend: Backend
    fixed: Mapping[str, str] = field(default_factory=dict)
    rounded: Mapping[tuple[str, int], np.ndarray] = field(default_factory=dict)
    _memory: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def groups(self) -> list[str]:
        """The names of the groups that may be quantized."""
        return [group.name for group in self.placement.groups if group.name not in self.fixed]

    def plan(self, given_up: Mapping[str, str] | None = None) -> Plan:
        """The plan with these groups float, beside those that always are."""
        return make_plan(
            self.model,
            self.placement,
            self.ranges,
            self.backend,
            float_groups={**self.fixed, **(given_up or {})},
            rounded=self.rounded or None,
            memory=self._memory,
        )

    def build(self, given_up: Mapping[str, str] | None = None) -> ir.Model:
        """The model quantized by that plan."""
        return quantized(self.model, self.plan(given_up))

    def only(self, names: Collection[str]) -> ir.Model:
        """The model with these groups quantized."""
        some = set(names)
        return self.build({other: ALONE for other in self.groups if other not in some})

    def without(self, names: Sequence[str], reason: str) -> ir.Model:
        """The model with these groups float."""
        return self.build(dict.fromkeys(names, reason))
