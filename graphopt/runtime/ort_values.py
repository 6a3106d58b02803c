"""Moves tensors of types that numpy lacks (bfloat16, float8, int4) in and out of ONNX Runtime."""

import ctypes
from typing import Any

import numpy as np
import onnx

from graphopt.graph import ir

# ONNX Runtime's name of a tensor type, as in "tensor(bfloat16)", -> the type.
BEYOND_NUMPY = {
    f"tensor({dtype.name.lower()})": dtype
    for dtype in ir.DataType
    if dtype not in (ir.DataType.UNDEFINED, ir.DataType.STRING) and dtype.numpy().isbuiltin == 2
}


def is_beyond_numpy(dtype: np.dtype) -> bool:
    """Whether an array's type is one that ml_dtypes adds to numpy's own."""
    return dtype.isbuiltin == 2


def to_ort_value(runtime: Any, tensor: ir.TensorProtocol) -> Any:
    """An OrtValue over the tensor's own memory; a copy where that is not aligned or packed."""
    shape = tensor.shape.numpy()
    if tensor.dtype.bitwidth < 8:
        # ONNX Runtime takes the shape of the array for that of the tensor, and reads only the
        # packed bytes at its start. The rest is never touched, so it takes no memory.
        data = np.frombuffer(tensor.tobytes(), np.uint8)
        raw = np.empty(shape, np.uint8)
        raw.reshape(-1)[: data.size] = data
    else:
        # What lies in a model file may lie at any byte; kernels want elements where they belong.
        array = np.require(tensor.numpy(), requirements=("C", "A")).reshape(shape)
        if not is_beyond_numpy(array.dtype):
            return runtime.OrtValue.ortvalue_from_numpy(array)
        raw = array.view(np.uint8 if array.dtype.itemsize == 1 else np.uint16)
    return runtime.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, int(tensor.dtype))


def to_array(value: Any, dtype: ir.DataType) -> np.ndarray:
    """A copy of the contents of an OrtValue, as an array of the ml_dtypes type."""
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    proto = onnx.TensorProto(data_type=int(dtype), dims=value.shape(), raw_data=data)
    return np.array(ir.serde.TensorProtoTensor(proto).numpy())
