"""AURC, AUGRC and the others against figures by hand, closed forms and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn import metrics as sk
from torch.nn import functional as F

from kdexp.contracts import UNLABELED
from kdexp.metrics.calibration import brier
from kdexp.metrics.classification import Metrics
from kdexp.metrics.selective import confidences, selective

KINDS = ["multiclass", "binary", "multilabel"]


def of(confidence, is_wrong):
    return selective(torch.tensor(confidence, dtype=torch.float64), torch.tensor(is_wrong, dtype=torch.bool))


def made_up(kind, samples=300, classes=5):
    generator = torch.Generator().manual_seed(len(kind))
    outputs = 1 if kind == "binary" else classes
    teacher = 2 * torch.randn(samples, outputs, generator=generator)
    logits = teacher + torch.randn(samples, outputs, generator=generator)
    if kind == "multiclass":
        return logits, teacher, (logits + 2 * torch.randn(samples, outputs, generator=generator)).argmax(1)
    target = (logits + 2 * torch.randn(samples, outputs, generator=generator) > 0).long()
    return logits, teacher, target[:, 0] if kind == "binary" else target.float()


def measure(kind, logits, target, teacher=None):
    metrics = Metrics(kind, logits.shape[1], fidelity=teacher is not None, in_full=True)
    for part in torch.arange(len(logits)).split(70):
        metrics.update(logits[part], target[part], teacher_logits=None if teacher is None else teacher[part])
    return metrics.compute()


def test_six_predictions_two_of_them_tied_by_hand():
    """Coverage 0 1/6 1/3 2/3 5/6 1, risk 0 0 0 1/4 1/5 1/3, generalized risk 0 0 0 1/6 1/6 1/3."""
    found = of([0.95, 0.90, 0.80, 0.80, 0.60, 0.55], [0, 0, 1, 0, 0, 1])
    assert found.aurc == pytest.approx((0.25 / 3 + (0.25 + 0.2) / 6 + (0.2 + 1 / 3) / 6) / 2)
    assert found.aurc == pytest.approx(0.123611, abs=1e-6)
    assert found.augrc == pytest.approx(0.097222, abs=1e-6)
    assert found.failure_auroc == pytest.approx(0.8125)
    assert found.coverage_at_5 == pytest.approx(1 / 3)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 3, 0, 1, 4, 2]])
def test_the_order_of_ties_does_not_matter(order):
    confidence, is_wrong = np.array([0.9, 0.8, 0.8, 0.8, 0.6, 0.6]), np.array([0, 1, 0, 0, 0, 1])
    assert of(confidence[order], is_wrong[order]) == of(confidence, is_wrong)


def test_the_ends():
    all_right = of([0.9, 0.8, 0.7], [0, 0, 0])
    assert all_right[:2] == (0, 0)
    assert all_right.coverage_at_5 == 1
    all_wrong = of([0.9, 0.8, 0.7], [1, 1, 1])
    assert all_wrong[:2] == (1, 0.5)
    assert all_wrong.coverage_at_5 == 0
    assert math.isnan(all_right.failure_auroc)
    assert math.isnan(all_wrong.failure_auroc)
    assert of([0.5] * 8, [1, 0, 0, 0] * 2) == pytest.approx((0.25, 0.125, 0.5, 0))
    assert of(np.arange(40) / -40, [1] + [0] * 39).coverage_at_5 == 1, "1 of 40 is wrong, the most confident"
    assert of(np.arange(20) / -20, [0] * 19 + [1]).coverage_at_5 == 1, "1 of 20 is 5 %"


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_augrc_is_its_closed_form_and_the_auroc_scikit_learns(decimals):
    rng = np.random.default_rng(decimals)
    confidence = rng.random(500).round(decimals)
    is_wrong = rng.random(500) > confidence
    found = of(confidence, is_wrong)
    area, acc = sk.roc_auc_score(~is_wrong, confidence), 1 - is_wrong.mean()
    assert found.failure_auroc == pytest.approx(area, abs=1e-12)
    assert found.augrc == pytest.approx((1 - area) * acc * (1 - acc) + (1 - acc) ** 2 / 2, abs=1e-12)
    thresholds = [(np.mean(confidence >= t), is_wrong[confidence >= t].mean()) for t in np.unique(confidence)[::-1]]
    coverage, risk = np.array(thresholds).T
    assert found.aurc == pytest.approx(np.trapezoid(np.r_[risk[0], risk], np.r_[0, coverage]), abs=1e-12)
    assert found.coverage_at_5 == pytest.approx(max(coverage[risk <= 0.05], default=0), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_confidence_is_the_log_odds_of_the_answer_and_does_not_saturate(kind):
    logits, _, _ = made_up(kind)
    p = (
        softmax(logits.double().numpy(), axis=1).max(1)
        if kind == "multiclass"
        else expit(logits.abs().double().numpy())
    )
    np.testing.assert_allclose(expit(confidences(logits, kind).numpy()), p, rtol=1e-9)
    certain = torch.tensor([[40.0, 0.0], [50.0, 0.0]])
    assert certain.softmax(1)[0, 0] == certain.softmax(1)[1, 0] == 1
    assert confidences(certain, "multiclass").diff() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_in_full_have_those_of_all_labelled_predictions(kind):
    logits, teacher, target = made_up(kind)
    target[::7] = UNLABELED
    found = measure(kind, logits, target, teacher)
    y = target.view(len(target), -1).long()
    said, of_teacher = (
        (z.argmax(1, keepdim=True) if kind == "multiclass" else (z > 0).long()) for z in (logits, teacher)
    )
    known, alike = y != UNLABELED, said == of_teacher
    expected = selective(confidences(logits, kind).view_as(y)[known], (said != y)[known])
    assert {name: found[name] for name in expected._fields} == pytest.approx(expected._asdict())
    p = logits.double().softmax(1) if kind == "multiclass" else logits.double().sigmoid()
    if kind == "multiclass":
        squared = (p - F.one_hot(y[:, 0].clamp(min=0), 5))[known[:, 0]].square().sum(1)
        recall = sk.recall_score(y[known], said[known], average=None)
    elif kind == "binary":
        squared, recall = (p - y)[known].square(), sk.recall_score(y[known], said[known], average=None)
    else:
        squared, rows = (p - y)[known].square(), known.all(1)
        recall = sk.recall_score(y[rows], said[rows], average=None)
    assert found["brier"] == pytest.approx(float(squared.mean()), rel=1e-5)
    assert (found["worst_class"], found["worst_class_index"]) == (pytest.approx(recall.min()), recall.argmin())
    is_right, is_wrong = known & (of_teacher == y), known & (of_teacher != y)
    assert found["agreement_teacher_right"] == pytest.approx(float(alike[is_right].double().mean()))
    assert found["agreement_teacher_wrong"] == pytest.approx(float(alike[is_wrong].double().mean()))
    assert found["teacher_wrong_samples"] == int(is_wrong.sum())


def test_agreement_with_the_teacher_where_it_is_right_and_wrong_by_hand():
    """Of 10 samples the teacher is right on 8; the student agrees on 7 of them, and on both others."""
    target, teacher = torch.zeros(10, dtype=torch.int64), torch.zeros(10, dtype=torch.int64)
    teacher[8:] = 1
    student = teacher.clone()
    student[0] = 1
    found = measure("multiclass", *(3.0 * F.one_hot(student, 2), target), 3.0 * F.one_hot(teacher, 2))
    assert (found["agreement_teacher_right"], found["agreement_teacher_wrong"]) == (0.875, 1)
    assert found["teacher_wrong_samples"] == 2
    found = measure("multiclass", 3.0 * F.one_hot(student, 2), teacher, 3.0 * F.one_hot(teacher, 2))
    assert "agreement_teacher_wrong" not in found
    assert found["teacher_wrong_samples"] == 0


def test_the_brier_score_is_scikit_learns():
    logits, _, target = made_up("multiclass")
    ours = float(brier(logits, target, "multiclass").mean())
    assert ours == pytest.approx(sk.brier_score_loss(target, logits.double().softmax(1), labels=range(5)), rel=1e-5)
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]])
    assert float(brier(p.log(), torch.tensor([0, 1, 2, 1]), "multiclass").mean()) == pytest.approx(0.305)


def test_a_class_without_a_label_is_not_the_worst():
    logits = torch.tensor([[0.0, 1.0, 5.0], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0]])
    found = measure("multiclass", logits, torch.tensor([1, 1, 2]))
    assert (found["worst_class"], found["worst_class_index"]) == (0.5, 1)
    negatives = measure("binary", torch.tensor([[-1.0], [2.0]]), torch.tensor([0, 0]))
    assert (negatives["worst_class"], negatives["worst_class_index"]) == (0.5, 0)
    assert "worst_class" not in measure("multilabel", torch.ones(2, 3), torch.zeros(2, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_nan_logits_are_nan_in_full_too(kind):
    logits, _, target = made_up(kind)
    found = measure(kind, torch.full_like(logits, torch.nan), target)
    assert all(math.isnan(found[name]) for name in ("brier", "aurc", "augrc", "failure_auroc", "coverage_at_5"))


def test_an_epoch_has_the_columns_that_it_had():
    logits, teacher, target = made_up("multiclass")
    metrics = Metrics("multiclass", 5, fidelity=True)
    metrics.update(logits, target, teacher_logits=teacher)
    of_epoch = metrics.compute()
    assert of_epoch == pytest.approx({name: measure("multiclass", logits, target, teacher)[name] for name in of_epoch})
    assert "aurc" not in of_epoch
    assert "agreement_teacher_right" not in of_epoch
