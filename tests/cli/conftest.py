"""Runs the command line in this process, as its entry point does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from graphopt.cli import commands
from graphopt.cli.invocation import run


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Stdout, which must be one JSON object and nothing else."""
        data = json.loads(self.out)
        assert isinstance(data, dict)
        return data

    def fails_with(self, code: int, *parts: str) -> None:
        """Assert the exit code, exactly one line on stderr, and what that line says."""
        assert self.code == code, self.err
        assert self.err.startswith("error: ")
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        for part in parts:
            assert part in self.err


Invoke = Callable[..., Outcome]


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run `graphopt ARGUMENTS...`."""

    def call(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        code = run(commands, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call
