"""What a golden case cannot show: the loader takes models of old IR versions its own way."""

from __future__ import annotations

import numpy as np
import pytest
from graphopt_passes.eliminate_initializer_inputs import EliminateInitializerInputs

from graphopt.graph import ir, load
from graphopt.plugin import Journal


def model(ir_version: int) -> ir.Model:
    kind, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2])
    x = ir.Value(name="x", type=kind, shape=shape)
    w = ir.Value(name="w", type=kind, shape=shape, const_value=ir.tensor(np.ones(2, np.float32)))
    y = ir.Value(name="y", type=kind, shape=shape)
    add = ir.Node("", "Add", [x, w], outputs=[y])
    graph = ir.Graph([x, w], [y], nodes=[add], opset_imports={"": 7}, initializers=[w])
    return ir.Model(graph, ir_version=ir_version)


@pytest.mark.parametrize("ir_version", [1, 3])
def test_below_ir_version_4_there_was_no_choice(ir_version: int) -> None:
    old = model(ir_version)
    EliminateInitializerInputs().run(old, Journal("eliminate-initializer-inputs"))
    assert [value.name for value in old.graph.inputs] == ["x"]
    assert list(old.graph.initializers) == ["w"]
    assert old.ir_version == 4


def test_only_what_the_journal_permits() -> None:
    journal = Journal("eliminate-initializer-inputs", limit=0)
    old = model(3)
    EliminateInitializerInputs().run(old, journal)
    assert [value.name for value in old.graph.inputs] == ["x", "w"]
    assert (old.ir_version, journal.rewrites) == (3, [])


def test_a_pytorch_1_2_export(zoo) -> None:
    exported = load(zoo / "models" / "ultraface_rfb320.onnx")
    before = len(exported.graph.inputs)
    journal = Journal("eliminate-initializer-inputs")
    EliminateInitializerInputs().run(exported, journal)
    assert len(exported.graph.inputs) == 1
    assert len(journal.rewrites) == before - 1 > 200
