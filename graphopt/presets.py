"""What each -O level runs: tuples of pass specs, repeated until a round changes nothing."""

CLEAN = (
    "eliminate-initializer-inputs",
    "eliminate-dead-nodes",
    "fold-constants",
    "inline-constant-branches",
    "fold-reshape-targets",
    "eliminate-identities",
    "eliminate-neutral-arithmetic",
    "eliminate-duplicates",
)
"""Fold and clean: nothing here changes a bit of any output."""

FUSE = ("fuse-conv-batchnorm",)
"""Fusions: the same up to the order of floating-point operations."""

LEVELS: dict[int, tuple[str, ...]] = {
    0: (),
    1: (*CLEAN, "eliminate-dead-nodes"),
    2: (*CLEAN, *FUSE, "eliminate-dead-nodes"),
}
LEVELS[3] = LEVELS[2]  # the layout and provider-specific passes will go here
"""Pass specs by level: 0 checks only, 1 folds and cleans, 2 fuses too, 3 is 2 today."""
