"""Remove whole channels, with everything that is tied to them.

    y = W2 f(W1 x)   ->   y = W2[:, kept] f(W1[kept, :] x)

What is tied together (a residual sum, a depthwise filter, the rows behind a Flatten, the parts of
a Concat) goes together or stays. A group is declined where a channel is part of the interface, is
mixed with others (Softmax or ArgMax over channels, the statistics of a LayerNormalization), or
goes through an operator that is not understood. The outputs change unless the channels were zero
in effect; `graphopt prune` refits what is left, and keeps to a budget.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.plugin import Journal, Pass, Promise, ir, option


@dataclass(frozen=True)
class PruneChannels(Pass):
    """Remove the least important channels."""

    name = "prune-channels"
    promise = Promise.LOSSY

    ratio: float = option(0.25, "the share of every group's channels to remove")
    importance: str = option("l1", "which channels go first: l1, l2, random")
    round_to: int = option(1, "keep a multiple of this many channels")
    min_channels: int = option(1, "keep at least this many channels")
    plan: str = option("", "a JSON file with the units to keep for each group, in place of a ratio")

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Prune once, however many rounds the pipeline makes."""
        from graphopt.plugin import prune_channels

        prune_channels(
            model,
            journal,
            ratio=self.ratio,
            importance=self.importance,
            round_to=self.round_to,
            least=self.min_channels,
            plan=self.plan,
        )
