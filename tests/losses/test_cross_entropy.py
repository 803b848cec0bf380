import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit, log_softmax

from kdexp.contracts import UNLABELED
from kdexp.losses.cross_entropy import cross_entropy


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_labelled_class_numbers_give_bit_for_bit_what_torch_gives(generator):
    ours = torch.randn(33, 7, generator=generator).requires_grad_()
    torchs = ours.detach().clone().requires_grad_()
    target = torch.randint(0, 7, (33,), generator=generator)
    loss, expected = cross_entropy(ours, target, kind="multiclass"), F.cross_entropy(torchs, target)
    loss.backward()
    expected.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(ours.grad, torchs.grad)


def test_the_mean_is_over_labelled_samples(generator):
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    target = torch.tensor([0, UNLABELED, 3, UNLABELED, UNLABELED, 1])
    log_p = log_softmax(logits.numpy(), axis=1)
    expected = -np.mean([log_p[0, 0], log_p[2, 3], log_p[5, 1]])
    np.testing.assert_allclose(cross_entropy(logits, target, kind="multiclass"), expected, rtol=1e-12)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("kind", "shape", "target"),
    [
        ("multiclass", (3, 4), torch.full((3,), UNLABELED)),
        ("multiclass", (3, 4), torch.zeros(3, 4)),
        ("multiclass", (3, 4, 2, 2), torch.full((3, 2, 2), UNLABELED)),
        ("binary", (3, 1), torch.full((3,), UNLABELED)),
        ("multilabel", (3, 4), torch.full((3, 4), float(UNLABELED))),
    ],
)
def test_without_any_label_the_loss_is_zero_and_so_is_its_gradient(kind, shape, target, label_smoothing):
    logits = torch.ones(shape, requires_grad=True)
    loss = cross_entropy(logits, target, kind=kind, label_smoothing=label_smoothing)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(shape))


def test_a_loss_that_is_not_finite_is_not_hidden():
    assert cross_entropy(torch.full((2, 3), torch.nan), torch.tensor([0, 1]), kind="multiclass").isnan()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_one_hot_mixed_targets_agree_with_class_numbers(generator, label_smoothing):
    logits = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 5, (9,), generator=generator)
    target[4] = UNLABELED
    one_hot = F.one_hot(target.clamp(min=0), 5).double() * (target != UNLABELED).unsqueeze(1)
    mixed = cross_entropy(logits, one_hot, kind="multiclass", label_smoothing=label_smoothing)
    expected = F.cross_entropy(logits, target, ignore_index=UNLABELED, label_smoothing=label_smoothing)
    torch.testing.assert_close(mixed, expected, rtol=1e-12, atol=0)


def test_a_partly_labelled_mix_counts_by_its_labelled_share():
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]], dtype=torch.float64)
    target = torch.tensor([[0.7, 0.0, 0.3], [0.0, 0.4, 0.0]], dtype=torch.float64)  # the second's partner has no label
    log_p = log_softmax(logits.numpy(), axis=1)
    expected = -(0.7 * log_p[0, 0] + 0.3 * log_p[0, 2] + 0.4 * log_p[1, 1]) / 1.4
    np.testing.assert_allclose(cross_entropy(logits, target, kind="multiclass"), expected, rtol=1e-12)


def test_dense_logits_are_averaged_over_labelled_positions(generator):
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 3, (2, 4, 5), generator=generator)
    target[0, :2] = UNLABELED
    log_p = log_softmax(logits.numpy(), axis=1)
    values = [-log_p[n, c, h, w] for (n, h, w), c in np.ndenumerate(target.numpy()) if c != UNLABELED]
    np.testing.assert_allclose(cross_entropy(logits, target, kind="multiclass"), np.mean(values), rtol=1e-12)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_binary_is_the_mean_log_loss_of_labelled_samples(generator, label_smoothing):
    logits = torch.randn(6, 1, generator=generator, dtype=torch.float64)
    target = torch.tensor([0, 1, UNLABELED, 1, 0, UNLABELED])
    p = expit(logits.numpy()[:, 0])
    yes = np.array([0, 1, 0, 1, 0, 0]) * (1 - label_smoothing) + label_smoothing / 2
    log_loss = -(yes * np.log(p) + (1 - yes) * np.log(1 - p))
    loss = cross_entropy(logits, target, kind="binary", label_smoothing=label_smoothing)
    np.testing.assert_allclose(loss, log_loss[[0, 1, 3, 4]].mean(), rtol=1e-12)


def test_multilabel_is_the_mean_over_labelled_samples_and_labels(generator):
    logits = torch.randn(5, 3, generator=generator)
    target = torch.randint(0, 2, (5, 3), generator=generator).float()
    target[1] = UNLABELED
    rest = [0, 2, 3, 4]
    expected = F.binary_cross_entropy_with_logits(logits[rest], target[rest])
    torch.testing.assert_close(cross_entropy(logits, target, kind="multilabel"), expected)


def test_hidden_labels_get_no_gradient_and_the_others_do(generator):
    logits = torch.randn(4, 3, generator=generator).requires_grad_()
    cross_entropy(logits, torch.tensor([0, UNLABELED, 2, UNLABELED]), kind="multiclass").backward()
    assert torch.equal(logits.grad.abs().sum(1) > 0, torch.tensor([True, False, True, False]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_lower_the_precision(generator, dtype):
    logits, target = torch.randn(8, 10, generator=generator), torch.randint(0, 10, (8,), generator=generator)
    with torch.autocast("cpu", dtype):
        loss = cross_entropy(logits, target, kind="multiclass")
        half = cross_entropy(logits.to(dtype), target, kind="multiclass")
    assert torch.equal(loss, F.cross_entropy(logits, target))
    assert half.dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "target"), [("multiclass", [0, 1]), ("binary", [0, 1]), ("multilabel", [[0.0, 1.0], [1.0, 0.0]])]
)
def test_extreme_logits_give_finite_losses_and_gradients(kind, target):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])[:, : 1 if kind == "binary" else 2].clone().requires_grad_()
    loss = cross_entropy(logits, torch.tensor(target), kind=kind)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
