"""What a user names as `module:name` or `file.py:name`: a source of feeds, a metric."""

import importlib
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from graphopt.errors import UsageError, reason_of


def is_reference(text: str) -> bool:
    """Whether a text has the form `module:name`."""
    module, _, name = text.rpartition(":")
    return bool(module) and name.isidentifier()


def imported(text: str) -> Any:
    """The object that `module:name` names; the module by its file, or by its name.

    A module is looked for in the current folder too.

    Raises:
        UsageError: the module cannot be imported, or has no such name.
    """
    module, _, name = text.rpartition(":")
    found = getattr(_module(module, text), name, None)
    if found is None:
        raise UsageError(f"{module} has no {name}; check the name in {text}")
    return found


def _module(module: str, text: str) -> ModuleType:
    try:
        if module.endswith(".py"):
            loader = SourceFileLoader(Path(module).stem, module)
            loaded = ModuleType(loader.name)
            loader.exec_module(loaded)
            return loaded
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(module)
        finally:
            del sys.path[0]
    except Exception as error:
        raise UsageError(f"{text} cannot be imported: {reason_of(error)}") from error
