"""What one operator is called with, and the table that it is found in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

Result: TypeAlias = "torch.Tensor | tuple[torch.Tensor, ...]"


@dataclass(frozen=True)
class Call:
    """One node with the values of its inputs.

    Attributes:
        inputs: a tensor for each input, None where an optional one is left out.
        attributes: plain Python values by name; those left out are not there.
        opset: of the operator's domain.
        outputs: how many outputs the node has.
        training: whether batch statistics are to be used.
    """

    inputs: list[torch.Tensor | None]
    attributes: dict[str, Any]
    opset: int
    outputs: int
    training: bool

    def tensor(self, place: int) -> torch.Tensor:
        """An input that must be there."""
        value = self.inputs[place]
        if value is None:
            raise ValueError(f"input {place} is missing")
        return value

    def optional(self, place: int) -> torch.Tensor | None:
        """An input that may be left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute, or what ONNX takes where it is left out."""
        return self.attributes.get(name, default)

    def integers(self, name: str, place: int) -> list[int] | None:
        """What is an attribute in old opsets and an input in new ones."""
        if name in self.attributes:
            return [int(item) for item in self.attributes[name]]
        value = self.optional(place)
        return None if value is None else [int(item) for item in value.reshape(-1).tolist()]


Form: TypeAlias = Callable[[Call], Result]
