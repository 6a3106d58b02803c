"""What a run holds in memory, and holds at most where a limit is given (`--max-memory`).

The system says what the process holds. It is asked between the steps of a run, and ahead of a step
that is known to take much: a limit is kept by not beginning what would pass it, since what a
native library takes in the middle of a step cannot be stopped.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from graphopt.errors import GraphoptError, MemoryLimitError, UsageError
from graphopt.graph import all_graphs

if TYPE_CHECKING:
    from graphopt.graph import ir

_STATUS = Path("/proc/self/status")
_MEGABYTE = 1 << 20

_RUNTIME = 60 * _MEGABYTE
"""ONNX Runtime with the pages of weights that are in memory between two releases."""
_LARGEST_SIZE = 3
"""Seeded inputs have so many samples at most."""
_COPIES = 4
"""A session that optimizes was seen to take so many times the weights while it is made."""


class Memory:
    """The memory of this process during one run, and its limit.

    Args:
        limit: bytes that the process may hold, interpreter and libraries included; None for no
            limit.

    Raises:
        UsageError: the limit is below what is held already, or the system does not say what is.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = math.inf if limit is None else limit
        self._before = 0
        if limit is None:
            return
        before, now = most_held(), held_now()
        if before is None or now is None:
            raise UsageError("--max-memory cannot be kept: this system does not say what is held")
        if now > limit:
            raise UsageError(
                f"--max-memory {size_text(limit)} is less than the {size_text(now)} that are held "
                "before the work begins; give more"
            )
        self._before = before

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return self._limit < math.inf

    def lack(self, needed: int) -> str | None:
        """Why so many bytes do not fit in beside what is held now; None if they do."""
        if not self.is_limited:
            return None
        total = (held_now() or 0) + needed
        if total <= self._limit:
            return None
        return f"takes about {size_text(total)}, more than --max-memory {size_text(self._limit)}"

    def excess(self) -> str | None:
        """How much more than the limit the run has held; None where it has not.

        What the process held at most before the run does not count.
        """
        if not self.is_limited:
            return None
        most = most_held() or 0
        if most <= max(self._limit, self._before):
            return None
        return f"held {size_text(most)}, more than --max-memory {size_text(self._limit)}"

    def look(self, step: str, remedy: str = "give more") -> None:
        """End a run that holds too much.

        Raises:
            MemoryLimitError: after this step it has held more than the limit.
        """
        excess = self.excess()
        if excess is not None:
            raise MemoryLimitError(f"after {step} the run {excess}; nothing was written: {remedy}")

    def watched(self, tell: Callable[[str], None]) -> Callable[[str], None]:
        """`tell`, which every step begins with, after a look at what the step before has left."""
        if not self.is_limited:
            return tell
        last = "the start"

        def look_and_tell(text: str) -> None:
            nonlocal last
            self.look(last)
            last = text
            tell(text)

        return look_and_tell


def check_bytes(model: ir.Model) -> int:
    """About what it takes to run a model as the check does; shapes are inferred.

    Activations as `graphopt cost` counts them, with each free dim as large as in seeded inputs.
    Large weights are not copied.
    """
    from graphopt.cost.estimate import cost_of_inferred

    try:
        cost = cost_of_inferred(model)
        activations = cost.at(dict.fromkeys(cost.symbols, _LARGEST_SIZE)).memory.peak_bytes
    except GraphoptError:
        activations = 0
    return _RUNTIME + (activations if isinstance(activations, int) else 0)


def latency_bytes(model: ir.Model) -> int:
    """About what it takes to make a session that optimizes, and copies and packs weights."""
    return _RUNTIME + round(_COPIES * weight_bytes(model))


def weight_bytes(model: ir.Model) -> int:
    """The bytes of all initializers."""
    return sum(
        value.const_value.nbytes
        for graph in all_graphs(model)
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def held_now() -> int | None:
    """Bytes that the process holds; at most so far, where the system says no more than that."""
    return _from_status("VmRSS") or most_held()


def most_held() -> int | None:
    """The most bytes that the process has held so far; None where the system does not say."""
    most = _from_status("VmHWM")
    if most is not None:
        return most
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _from_status(key: str) -> int | None:
    """A figure of Linux; of this program alone, where `getrusage` counts what forked it too."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    found = next((line.split()[1] for line in lines if line.startswith(f"{key}:")), None)
    return None if found is None else int(found) << 10


def size_text(size: float) -> str:
    """Bytes as the flag takes them, rounded up."""
    return f"{math.ceil(size / _MEGABYTE)}MB"
