"""Reads a plan from a file, or makes one of ranges that are given: what the pass takes.

ranges.json                 a file that `Ranges.save` wrote
x:-1:1;y:0:6                the ranges themselves, tensor by tensor
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from graphopt.errors import UsageError, reason_of
from graphopt.graph import ir
from graphopt.quantization.backends import BACKENDS
from graphopt.quantization.backends.backend import Backend
from graphopt.quantization.placement import place
from graphopt.quantization.plan import Plan, make_plan
from graphopt.quantization.ranges import Range, Ranges


def backend_named(name: str) -> Backend:
    """The backend of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in BACKENDS:
        raise UsageError(f"there is no backend {name!r}: use one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


def read_plan(path: str) -> Plan:
    """The plan in a JSON file.

    Raises:
        UsageError: the file cannot be read, or is no plan.
    """
    try:
        return Plan.from_json(json.loads(Path(path).read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the plan '{path}': {reason_of(error)}") from error


def parse_ranges(text: str) -> Mapping[str, Range]:
    """Ranges from a file, or written out.

    Raises:
        UsageError: the text is neither.
    """
    if text.endswith(".json"):
        return Ranges.load(text)
    found: dict[str, Range] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        try:
            name, low, high = part.rsplit(":", 2)
            found[name] = Range(float(low), float(high))
        except ValueError as error:
            raise UsageError(
                f"'{part}' is no range: write tensor:minimum:maximum, or name a .json file"
            ) from error
    return found


def plan_of_ranges(
    model: ir.Model, ranges: str, backend: str, *, saturation_safe: bool | None = None
) -> Plan:
    """The plan for all that the backend runs in integers and the ranges cover.

    Raises:
        UsageError: there is no such backend, or the ranges are no ranges.
    """
    rules = backend_named(backend)
    placement = place(model, rules)
    return make_plan(model, placement, parse_ranges(ranges), rules, saturation_safe=saturation_safe)
