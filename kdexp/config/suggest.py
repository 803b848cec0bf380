"""What a mistyped name may have been meant to be."""

from collections.abc import Iterable
from difflib import SequenceMatcher

_CLOSE = 0.6  # of likeness: difflib's own choice for close matches
_ABBREVIATED = 0.9


def nearest(typed: str, names: Iterable[str]) -> str | None:
    """The name that is most like what was typed.

    Of a dotted name the last part counts for itself: ``lr`` is most like ``optimizer.lr``. Of names that are equally
    like it, the least nested is taken, then the shortest.

    Args:
        typed: the mistyped name.
        names: those that there are.

    Returns:
        One of the names; None where none of them is close.
    """
    scores = {name: _likeness(typed, name) for name in sorted(names)}
    best = max(scores, key=lambda name: (scores[name], -name.count("."), -len(name)), default=None)
    return best if best is not None and scores[best] >= _CLOSE else None


def did_you_mean(typed: str, names: Iterable[str]) -> str:
    """The end of a message: the nearest name as a question, or nothing where none is close."""
    found = nearest(typed, names)
    return f"; did you mean {found}?" if found else ""


def _likeness(typed: str, name: str) -> float:
    """In [0, 1]; of a dotted name that was typed, the mean of what the last parts and the wholes have in common."""
    last, its_last = (text.rpartition(".")[2] for text in (typed, name))
    likeness = max(SequenceMatcher(None, last, its_last).ratio(), _abbreviation(last, its_last))
    return (likeness + SequenceMatcher(None, typed, name).ratio()) / 2 if "." in typed else likeness


def _abbreviation(one: str, other: str) -> float:
    """Whether one word begins the other, or is made of the first letters of its words: ``lr`` and ``learning_rate``."""
    short, long = sorted((one, other), key=len)
    begins = len(short) >= 3 and long.startswith(short)
    initials = "".join(word[:1] for word in long.split("_"))
    return _ABBREVIATED if begins or (len(short) >= 2 and short == initials) else 0.0
