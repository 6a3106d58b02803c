"""The machine that is shipped: what a minute's calibration elsewhere is a correction of.

Which shapes a kernel is fast on is mostly a matter of its code; a machine scales that. So a
calibration of eleven minutes is kept here, made by `tools/make_reference_machine.py`.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path

from graphopt.cost.latency.machine import MachineProfile, ThreadFit

PATH = Path(__file__).with_name("reference.json.gz")


@lru_cache(maxsize=1)
def reference_machine() -> MachineProfile:
    """The profile of the reference machine."""
    text = gzip.decompress(PATH.read_bytes()).decode()
    return MachineProfile.from_json(text, str(PATH))


def reference_fit(threads: int) -> ThreadFit:
    """Its fit for as many threads, or for the most below."""
    machine = reference_machine()
    return machine.threads[max(count for count in machine.threads if count <= max(threads, 1))]
