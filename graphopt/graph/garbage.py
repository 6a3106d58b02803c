"""How often Python looks for reference cycles while a large graph is in memory."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_patient = 0
_thresholds = gc.get_threshold()


@contextmanager
def patient_collector() -> Iterator[None]:
    """Let Python look for reference cycles less often; calls may overlap, in threads too.

    A graph is millions of small objects, nearly all of which stay; looking through them again
    and again triples the time that a large model takes.
    """
    global _patient, _thresholds
    with _lock:
        if _patient == 0:
            _thresholds = gc.get_threshold()
            gc.set_threshold(200_000, 20, 100)
        _patient += 1
    try:
        yield
    finally:
        with _lock:
            _patient -= 1
            if _patient == 0:
                gc.set_threshold(*_thresholds)
