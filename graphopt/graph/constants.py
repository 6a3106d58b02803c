"""Tells which values are constants, in every way ONNX has of spelling one."""

from typing import cast

import numpy as np

from graphopt.graph._onnx_ir import ir
from graphopt.graph.external import MissingTensor


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of a value that nobody can override, or None.

    That is an initializer which is not also a graph input (such an input is a default, which
    the caller may replace), or the output of a Constant node, whichever attribute spells it.
    None for a sparse_value, and for an attribute that refers to a parameter of the function
    around it. The data is not read: an external tensor stays on disk.
    """
    if value is None:
        return None
    producer = value.producer()
    if producer is not None:
        return constant_node_tensor(producer)
    if value.is_initializer() and not value.is_graph_input():
        return value.const_value
    return None


def constant_array(value: ir.Value | None, max_elements: int | None = None) -> np.ndarray | None:
    """The data of `constant_tensor(value)` as a read-only array, or None.

    None too where it has more than `max_elements` elements, and then nothing is read, and where
    its data is missing. Types
    that numpy lacks come as their ml_dtypes type, strings as an object array of bytes.
    """
    tensor = constant_tensor(value)
    if tensor is None or (max_elements is not None and tensor.size > max_elements):
        return None
    if isinstance(tensor, MissingTensor):
        return None
    if isinstance(tensor, ir.StringTensor):
        # Its own array has numpy's fixed-width strings, which lose zero bytes at the end.
        array = np.empty(tensor.size, object)
        array[:] = tensor.string_data()
        array = array.reshape(tensor.shape.numpy())
    else:
        # The array may be the tensor's own, which other models share.
        array = tensor.numpy().view()
    array.flags.writeable = False
    return array


def constant_node_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor that a Constant node holds; None for any other node (see constant_tensor)."""
    if node.op_type != "Constant" or node.domain != "" or len(node.attributes) != 1:
        return None
    (attribute,) = node.attributes.values()
    if attribute.is_ref() or attribute.value is None:
        return None
    name = node.outputs[0].name if node.outputs else None
    match attribute.name:
        case "value" if attribute.type == ir.AttributeType.TENSOR:
            # as_tensor() would check the type again, by a protocol, which is slow.
            return cast("ir.TensorProtocol", attribute.value)
        case "value_float":
            return ir.tensor(np.array(attribute.as_float(), np.float32), name=name)
        case "value_floats":
            return ir.tensor(np.array(attribute.as_floats(), np.float32), name=name)
        case "value_int":
            return ir.tensor(np.array(attribute.as_int(), np.int64), name=name)
        case "value_ints":
            return ir.tensor(np.array(attribute.as_ints(), np.int64), name=name)
        case "value_string":
            text = attribute.as_string().encode()
            return ir.StringTensor([text], shape=ir.Shape([]), name=name)
        case "value_strings":
            texts = [text.encode() for text in attribute.as_strings()]
            return ir.StringTensor(texts, shape=ir.Shape([len(texts)]), name=name)
    return None
