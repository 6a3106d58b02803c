"""Insertion: interface, names, provenance, sharing, and running only a part of it."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.graph import (
    clone,
    raise_opset,
    to_text,
    verify,
)
from graphopt.quantization.insertion import insert_qdq
from graphopt.quantization.opset import PER_CHANNEL
from graphopt.rewrite import Journal
from graphopt.rewrite.journal import site_of
from graphopt.rewrite.rewriter import ORIGIN_KEY, PASS_KEY
from graphopt.runtime import Session

from .quantizing import model_of, normal, quantize

TEXT = """g (float[1,8,8,8] x) => (y) {
    t = Conv (x, w) r = Relu (t) u = Conv (r, w) s = Add (u, r) y = Conv (s, w)
}"""
WEIGHTS = {"w": normal(8, 8, 1, 1, scale=0.4)}
FEED = {"x": normal(1, 8, 8, 8, seed=9)}


def test_the_model_given_is_not_changed() -> None:
    model = model_of(TEXT, WEIGHTS)
    before = to_text(model)
    quantize(model, FEED)
    assert to_text(model) == before


def test_the_output_keeps_its_name_type_and_shape() -> None:
    found = quantize(model_of(TEXT, WEIGHTS), FEED)
    (output,), (expected,) = found.result.graph.outputs, found.model.graph.outputs
    assert (output.name, output.dtype, output.shape) == ("y", expected.dtype, expected.shape)


def test_every_tensor_has_one_quantization_and_every_new_node_an_origin() -> None:
    found = quantize(model_of(TEXT, WEIGHTS), FEED)
    quantized_values = [n.inputs[0] for n in found.result.graph if n.op_type == "QuantizeLinear"]
    assert len(quantized_values) == len(set(quantized_values))
    originals = {node.name for node in found.model.graph} | {
        f"{node.op_type}:{node.outputs[0].name}" for node in found.model.graph
    }
    names = [node.name for node in found.result.graph if node.name]
    assert len(names) == len(set(names))
    for node in found.result.graph:
        if node.op_type.endswith("Linear"):
            assert node.metadata_props[ORIGIN_KEY] in originals
            assert node.metadata_props[PASS_KEY] == "insert-qdq"


@pytest.mark.parametrize("limit", range(5))
def test_any_part_of_it_is_a_valid_model(limit: int) -> None:
    found = quantize(model_of(TEXT, WEIGHTS), FEED)
    part = clone(found.model)
    journal = Journal("insert-qdq", limit=limit)
    insert_qdq(part, found.plan, journal)
    assert len(journal.rewrites) == limit
    assert verify(part) == []
    expected = Session(found.model, threads=1).run(FEED)["y"]
    actual = Session(part, threads=1).run(FEED)["y"]
    assert np.abs(expected - actual).max() < 0.1 * np.abs(expected).max()
    assert (limit == 0) == ("QuantizeLinear" not in {node.op_type for node in part.graph})


def test_a_group_that_is_skipped_stays_float() -> None:
    found = quantize(model_of(TEXT, WEIGHTS), FEED)
    part = clone(found.model)
    middle = next(node for node in part.graph if node.outputs[0].name == "u")
    insert_qdq(part, found.plan, Journal("insert-qdq", skip=frozenset({site_of(middle)})))
    middle = next(node for node in part.graph if node.outputs[0].name == "u")
    assert middle.inputs[1] is not None
    assert middle.inputs[1].name == "w"
    assert verify(part) == []


def test_a_plan_of_another_model() -> None:
    found = quantize(model_of(TEXT, WEIGHTS), FEED)
    for other in (TEXT.replace("s, w", "r, w"), TEXT.replace(" u", " v").replace("(u", "(v")):
        with pytest.raises(UsageError, match="another model"):
            insert_qdq(model_of(other, WEIGHTS), found.plan, Journal("insert-qdq"))


def test_a_model_too_old_for_the_plan() -> None:
    found = quantize(model_of(TEXT, WEIGHTS), FEED)
    old = model_of('<ir_version: 8, opset_import: ["" : 12]>' + TEXT, WEIGHTS)
    with pytest.raises(UsageError, match="needs opset 13"):
        insert_qdq(old, found.plan, Journal("insert-qdq"))
    raised = raise_opset(old, PER_CHANNEL)
    insert_qdq(raised, found.plan, Journal("insert-qdq"))
    assert verify(raised) == []
    assert raise_opset(raised, PER_CHANNEL) is raised


def test_an_old_model_is_raised_with_its_meaning() -> None:
    old = model_of(
        '<ir_version: 6, opset_import: ["" : 9]> g (float[2,3,4] x) => (y) '
        "{ s = Softmax <axis = 1> (x) t = Squeeze <axes = [0]> (z) y = Add (s, t) }",
        {"z": normal(1, 4)},
    )
    raised = raise_opset(old, 21)
    assert raised.opset_imports[""] == 21
    feed = {"x": normal(2, 3, 4)}
    expected, actual = (Session(m, threads=1).run(feed)["y"] for m in (old, raised))
    assert np.allclose(expected, actual, atol=1e-6)
