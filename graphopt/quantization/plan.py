"""Everything that decides a quantized model, as data that can be stored and read back."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from graphopt.errors import UsageError, reason_of
from graphopt.graph import ir
from graphopt.quantization.backends.backend import Backend, Role
from graphopt.quantization.constants import QuantizedConstant
from graphopt.quantization.groups import Group, Placement, Use
from graphopt.quantization.parameters import Parameters

__all__ = ["BoundedRange", "Plan", "QuantizedConstant", "make_plan"]

_FORMAT = "graphopt quantization plan 1"


class BoundedRange(Protocol):
    """A range, see `graphopt.quantization.ranges.Range`."""

    @property
    def minimum(self) -> float:
        """The smallest number."""

    @property
    def maximum(self) -> float:
        """The largest number."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that decides the quantized model.

    Attributes:
        backend: the backend's name.
        groups: the groups that are quantized, in the order of the graph.
        left_float: group or node name -> why it stays float.
        activations: tensor -> parameters, of every tensor that becomes integers.
        constants: (node, input index) -> weight or bias.
        notes: what the user should know of a tensor or a group by its name: a scale that was
            widened, scales that could not be shared.
    """

    backend: str
    groups: tuple[Group, ...]
    left_float: Mapping[str, str]
    activations: Mapping[str, Parameters]
    constants: Mapping[tuple[str, int], QuantizedConstant]
    notes: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal plan."""
        return {
            "format": _FORMAT,
            "backend": self.backend,
            "groups": [dataclasses.asdict(group) for group in self.groups],
            "left_float": dict(self.left_float),
            "activations": {name: p.to_json() for name, p in self.activations.items()},
            "constants": [_constant_to_json(item) for item in self.constants.values()],
            "notes": dict(self.notes),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Plan:
        """What `to_json` wrote, also after a detour through text.

        Raises:
            UsageError: it is something else, or was written by another version.
        """
        try:
            if content["format"] != _FORMAT:
                raise UsageError("the plan was written by another version: quantize again")
            constants = [_constant_from_json(item) for item in content["constants"]]
            return cls(
                backend=content["backend"],
                groups=tuple(_group_from_json(item) for item in content["groups"]),
                left_float=dict(content["left_float"]),
                activations={
                    name: Parameters.from_json(item)
                    for name, item in content["activations"].items()
                },
                constants={(item.node, item.index): item for item in constants},
                notes=dict(content["notes"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"not a quantization plan: {reason_of(error)}") from error


def make_plan(
    model: ir.Model,
    placement: Placement,
    ranges: Mapping[str, BoundedRange],
    backend: Backend,
    *,
    float_groups: Mapping[str, str] | None = None,
    rounded: Mapping[tuple[str, int], np.ndarray] | None = None,
    saturation_safe: bool | None = None,
    memory: MutableMapping[Any, Any] | None = None,
) -> Plan:
    """The plan for the groups of a placement, given the ranges of its activations.

    Args:
        model: the model that was placed. Not changed.
        placement: its groups.
        ranges: tensor -> range, for `placement.activations`. A group whose range is missing, not
            finite or that of a mask is left float, and the plan says so.
        backend: the backend that was placed for.
        float_groups: groups to leave float -> why. None where nothing was measured: then those
            that the backend's rules call slow are left float too. In every case those are that
            would only add conversions.
        rounded: (node, input index) -> integers of that weight for the scales that this function
            gives it without them; they replace the nearest ones.
        saturation_safe: whether no two neighbouring products of a weight may saturate int16
            (see `saturation`). None: where the backend says so and this processor needs it.
        memory: keeps quantized weights from one plan to the next; of one model, backend and
            `rounded` only.

    Raises:
        UsageError: the placement is of another backend, or of another model, or `rounded` does
            not fit a weight.
    """
    from graphopt.quantization.planning import Planner

    if placement.backend != backend.name:
        raise UsageError(f"the placement is for {placement.backend}, not for {backend.name}")
    planner = Planner(model, placement, ranges, backend, saturation_safe, memory)
    return planner.plan(float_groups, rounded or {})


def _constant_to_json(item: QuantizedConstant) -> dict[str, Any]:
    found: dict[str, Any] = {
        "node": item.node,
        "index": item.index,
        "tensor": item.tensor,
        "parameters": item.parameters.to_json(),
    }
    if item.integers is not None:
        wide = item.integers.astype(np.int32 if item.integers.itemsize == 4 else np.int16)
        found["integers"] = {
            "shape": list(wide.shape),
            "type": wide.dtype.newbyteorder("<").str,
            "base64": base64.b64encode(
                wide.astype(wide.dtype.newbyteorder("<")).tobytes()
            ).decode(),
        }
    return found


def _constant_from_json(content: dict[str, Any]) -> QuantizedConstant:
    parameters = Parameters.from_json(content["parameters"])
    integers = None
    if "integers" in content:
        stored = content["integers"]
        flat = np.frombuffer(base64.b64decode(stored["base64"]), np.dtype(stored["type"]))
        integers = flat.reshape(stored["shape"]).astype(parameters.dtype.numpy())
    return QuantizedConstant(
        content["node"], content["index"], content["tensor"], parameters, integers
    )


def _group_from_json(content: dict[str, Any]) -> Group:
    bias, clip = content["bias"], content["clip"]
    return Group(
        **{
            **content,
            "role": Role(content["role"]),
            "nodes": tuple(content["nodes"]),
            "reads": tuple(Use(**use) for use in content["reads"]),
            "writes": tuple(content["writes"]),
            "weights": tuple(Use(**use) for use in content["weights"]),
            "bias": None if bias is None else Use(**bias),
            "clip": None if clip is None else tuple(clip),
        }
    )
