"""What the doctor says of the data."""

import math

import pytest
import torch

from kdexp.contracts import UNLABELED, Split, Splits
from kdexp.doctor.data_checks import class_counts, inputs, normalization


def splits(train, val=(0, 1, 2), test=(0, 1, 2)) -> Splits:
    made = [Split(torch.zeros(len(t), 1), torch.tensor(t), torch.arange(len(t))) for t in (train, val, test)]
    return Splits(*made)


@pytest.mark.parametrize(
    ("train", "verdict", "words"),
    [
        ([0, 1, 2, 2], "ok", "4 samples, 1 to 2 a class"),
        ([0, 1, 1, UNLABELED], "warning", "1 unlabeled; 1 of 3 classes missing: 2"),
        ([0, 1] + 11 * [2], "note", "1 to 11 a class"),
        ([0, 1] + 10 * [2], "ok", "1 to 10 a class"),
        (3 * [UNLABELED], "ok", "3 unlabeled"),
    ],
)
def test_classes_are_counted(train, verdict, words):
    finding = class_counts(splits(train), "multiclass", 3)[0]
    assert (finding.verdict, finding.check) == (verdict, "classes in train")
    assert words in finding.found


def test_labels_of_several_classes_are_counted_one_by_one():
    target = [[1.0, 0.0], [1.0, 1.0], [UNLABELED, UNLABELED]]
    finding = class_counts(splits(target, [[1.0, 1.0]], [[1.0, 0.0]]), "multilabel", 2)
    assert "3 samples, 1 to 2 a class, 1 unlabeled" in finding[0].found
    assert "1 of 2 classes missing: 1" in finding[2].found


@pytest.mark.parametrize(
    ("scale", "shift", "verdict"),
    [
        (1.0, 0.0, "ok"),
        (255.0, 0.0, "warning"),
        (0.01, 0.0, "warning"),
        (1.0, 5.0, "warning"),
        (math.nan, 0, "warning"),
    ],
)
def test_inputs_far_from_normalized_are_warned_of(scale, shift, verdict):
    moments = torch.full((2,), shift * 1.0), torch.full((2,), scale)
    finding = normalization("student", moments, "do this")
    assert (finding.verdict, finding.advice) == ((verdict, "do this") if verdict == "warning" else ("ok", ""))


def test_inputs_of_the_student_and_of_each_teacher_network_are_judged():
    well, far = (torch.tensor([0.1, -0.2]), torch.ones(2)), (torch.tensor([0.0, 9.0]), torch.ones(2))
    findings = inputs(well, [well, far])
    assert [f.check for f in findings] == [
        "inputs of the student",
        "inputs of the teacher 1",
        "inputs of the teacher 2",
    ]
    assert [f.verdict for f in findings] == ["ok", "ok", "warning"]
    assert findings[2].found == "mean 0 to 9, std 1 (2 channels)"
    assert inputs(well, [well])[1].check == "inputs of the teacher"
