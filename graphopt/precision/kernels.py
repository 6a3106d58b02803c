"""Which providers compute which operators in half precision.

Where a provider has no half kernel for an operator, ONNX Runtime casts to float32 and back, or
moves the node to the CPU: the node had better stay float32. On the CPU that holds for nearly
every operator, so there the table only tells what to expect.

Sources: ONNX Runtime's table of kernels (docs/OperatorKernels.md, 1.2x) for CPU and CUDA, and
TensorRT's support matrix for ONNX operators (10.x).
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.errors import UsageError
from graphopt.precision.formats import HalfFormat


@dataclass(frozen=True)
class Kernels:
    """What a provider can do in half precision.

    Attributes:
        provider: its name.
        float_only: operators to leave in float32 there, for want of a half kernel.
        float_only_bfloat16: the same for bfloat16, beyond `float_only`.
        half_sums: whether sums may be accumulated in half.
        half_scales: whether QuantizeLinear and DequantizeLinear with half scales are as good as
            with float32 ones: elsewhere they would not become integer kernels.
        computes_half: operators that are computed in half; None for all that the schema allows.
    """

    provider: str
    float_only: frozenset[str] = frozenset()
    float_only_bfloat16: frozenset[str] = frozenset()
    half_sums: bool = False
    half_scales: bool = False
    computes_half: frozenset[str] | None = None

    def lacks(self, op_type: str, half: HalfFormat) -> bool:
        """Whether an operator is to stay float32 for want of a kernel."""
        if op_type in self.float_only:
            return True
        return half.name == "bf16" and op_type in self.float_only_bfloat16

    def computes(self, op_type: str) -> bool:
        """Whether an operator that is given half tensors is computed in half."""
        return self.computes_half is None or op_type in self.computes_half


_CUDA_FLOAT_ONLY = frozenset(
    {
        "Acos",
        "Acosh",
        "AffineGrid",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "Bernoulli",
        "CenterCropPad",
        "Col2Im",
        "Compress",
        "Cosh",
        "DFT",
        "DeformConv",
        "Det",
        "EyeLike",
        "GridSample",
        "Hardmax",
        "LpNormalization",
        "LpPool",
        "MaxRoiPool",
        "MaxUnpool",
        "MeanVarianceNormalization",
        "Multinomial",
        "NonMaxSuppression",
        "NonZero",
        "Range",
        "RoiAlign",
        "STFT",
        "Sinh",
        "Tan",
        "Unique",
    }
)

_CPU_FLOAT_ONLY = frozenset(
    {
        "BlackmanWindow",
        "EyeLike",
        "HammingWindow",
        "HannWindow",
        "MelWeightMatrix",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
"""Where even a Cast is not inserted: the model does not load."""

_CPU_HALF = frozenset(
    {
        "Cast",
        "Clip",
        "Compress",
        "Concat",
        "ConstantOfShape",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Pad",
        "Reshape",
        "Scatter",
        "ScatterElements",
        "ScatterND",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)

KERNELS = {
    "any": Kernels("any", _CPU_FLOAT_ONLY, half_sums=True),
    "cpu": Kernels("cpu", _CPU_FLOAT_ONLY, computes_half=_CPU_HALF),
    "cuda": Kernels(
        "cuda",
        _CUDA_FLOAT_ONLY,
        frozenset({"ConvTranspose", "GRU", "InstanceNormalization", "LSTM", "RNN", "TopK"}),
        half_scales=True,
    ),
    "tensorrt": Kernels(
        "tensorrt",
        frozenset({"NonMaxSuppression", "NonZero", "RoiAlign"}),
        half_sums=True,
        half_scales=True,
    ),
}


def kernels_of(provider: str) -> Kernels:
    """The table of a provider; "any" is what every one of them accepts.

    Raises:
        UsageError: there is no table for it.
    """
    if provider not in KERNELS:
        raise UsageError(f"there is no table for '{provider}': use {', '.join(KERNELS)}")
    return KERNELS[provider]
