"""Checks of the data: the classes of each split and the normalization of the inputs."""

from collections.abc import Sequence

from torch import Tensor

from kdexp.contracts import UNLABELED, Kind, Split, Splits
from kdexp.data.splits import samples_per_class
from kdexp.doctor.finding import Finding

MeanStd = tuple[Tensor, Tensor]
"""(channels,) means and standard deviations."""


def class_counts(splits: Splits, kind: Kind, num_classes: int, *, of: str = "samples") -> list[Finding]:
    """Samples, or pixels, per class in each split; names classes that have none, or far fewer than another."""
    return [
        _class_counts(name, split, kind, num_classes, of)
        for name, split in (("train", splits.train), ("val", splits.val), ("test", splits.test))
    ]


def _class_counts(name: str, split: Split, kind: Kind, num_classes: int, of: str) -> Finding:
    check = f"classes in {name}"
    counts = samples_per_class(split.target, kind, num_classes)
    unlabeled = int((split.target.reshape(len(split), -1) == UNLABELED).all(1).sum())
    few, many = int(counts.min()), int(counts.max())
    unit = "" if of == "samples" else f"{of} "
    found = f"{len(split)} samples, {few} to {many} {unit}a class"
    if unlabeled:
        found += f", {unlabeled} unlabeled"
    missing = [str(number) for number, count in enumerate(counts.tolist()) if count == 0]
    if missing and unlabeled < len(split):
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        found += f"; {len(missing)} of {num_classes} classes missing: {shown}"
        advice = (
            "the student cannot learn them: check dataset.num_classes, or raise dataset.train_fraction"
            if name == "train"
            else "the macro metrics leave them out: use a larger split"
        )
        return Finding(check, found, "warning", advice)
    if few and many > 10 * few:
        other = ", or at dataset.class_sampling=balanced" if of == "samples" else ", or at task.dice_weight"
        advice = f"imbalanced: look at f1 and auc besides acc{other}"
        return Finding(check, found, "note", advice)
    return Finding(check, found)


def inputs(student: MeanStd, teachers: Sequence[MeanStd]) -> list[Finding]:
    """Whether the student and each of the teacher's networks get normalized training inputs.

    Args:
        student: of the student's inputs, without augmentation.
        teachers: of each teacher network's, after the conversion to its own mean and std.
    """
    findings = [normalization("student", student, "dataset.mean and dataset.std must be those of the training inputs")]
    for number, moments in enumerate(teachers, start=1):
        network = "teacher" if len(teachers) == 1 else f"teacher {number}"
        findings.append(normalization(network, moments, "its mean and std must be those that it was trained with"))
    return findings


def normalization(network: str, moments: MeanStd, advice: str) -> Finding:
    """Whether a network's inputs have mean 0 and standard deviation 1, within 1 and a factor of 4."""
    mean, std = moments
    check, found = f"inputs of the {network}", f"mean {_span(mean)}, std {_span(std)}"
    if len(mean) > 1:
        found += f" ({len(mean)} channels)"
    fits = bool(((mean.abs() <= 1) & (std >= 0.25) & (std <= 4)).all())
    return Finding(check, found) if fits else Finding(check, found, "warning", advice)


def _span(values: Tensor) -> str:
    low, high = f"{float(values.min()):.3g}", f"{float(values.max()):.3g}"
    return low if low == high else f"{low} to {high}"
