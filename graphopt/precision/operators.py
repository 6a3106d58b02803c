"""What the conversion has to know of operators beyond their schemas, as data."""

from __future__ import annotations

MATRIX = frozenset(
    {
        "Attention",
        "Conv",
        "ConvTranspose",
        "DeformConv",
        "Einsum",
        "GRU",
        "Gemm",
        "LSTM",
        "MatMul",
        "RNN",
        # com.microsoft
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "MultiHeadAttention",
    }
)
"""What half precision is asked for: these go to half wherever they may, whatever the casts."""

MOVEMENT = frozenset(
    {
        "Compress",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Reshape",
        "ReverseSequence",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Trilu",
        "Unsqueeze",
    }
)
"""Outputs hold elements of the first input (or zeros) and nothing else."""

NEVER = frozenset({"BitCast", "MeanVarianceNormalization"})
"""Stay float32 although the schema has half: a width that counts, a body with float32 constants."""

PRECISION_BLIND = frozenset({"Shape", "Size", "IsNaN", "IsInf"})
"""Read any float type, and give the same whether or not it was rounded; nothing is to be cast."""

SUMS = frozenset(
    {
        "AveragePool",
        "CumSum",
        "GlobalAveragePool",
        "LpPool",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
    }
)
"""Their sums may leave the range while their outputs do not."""

NORMALIZATIONS = frozenset(
    {
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "LpNormalization",
        "MeanVarianceNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)
"""They square their input, and sum the squares."""

ROUNDING = frozenset({"Ceil", "Floor", "Round"})
COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
PERIODIC = frozenset({"Cos", "Mod", "Sin", "Tan"})

CONTRIB_UNIFORM = frozenset(
    {
        "BiasAdd",
        "BiasGelu",
        "BiasSoftmax",
        "BiasSplitGelu",
        "FastGelu",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "Gelu",
        "LayerNormalization",
        "QuickGelu",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)
"""com.microsoft operators all of whose float inputs and outputs have one type, half allowed."""

DTYPE_ATTRIBUTES = ("to", "dtype", "output_datatype", "output_dtype")
"""Attributes that name the element type of an output."""

FLOAT_BY_DEFAULT = {
    "RandomNormal": "dtype",
    "RandomUniform": "dtype",
    "SequenceEmpty": "dtype",
    "BlackmanWindow": "output_datatype",
    "HammingWindow": "output_datatype",
    "HannWindow": "output_datatype",
    "MelWeightMatrix": "output_datatype",
}
"""Operators whose output is float32 where the attribute is left out."""
