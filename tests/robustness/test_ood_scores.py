import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from kdexp.robustness.ood_scores import detection, scores


def test_scores_by_their_formulas():
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    found = scores(logits, "multiclass")
    exps = np.exp(logits.double().numpy())
    np.testing.assert_allclose(found["msp"], exps.max(1) / exps.sum(1), rtol=1e-6)
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


def test_equal_scores_tell_nothing():
    assert detection(torch.ones(10), torch.ones(5)) == {"auroc": 0.5, "fpr95": 1.0}
    assert detection(torch.full((10,), 2.0), torch.ones(5)) == {"auroc": 1.0, "fpr95": 0.0}
