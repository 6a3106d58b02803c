"""Import onnx_ir without paying for sympy.

Four fifths of the time that `import onnx_ir` takes is sympy, which is needed only to do
arithmetic on symbolic dims. While onnx_ir is imported, stand-ins are in `sys.modules` for
`sympy` and for `onnx_ir._symbolic_shapes`, which uses it at once; then they are taken out.
onnx_ir keeps them under its own names, and they import the real module at their first use.

Why this is sound: onnx_ir touches sympy at import time only to bind the module's name (its
annotations are strings). For everyone else `sympy` is simply not imported yet, so its import
is the ordinary one, under Python's own locks. `importlib.util.LazyLoader` would leave a lazy
module in `sys.modules` for all to see, and its first use from two threads at once fails (or,
where it is fixed, can deadlock). A module that is loaded already is left alone.

The import makes a hundred thousand objects that stay; Python does not look for cycles among them
meanwhile.
"""

import gc
import importlib
import sys
from types import ModuleType
from typing import Any

_DEFERRED = ("sympy", "onnx_ir._symbolic_shapes")


class _StandIn(ModuleType):
    """Looks its attributes up in the real module, which it imports at the first of them."""

    def __getattr__(self, name: str) -> Any:
        # Another thread may ask while the stand-in is still the module that it would import.
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


_stand_ins = {name: _StandIn(name) for name in _DEFERRED if name not in sys.modules}
if "onnx_ir" not in sys.modules:
    sys.modules.update(_stand_ins)
_collects = gc.isenabled()
gc.disable()
try:
    import onnx_ir as ir  # noqa: TID251 - the one place where it is imported
finally:
    if _collects:
        # Makes them all old at once; else the first collection would look through them.
        gc.freeze()
        gc.unfreeze()
        gc.enable()
    for _name, _stand_in in _stand_ins.items():
        if sys.modules.get(_name) is _stand_in:
            del sys.modules[_name]

__all__ = ["ir"]
