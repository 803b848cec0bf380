"""What each corruption of texts does to a word, told from the words before and after."""

from collections import Counter

import pytest
import torch
from operators import as_strings, texts
from scipy import stats

from kdexp.robustness import text

# Long and short words, in capitals, with punctuation, in other scripts.
WORDS = ["What", "a", "captivating", ",", "unhurried", "film", "Öffentlichkeit", "THAT", "Москва", "x2", "don't"]
SENTENCES = [" ".join(WORDS[i % 11 :] + WORDS[: i % 11]) for i in range(60)]
INDEX = torch.arange(60)
LONG = 200

KEYBOARD = {
    "q": "wa", "w": "qeas", "e": "wrsd", "r": "etdf", "t": "ryfg", "y": "tugh", "u": "yihj", "i": "uojk", "o": "ipkl",
    "p": "ol", "a": "qwsz", "s": "awedxz", "d": "serfcx", "f": "drtgvc", "g": "ftyhbv", "h": "gyujnb", "j": "huikmn",
    "k": "jiolm", "l": "kop", "z": "asx", "x": "zsdc", "c": "xdfv", "v": "cfgb", "b": "vghn", "n": "bhjm", "m": "njk",
}  # fmt: skip


def changed(name, sentences=SENTENCES, seed=0, length=LONG, **settings):
    return as_strings(getattr(text, name)(texts(sentences, length), INDEX[: len(sentences)], seed=seed, **settings))


def pairs(name, share):
    """Every word before and after."""
    found = changed(name, share=share)
    for before, after in zip(SENTENCES, found, strict=True):
        yield from zip(before.split(), after.split(), strict=True)


def swapped(word):
    return {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(1, len(word) - 2)}


def deleted(word):
    return {word[:i] + word[i + 1 :] for i in range(1, len(word) - 1)}


def inserted(word):
    return {word[:i] + letter + word[i:] for i in range(1, len(word)) for letter in "abcdefghijklmnopqrstuvwxyz"}


def beside(word):
    found = set()
    for i in range(1, len(word) - 1):
        for key in KEYBOARD.get(word[i].lower(), word[i].lower()):
            found.add(word[:i] + (key.upper() if word[i].isupper() else key) + word[i + 1 :])
    return found


TYPOS = {"typo_swap": swapped, "typo_delete": deleted, "typo_insert": inserted, "typo_keyboard": beside}


@pytest.mark.parametrize("name", TYPOS)
def test_every_long_word_gets_one_typo_inside_it_and_short_words_none(name):
    seen = set()
    for before, after in pairs(name, 1.0):
        assert after in TYPOS[name](before) if len(before) >= 4 else after == before
        seen.add((before, after))
    assert len({after for before, after in seen if before == "captivating"}) > 5, "not always the same place"


@pytest.mark.parametrize("name", TYPOS)
def test_a_fraction_of_the_words_gets_a_typo(name):
    is_changed = [before != after for before, after in pairs(name, 0.3) if before in ("captivating", "unhurried")]
    assert stats.binomtest(sum(is_changed), len(is_changed), 0.3).pvalue > 0.01


def test_the_words_of_a_lower_severity_are_among_those_of_a_higher():
    few, many = (changed("typo_delete", share=share) for share in (0.2, 0.6))
    for before, low, high in zip(SENTENCES, few, many, strict=True):
        for word, one, other in zip(before.split(), low.split(), high.split(), strict=True):
            assert one in (word, other)


def test_words_that_are_left_out_are_a_fraction_and_never_all():
    found = changed("word_dropout", share=0.3)
    kept = [len(after.split()) for after in found]
    assert stats.binomtest(sum(kept), 60 * len(WORDS), 0.7).pvalue > 0.01
    for before, after in zip(SENTENCES, found, strict=True):
        left = iter(before.split())
        assert all(word in left for word in after.split()), "in their order"
        assert after == after.strip()
    assert all(len(after.split()) == 1 for after in changed("word_dropout", share=1.0))
    assert changed("word_dropout", [""], share=1.0) == [""]


def test_repeated_words_stand_behind_themselves():
    found = changed("word_repeat", share=0.3)
    twice = 0
    for before, after in zip(SENTENCES, found, strict=True):
        words, left = before.split(), after.split()
        twice += len(left) - len(words)
        for word in words:
            assert left.pop(0) == word
            if left and left[0] == word:
                left.pop(0)
        assert not left
    assert stats.binomtest(twice, 60 * len(WORDS), 0.3).pvalue > 0.01


@pytest.mark.parametrize("distance", [1, 3])
def test_words_move_by_no_more_than_a_distance(distance):
    moved = Counter()
    for before, after in zip(SENTENCES, changed("word_order", distance=distance), strict=True):
        words = before.split()
        places = [words.index(word) for word in after.split()]
        assert sorted(places) == list(range(len(words)))
        moved.update(abs(place - i) for i, place in enumerate(places))
    assert max(moved) == distance
    assert moved[0] < 0.9 * moved.total()


def test_cases():
    words = list(pairs("upper_case", 0.5))
    assert all(after in (before, before.upper()) for before, after in words)
    lower = [after == "FILM" for before, after in words if before == "film"]
    assert stats.binomtest(sum(lower), len(lower), 0.5).pvalue > 0.01
    letters = [pair for before, after in pairs("random_case", 0.2) for pair in zip(before, after, strict=True)]
    assert all(after in (before, before.swapcase()) for before, after in letters)
    told = [before != after for before, after in letters if before != before.swapcase()]
    assert stats.binomtest(sum(told), len(told), 0.2).pvalue > 0.01


def test_white_space_stays_where_no_word_goes():
    spaced = ["one  captivating\tfilm\n of  many", "  two   words "]
    for name in ("typo_swap", "upper_case"):
        found = changed(name, spaced, share=1.0)
        assert ["".join(c for c in after if c.isspace()) for after in found] == ["  \t\n   ", "       "[:6]]


def test_a_text_that_grows_is_cut_at_the_length_of_all():
    assert changed("word_repeat", ["one two"], length=9, share=1.0) == ["one one t"]
    assert changed("upper_case", ["Straße"], length=6, share=1.0) == ["STRASS"]


def test_half_a_batch_has_the_same_texts_and_another_seed_others():
    whole = changed("typo_insert", seed=1, share=0.5)
    half = text.typo_insert(texts(SENTENCES, LONG)[30:], INDEX[30:], seed=1, share=0.5)
    assert as_strings(half) == whole[30:]
    assert changed("typo_insert", seed=2, share=0.5) != whole
