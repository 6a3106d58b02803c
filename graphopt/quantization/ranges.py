"""The range of each activation: what calibration finds, and what a file of ranges holds.

A range [minimum, maximum] is what the integers are spread over; values outside are clipped.
The file is JSON, and names the model that it was made for by a digest of its weights and graph.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphopt.errors import OutputError, UsageError, reason_of
from graphopt.graph import all_graphs, all_nodes, ir

_FORMAT = "graphopt ranges 1"


@dataclass(frozen=True)
class Range:
    """The values that a tensor's integers stand for; both ends finite."""

    minimum: float
    maximum: float


@dataclass(frozen=True)
class Ranges(Mapping[str, Range]):
    """The range of each tensor that was calibrated, by name.

    Attributes:
        tensors: name -> range.
        method: how they were chosen.
        samples: how many feeds they were made from.
        model: the digest of the model they were made for.
    """

    tensors: Mapping[str, Range]
    method: str
    samples: int
    model: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def __getitem__(self, name: str) -> Range:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def to_json(self) -> str:
        """As text from which `from_json` reads the same numbers."""
        data = {
            "format": _FORMAT,
            "method": self.method,
            "samples": self.samples,
            "model": self.model,
            "tensors": {name: [item.minimum, item.maximum] for name, item in self.items()},
        }
        return json.dumps(data, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Ranges:
        """Read what `to_json` wrote.

        Raises:
            UsageError: it is something else, or a range is no range.
        """
        try:
            data: Any = json.loads(text)
            if data["format"] != _FORMAT:
                raise UsageError("the ranges were written by another version: calibrate again")
            tensors = {
                str(name): Range(float(minimum), float(maximum))
                for name, (minimum, maximum) in data["tensors"].items()
            }
            ranges = cls(tensors, str(data["method"]), int(data["samples"]), str(data["model"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"this is no file of ranges: {reason_of(error)}") from error
        for name, item in tensors.items():
            if not (math.isfinite(item.minimum) and item.minimum <= item.maximum < math.inf):
                raise UsageError(f"the range of '{name}' is not finite and ascending")
        return ranges

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them to a file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        write_whole(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Ranges:
        """Read a file of ranges.

        Raises:
            UsageError: it cannot be read, or is something else.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the ranges '{path}': {reason_of(error)}") from error
        try:
            return cls.from_json(text)
        except UsageError as error:
            raise UsageError(f"'{path}': {error}") from error


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    whole = Path(path)
    part = whole.with_name(f".{whole.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(whole)
    except OSError as error:
        raise OutputError(f"cannot write '{whole}': {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def digest_of(model: ir.Model) -> str:
    """A digest of a model's graph and constants: the same for every copy of it."""
    found = hashlib.sha256()
    for graph in all_graphs(model):
        for name, value in sorted(graph.initializers.items()):
            if value.const_value is not None:
                found.update(f"{name} {value.dtype} {value.shape}".encode())
                found.update(_content(value.const_value))
    for node in all_nodes(model):
        inputs = [None if value is None else value.name for value in node.inputs]
        outputs = [value.name for value in node.outputs]
        found.update(f"{node.op_identifier()} {inputs} {outputs}".encode())
        for name, attribute in sorted(node.attributes.items()):
            if isinstance(attribute.value, ir.TensorProtocol):
                found.update(_content(attribute.value))
            elif attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                found.update(f"{name}={attribute.value}".encode())
    return found.hexdigest()[:16]


def _content(tensor: ir.TensorProtocol) -> bytes:
    return str(tensor.numpy().tolist()).encode() if tensor.dtype == _STRING else tensor.tobytes()


_STRING = ir.DataType.STRING
