import warnings

import pytest
import torch

from kdexp.losses.outcomes import class_numbers, labelled_mean, of_class, of_other_classes, outcomes, warn_once


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_a_sigmoid_is_the_second_of_two_outcomes(kind):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 1 if kind == "binary" else 3, generator=generator).unbind()
    for logits, pair in zip((student, teacher), outcomes(student, teacher, kind), strict=True):
        torch.testing.assert_close(pair.softmax(1)[:, 1], logits.sigmoid())


def test_the_teacher_has_no_gradient_and_half_precision_is_raised():
    student = torch.zeros(2, 3, dtype=torch.float16, requires_grad=True)
    both = outcomes(student, student.clone(), "multiclass")
    assert [x.dtype for x in both] == [torch.float32] * 2
    assert [x.requires_grad for x in both] == [True, False]


@pytest.mark.parametrize(
    ("target", "shape", "kind", "expected"),
    [
        ([2, -1, 0], (3, 4), "multiclass", [2, -1, 0]),
        ([[0.4, 0.6, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.3]], (3, 3), "multiclass", [1, -1, 2]),
        ([1, -1, 0], (3, 2, 1), "binary", [[1], [-1], [0]]),
        ([[1.0, 0.0], [-1.0, -1.0]], (2, 2, 2), "multilabel", [[1, 0], [-1, -1]]),
    ],
)
def test_class_numbers(target, shape, kind, expected):
    found = class_numbers(torch.tensor(target), torch.zeros(shape), kind)
    assert found.dtype == torch.int64
    assert found.tolist() == expected


def test_a_class_and_the_others():
    values = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    classes = torch.tensor([0, 2, 1])
    assert of_class(values, classes).tolist() == [1, 6, 8]
    assert of_other_classes(values, classes).tolist() == [[2, 3], [4, 5], [7, 9]]
    dense = values.T[None]  # one sample, classes along dimension 1, three positions
    assert of_class(dense, classes[None]).tolist() == [[1, 6, 8]]
    assert of_other_classes(dense, classes[None]).tolist() == [[[2, 4, 7], [3, 5, 9]]]


def test_the_mean_leaves_out_what_is_not_labelled():
    values = torch.tensor([1.0, 5.0, 3.0])
    assert labelled_mean(values, torch.tensor([2, -1, 0])) == 2
    assert labelled_mean(values, torch.tensor([-1, -1, -1])) == 0


def test_logits_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"^teacher_logits must have .* N = 2, C = 3 of student_logits, got \(2, 4\)$"):
        outcomes(torch.zeros(2, 3), torch.zeros(2, 4), "multiclass")


def test_what_holds_for_every_batch_is_said_once_whatever_filters_come_and_go():
    with warnings.catch_warnings(record=True, action="always") as said:
        for _ in range(3):
            with warnings.catch_warnings():
                warn_once("one thing")
        warn_once("another")
    assert [str(each.message) for each in said] == ["one thing", "another"]
