"""What happens to texts: typos, words that are missing, doubled or out of order, letters in the wrong case.

Texts are (N, L) int32 code points, 0 after the end; a text that grows beyond L is cut. A word is what stands between
white space. A fraction of the words is a probability: each word is drawn for itself. Arguments and result are those of
`kdexp.robustness`.

The kinds of typos are those of Belinkov and Bisk 2018 (arXiv 1711.02173, section 3.2: neighbours swapped, a key beside
the right one) and of Pruthi et al. 2019 (arXiv 1905.11268, section 3: swap, drop, add, keyboard), with the rule of the
latter: one between the first and the last character of a word of at least four. Belinkov and Bisk have one in every
word, which severity 5 is; the severities below it are kdexp's own. The fractions of words that are left out are among
those of Wei and Zou 2019 (EDA, arXiv 1901.11196, figure 3), who have such words to train on. Words out of order are as
in Lample et al. 2018 (arXiv 1711.00043, section 2.3), whose distance is 3.
"""

import math
import re
from collections.abc import Callable, Sequence
from itertools import count

import torch
from torch import Tensor

from kdexp.data.stateless_rng import RngStream, uniform

_SHORTEST = 4  # characters of a word that gets a typo
_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))  # and how far each is moved to the right
_KEYS = {key: (x + moved, y) for y, (row, moved) in enumerate(_ROWS) for x, key in enumerate(row)}
_NEAR = 1.3  # keys that touch are nearer than this, in widths of a key
_BESIDE = {
    key: [other for other, place in _KEYS.items() if other != key and math.dist(own, place) < _NEAR]
    for key, own in _KEYS.items()
}

Draws = Sequence[float]
"""Uniform random numbers in [0, 1)."""


def typo_swap(texts: Tensor, index: Tensor, *, seed: int, share: float) -> Tensor:
    """Swap two neighbouring characters in a fraction of the words: ``noise`` becomes ``nosie``."""

    def swap(word: str, u: float, which: float) -> str:
        place = _inside(word, u, pairs=True)
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]

    return _mistyped(texts, index, seed, share, swap)


def typo_delete(texts: Tensor, index: Tensor, *, seed: int, share: float) -> Tensor:
    """Leave a character out of a fraction of the words: ``noise`` becomes ``nose``."""

    def delete(word: str, u: float, which: float) -> str:
        place = _inside(word, u)
        return word[:place] + word[place + 1 :]

    return _mistyped(texts, index, seed, share, delete)


def typo_insert(texts: Tensor, index: Tensor, *, seed: int, share: float) -> Tensor:
    """Put any of the letters a to z into a fraction of the words: ``noise`` becomes ``nogise``."""

    def insert(word: str, u: float, which: float) -> str:
        place = _inside(word, u)
        return word[:place] + _one_of("abcdefghijklmnopqrstuvwxyz", which) + word[place:]

    return _mistyped(texts, index, seed, share, insert)


def typo_keyboard(texts: Tensor, index: Tensor, *, seed: int, share: float) -> Tensor:
    """Replace a letter by one beside it on the keyboard (QWERTY) in a fraction of the words: ``nouse``.

    What is no letter of that keyboard stays.
    """

    def replace(word: str, u: float, which: float) -> str:
        place = _inside(word, u)
        right = word[place]
        near = _BESIDE.get(right.lower(), [right])
        wrong = _one_of(near, which)
        return word[:place] + (wrong.upper() if right.isupper() else wrong) + word[place + 1 :]

    return _mistyped(texts, index, seed, share, replace)


def word_dropout(texts: Tensor, index: Tensor, *, seed: int, share: float) -> Tensor:
    """Leave a fraction of the words out; at least one word of a text stays."""

    def drop(text: str, draws: Draws) -> str:
        words = _with_space(text)
        last = max(range(len(words)), key=draws.__getitem__, default=0)
        return "".join(word for i, word in enumerate(words) if draws[i] >= share or i == last).rstrip()

    return _changed(texts, index, seed, RngStream.WORD_DROPOUT, drop)


def word_repeat(texts: Tensor, index: Tensor, *, seed: int, share: float) -> Tensor:
    """Write a fraction of the words twice."""

    def repeat(text: str, draws: Draws) -> str:
        return "".join(
            f"{word.rstrip()} {word}" if u < share else word for word, u in zip(_with_space(text), draws, strict=False)
        )

    return _changed(texts, index, seed, RngStream.WORD_REPEAT, repeat)


def word_order(texts: Tensor, index: Tensor, *, seed: int, distance: int) -> Tensor:
    """Shuffle the words so that none moves by more than distance: they are sorted by place + u (distance + 1)."""

    def shuffle(text: str, draws: Draws) -> str:
        words = text.split()
        order = sorted(range(len(words)), key=lambda place: place + draws[place] * (distance + 1))
        moved = iter(order)
        return re.sub(r"\S+", lambda _: words[next(moved)], text)

    return _changed(texts, index, seed, RngStream.WORD_ORDER, shuffle)


def upper_case(texts: Tensor, index: Tensor, *, seed: int, share: float) -> Tensor:
    """Write a fraction of the words in capital letters."""

    def raised(text: str, draws: Draws) -> str:
        number = count()
        return re.sub(r"\S+", lambda word: word[0].upper() if draws[next(number)] < share else word[0], text)

    return _changed(texts, index, seed, RngStream.LETTER_CASE, raised)


def random_case(texts: Tensor, index: Tensor, *, seed: int, share: float) -> Tensor:
    """Make a fraction of the letters large where they are small, and small where they are large."""

    def swapped(text: str, draws: Draws) -> str:
        return "".join(one.swapcase() if u < share else one for one, u in zip(text, draws, strict=False))

    return _changed(texts, index, seed, RngStream.LETTER_CASE, swapped)


def _mistyped(
    texts: Tensor, index: Tensor, seed: int, share: float, change: Callable[[str, float, float], str]
) -> Tensor:
    """Change a fraction of the words that are long enough; change gets a word, where and which."""

    def mistype(text: str, draws: Draws) -> str:
        number = count()

        def word(found: re.Match[str]) -> str:
            first = 3 * next(number)
            is_changed = draws[first] < share and len(found[0]) >= _SHORTEST
            return change(found[0], *draws[first + 1 : first + 3]) if is_changed else found[0]

        return re.sub(r"\S+", word, text)

    return _changed(texts, index, seed, RngStream.TYPO, mistype, numbers=3)


def _inside(word: str, u: float, *, pairs: bool = False) -> int:
    """A place between the first and the last character; of pairs the first one's, the second being inside, too."""
    return 1 + int(u * (len(word) - 2 - pairs))


def _one_of(choices: Sequence[str], u: float) -> str:
    return choices[int(u * len(choices))]


def _with_space(text: str) -> list[str]:
    """Words, each with the white space behind it."""
    return re.findall(r"\S+\s*", text)


def _changed(
    texts: Tensor,
    index: Tensor,
    seed: int,
    stream: RngStream,
    change: Callable[[str, Draws], str],
    *,
    numbers: int = 1,
) -> Tensor:
    """What a change makes of each text, cut to L.

    Args:
        texts: (N, L) int32.
        index: (N,) int64.
        seed: of the random numbers.
        stream: likewise.
        change: gets a text and L times as many random numbers as it has for a word or a character.
        numbers: of those for each.
    """
    length = texts.shape[1]
    draws = uniform(seed, 0, index, numbers * length, stream).tolist()
    found = torch.zeros(texts.shape, dtype=texts.dtype)
    for row, (codes, own) in enumerate(zip(texts.tolist(), draws, strict=True)):
        text = "".join(map(chr, codes)).rstrip("\0")
        changed = [ord(one) for one in change(text, own)[:length]]
        found[row, : len(changed)] = torch.tensor(changed, dtype=texts.dtype)
    return found.to(texts.device)
