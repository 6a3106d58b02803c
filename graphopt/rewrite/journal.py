"""What a pass did and what it declined, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphopt.graph import ir


class NotApplicable(Exception):  # noqa: N818 - a refusal, not an error
    """Raised by a pass where it declines; the message says why, in a phrase."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One change: where it happened, and what became of it."""

    site: str
    detail: str


@dataclass(frozen=True, slots=True)
class Decline:
    """One place where the pass would have acted, and why it did not."""

    site: str
    reason: str


def site_of(node: ir.Node) -> str:
    """A name for the place of `node` that is the same in every copy of the model."""
    output = next((value.name for value in node.outputs if value.name), "")
    return f"{node.op_type} {node.name or ''} -> {output}".replace("  ", " ")


@dataclass
class Journal:
    """The record of one run of one pass, and the means to run only a part of it.

    A pass asks `permits(site)` before each change and calls `record` after it. Bisection
    runs a pass again with `limit` (only the first changes) or `skip` (all but these).

    Attributes:
        pass_name: whose record it is; provenance on new nodes carries it.
        limit: how many changes are permitted; None is all.
        skip: sites where no change is permitted.
    """

    pass_name: str
    limit: int | None = None
    skip: frozenset[str] = frozenset()
    rewrites: list[Rewrite] = field(default_factory=list)
    _declined: dict[tuple[str, str], Decline] = field(default_factory=dict)

    def permits(self, site: str) -> bool:
        """Whether the pass may make a change at `site` now."""
        if self.limit is not None and len(self.rewrites) >= self.limit:
            return False
        return site not in self.skip

    def record(self, site: str, detail: str) -> None:
        """Say that a change was made."""
        self.rewrites.append(Rewrite(site, detail))

    def decline(self, site: str, reason: str) -> None:
        """Say that a place was left as it is, and why. Saying it twice counts once."""
        self._declined.setdefault((site, reason), Decline(site, reason))

    @property
    def declined(self) -> list[Decline]:
        """The places left as they are, without those that a later change dealt with."""
        changed = {rewrite.site for rewrite in self.rewrites}
        return [decline for decline in self._declined.values() if decline.site not in changed]
