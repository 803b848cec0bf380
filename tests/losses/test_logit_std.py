import numpy as np
import pytest
import torch
from scipy.stats import zscore

from kdexp.losses.ctkd import CTKD
from kdexp.losses.dist import DIST
from kdexp.losses.dkd import DKD
from kdexp.losses.kd import KD, kd
from kdexp.losses.logit_std import LogitStandardization, standardize


def test_standardize_is_the_z_score_with_the_unbiased_std(logits):
    np.testing.assert_allclose(standardize(logits[0]), zscore(logits[0].numpy(), axis=1, ddof=1), rtol=1e-6)


def test_logits_that_are_all_equal_become_zeros_with_a_finite_gradient():
    logits = torch.full((2, 4), 3.0, requires_grad=True)
    standardize(logits).square().sum().backward()
    assert not standardize(logits).any()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("inner", [KD(2.0), DKD(), DIST(), CTKD()], ids=lambda loss: type(loss).__name__)
def test_a_students_scale_and_shift_change_nothing(logits, target, inner):
    student, teacher = logits
    loss = LogitStandardization(inner)
    torch.testing.assert_close(loss(5 * student - 2, teacher, target), loss(student, teacher, target))
    assert loss(5 * teacher - 2, teacher, target).item() == pytest.approx(0, abs=1e-9)
    assert not torch.isclose(inner(5 * student - 2, teacher, target), inner(student, teacher, target))


def test_it_is_the_inner_loss_of_the_z_scores(logits, target):
    scores = [torch.from_numpy(zscore(x.numpy(), axis=1, ddof=1)) for x in logits]
    found = LogitStandardization(KD(2.0))(*logits, target)
    torch.testing.assert_close(found, kd(*scores, 2.0), rtol=1e-5, atol=0)


def test_temperature_and_epoch_reach_the_inner_loss(logits, target):
    loss = LogitStandardization(DKD(temperature=4.0))
    loss.temperature = 2.0
    assert loss.temperature == loss.loss.temperature == 2.0
    loss.on_epoch(0)
    learning = LogitStandardization(CTKD(ramp_epochs=10))
    learning(*logits, target).backward()
    full = learning.loss.raw_temperature.grad.clone()
    learning.zero_grad()
    learning.on_epoch(4)  # the fifth of ten: half the strength
    learning(*logits, target).backward()
    torch.testing.assert_close(learning.loss.raw_temperature.grad, full / 2)


def test_a_temperature_that_the_inner_loss_learns_is_shown():
    assert LogitStandardization(CTKD()).learned_temperature == CTKD().learned_temperature
    assert LogitStandardization(KD(2.0)).learned_temperature is None


def test_the_inner_losss_parameters_are_its_own():
    assert [name for name, _ in LogitStandardization(CTKD()).named_parameters()] == ["loss.raw_temperature"]


def test_what_has_no_classes_to_standardise_is_refused():
    with pytest.raises(ValueError, match=r"^logit standardisation needs at least 3 classes, got 2$"):
        standardize(torch.zeros(4, 2))
    with pytest.raises(
        ValueError, match=r"^logit standardisation needs dataset.kind to be multiclass, got multilabel$"
    ):
        LogitStandardization(KD(2.0), kind="multilabel")
