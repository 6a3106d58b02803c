"""The model that `graphopt cost` is about: counted, predicted and measured when asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.cli.cost_example import Example, example_of
from graphopt.cli.options import read_dims, read_shapes

if TYPE_CHECKING:
    from graphopt.cost import Cost
    from graphopt.cost.arena_plan import ArenaUse
    from graphopt.cost.latency import Latency, MachineProfile, Measured


class Subject:
    """One model with the sizes that the user gave, and the machine to predict for.

    Args:
        path: the model.
        input_shapes: values of --input-shape.
        dims: values of --dim.
        device: the value of --device, None where it was not given.
        threads: threads within one operator.
    """

    def __init__(
        self,
        path: str,
        input_shapes: Sequence[str],
        dims: Sequence[str],
        device: str | None,
        threads: int,
    ) -> None:
        self.path = path
        self.threads = threads
        self._shapes = read_shapes(input_shapes, path)
        self._dims = read_dims(dims) or {}
        self._device = device

    @cached_property
    def cost(self) -> Cost:
        """The counts, in the dims that are left free."""
        return self._count({})

    @cached_property
    def example(self) -> Example:
        """The counts without free dims."""
        return example_of(self.cost, self._count)

    @property
    def title(self) -> str:
        """The file's name, and the sizes that were chosen for free dims."""
        name = Path(self.path).name
        return f"{name} at {self.example.text}" if self.example.text else name

    @cached_property
    def profile(self) -> MachineProfile | None:
        """The machine to predict for.

        Raises:
            UsageError: there is no such profile.
        """
        if self._device is None:
            return None
        from graphopt.cost.latency import load_profile

        return load_profile() if self._device == "cpu" else load_profile(self._device)

    def latency(self) -> Latency:
        """The prediction; `profile` must not be None."""
        from graphopt.cost.latency import predict

        if self.profile is None:
            raise ValueError("there is no machine to predict for")
        return predict(
            self.path, self.profile, threads=self.threads, input_shapes=self._example_shapes()
        )

    def measured(self) -> Measured:
        """What it takes here."""
        from graphopt.cost.latency import measure

        return measure(
            self.path,
            profile=self.profile,
            threads=self.threads,
            input_shapes=self._example_shapes(),
        )

    def arena(self) -> ArenaUse:
        """What ONNX Runtime's arena holds at most in a first run."""
        from graphopt.cost.arena_plan import arena_use
        from graphopt.cost.latency.prediction import sized_model
        from graphopt.graph import load
        from graphopt.runtime.executed import executed_model

        given = load(self.path)
        sized = sized_model(given, self._example_shapes())
        executed = executed_model(given, sized=sized, threads=self.threads)
        return arena_use(executed, given, threads=self.threads or 1)

    def to_dict(self, *, measure: bool) -> dict[str, Any]:
        """Everything that was asked for, as plain data."""
        document = self.cost.to_dict()
        if measure or self.profile is not None:
            document["sizes"] = self.example.sizes
            arena = self.arena()
            document["arena"] = {"peak_bytes": arena.peak_bytes, "peak_node": arena.peak_node}
        if measure:
            document["measured"] = dataclasses.asdict(self.measured())
        elif self.profile is not None:
            document["latency"] = dataclasses.asdict(self.latency())
        return document

    def _count(self, further: dict[str, int]) -> Cost:
        from graphopt.cost import estimate_cost

        dims = {**self._dims, **further}
        return estimate_cost(self.path, input_shapes=self._shapes, dims=dims)

    def _example_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """The shapes of the inputs at the sizes of the example."""
        return {
            name: tuple(dim if isinstance(dim, int) else None for dim in shape)
            for name, shape in self.example.cost.inputs
            if shape is not None
        }
