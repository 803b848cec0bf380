"""The label columns of a person's own table: classes, or several columns of 0 and 1."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kdexp.data import own
from kdexp.data.csv_file import File, as_number


def targets_of(
    files: Mapping[str, File], labels: Sequence[str], *, several: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """What the label columns of the parts say.

    Args:
        files: by part; that of the training samples is ``file``.
        labels: the columns.
        several: whether they are of a multi-label task, 0 and 1.

    Returns:
        The target of each part, see `kdexp.contracts.Kind`, and the names of the classes or labels.

    Raises:
        ValueError: a label is missing, or none of the training file's: one line.
    """
    for file in files.values():
        for name in labels:
            column = file.columns[name]
            if column.is_missing.any():
                raise ValueError(
                    f"dataset.source.label must be given in each row, got none in {name!r}, line "
                    f"{column.lines[column.is_missing.argmax()]} of {file.path.name}"
                )
    if several:
        return {part: torch.stack([_on(file, name) for name in labels], 1) for part, file in files.items()}, list(
            labels
        )
    (name,) = labels
    texts = {part: [str(value) for value in file.columns[name].values] for part, file in files.items()}
    classes = own.classes_of(texts["file"])
    _check_classes(name, classes, files["file"])
    targets = {part: own.numbered(values, classes) for part, values in texts.items()}
    for part, target in targets.items():
        if (target < 0).any():
            row = int((target < 0).int().argmax())
            raise ValueError(
                f"dataset.source.label must have the classes of the training file ({own.shown(classes)}), got "
                f"{texts[part][row]!r} in line {files[part].columns[name].lines[row]} of {files[part].path.name}"
            )
    return targets, classes


def _check_classes(name: str, classes: Sequence[str], file: File) -> None:
    if len(classes) < 2:
        raise ValueError(f"dataset.source.label must have at least two classes, got {classes} in {name!r}")
    fractions = [text for text in classes if as_number(text) is not None and not float(text).is_integer()]
    if fractions or len(classes) > max(len(file) // 2, 2):
        found = f"{fractions[0]} in {name!r}" if fractions else f"{len(classes)} different ones in {len(file)} rows"
        raise ValueError(f"dataset.source.label must have classes, as words or whole numbers, got {found}")


def _on(file: File, name: str) -> Tensor:
    """(N,) float32 of a multi-label column."""
    column = file.columns[name]
    values = [own.yes_or_no(str(value)) for value in column.values]
    if None in values:
        row = values.index(None)
        raise ValueError(
            f"dataset.source.label must name columns of 0 and 1 when it names several, got {column.values[row]!r} in "
            f"{name!r}, line {column.lines[row]} of {file.path.name}"
        )
    return torch.tensor(values, dtype=torch.float32)
