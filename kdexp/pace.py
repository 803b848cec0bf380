"""What takes long says now and then how far it is."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

EVERY_SECONDS = 10.0

Item = TypeVar("Item")


def paced(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a line in the log every `EVERY_SECONDS`: what is done, how far, how long still.

    Args:
        items: batches, usually.
        what: is done with them, for the line.
        total: their number, where it is known.
    """
    begun = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - said >= EVERY_SECONDS:
            said = now
            if total is None:
                log.info("%s: %d batches", what, done)
            else:
                log.info(
                    "%s: %d of %d, about %s left", what, done, total, duration((now - begun) / done * (total - done))
                )
        yield item


def duration(seconds: float) -> str:
    """A time for people: ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
