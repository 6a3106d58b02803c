"""Import onnx_ir without paying for sympy.

Four fifths of the time that `import onnx_ir` takes is sympy, which is needed only to do
arithmetic on symbolic dims. While onnx_ir is imported, a finder on `sys.meta_path` gives
`sympy` and `onnx_ir._symbolic_shapes` a lazy loader: each is executed at its first use.

Why this is sound: onnx_ir touches sympy at import time only to bind the module's name (its
annotations are strings) and `_symbolic_shapes` is reached only from expression arithmetic.
The finder is gone when the import ends, a sympy that is loaded already is left alone, and a
lazy module becomes the real one, the same object, at its first attribute access, also for
other libraries in the process (`import sympy.core` and `from sympy import x` included).
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

_LAZY = frozenset({"sympy", "onnx_ir._symbolic_shapes"})


class _LazyFinder(importlib.abc.MetaPathFinder):
    """Finds the modules in `_LAZY` as the finders behind it would, with a lazy loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _LAZY:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = importlib.util.LazyLoader(spec.loader)
                return spec
        return None


_finder = _LazyFinder()
sys.meta_path.insert(0, _finder)
try:
    import onnx_ir as ir  # noqa: TID251 - the one place where it is imported
finally:
    sys.meta_path.remove(_finder)

__all__ = ["ir"]
