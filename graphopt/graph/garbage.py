"""How often Python looks for reference cycles while a large graph is in memory."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def patient_collector() -> Iterator[None]:
    """Let Python look for reference cycles less often.

    A graph is millions of small objects, nearly all of which stay; looking through them again
    and again triples the time that a large model takes.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(200_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
