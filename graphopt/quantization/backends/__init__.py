"""What each backend runs in integers, one file per backend."""

from collections.abc import Mapping
from types import MappingProxyType

from graphopt.quantization.backends.backend import Backend, Format, Output, Role, Rule
from graphopt.quantization.backends.generic import GENERIC
from graphopt.quantization.backends.openvino import OPENVINO
from graphopt.quantization.backends.ort_cpu import ORT_CPU
from graphopt.quantization.backends.ort_cuda import ORT_CUDA
from graphopt.quantization.backends.tensorrt import TENSORRT

BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {backend.name: backend for backend in (ORT_CPU, ORT_CUDA, TENSORRT, OPENVINO, GENERIC)}
)
"""Every backend by the name that `--backend` takes."""

__all__ = ["BACKENDS", "Backend", "Format", "Output", "Role", "Rule"]
