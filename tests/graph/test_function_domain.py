"""A function in the empty domain keeps its domain field, which ONNX requires."""

import onnx
import onnx.helper

from graphopt.graph import load, to_proto


def test_the_empty_domain_of_a_function_is_written() -> None:
    relu = onnx.helper.make_node("Relu", ["a"], ["b"])
    negative = onnx.helper.make_node("Neg", ["x"], ["y"])
    opset = onnx.helper.make_opsetid("", 17)
    function = onnx.helper.make_function("", "Relu", ["x"], ["y"], [negative], [opset])
    ends = [onnx.helper.make_tensor_value_info(name, 1, [2]) for name in "ab"]
    graph = onnx.helper.make_graph([relu], "g", ends[:1], ends[1:])
    proto = onnx.helper.make_model(graph, functions=[function], opset_imports=[opset], ir_version=8)
    saved = to_proto(load(proto))
    assert saved.functions[0].HasField("domain")
    onnx.checker.check_model(saved)
