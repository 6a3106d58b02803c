"""Writes a text to stdout, or to a file: whole or not at all, and over nothing unasked."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from graphopt.errors import OutputError


def write_text(text: str, target: str | None, *, overwrite: bool) -> None:
    """Write to the file `target`, or to stdout where that is None.

    Raises:
        OutputError: the file exists and `overwrite` is not asked for, or it cannot be written.
    """
    if target is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    path = Path(target)
    check_free(path, overwrite=overwrite)
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")  # a pipe or a device, to be written into
            return
        handle, beside = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            _share(beside)
            # Through a link, so that the file it leads to is replaced and not the link.
            Path(beside).replace(path.resolve())
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from None


def check_free(path: Path, *, overwrite: bool) -> None:
    """Say at once, before the work, where a file could not be written.

    Raises:
        OutputError: there is no such folder, or the file exists and may not be overwritten.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.parent}")
    if not overwrite and os.path.lexists(path):
        raise OutputError(f"{path} exists: choose another name, or add --force to overwrite it")


def _share(path: str) -> None:
    """Give a temporary file, which only its owner may read, the permissions of any new file."""
    mask = os.umask(0)
    os.umask(mask)
    Path(path).chmod(0o666 & ~mask)
