"""What every command does to a model around its work."""

from __future__ import annotations

from graphopt.graph import from_text
from graphopt.pipeline.model_files import as_written, described_values
from graphopt.shapes import infer_shapes


def test_what_is_timed_has_the_types_of_the_file_and_no_others() -> None:
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y)'
        " <float[N] told> { told = Neg(x) inferred = Abs(told) y = Sqrt(inferred) }"
    )
    described = described_values(model)
    assert "told" in described
    assert "inferred" not in described
    infer_shapes(model)
    written = as_written(model, described)

    def types(of):
        return {node.outputs[0].name: node.outputs[0].type for node in of.graph}

    assert all(types(model).values())  # a copy was changed, not the model
    found = types(written)
    assert found["told"] is not None
    assert found["inferred"] is None
    assert found["y"] is not None
