import numpy as np
import pytest
import torch
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

from kdexp.robustness.ood_scores import detection, scores


def test_scores_by_their_formulas():
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    found = scores(logits, "multiclass")
    exps = np.exp(logits.double().numpy())
    np.testing.assert_allclose(found["msp"].sigmoid(), exps.max(1) / exps.sum(1), rtol=1e-6)  # of the log odds
    np.testing.assert_allclose(found["max_logit"], [4, 0])
    np.testing.assert_allclose(found["energy"], np.log(exps.sum(1)), rtol=1e-6)
    binary = scores(torch.tensor([[-3.0], [3.0], [0.0]]), "binary")
    for score in binary.values():
        assert score[0] == score[1] > score[2], "sure of no is as sure as sure of yes"


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_detection_is_scikit_learns(scale):
    generator = torch.Generator().manual_seed(0)
    familiar = scale * (torch.randn(997, generator=generator) + 1)
    foreign = scale * torch.randn(503, generator=generator)
    label = np.r_[np.ones(997), np.zeros(503)]
    score = torch.cat((familiar, foreign)).numpy()
    found = detection(familiar, foreign)
    assert found["auroc"] == pytest.approx(roc_auc_score(label, score), abs=1e-6)
    fpr, tpr, _ = roc_curve(label, score, drop_intermediate=False)
    assert found["fpr95"] == pytest.approx(fpr[tpr >= 0.95][0], abs=1e-9)
    fpr, tpr, _ = roc_curve(1 - label, -score, drop_intermediate=False)
    assert found["fpr95_openood"] == pytest.approx(fpr[tpr >= 0.95][0], abs=1e-9)
    for name, positive, certainty in (("aupr_in", label, score), ("aupr_out", 1 - label, -score)):
        precision, recall, _ = precision_recall_curve(positive, certainty)
        assert found[name] == pytest.approx(auc(recall, precision), abs=1e-9)


def test_ten_familiar_and_four_foreign_samples_by_hand():
    familiar = torch.tensor([0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.6, 0.55, 0.5, 0.3])
    found = detection(familiar, torch.tensor([0.65, 0.6, 0.4, 0.2]))
    expected = {"auroc": 0.75, "fpr95": 0.75, "fpr95_openood": 0.5, "aupr_in": 0.89687, "aupr_out": 0.59514}
    assert found == pytest.approx(expected, abs=5e-6)


def test_equal_scores_tell_nothing():
    same, apart = detection(torch.ones(10), torch.ones(5)), detection(torch.full((10,), 2.0), torch.ones(5))
    assert (same["auroc"], same["fpr95"], same["fpr95_openood"]) == (0.5, 1, 1)
    assert apart == {"auroc": 1, "fpr95": 0, "fpr95_openood": 0, "aupr_in": 1, "aupr_out": 1}
