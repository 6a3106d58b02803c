"""Gives memory back to the system that the C library keeps after it was freed."""

import ctypes
import sys


def trim() -> None:
    """Give back what glibc keeps: after a session that was some hundred MB; elsewhere nothing."""
    if sys.platform != "linux":
        return
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)
