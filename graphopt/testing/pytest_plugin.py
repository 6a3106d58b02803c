"""Runs golden cases under pytest: every `*.onnxtxt` file is a test; `--update` rewrites it.

Write `pytest_plugins = ["graphopt.testing.pytest_plugin"]` in the top `conftest.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from graphopt.errors import GraphoptError
from graphopt.testing.golden import SUFFIX, GoldenMismatch, read_case


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update`."""
    parser.addoption(
        "--update",
        action="store_true",
        help="write what the passes do into the golden cases (*.onnxtxt); review it as a diff",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect golden cases."""
    if file_path.suffix != SUFFIX:
        return None
    collected: pytest.Collector = _CaseFile.from_parent(parent, path=file_path)
    return collected


class _CaseFile(pytest.File):
    def collect(self) -> Iterable[pytest.Item]:
        yield _CaseItem.from_parent(self, name=self.path.stem)


class _CaseItem(pytest.Item):
    def runtest(self) -> None:
        case = read_case(self.path)
        if self.config.getoption("--update") and case.update():
            self.config.get_terminal_writer().line(f"updated {self.path}")
            case = read_case(self.path)
        case.check()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, GoldenMismatch | GraphoptError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, f"{self.path.parent.name}/{self.path.stem}"
