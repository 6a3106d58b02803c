"""What the processor at hand can do with 8-bit products."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_X86 = frozenset({"x86_64", "amd64", "i386", "i686", "x86"})
_ADD_IN_INT32 = frozenset({"avx512_vnni", "avx_vnni"})


@cache
def adds_products_in_int16() -> bool:
    """Whether sums of two 8-bit products saturate at 16 bits here.

    x86 multiplies unsigned with signed bytes by VPMADDUBSW, which adds two neighbouring products
    with saturation, unless it has VNNI, which adds four in 32 bits. Other architectures widen
    first. True where an x86 processor does not tell.
    """
    if platform.machine().lower() not in _X86:
        return False
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return True
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not _ADD_IN_INT32 & set(flags.split())
