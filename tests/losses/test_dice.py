import pytest
import torch

from kdexp.contracts import ABSENT, UNLABELED, VOID
from kdexp.losses.dice import dice, dice_of_images


def make(kind, shape=(3, 9, 7), classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    channels, numbers = (1, 2) if kind == "binary" else (classes, classes)
    logits = 2 * torch.randn(shape[0], channels, *shape[1:], generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, numbers, shape, generator=generator)


def logit(*p):
    return torch.tensor(p, dtype=torch.float64).logit()


TASKS = pytest.mark.parametrize("kind", ["binary", "multiclass"])


def test_a_mask_of_four_pixels_by_hand():
    logits = logit(0.5, 0.2, 0.8, 0.4).view(1, 1, 2, 2)
    target = torch.tensor([[[1, 0], [1, 0]]])
    assert dice(logits, target, kind="binary").item() == pytest.approx(1 - (2 * 1.3 + 1) / (1.9 + 2 + 1))
    target[0, 1, 1] = VOID
    assert dice(logits, target, kind="binary").item() == pytest.approx(1 - (2 * 1.3 + 1) / (1.5 + 2 + 1))


def test_an_empty_mask_is_defined_and_false_positives_cost():
    empty = torch.zeros(1, 1, 3, dtype=torch.int64)
    assert dice(torch.full((1, 1, 1, 3), -100.0), empty, kind="binary") == 0
    found = dice(logit(0.5, 0.25, 0.25).view(1, 1, 1, 3), empty, kind="binary")
    assert found.item() == pytest.approx(1 - 1 / 2)


def test_three_classes_by_hand_of_which_two_occur():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64)  # a row a pixel
    target = torch.tensor([[[0, 1, 1]]])
    first = 1 - (2 * 0.7 + 1) / (1.1 + 1 + 1)
    second = 1 - (2 * (0.6 + 0.1) + 1) / (0.9 + 2 + 1)
    found = dice(p.log().T.view(1, 3, 1, 3), target, kind="multiclass")
    assert found.item() == pytest.approx((first + second) / 2)


@TASKS
def test_it_is_monais(kind):
    losses = pytest.importorskip("monai.losses", reason="pip install monai")
    options = {"sigmoid": True} if kind == "binary" else {"softmax": True, "to_onehot_y": True}
    theirs = losses.DiceLoss(smooth_nr=1, smooth_dr=1, **options)
    logits, target = make(kind)
    torch.testing.assert_close(dice(logits, target, kind=kind), theirs(logits, target.unsqueeze(1)))


@TASKS
@pytest.mark.parametrize("state", [UNLABELED, VOID, ABSENT])
def test_positions_without_a_label_are_as_if_they_were_cut_off(kind, state):
    logits, target = make(kind)
    logits.requires_grad_()
    target[:, 5:] = state
    loss = dice(logits, target, kind=kind)
    cut = dice(logits[:, :, :5], target[:, :5], kind=kind)
    torch.testing.assert_close(loss, cut)
    loss.backward()
    assert logits.grad[:, :, 5:].abs().sum() == 0
    assert logits.grad[:, :, :5].abs().min() > 0


@TASKS
def test_padding_may_hold_anything(kind):
    logits, target = make(kind)
    target[0, 2:] = ABSENT
    expected = dice(logits, target, kind=kind)
    logits[0, :, 2:] = torch.nan
    logits.requires_grad_()
    found = dice(logits, target, kind=kind)
    found.backward()
    assert torch.equal(found, expected)
    assert logits.grad.isfinite().all()


@TASKS
def test_an_image_without_labels_changes_nothing_and_nothing_labelled_is_0(kind):
    logits, target = make(kind)
    target[1] = UNLABELED
    without = dice(logits[[0, 2]], target[[0, 2]], kind=kind)
    torch.testing.assert_close(dice(logits, target, kind=kind), without)
    logits.requires_grad_()
    nothing = dice(logits, torch.full_like(target, ABSENT), kind=kind)
    nothing.backward()
    assert (nothing.item(), logits.grad.abs().sum().item()) == (0, 0)


@TASKS
def test_the_loss_of_a_batch_is_that_of_its_parts_weighted_by_labelled_images(kind):
    logits, target = make(kind, shape=(5, 4, 4))
    target[0] = VOID
    sums = [dice_of_images(logits[part], target[part], kind=kind) for part in (slice(0, 2), slice(2, 5))]
    total, count = sum(losses.sum() for losses, _ in sums), sum(counts.sum() for _, counts in sums)
    assert count == 4
    torch.testing.assert_close(dice(logits, target, kind=kind), total / count)


@TASKS
def test_the_right_answer_costs_nothing_and_gradients_are_right(kind):
    logits, target = make(kind, shape=(2, 3, 3))
    right = 60 * (2.0 * (target == 1).unsqueeze(1) - 1) if kind == "binary" else None
    if right is None:
        right = 60 * torch.nn.functional.one_hot(target, 4).movedim(-1, 1).double()
    assert dice(right, target, kind=kind).item() == pytest.approx(0, abs=1e-12)
    target[0, 0] = VOID
    assert torch.autograd.gradcheck(lambda z: dice(z, target, kind=kind), logits.requires_grad_())


def test_half_precision_is_computed_in_float32():
    logits, target = make("binary", shape=(1, 300, 300))
    found = dice(logits.half(), target, kind="binary")
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(dice(logits, target, kind="binary").item(), abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "logits", "target", "message"),
    [
        ("multilabel", (2, 3, 4, 4), torch.zeros(2, 4, 4).long(), "kind must be multiclass or binary .* multilabel"),
        ("binary", (2, 2, 4, 4), torch.zeros(2, 4, 4).long(), r"logits must have shape \(N, 1, ...\), .*"),
        ("multiclass", (2, 3, 4, 4), torch.zeros(2, 4, 5).long(), r"target must have shape \(N, ...\) .* \(2, 4, 5\)"),
        ("multiclass", (2, 3, 4, 4), torch.zeros(2, 4, 4), "target must be int64 class numbers for dice, got float32"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(kind, logits, target, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        dice(torch.zeros(logits), target, kind=kind)
