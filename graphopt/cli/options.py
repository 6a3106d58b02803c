"""Flags that several commands share, and the reading of their values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from graphopt.errors import UsageError

if TYPE_CHECKING:
    from graphopt.graph import ir

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
external_data_option = click.option(
    "--save-as-external-data/--no-save-as-external-data",
    "external_data",
    default=None,
    help="Keep weights in a file beside the model  [default: as the size and IN want it].",
)
Shape = tuple[int | str | None, ...]


def _read_tolerance(_: click.Context, parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise click.BadParameter(f"'{value}' must be finite and not negative", param=parameter)
    return value


def together(*options: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """One decorator that adds these flags, in this order."""

    def decorate(command: Decorated) -> Decorated:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def output_options(force: str) -> Callable[[Decorated], Decorated]:
    """Add the flags that say what is written, and what it may replace; `force` explains --force."""
    return together(
        external_data_option,
        click.option("--report", metavar="OUT.json", help="Write the whole report."),
        click.option("--dry-run/--no-dry-run", default=False, help="Do it all, but write nothing."),
        click.option("--force/--no-force", default=False, help=force),
    )


def shape_options(command: Decorated) -> Decorated:
    """Add the flags that fix input shapes and symbolic dims."""
    for option in reversed(
        (
            click.option(
                "--input-shape",
                "--input-shapes",
                "--overwrite-input-shape",
                "input_shape",
                multiple=True,
                metavar="NAME:DIMS",
                help="Fix an input's shape, x:1,3,224,224; without NAME for the only input. "
                "Repeatable.",
            ),
            click.option(
                "--dim",
                multiple=True,
                metavar="NAME=SIZE",
                help="Fix a symbolic dim, batch=4. Repeatable.",
            ),
        )
    ):
        command = option(command)
    return command


def comparison_options(command: Decorated) -> Decorated:
    """Add the flags that say on which inputs, and how strictly, two models are compared."""
    for option in reversed(
        (
            click.option(
                "--input-data",
                "--inputs",
                "input_data",
                metavar="DATA",
                help="Compare on these inputs: .npz, a folder of them, or module:function.",
            ),
            click.option(
                "--check-n",
                type=click.IntRange(min=1),
                help="How many inputs to compare on  [default: 3, or all of the data].",
            ),
            click.option(
                "--rtol",
                type=float,
                callback=_read_tolerance,
                default=1e-4,
                show_default=True,
                help="Tolerance relative to an output's largest magnitude.",
            ),
            click.option(
                "--atol",
                type=float,
                callback=_read_tolerance,
                default=1e-6,
                show_default=True,
                help="Absolute tolerance.",
            ),
            click.option(
                "--seed",
                type=click.IntRange(min=0),
                default=0,
                show_default=True,
                help="Seed of the made-up inputs.",
            ),
        )
    ):
        command = option(command)
    return shape_options(command)


def read_shapes(texts: Sequence[str], source: str) -> dict[str, Shape] | None:
    """Shapes by input name from `NAME:DIMS` or bare `DIMS`; None if there are none.

    Args:
        texts: the values of --input-shape.
        source: the model, which is looked into only where a name is left out.

    Raises:
        UsageError: a value is malformed, an input is named twice, or a name is left out
            where the model has several inputs.
    """
    shapes: dict[str, Shape] = {}
    for text in texts:
        # The last colon counts: names such as `serving_default_input:0` hold some, dims none.
        name, colon, dims = text.rpartition(":")
        if colon and not name:
            raise UsageError(f"--input-shape '{text}' names no input; write NAME:1,3,224,224")
        if not colon:
            name = _only_input(source, text)
        if name in shapes:
            raise UsageError(f"--input-shape gives '{name}' two shapes; give one")
        shapes[name] = _read_dims(dims, text)
    return shapes or None


def _read_dims(dims: str, text: str) -> Shape:
    inner = dims.strip()
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1]
    if not inner.strip():
        return ()
    return tuple(_read_dim(part.strip(), text) for part in inner.split(","))


def _read_dim(part: str, text: str) -> int | str | None:
    if part == "?":
        return None
    if re.fullmatch(r"[+-]?\d+", part):
        size = int(part)
        if size < 0:
            raise UsageError(f"--input-shape '{text}' has the negative dim {part}; use ? for any")
        return size
    if not part or re.match(r"[+-]?[\d.]", part):
        raise UsageError(
            f"--input-shape '{text}': '{part}' is no dim; write NAME:1,3,224,224 "
            "with whole numbers, names, or ?"
        )
    return part


def _only_input(source: str, text: str) -> str:
    from graphopt.graph import load

    names = [name for name in input_names(load(source)) if name]
    if len(names) != 1:
        listed = ", ".join(f"'{name}'" for name in names) or "none"
        raise UsageError(
            f"--input-shape '{text}' names no input and the model's are: {listed}; "
            "write NAME:DIMS for each"
        )
    return names[0]


def input_names(model: ir.Model) -> list[str]:
    """Names of the inputs that a caller must give: those without a default."""
    return [value.name or "" for value in model.graph.inputs if not value.is_initializer()]


def read_dims(texts: Sequence[str]) -> dict[str, int] | None:
    """Sizes by dim name from `NAME=SIZE`; None if there are none.

    Raises:
        UsageError: a value is malformed, or a dim is named twice.
    """
    sizes: dict[str, int] = {}
    for text in texts:
        name, equals, size = text.rpartition("=")
        if not equals or not name.strip():
            raise UsageError(f"--dim '{text}' is malformed; write NAME=SIZE, as in batch=4")
        if ".." in size:
            raise UsageError(f"--dim '{text}': ranges are not supported yet; give one size")
        if not re.fullmatch(r"\s*\d+\s*", size):
            raise UsageError(f"--dim '{text}': '{size}' is no size; write a whole number")
        if name in sizes:
            raise UsageError(f"--dim gives '{name}' two sizes; give one")
        sizes[name] = int(size)
    return sizes or None


def existing_data(text: str | None, flag: str = "--input-data") -> str | None:
    """The value of a flag that names data, looked at before the work starts.

    Raises:
        UsageError: it is neither a path that exists nor `module:function`.
    """
    if text is None or ":" in text or Path(text).exists():
        return text
    raise UsageError(
        f"{flag} '{text}' does not exist; give a .npz, a folder of them, or module:function"
    )
