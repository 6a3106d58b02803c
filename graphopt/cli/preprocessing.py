"""The flags that make pre-processing a part of the model, and the reading of their values."""

from __future__ import annotations

from collections.abc import Sequence

import click

from graphopt.cli.options import Decorated, together
from graphopt.errors import UsageError

_SPELLING = "write mean=0.485,0.456,0.406 or scale=1/255"


def preprocessing_options(command: Decorated) -> Decorated:
    """Add the flags that say in what form pictures are fed."""
    return together(
        click.option(
            "--normalize",
            multiple=True,
            metavar="KEY=NUMBERS",
            help="Feed pictures as they are: mean=, std= (per channel) and scale= (1/255) become "
            "part of the model, which takes (x*scale - mean)/std. Repeatable.",
        ),
        click.option(
            "--input-layout",
            type=click.Choice(["nhwc", "nchw"]),
            help="Feed pictures in this layout.",
        ),
        click.option(
            "--input-dtype", type=click.Choice(["uint8"]), help="Feed pictures in this type."
        ),
        click.option(
            "--image-input",
            multiple=True,
            metavar="NAME",
            help="The input that is meant  [default: those that a convolution reads]. Repeatable.",
        ),
    )(command)


def read_normalization(texts: Sequence[str]) -> dict[str, list[float]] | None:
    """Numbers by key from `KEY=A,B,C`; None if there are none.

    Raises:
        UsageError: a value is malformed, or a key is given twice.
    """
    numbers: dict[str, list[float]] = {}
    for text in texts:
        key, equals, listed = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"--normalize '{text}' is malformed; {_SPELLING}")
        if key in numbers:
            raise UsageError(f"--normalize gives '{key}' twice; give one")
        numbers[key] = [_read_number(part, text) for part in listed.split(",")]
    return numbers or None


def _read_number(part: str, text: str) -> float:
    """A number, or a fraction of two."""
    above, slash, below = part.partition("/")
    try:
        number = float(above)
        return number / float(below) if slash else number
    except (ValueError, ZeroDivisionError):
        raise UsageError(
            f"--normalize '{text}': '{part.strip()}' is no number; {_SPELLING}"
        ) from None
