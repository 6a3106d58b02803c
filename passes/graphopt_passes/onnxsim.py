"""model -> onnxsim.simplify(model): onnxsim, run under the same guard as every pass.

onnxsim is a simplifier of its own that folds constants, fuses and eliminates in C++. It is
no part of a preset: it costs seconds and hundreds of megabytes, and some of its results are
not equivalent, which is what the guard is for. It comes with `graphopt[onnxsim]`.
"""

from __future__ import annotations

from graphopt.plugin import Journal, Pass, Promise, ir, load, replace_content, to_proto


class Onnxsim(Pass):
    """Run onnxsim, if it is installed."""

    name = "onnxsim"
    promise = Promise.EQUIVALENT
    # It takes every initializer off the inputs, and has no option to leave them.
    drops_defaults = True

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Replace the model by what onnxsim makes of it.

        Raises:
            ImportError: onnxsim is not installed.
            RuntimeError: onnxsim failed, or its own check of the result did.
        """
        if not journal.permits(self.name):
            return
        try:
            import onnxsim
        except ImportError as error:
            raise ImportError("onnxsim is missing; pip install 'graphopt[onnxsim]'") from error
        before = to_proto(model)
        simplified, checked = onnxsim.simplify(before)
        if not checked:
            raise RuntimeError("onnxsim found its own result to be wrong")
        if simplified.SerializeToString() == before.SerializeToString():
            return
        replace_content(model, load(simplified))
        journal.record(self.name, f"{len(before.graph.node)} -> {len(simplified.graph.node)} nodes")
