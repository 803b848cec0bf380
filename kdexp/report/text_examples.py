"""Some test texts with their classes and those that the networks predict, as a run keeps them in its folder.

The folder may be somebody else's: its file is checked before anything of it is shown.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kdexp.atomic import atomic_path
from kdexp.report.example_files import NETWORKS, read_file, with_control

FILE = "texts.json"
MOST, LONGEST = 500, 400
"""Texts that a run keeps, and characters of each; longer ones are cut."""
_MOST_BYTES = 8 * 2**20  # more than a run writes


@dataclass(frozen=True)
class TextExample:
    """A text with its class.

    Attributes:
        sample: its number in the test data.
        text: itself, or its beginning.
        truth: number of its class.
        predictions: name of a network -> the number of the class that it predicts.
    """

    sample: int
    text: str
    truth: int
    predictions: Mapping[str, int]

    def shows_the_same_as(self, other: "TextExample") -> bool:
        """Whether text and truth are those of another example, whatever the networks predict."""
        return replace(self, predictions={}) == replace(other, predictions={})

    def with_control(self, control: "TextExample") -> "TextExample":
        """With the control's class between the teacher's and the student's."""
        return replace(self, predictions=with_control(self.predictions, control.predictions))


def write(examples: Sequence[TextExample], folder: Path) -> None:
    """Write `FILE`: lists of equal length, ``sample``, ``text``, ``truth`` and each network's.

    Args:
        examples: at least one; every example has predictions of the same networks.
        folder: of the run.
    """
    columns: dict[str, list[int] | list[str]] = {
        "sample": [example.sample for example in examples],
        "text": [example.text for example in examples],
        "truth": [example.truth for example in examples],
    }
    columns |= {name: [example.predictions[name] for example in examples] for name in examples[0].predictions}
    with atomic_path(folder / FILE) as temporary:
        temporary.write_text(json.dumps(columns), encoding="utf-8")


def read(folder: Path, classes: int) -> list[TextExample]:
    """The examples of a run; none where it has no such file.

    Args:
        folder: of the run.
        classes: how many the data set has.

    Raises:
        ValueError: the file is damaged, or holds something else; one line.
    """
    return read_file(folder, FILE, "example texts", lambda path: _loaded(path, classes)) or []


def _loaded(path: Path, classes: int) -> list[TextExample]:
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise ValueError(f"it has {size} bytes, more than {_MOST_BYTES}")
    found = json.loads(path.read_text(encoding="utf-8"))
    _check(found, classes)
    networks = [name for name in NETWORKS if name in found]
    return [
        TextExample(sample, found["text"][row], found["truth"][row], {name: found[name][row] for name in networks})
        for row, sample in enumerate(found["sample"])
    ]


def _check(found: object, classes: int) -> None:
    if not isinstance(found, dict):
        raise ValueError("it must be lists by name")
    for name in ("sample", "text", "truth", "student", *(["teacher"] if "teacher" in found else [])):
        column = found.get(name)
        if not isinstance(column, list) or not 1 <= len(column) <= MOST or len(column) != len(found["sample"]):
            raise ValueError(f"{name} must be a list, as long as all others, of 1 to {MOST}")
        if name == "text":
            if any(not isinstance(text, str) or len(text) > LONGEST for text in column):
                raise ValueError(f"text must be texts of at most {LONGEST} characters")
        elif any(type(number) is not int or number < 0 for number in column):
            raise ValueError(f"{name} must be whole numbers from 0")
        elif name != "sample" and max(column) >= classes:
            raise ValueError(f"{name} must be in 0..{classes - 1}, got {max(column)}")
