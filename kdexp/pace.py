"""What takes long says now and then how far it is."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

EVERY_SECONDS = 10.0

Item = TypeVar("Item")


def paced(items: Iterable[Item], what: str) -> Iterator[Item]:
    """The batches, with a line in the log every `EVERY_SECONDS`: what is done with them, and how many were.

    Args:
        items: batches.
        what: is done with them.
    """
    said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - said >= EVERY_SECONDS:
            said = now
            log.info("%s: %d batches", what, done)
        yield item


def duration(seconds: float) -> str:
    """A time for people: ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
