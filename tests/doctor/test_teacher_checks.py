"""What the doctor says of the teacher."""

import math

import pytest
import torch

from kdexp.doctor.measurements import TeacherState
from kdexp.doctor.teacher_checks import confidence, deterministic, frozen, logit_scale, on_val
from kdexp.experiment.near_chance import near_chance, of_masks
from kdexp.tasks.segmentation import Segmentation


@pytest.mark.parametrize(
    ("accuracy", "counts", "kind", "verdict"),
    [
        (0.5, [10] * 10, "multiclass", "ok"),
        (0.12, [10] * 10, "multiclass", "warning"),
        (0.9, [90, 10], "multiclass", "warning"),  # as good as always saying the first class
        (0.92, [90, 10], "multiclass", "ok"),
        (0.9, [10, 10], "multilabel", "warning"),  # 10 of 100 have each label: saying no is right in 0.9
    ],
)
def test_a_teacher_is_held_against_chance_and_the_most_frequent_class(accuracy, counts, kind, verdict):
    assert on_val(*near_chance(accuracy, torch.tensor(counts), 100, kind)).verdict == verdict


@pytest.mark.parametrize(
    ("counts", "auc", "verdict"),
    [([98, 2], 0.95, "ok"), ([98, 2], 0.52, "warning"), ([98, 1, 1], 0.95, "warning")],
)
def test_a_teacher_that_ranks_a_rare_class_well_has_something_to_teach(counts, auc, verdict):
    assert on_val(*near_chance(0.981, torch.tensor(counts), 100, "multiclass", auc)).verdict == verdict


@pytest.mark.parametrize(
    ("task", "counts", "blind"),
    [
        (Segmentation(3), [60, 30, 10], 0.6 / 3),  # IoU of 0.6, 0 and 0
        (Segmentation(3), [60, 40, 0], 0.6 / 2),  # a class that is neither label nor prediction
        (Segmentation(1, "binary"), [93, 7], 2 * 0.07 / (1 + 0.07)),
    ],
)
def test_a_teacher_of_masks_is_held_against_one_class_everywhere(task, counts, blind):
    for value, verdict in ((blind + 0.01, "warning"), (0.5, "ok")):
        finding = on_val(*of_masks(value, torch.tensor(counts), task))
        assert finding.verdict == verdict
        assert finding.found.endswith(f"{value:.3f}; the best mask of one class {blind:.3f}")


def state(**changed):
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    known = {"training_modules": 0, "trainable_parameters": 0, "before": logits, "after": (logits, logits)}
    return TeacherState(**(known | changed))


def test_a_teacher_that_is_frozen_and_deterministic_is_ok():
    assert [check(state()).verdict for check in (frozen, deterministic)] == ["ok", "ok"]
    rounded = state().before + 1e-5
    assert deterministic(state(after=(state().before, rounded))).verdict == "ok"


def test_a_teacher_that_is_not_frozen_is_an_error_that_says_why():
    finding = frozen(state(training_modules=1, trainable_parameters=2))
    assert finding.verdict == "error"
    assert "1 modules in training mode, 2 parameters with requires_grad" in finding.found


def test_a_teacher_that_is_not_deterministic_is_an_error_that_says_why():
    logits = state().before
    noisy, moved = state(after=(logits, logits + 0.1)), state(after=(logits + 0.1, logits + 0.1))
    assert [deterministic(found).verdict for found in (noisy, moved)] == ["error", "error"]
    assert "two forward passes of a batch differ" in deterministic(noisy).found
    assert "changed" in deterministic(moved).found


def test_the_scale_of_logits_is_that_around_their_mean_over_the_classes():
    logits = torch.tensor([[1.0, 3.0], [13.0, 11.0]])
    assert logit_scale([logits[:1], logits[1:]], []).found == "student 1"
    assert logit_scale([logits], [2 * logits]).found == "student 1, teacher 2"
    assert logit_scale([torch.tensor([[3.0], [4.0]])], []).found == "student 3.54"  # sqrt((9 + 16) / 2)


def test_the_confidence_is_that_of_the_softened_probabilities():
    logits = torch.tensor([[0.0, math.log(3.0) * 2]])
    assert "mean top-1 probability 0.750 at T=2" in confidence(logits, 2.0, "multiclass").found
    assert "0.750" in confidence(torch.tensor([[-2 * math.log(3.0)]]), 2.0, "binary").found
    assert "higher temperature" in confidence(10 * logits, 1.0, "multiclass").advice
    assert "lower temperature" in confidence(logits, 100.0, "multiclass").advice
