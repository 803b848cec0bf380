import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from kdexp.contracts import UNLABELED
from kdexp.metrics import auc
from kdexp.metrics.auc import Ranking, Steps, of_two, one_vs_rest, steps


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_the_score_of_a_class_is_the_logarithm_of_its_odds(generator):
    logits = 3 * torch.randn(50, 5, generator=generator)
    p = logits.double().softmax(1)
    torch.testing.assert_close(one_vs_rest(logits.double(), "multiclass"), (p / (1 - p)).log())
    torch.testing.assert_close(one_vs_rest(logits, "multiclass").double(), (p / (1 - p)).log(), rtol=1e-5, atol=1e-5)
    assert one_vs_rest(logits, "multilabel") is logits


def test_the_score_does_not_saturate():
    logits = torch.tensor([[200.0, 0.0, 1.0], [201.0, 0.0, 1.0], [-300.0, 0.0, 1.0], [-301.0, 0.0, 1.0]])
    rest = torch.tensor([0.0, 1.0], dtype=torch.float64).logsumexp(0)
    torch.testing.assert_close(one_vs_rest(logits, "multiclass")[:, 0].double(), logits[:, 0].double() - rest)
    assert (logits.softmax(1)[:, 0] == torch.tensor([1.0, 1.0, 0.0, 0.0])).all(), "which the probability does"


def test_an_impossible_class_scores_lowest_and_a_sure_one_highest():
    found = one_vs_rest(torch.tensor([[0.0, 2.0, -torch.inf], [0.0, -torch.inf, -torch.inf]]), "multiclass")
    assert found.tolist()[0][2] == -torch.inf
    assert found.tolist()[1] == [torch.inf, -torch.inf, -torch.inf]


def test_the_area_by_hand():
    """Of 2 x 3 pairs 3 are in order and 2 are equal."""
    found = of_two(torch.tensor([3.0, 1.0]), torch.tensor([3.0, 1.0, 0.0]))
    assert found.negatives.tolist() == [0, 1, 2, 3]
    assert found.positives.tolist() == [0, 1, 2, 2]
    assert float(found.area()) == pytest.approx((3 + 2 / 2) / 6)
    assert float(found.undecided()) == pytest.approx(2 / 2 / 6)
    assert torch.isnan(of_two(torch.tensor([3.0]), torch.tensor([])).area())
    assert torch.isnan(of_two(torch.tensor([]), torch.tensor([])).area())


def test_the_curve_and_its_area_are_scikit_learns_with_many_equal_scores(generator):
    scores = torch.randn(3000, generator=generator).round(decimals=1)
    label = (torch.rand(3000, generator=generator) < 0.1 + 0.1 * scores.clamp(0, 3)).long()
    found = steps(scores, 1 - label, label)
    fpr, tpr, _ = roc_curve(label, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.negatives.double() / found.negatives[-1], fpr, rtol=1e-12)
    np.testing.assert_allclose(found.positives.double() / found.positives[-1], tpr, rtol=1e-12)
    assert float(found.area()) == pytest.approx(roc_auc_score(label, scores), abs=1e-12)
    assert found.true_positive_rates().tolist() == pytest.approx(np.interp(np.arange(201) / 200, fpr, tpr).tolist())


def test_a_curve_has_its_upper_end_where_it_rises_vertically():
    # One positive above all, 100 negatives, one positive among them at one half.
    found = Steps(torch.tensor([0, 0, 50, 50, 100]), torch.tensor([0, 1, 1, 2, 2])).true_positive_rates()
    assert found[:100].tolist() == [0.5] * 100
    assert found[100:].tolist() == [1.0] * 101


@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("center", [0.0, 20.0, -90.0, 1e4])
def test_bins_are_in_the_order_of_the_scores(center, spread, generator):
    found = Ranking("binary", 1, samples=10**12)
    scores = (spread * torch.randn(5000, generator=generator) + center).sort().values
    extremes = torch.tensor([-torch.inf, torch.inf, -0.0, 0.0, 1e-45, -1e-45, 3e38])
    place = found._bin(torch.cat((scores, extremes)))
    assert (place[:5000].diff() >= 0).all()
    assert place.min() >= 0
    assert place.max() < found.counts.numel() // 2
    assert found._bin(torch.tensor([torch.nan])).item() == place[-4].item()
    widths = scores[1:] - scores[:-1]
    apart = (widths > scores[1:].abs().clamp(min=2**-8) * 2**-15) & (scores[1:].abs() < 2**16)
    assert (place[:5000].diff()[apart] > 0).all(), "scores in one bin differ by 2^-15 of themselves at most"


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "binary"])
def test_coarse_bins_are_off_by_no_more_than_they_say(kind, monkeypatch, generator):
    monkeypatch.setattr(auc, "BINS_BYTES", 2**12)
    classes = 1 if kind == "binary" else 5
    logits = 3 * torch.randn(2000, classes, generator=generator)
    if kind == "multiclass":
        label = (logits + 4 * torch.randn(2000, 5, generator=generator)).argmax(1)
    else:
        label = (logits + 4 * torch.randn(2000, classes, generator=generator) > 3).long()
    label[::7] = UNLABELED
    exact, binned = Ranking(kind, classes), Ranking(kind, classes, samples=10**12)
    for one, part in itertools.product((exact, binned), (slice(0, 900), slice(900, 2000))):
        one.update(logits[part], label[part])
    expected, found = exact.compute(), binned.compute()
    off = (expected.area - found.area).abs().view(-1)
    assert (off > 1e-5).any()
    assert (off <= found.error.view(-1)).all()
    assert (found.error < 0.1).all()
    assert (expected.error == 0).all()


def test_a_class_without_positives_or_without_negatives_has_no_area(generator):
    logits = torch.randn(40, 3, generator=generator)
    for samples in (0, 10**12):
        found = Ranking("multiclass", 3, samples=samples, curves=True)
        found.update(logits, torch.zeros(40, dtype=torch.int64))
        assert torch.isnan(found.compute().area).all()
        found.reset()
        found.update(logits, torch.tensor([0, 1] * 20))
        result = found.compute()
        assert result.area.isnan().tolist() == [False, False, True]
        assert result.tpr.isnan().all(1).tolist() == [False, False, True]
        assert not result.tpr[:2].isnan().any()
