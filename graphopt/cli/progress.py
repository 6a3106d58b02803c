"""Says on a terminal's stderr what is being done, once it has taken a second."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from graphopt.cli.invocation import Invocation, visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE = 1.0
"""Seconds of silence; what is quicker than that needs no progress."""


class ProgressLine:
    """A spinner with the current step and the time so far; call it with each step's name.

    Nothing is printed where stderr is no terminal, under -q, or within the first second.
    """

    def __init__(self, invocation: Invocation) -> None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._wanted = terminal and not invocation.quiet
        self._step = ""
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._shown: Progress | None = None
        self._task: TaskID | None = None
        self._over = False

    def __call__(self, step: str) -> None:
        """Show `step` as what is being done now."""
        with self._lock:
            self._step = visible(step)
            if self._shown is not None and self._task is not None:
                self._shown.update(self._task, description=self._step)

    def __enter__(self) -> ProgressLine:
        if self._wanted:
            self._timer = threading.Timer(PATIENCE, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._over = True
            if self._timer is not None:
                self._timer.cancel()
            if self._shown is not None:
                self._shown.stop()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        with self._lock:
            if self._over:
                return
            self._shown = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._shown.add_task(self._step, total=None)
            self._shown.start()
