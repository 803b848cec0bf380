"""What takes long says now and then how far it is."""

import gc
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

log = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
_PATIENCE_SECONDS = 6.0  # a program has needed two or three before it can say a word
IMPORTING = "importing PyTorch and Lightning"
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


@contextmanager
def said_meanwhile(what: str) -> Iterator[None]:
    """Say now and then what takes so long, as long as the block lasts; nothing where it is quick.

    Args:
        what: is done in it.
    """
    is_over = threading.Event()

    def speak() -> None:
        while not is_over.wait(_PATIENCE_SECONDS):
            log.info("%s", what)

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        is_over.set()
        speaker.join()


@contextmanager
def importing() -> Iterator[None]:
    """Import PyTorch and what needs it in the block; it is said where it takes long.

    Of the half million objects that this makes none is garbage: the collector would take a second to find that out.
    """
    is_on = gc.isenabled()
    gc.disable()
    try:
        with said_meanwhile(IMPORTING):
            yield
    finally:
        if is_on:
            gc.enable()


def duration(seconds: float) -> str:
    """A time for people: ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
