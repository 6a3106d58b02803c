"""Which cores of the machine the calling thread runs on."""

import contextlib
import os
from collections.abc import Iterator


def available_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def first_core(wanted: bool) -> Iterator[None]:
    """Keep the calling thread on the core that ONNX Runtime leaves to it.

    By default it ties its own threads to all cores but the first, and the caller to none. Where
    the system has put the caller onto one of theirs, two threads share a core for as long as it
    leaves them there, and a run takes as long as with one thread. No session may be made inside:
    its threads would be tied to that core too.
    """
    readable = wanted and hasattr(os, "sched_getaffinity")
    cores = os.sched_getaffinity(0) if readable else set()
    # Where this process may not use the machine's first core, the one left over is not known.
    if 0 not in cores:
        yield
        return
    try:
        os.sched_setaffinity(0, {0})
    except OSError:  # a sandbox forbids it
        yield
        return
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
