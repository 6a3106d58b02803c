"""Take an initializer off the inputs where its exporter had no choice but to list it there.

    graph(x, w) with initializer w   ->   graph(x) with initializer w

An initializer that is also an input is a default, which callers may override; so it is no
constant, and nothing can be folded into it. But below IR version 4 every initializer had to be
listed (ONNX Runtime takes these as constants too), and PyTorch's exporter went on listing them
all until `keep_initializers_as_inputs` came with PyTorch 1.3. There the list says nothing of
what callers do. With `all=true` every such input is taken off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from graphopt.plugin import Journal, Pass, Promise, ir, option

_FIRST_IR_VERSION_WITH_A_CHOICE = 4
_FIRST_PYTORCH_WITH_A_CHOICE = (1, 3)


@dataclass(frozen=True)
class EliminateInitializerInputs(Pass):
    """Turn initializers that had to be listed as inputs into constants."""

    name = "eliminate-initializer-inputs"
    promise = Promise.EXACT
    drops_defaults = True

    all: bool = option(False, "take every initializer off the inputs, also deliberate defaults")

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Keep the inputs that have no initializer, in their order."""
        inputs = model.graph.inputs
        may_drop = self.all or _had_no_choice(model)
        kept: list[ir.Value] = []
        for value in inputs:
            site = f"input {value.name}"
            if not value.is_initializer():
                kept.append(value)
            elif not may_drop:
                journal.decline(
                    site,
                    "an initializer that is also an input is a default that callers may override",
                )
                kept.append(value)
            elif journal.permits(site):
                journal.record(site, "initializer taken off the inputs")
            else:
                kept.append(value)
        if len(kept) < len(inputs):
            inputs[:] = kept
            model.ir_version = max(model.ir_version, _FIRST_IR_VERSION_WITH_A_CHOICE)


def _had_no_choice(model: ir.Model) -> bool:
    if model.ir_version < _FIRST_IR_VERSION_WITH_A_CHOICE:
        return True
    if model.producer_name != "pytorch":
        return False
    version = re.match(r"(\d+)\.(\d+)", model.producer_version or "")
    if version is None:
        return False
    return (int(version[1]), int(version[2])) < _FIRST_PYTORCH_WITH_A_CHOICE
