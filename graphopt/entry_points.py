"""What installed distributions offer through entry points."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.errors import reason_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offer:
    """One object that a distribution offers.

    Attributes:
        item: the object.
        distribution: the distribution's name, for messages.
    """

    item: object
    distribution: str


def offered(group: str) -> Iterator[Offer]:
    """What every entry point of `group` points at: an object, or a tuple or list of them.

    A distribution that cannot be imported is logged as a warning and passed over: those of
    others go on working.
    """
    for entry in importlib.metadata.entry_points(group=group):
        distribution = entry.dist.name if entry.dist is not None else "unknown"
        try:
            found = entry.load()
        except Exception as error:  # noqa: BLE001 - a stranger's import may raise anything
            logger.warning(
                "warning: the plugin '%s' cannot be loaded (%s): %s; mend or uninstall it",
                distribution,
                entry.value,
                reason_of(error),
            )
            continue
        for item in found if isinstance(found, list | tuple) else (found,):
            yield Offer(item, distribution)
