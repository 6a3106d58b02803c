"""What each -O level runs: tuples of pass specs, repeated until a round changes nothing."""

CLEAN = (
    "eliminate-initializer-inputs",
    "eliminate-dead-nodes",
    "convert-cast-like",
    "convert-split-to-sequence",
    "fold-constants",
    "inline-constant-branches",
    "hoist-loop-invariants",
    "fold-reshape-targets",
    "eliminate-identities",
    "eliminate-neutral-arithmetic",
    "eliminate-repetitions",
    "eliminate-expands",
    "eliminate-grid-gathers",
    "eliminate-zero-states",
    "merge-casts",
    "merge-concats",
    "merge-slices",
    "fuse-reduce-unsqueeze",
)
"""Fold and clean: nothing here changes a bit of any output."""

MOVE = (
    "hoist-gathers",
    "merge-movements",
    "merge-sizes",
    "eliminate-duplicates",
)
"""Move data less: nor does anything here."""

LAYOUT = (
    "hoist-shapes",
    "sink-transposes",
    "hoist-reductions",
)
"""Transpose less; a reduction may add up in another order."""

FUSE = (
    "fuse-layer-normalization",
    "fuse-instance-normalization",
    "fuse-rms-normalization",
    "fuse-gelu",
    "fuse-hard-swish",
    "fuse-mish",
    "fuse-softmax",
    "fuse-rotary-embedding",
    "fuse-attention",
    "eliminate-zero-terms",
    "convert-einsum",
    "merge-clips",
    "merge-constant-arithmetic",
    "fuse-pad",
    "fuse-conv-batchnorm",
    "merge-summed-convs",
    "fuse-sliced-conv",
    "commute-pointwise-convs",
    "fold-scales",
    "fold-offsets",
    "fuse-matmul-add",
    "fuse-gemm-transpose",
)
"""Fusions: the same up to the order of floating-point operations."""

LEVELS: dict[int, tuple[str, ...]] = {
    0: (),
    1: (*CLEAN, *MOVE, "eliminate-dead-nodes"),
    2: (*CLEAN, *LAYOUT, *MOVE, *FUSE, "eliminate-dead-nodes"),
}
LEVELS[3] = LEVELS[2]
"""Pass specs by level: 0 checks only, 1 folds and cleans, 2 fuses too. 3 is 2, and the offers
where a provider is given to measure them with."""

OFFERS = (
    "convert-group-normalization",
    "fuse-multi-head-attention",
    "fuse-skip-normalization",
    "merge-parallel-convs",
    "merge-parallel-products",
)
"""Passes that pay on some models and not on others: each is tried, timed, and kept or not."""
