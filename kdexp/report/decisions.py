"""What student and teacher decided of each test sample, as a run keeps it in its folder.

So the agreement of any control with any teacher is known whenever both were evaluated, without their weights. The
folder may be somebody else's: its file is checked before anything of it is used.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kdexp.atomic import atomic_path
from kdexp.report.example_files import packed_arrays, read_file

FILE = "decisions.npz"


@dataclass(frozen=True, eq=False)
class Decisions:
    """Class numbers in the order of the test split; multi-label: 0 or 1 of each label.

    Attributes:
        label: (N,) or (N, labels) int32; below 0 where there is none.
        student: of the same shape, of the best epoch.
        teacher: of the same shape; None of a run without a teacher.
    """

    label: np.ndarray
    student: np.ndarray
    teacher: np.ndarray | None = None


def write(found: Decisions, folder: Path) -> None:
    """Write `FILE`.

    Args:
        found: of the run.
        folder: of the run.
    """
    arrays = {name: array for name, array in asdict(found).items() if array is not None}
    with atomic_path(folder / FILE) as temporary:
        np.savez_compressed(temporary, **arrays)


def read(folder: Path) -> Decisions | None:
    """The decisions of a run; None where it has no such file.

    Args:
        folder: of the run.

    Raises:
        ValueError: the file is damaged, or holds something else; one line.
    """
    return read_file(folder, FILE, "decisions", _loaded)


def _loaded(path: Path) -> Decisions:
    found = packed_arrays(path, ("label", "student"), maybe=("teacher",))
    shape = found["label"].shape
    for name, array in found.items():
        if array.dtype != np.int32 or array.shape != shape or array.ndim not in (1, 2) or not array.size:
            raise ValueError(f"{name} must be whole numbers, one a sample or one a label")
    return Decisions(**found)


def agreement_of_control(run: Decisions, control: Decisions) -> Mapping[str, float]:
    """How far a run's control decides as the teacher that it never met.

    Args:
        run: with its teacher's decisions.
        control: of the same test split.

    Returns:
        ``agreement``, and among the samples (or labels) with a label ``agreement_teacher_right`` and
        ``agreement_teacher_wrong``, shares in [0, 1]; ``teacher_wrong``, how many the last one is of. What is not
        defined is left out; nothing without a teacher, or where the test splits are others.
    """
    if run.teacher is None or not np.array_equal(run.label, control.label):
        return {}
    alike, is_right = control.student == run.teacher, run.teacher == run.label
    parts = {
        "agreement": np.ones_like(is_right),
        "agreement_teacher_right": is_right,
        "agreement_teacher_wrong": ~is_right & (run.label >= 0),
    }
    shares = {name: float(alike[part].mean()) for name, part in parts.items() if part.any()}
    return shares | {"teacher_wrong": float(parts["agreement_teacher_wrong"].sum())}
