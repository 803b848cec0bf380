"""Names of jobs and configurations that are short, and differ in what the jobs differ in; numbers of things."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from kdexp.config.identity import fingerprint

_SHORT = 24
"""Values of up to so many characters are shown as they are."""


def counted(count: int, what: str) -> str:
    """``1 input``, ``2,000 inputs``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def short_values(values: Iterable[str]) -> dict[str, str]:
    """The values of one setting -> how they are shown: of long ones only what they differ in; all stay different.

    Args:
        values: as text.
    """
    known = list(dict.fromkeys(values))
    if len(known) < 2 or max(map(len, known)) <= _SHORT:
        return {value: value for value in known}
    start = _in_common(known)
    end = _in_common([value[start:][::-1] for value in known])  # no character is left out at both ends
    parts = {value: value[start : len(value) - end] for value in known}
    if not all(parts.values()):  # one is the beginning and the end of another
        return {value: value for value in known}
    return {value: f"{'…' * (start > 0)}{part}{'…' * (end > 0)}" for value, part in parts.items()}


def _in_common(texts: Sequence[str]) -> int:
    """How many characters they begin with alike."""
    return sum(1 for _ in takewhile(lambda characters: len(set(characters)) == 1, zip(*texts, strict=False)))


def job_names(jobs: Sequence[Sequence[str]], longest: int) -> list[str]:
    """What makes each job of a sweep differ from the others, in at most so many characters.

    Args:
        jobs: overrides of each job, ``KEY=VALUE``.
        longest: a name may be, at least 10.

    Returns:
        The overrides of each without those that all jobs have. Where that is too long: the last part of each key, and
        of each value what differs; where even that is too long, its beginning and digits that no other job has.
    """
    common = set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()
    cells = [[override for override in job if override not in common] for job in jobs]
    names = [" ".join(cell) for cell in cells]
    if max(map(len, names), default=0) <= longest:
        return names
    values: dict[str, dict[str, None]] = {}
    for key, _, value in (override.partition("=") for cell in cells for override in cell):
        values.setdefault(key, {})[value] = None
    shown = {key: short_values(found) for key, found in values.items()}
    lasts = Counter(key.rpartition(".")[2] for key in values)
    keys = {key: key if lasts[key.rpartition(".")[2]] > 1 else key.rpartition(".")[2] for key in values}
    return [
        name if len(name) <= longest else _shortened(cell, keys, shown, longest)
        for name, cell in zip(names, cells, strict=True)
    ]


def _shortened(
    cell: Sequence[str], keys: Mapping[str, str], shown: Mapping[str, Mapping[str, str]], longest: int
) -> str:
    words = (override.partition("=") for override in cell)
    name = " ".join(f"{keys[key]}={shown[key][value]}" for key, _, value in words)
    return name if len(name) <= longest else f"{name[: longest - 9]}…{fingerprint(list(cell))[:8]}"
