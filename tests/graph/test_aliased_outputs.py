"""An output that is also an input keeps the type that was declared for it."""

import onnx
import onnx.parser
import pytest

from graphopt.graph import load, to_proto


@pytest.mark.parametrize(
    "signature",
    [
        "(float[3,4] x) => (float[?,?] x)",
        "(float[?,4] x) => (float[3,4] x)",
        "(float[N,4] x) => (float[N,4] x, float[?,?] x)",
    ],
)
def test_declared_types_of_one_value_are_kept_apart(signature: str) -> None:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> m {signature} {{ }}')
    saved = to_proto(load(proto).clone())
    assert list(saved.graph.input) == list(proto.graph.input)
    assert list(saved.graph.output) == list(proto.graph.output)
