import math

import numpy as np
import pytest
import torch
from scipy.special import expit, rel_entr, softmax
from sklearn import metrics as sk
from torch import multiprocessing
from torchmetrics.classification import MulticlassJaccardIndex

from kdexp.contracts import ABSENT, UNLABELED, VOID
from kdexp.metrics.roc_and_confusion import RocAndConfusionMetric
from kdexp.metrics.segmentation import SegmentationMetrics, dice, iou

TASKS = pytest.mark.parametrize("kind", ["binary", "multiclass"])
BINNED = 10**12  # pixels: more than fit in memory
LABELLED_ONLY = {"agreement", "kl_to_teacher", "loss"}


def make(kind, images=3, size=(11, 8), seed=0):
    """Logits, teacher's logits and masks, correlated with each other."""
    generator = torch.Generator().manual_seed(seed)
    channels = 1 if kind == "binary" else 7
    logits, teacher = (2 * torch.randn(2, images, channels, *size, generator=generator)).unbind()
    teacher = teacher + logits
    noisy = teacher + 2 * torch.randn(images, channels, *size, generator=generator)
    return logits, teacher, (noisy[:, 0] > 1.5).long() if kind == "binary" else noisy.argmax(1)


def measure(kind, logits, target, teacher=None, **options):
    metrics = SegmentationMetrics(kind, logits.shape[1], fidelity=teacher is not None, **options)
    metrics.update(logits, target, teacher_logits=teacher)
    return metrics.compute()


def as_logits(decision, classes=None):
    """Of a mask: binary, or of so many classes."""
    if classes is None:
        return (6.0 * decision - 3).unsqueeze(1)
    return 5 * torch.nn.functional.one_hot(decision, classes).movedim(-1, 1).float()


def flat(logits, target):
    """Labelled pixels: probabilities (pixels, classes), label, decision."""
    z = logits.double().movedim(1, -1).reshape(-1, logits.shape[1]).numpy()
    p = softmax(z, axis=1) if z.shape[1] > 1 else np.concatenate((1 - expit(z), expit(z)), 1)
    y = target.flatten().numpy()
    return p[y >= 0], y[y >= 0], p[y >= 0].argmax(1)


def numpy_ece(confidence, right, bins=15):
    """Guo et al. 2017, equation 3."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[place == b].mean() - confidence[place == b].mean()) * (place == b).mean() for b in set(place)]
    return sum(gaps)


def image_dice(y, decision):
    """Of one class in each image, by sets."""
    found = []
    for label, own in zip(y, decision, strict=True):
        known = label >= 0
        label, own = label[known], own[known]
        if label.any() or own.any():
            found.append(2 * (label & own).sum() / (label.sum() + own.sum()))
    return np.mean(found)


@TASKS
def test_every_value_is_scikit_learns_on_the_labelled_pixels(kind):
    logits, _, target = make(kind)
    target[0, :3], target[1, 5], target[2, :, 6:] = VOID, UNLABELED, ABSENT
    found = measure(kind, logits, target)
    p, y, decision = flat(logits, target)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(y, decision, average="macro", zero_division=0)
    expected = {
        "acc": sk.accuracy_score(y, decision),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "nll": sk.log_loss(y, p),
        "ece": numpy_ece(p.max(1), decision == y),
        "miou": sk.jaccard_score(y, decision, average="macro"),
    }
    predicted = (logits[:, 0] > 0).long() if kind == "binary" else logits.argmax(1)
    if kind == "binary":
        expected |= {
            "auc": sk.roc_auc_score(y, p[:, 1]),
            "dice": sk.f1_score(y, decision),
            "sensitivity": sk.recall_score(y, decision),
            "specificity": sk.recall_score(y, decision, pos_label=0),
            "image_dice": sk_image_dice(target, predicted, [1]),
        }
    else:
        expected |= {
            "acc_top5": sk.top_k_accuracy_score(y, p, k=5, labels=range(7)),
            "auc": sk.roc_auc_score(y, p, multi_class="ovr", average="macro"),
            "dice": f1,
            "image_dice": sk_image_dice(target, predicted, range(7)),
        }
    assert found == pytest.approx(expected, rel=1e-5)


def sk_image_dice(target, predicted, classes):
    """Mean over classes of the mean over images of scikit-learn's F1 score of a class."""
    means = []
    for number in classes:
        scores = [
            sk.f1_score(t[t >= 0] == number, d[t >= 0] == number, zero_division=np.nan)
            for t, d in zip(target, predicted, strict=True)
        ]
        means.append(np.nanmean(scores))
    return np.mean(means)


def test_iou_of_each_class_is_torchmetrics():
    logits, _, target = make("multiclass")
    target[0, :3] = VOID
    metrics = SegmentationMetrics("multiclass", 7)
    metrics.update(logits, target)
    theirs = MulticlassJaccardIndex(7, average="none", ignore_index=VOID)
    expected = theirs(logits, target)
    torch.testing.assert_close(iou(metrics.confusion()).float(), expected)


def test_image_dice_is_monais():
    monai = pytest.importorskip("monai.metrics", reason="pip install monai")
    logits, _, target = make("binary", images=5)
    target[1] = 0  # no foreground: MONAI leaves it out, whatever is predicted
    of_images = monai.compute_dice((logits > 0).long(), target.unsqueeze(1), ignore_empty=True)[:, 0]
    kept = [0, 2, 3, 4]
    found = measure("binary", logits[kept], target[kept])["image_dice"]
    assert found == pytest.approx(of_images.nanmean().item(), rel=1e-5)
    both = measure("binary", logits, target)["image_dice"]
    assert both == pytest.approx(4 / 5 * found, rel=1e-5)  # a false positive there counts 0


def test_a_small_mask_by_hand():
    target = torch.tensor([[[1, 1, 0, VOID], [1, 0, 0, ABSENT]]])
    decision = torch.tensor([[[1, 0, 1, 1], [1, 0, 0, 1]]])  # 2 TP, 1 FN, 1 FP, 2 TN
    found = measure("binary", as_logits(decision), target)
    expected = {"dice": 4 / 6, "image_dice": 4 / 6, "miou": (2 / 4 + 2 / 4) / 2, "sensitivity": 2 / 3}
    expected |= {"specificity": 2 / 3, "acc": 4 / 6}
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_class_that_is_only_predicted_has_0_and_one_that_is_nowhere_is_left_out():
    target = torch.tensor([[[0, 0, 0, 1]]])
    decision = torch.tensor([[[0, 0, 2, 1]]])  # of 4 classes
    found = measure("multiclass", as_logits(decision, 4), target)
    assert found["miou"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["dice"] == pytest.approx((4 / 5 + 1 + 0) / 3)
    assert found["image_dice"] == pytest.approx((4 / 5 + 1 + 0) / 3)


def test_the_dice_of_all_images_is_not_the_mean_of_their_dice():
    target, decision = torch.zeros(2, 2, 10, 10, dtype=torch.int64).unbind()
    target[0], decision[0] = 1, 1  # 100 of 100
    target[1, 0, :2], decision[1, 0, 1:3] = 1, 1  # 1 of 2, and 1 too many
    found = measure("binary", as_logits(decision), target)
    assert found["dice"] == pytest.approx(2 * 101 / (102 + 102))
    assert found["image_dice"] == pytest.approx((1 + 0.5) / 2)
    assert found["image_dice"] == pytest.approx(image_dice(target.bool().numpy(), decision.bool().numpy()))


def test_an_image_without_foreground_counts_0_where_there_is_a_false_positive_and_else_not_at_all():
    target, decision = torch.zeros(2, 3, 4, 4, dtype=torch.int64).unbind()
    target[0, 0], decision[0, 0] = 1, 1
    assert measure("binary", as_logits(decision), target)["image_dice"] == 1
    decision[1, 0, 0] = 1
    assert measure("binary", as_logits(decision), target)["image_dice"] == pytest.approx(1 / 2)
    target[1, 0, 0] = VOID  # the false positive stands where the label is withheld
    assert measure("binary", as_logits(decision), target)["image_dice"] == 1


def test_values_that_are_not_defined_are_left_out():
    empty = torch.zeros(2, 4, 4, dtype=torch.int64)
    found = measure("binary", as_logits(empty), empty)
    assert set(found) == {"acc", "nll", "precision", "recall", "f1", "ece", "miou", "specificity"}
    assert (found["miou"], found["specificity"]) == (1, 1)
    full = measure("binary", as_logits(empty), empty + 1)
    assert {"sensitivity": 0, "dice": 0, "image_dice": 0, "miou": 0}.items() <= full.items()
    assert not {"specificity", "auc"} & set(full)
    assert SegmentationMetrics("binary", 1).compute() == {}


@TASKS
@pytest.mark.parametrize("pixels", [0, BINNED])
def test_what_is_absent_counts_in_nothing(kind, pixels):
    logits, teacher, target = make(kind)
    target[:, 7:] = ABSENT
    found = measure(kind, logits, target, teacher, pixels=pixels)
    cut = measure(kind, logits[:, :, :7], target[:, :7], teacher[:, :, :7], pixels=pixels)
    assert found == pytest.approx(cut, rel=1e-6)


@TASKS
@pytest.mark.parametrize("state", [UNLABELED, VOID])
def test_what_has_no_label_counts_in_agreement_and_divergence_alone(kind, state):
    logits, teacher, target = make(kind)
    everywhere = measure(kind, logits, target, teacher)
    target[:, 7:] = state
    found = measure(kind, logits, target, teacher)
    labelled = measure(kind, logits[:, :, :7], target[:, :7], teacher[:, :, :7])
    for name, value in found.items():
        expected = everywhere if name in LABELLED_ONLY else labelled
        assert value == pytest.approx(expected[name], rel=1e-6), name
    target[:] = state
    assert set(measure(kind, logits, target, teacher)) == {"agreement", "kl_to_teacher"}


def test_fidelity_is_agreement_and_the_divergence_of_bernoullis():
    logits, teacher, target = make("binary")
    found = measure("binary", logits, target, teacher)
    p, q = expit(teacher.double().numpy()), expit(logits.double().numpy())
    assert found["agreement"] == pytest.approx(((p > 0.5) == (q > 0.5)).mean())
    assert found["kl_to_teacher"] == pytest.approx((rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean(), rel=1e-5)


def test_the_ece_of_a_binary_mask_is_of_the_predicted_class():
    target = torch.tensor([[[0, 0, 0, 1]]])
    z = torch.tensor([0.1, 0.1, 0.2, 0.6]).logit().view(1, 1, 1, 4)
    # Sure to 0.9, 0.9, 0.8 and 0.6, in three bins, and always right.
    assert measure("binary", z, target)["ece"] == pytest.approx((0.1 + 0.1 + 0.2 + 0.4) / 4, rel=1e-5)


@pytest.mark.parametrize("spread", [1, 40])
def test_the_auc_of_a_binary_mask_is_that_of_its_logits_order(spread):
    logits, _, target = make("binary", size=(40, 50))
    expected = sk.roc_auc_score(target.flatten(), logits.double().flatten())
    found = [measure("binary", spread * logits, target, pixels=pixels) for pixels in (0, BINNED)]
    assert found[0]["auc"] == pytest.approx(expected, abs=1e-6)
    assert found[1]["auc"] == pytest.approx(expected, abs=found[1]["auc_error"] + 1e-9)
    assert 0 < found[1]["auc_error"] < 1e-3
    assert "auc_error" not in found[0]


@TASKS
def test_images_of_different_sizes_and_how_they_are_cut_into_batches(kind):
    first, second = make(kind, images=2), make(kind, images=1, size=(5, 20), seed=1)
    metrics = SegmentationMetrics(kind, first[0].shape[1], fidelity=True)
    for (logits, teacher, target), loss in ((first, 2.0), (second, 1.0)):
        metrics.update(logits, target, torch.tensor(loss), teacher)
    padded = [torch.full((3, *kind.shape[1:-2], 11, 20), float(ABSENT)) for kind in first]
    for whole, one, other in zip(padded, first, second, strict=True):
        whole[:2, ..., :8], whole[2:, ..., :5, :] = one, other
    logits, teacher, target = padded
    together = measure(kind, logits, target.long(), teacher)
    assert metrics.compute() == pytest.approx(together | {"loss": (2.0 * 2 * 88 + 100) / (2 * 88 + 100)}, rel=1e-5)


@TASKS
def test_decisions_alone_for_training(kind):
    logits, _, target = make(kind)
    target[0, :3], target[1, 5] = ABSENT, VOID
    metrics = SegmentationMetrics(kind, logits.shape[1], decisions_only=True)
    metrics.update(logits, target, torch.tensor(2.0))
    names = {"acc", "miou", "dice", "image_dice"}
    names |= {"sensitivity", "specificity"} if kind == "binary" else {"acc_top5"}
    full = measure(kind, logits, target)
    assert metrics.compute() == {"loss": 2} | {name: full[name] for name in names}


@TASKS
def test_logits_that_are_nan_are_reported_not_hidden(kind):
    logits, _, target = make(kind)
    found = measure(kind, torch.full_like(logits, torch.nan), target)
    assert all(math.isnan(found[name]) for name in ("nll", "auc", "ece"))


def test_reset_forgets_and_the_state_is_in_no_checkpoint():
    logits, _, target = make("binary")
    metrics = SegmentationMetrics("binary", 1)
    metrics.update(-logits, target, torch.tensor(1.0))
    metrics.compute()
    metrics.reset()
    metrics.update(logits, target)
    assert metrics.compute() == measure("binary", logits, target)
    assert metrics.state_dict() == {}


def test_masks_that_overlap_are_refused():
    with pytest.raises(
        ValueError, match=r"^dataset.kind must be multiclass or binary for segmentation, got multilabel$"
    ):
        SegmentationMetrics("multilabel", 3)


def test_a_confusion_matrix_gives_iou_and_dice_of_each_class():
    confusion = torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    assert iou(confusion)[:2].tolist() == [3 / 4, 2 / 3]
    assert dice(confusion)[:2].tolist() == [6 / 7, 4 / 5]
    assert iou(confusion)[2].isnan()


def _on_one_of_two_ranks(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for kind in ("binary", "multiclass"):
        logits, teacher, target = make(kind)
        target[0, :3], target[2, 5:] = ABSENT, VOID
        mine = slice(0, 2) if rank == 0 else slice(2, None)
        metrics = SegmentationMetrics(kind, logits.shape[1], fidelity=True)
        metrics.update(logits[mine], target[mine], torch.tensor(float(rank)), teacher[mine])
        torch.save(metrics.compute(), f"{folder}/{kind}-{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_ranks_give_the_values_of_one(tmp_path):
    multiprocessing.start_processes(_on_one_of_two_ranks, (str(tmp_path),), nprocs=2, start_method="forkserver")
    for kind in ("binary", "multiclass"):
        logits, teacher, target = make(kind)
        target[0, :3], target[2, 5:] = ABSENT, VOID
        expected = measure(kind, logits, target, teacher) | {"loss": 88 / (3 * 88 - 24)}
        for rank in (0, 1):
            assert torch.load(tmp_path / f"{kind}-{rank}.pt") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("kind", "classes"), [("binary", 1), ("multiclass", 3)])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int64])
def test_a_batch_without_a_pixel_that_exists_changes_nothing(kind, classes, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 4, 4, generator=generator)
    target = torch.randint(2, (2, 4, 4), generator=generator).to(dtype)
    found = []
    for batches in ([target], [target, torch.full_like(target, ABSENT)]):
        metrics = SegmentationMetrics(kind, classes, fidelity=True)
        for batch in batches:
            metrics.update(logits, batch, loss=torch.tensor(0.5), teacher_logits=logits)
        found.append(metrics.compute())
    assert found[0] == found[1]


@pytest.mark.parametrize(("kind", "classes"), [("binary", 1), ("multiclass", 3)])
def test_curves_and_confusion_are_those_of_the_pixels_with_a_class(kind, classes):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, classes, 6, 5, generator=generator)
    target = torch.randint(-3, 2 if kind == "binary" else 3, (3, 6, 5), generator=generator)
    masks, pixels = (RocAndConfusionMetric(kind, classes) for _ in range(2))
    masks.update(logits, target.to(torch.int8))
    known = target >= 0
    pixels.update(logits.movedim(1, -1)[known], target[known])
    assert masks.compute() == pixels.compute()
