import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit, rel_entr, softmax
from scipy.stats import entropy
from sklearn import metrics as sk
from torch import multiprocessing, nn

from kdexp.contracts import UNLABELED, Batch, Outputs
from kdexp.metrics.calibration import brier as brier_score
from kdexp.metrics.calibration import predictions, reliability
from kdexp.metrics.classification import Metrics
from kdexp.metrics.evaluate import evaluate
from kdexp.metrics.roc_and_confusion import RocAndConfusionMetric
from kdexp.metrics.rows import right

TASKS = ["multiclass", "binary", "multilabel"]
BINNED = 10**12  # samples: more than fit in memory


def make_batch(kind, samples=200, classes=7, seed=0):
    """Logits, teacher's logits and target, correlated with each other."""
    generator = torch.Generator().manual_seed(seed)
    outputs = 1 if kind == "binary" else classes
    logits, teacher = (2 * torch.randn(2, samples, outputs, generator=generator)).unbind()
    teacher = teacher + logits
    if kind == "multiclass":
        target = (teacher + 2 * torch.randn(samples, classes, generator=generator)).argmax(1)
    else:
        target = (teacher + 2 * torch.randn(samples, outputs, generator=generator) > 0).long()
        target = target[:, 0] if kind == "binary" else target.float()
    return logits, teacher, target


def measure(kind, logits, target, teacher=None, **options):
    metrics = Metrics(kind, logits.shape[1], fidelity=teacher is not None, **options)
    metrics.update(logits, target, teacher_logits=teacher)
    return metrics.compute()


def numpy_ece(confidence, right, bins=15):
    """Guo et al. 2017, equation 3."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[place == b].mean() - confidence[place == b].mean()) * (place == b).mean() for b in set(place)]
    return sum(gaps)


def test_multiclass_values_are_scikit_learns():
    logits, _, target = make_batch("multiclass")
    found = measure("multiclass", logits, target)
    p, y = softmax(logits.double().numpy(), axis=1), target.numpy()
    precision, recall, f1, _ = sk.precision_recall_fscore_support(y, p.argmax(1), average="macro", zero_division=0)
    expected = {
        "acc": sk.accuracy_score(y, p.argmax(1)),
        "acc_top5": sk.top_k_accuracy_score(y, p, k=5, labels=range(7)),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "auc": sk.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "nll": F.cross_entropy(logits.double(), target).item(),
        "ece": numpy_ece(p.max(1), p.argmax(1) == y),
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_order_of_the_names_is_that_of_the_columns_of_metrics_csv():
    logits, teacher, target = make_batch("multiclass")
    names = "acc acc_top5 nll agreement kl_to_teacher agreement_teacher_wrong precision recall f1 auc ece"
    assert list(measure("multiclass", logits, target, teacher)) == names.split()


def test_binary_values_are_scikit_learns():
    logits, _, target = make_batch("binary")
    found = measure("binary", logits, target)
    p, y = expit(logits.double().numpy()[:, 0]), target.numpy()
    precision, recall, f1, _ = sk.precision_recall_fscore_support(y, p > 0.5, average="binary")
    expected = {
        "acc": sk.accuracy_score(y, p > 0.5),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "auc": sk.roc_auc_score(y, p),
        "nll": sk.log_loss(y, p),
        "ece": numpy_ece(p, y),
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_multilabel_values_are_scikit_learns():
    logits, _, target = make_batch("multilabel")
    found = measure("multilabel", logits, target)
    p, y = expit(logits.double().numpy()), target.numpy()
    precision, recall, f1, _ = sk.precision_recall_fscore_support(y, p > 0.5, average="macro")
    expected = {
        "acc": ((p > 0.5) == y).mean(),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "auc": sk.roc_auc_score(y, p, average="macro"),
        "nll": np.mean([sk.log_loss(y[:, c], p[:, c]) for c in range(7)]),
        "ece": numpy_ece(p.ravel(), y.ravel()),
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_fidelity_is_agreement_and_scipys_relative_entropy():
    logits, teacher, target = make_batch("multiclass")
    found = measure("multiclass", logits, target, teacher)
    p, q = softmax(teacher.double().numpy(), axis=1), softmax(logits.double().numpy(), axis=1)
    assert found["agreement"] == pytest.approx((p.argmax(1) == q.argmax(1)).mean())
    mistakes = p.argmax(1) != target.numpy()
    assert found["agreement_teacher_wrong"] == pytest.approx((p.argmax(1) == q.argmax(1))[mistakes].mean())
    assert found["kl_to_teacher"] == pytest.approx(entropy(p, q, axis=1).mean(), rel=1e-5)


def test_fidelity_of_labels_is_the_same_side_of_one_half_and_a_divergence_of_bernoullis():
    logits, teacher, target = make_batch("multilabel")
    found = measure("multilabel", logits, target, teacher)
    p, q = expit(teacher.double().numpy()), expit(logits.double().numpy())
    assert found["agreement"] == pytest.approx(((p > 0.5) == (q > 0.5)).mean())
    mistakes = (p > 0.5) != target.numpy()
    assert found["agreement_teacher_wrong"] == pytest.approx(((p > 0.5) == (q > 0.5))[mistakes].mean())
    assert found["kl_to_teacher"] == pytest.approx((rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean(), rel=1e-5)


def test_classes_without_a_sample_are_left_out_of_the_macro_means():
    logits, _, target = make_batch("multiclass")
    target[target == 3] = 2
    predicted = logits.argmax(1)
    logits[predicted == 5, 5] = -50  # class 5 is a label but never a prediction; class 3 the other way round
    target[target == 6], logits[:, 6] = 1, -50  # class 6 is neither
    found = measure("multiclass", logits, target)
    p, y = softmax(logits.double().numpy(), axis=1), target.numpy()
    precision, recall, f1, _ = sk.precision_recall_fscore_support(y, p.argmax(1), average="macro", zero_division=0)
    auc = np.mean([sk.roc_auc_score(y == c, p[:, c]) for c in (0, 1, 2, 4, 5)])
    assert [found[name] for name in ("precision", "recall", "f1", "auc")] == pytest.approx([precision, recall, f1, auc])


def test_values_that_are_not_defined_are_left_out():
    logits = torch.tensor([[2.0, 1.0], [3.0, 1.0]])
    assert "auc" not in measure("multiclass", logits, torch.tensor([0, 0]))
    negatives = measure("binary", torch.tensor([[-1.0], [-2.0]]), torch.tensor([0, 0]))
    assert set(negatives) == {"acc", "nll", "ece"}
    assert Metrics("binary", 1).compute() == {}
    never_wrong = measure("multiclass", logits, torch.tensor([0, 0]), teacher=logits)
    assert "agreement_teacher_wrong" not in never_wrong
    assert never_wrong["agreement"] == 1


@pytest.mark.parametrize("kind", TASKS)
def test_the_mean_of_what_is_right_is_the_accuracy(kind):
    logits, _, target = make_batch(kind)
    of_samples = right(logits, target, kind)
    assert of_samples.shape == (len(logits),)
    assert float(of_samples.mean()) == pytest.approx(measure(kind, logits, target)["acc"], rel=1e-6)


@pytest.mark.parametrize("samples", [0, BINNED])
@pytest.mark.parametrize("kind", TASKS)
def test_samples_without_a_label_count_for_fidelity_alone(kind, samples):
    logits, teacher, target = make_batch(kind)
    hidden = torch.arange(len(target)) % 3 == 0
    known = measure(kind, logits[~hidden], target[~hidden], teacher[~hidden], samples=samples)
    everyone = measure(kind, logits, target, teacher)
    target[hidden] = UNLABELED
    found = measure(kind, logits, target, teacher, samples=samples)
    fidelity = {"agreement", "kl_to_teacher"}
    assert {k: found[k] for k in fidelity} == pytest.approx({k: everyone[k] for k in fidelity})
    assert {k: v for k, v in found.items() if k not in fidelity} == pytest.approx(
        {k: v for k, v in known.items() if k not in fidelity}
    )


@pytest.mark.parametrize("kind", TASKS)
def test_without_any_label_only_fidelity_is_left(kind):
    logits, teacher, target = make_batch(kind)
    assert set(measure(kind, logits, torch.full_like(target, UNLABELED), teacher)) == {"agreement", "kl_to_teacher"}


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("samples", [0, BINNED])
def test_how_the_split_is_cut_into_batches_does_not_matter(kind, samples):
    logits, teacher, target = make_batch(kind)
    whole = Metrics(kind, logits.shape[1], fidelity=True, samples=samples)
    whole.update(logits, target, torch.tensor(2.0), teacher)
    cut = Metrics(kind, logits.shape[1], fidelity=True, samples=samples)
    for part, loss in ((slice(0, 50), 5.0), (slice(50, 51), 1.0), (slice(51, 200), 149 / 149)):
        cut.update(logits[part], target[part], torch.tensor(loss), teacher[part])
    assert cut.compute() == pytest.approx(whole.compute(), rel=1e-5)  # 50 * 5 + 1 + 149 = 200 * 2


def saturated(kind):
    """Logits whose softmax or sigmoid is 0 or 1 in float32, target, and what orders the samples exactly."""
    generator = torch.Generator().manual_seed(3)
    if kind == "multiclass":
        target = torch.randint(0, 7, (3000,), generator=generator)
        logits = 40 * (torch.randn(3000, 7, generator=generator) + 2 * F.one_hot(target, 7))
        exact = logits.double()
        others = [torch.cat((exact[:, :c], exact[:, c + 1 :]), 1).logsumexp(1) for c in range(7)]
        return logits, target, exact - torch.stack(others, 1)
    center = {"far above": 30, "far below": -110}[kind]
    target = (torch.rand(400, generator=generator) < 0.2).long()
    logits = torch.randn(400, 1, generator=generator) + target[:, None] + center
    return logits, target, logits.double()


@pytest.mark.parametrize("samples", [0, BINNED])
@pytest.mark.parametrize("kind", ["multiclass", "far above", "far below"])
def test_the_auc_of_a_certain_network_is_that_of_its_order(kind, samples):
    logits, target, order = saturated(kind)
    kind = "multiclass" if kind == "multiclass" else "binary"
    classes = range(7) if kind == "multiclass" else [1]
    expected = [sk.roc_auc_score(target == c, order[:, place]) for place, c in enumerate(classes)]
    found = measure(kind, logits, target, samples=samples)
    tolerance = 1e-6 if samples == 0 else 1e-4
    assert found["auc"] == pytest.approx(np.mean(expected), abs=tolerance)
    curves = RocAndConfusionMetric(kind, logits.shape[1], samples=samples)
    curves.update(logits, target)
    assert curves.compute().auc == pytest.approx(dict(zip(classes, expected, strict=True)), abs=10 * tolerance)


@pytest.mark.parametrize("kind", TASKS)
def test_only_a_binned_auc_has_an_error_which_holds_and_comes_last(kind):
    logits, _, target = make_batch(kind, samples=2000)
    exact, binned = measure(kind, logits, target), measure(kind, logits, target, samples=BINNED)
    assert list(binned) == [*exact, "auc_error"]
    assert abs(binned["auc"] - exact["auc"]) <= binned["auc_error"] < 1e-4
    assert {name: binned[name] for name in exact if name != "auc"} == {k: v for k, v in exact.items() if k != "auc"}


def test_the_auc_is_exact_as_long_as_the_scores_fit_in_memory():
    logits, _, target = make_batch("multiclass", samples=50)
    ten = torch.cat((logits, logits[:, :3]), 1)
    assert "auc_error" not in measure("multiclass", ten, target, samples=6_710_000)
    assert "auc_error" in measure("multiclass", ten, target, samples=6_720_000)


@pytest.mark.parametrize("kind", TASKS)
def test_certain_predictions_have_the_values_of_scikit_learn(kind):
    """Probabilities of exactly 0 and 1, most of them right: as columns of 0 and 1."""
    logits, _, target = make_batch(kind)
    if kind == "multiclass":
        says, y = F.one_hot(logits.argmax(1), 7).numpy(), F.one_hot(target, 7).numpy()
        logits = 500.0 * torch.from_numpy(says).float()
        wrong = [(says != y).any(1).mean()]  # one bin: the last
    else:
        says, y = (logits > 0).long().numpy(), target.view_as(logits).long().numpy()
        logits = 500.0 * logits.sign()
        wrong = [(says > y).mean(), (says < y).mean()]  # of the last and of the first bin
    found = measure(kind, logits, target)
    assert found["acc"] == pytest.approx(1 - sum(wrong))
    assert found["auc"] == pytest.approx(sk.roc_auc_score(y, says, average="macro"), abs=1e-12)
    assert found["nll"] == pytest.approx(500 * sum(wrong))
    assert found["ece"] == pytest.approx(sum(wrong), abs=1e-12)
    assert reliability(*predictions(logits, target, kind)).error() == found["ece"]
    squared = np.square(says - y).sum(1).mean() if kind == "multiclass" else np.square(says - y).mean()
    assert float(brier_score(logits, target, kind).mean()) == pytest.approx(squared)


@pytest.mark.parametrize("samples", [0, BINNED])
def test_labels_that_are_never_known_or_always_alike_are_left_out(samples):
    logits, _, target = make_batch("multilabel")
    target[:, 2] = UNLABELED
    target[:, 4], target[:, 5] = 1, 0
    target[:150, 6] = UNLABELED
    p, y = expit(logits.double().numpy()), target.numpy()
    known = [y[:, c] != UNLABELED for c in range(7)]
    found = measure("multilabel", logits, target, samples=samples)
    auc = [sk.roc_auc_score(y[known[c], c], p[known[c], c]) for c in (0, 1, 3, 6)]
    f1 = [sk.f1_score(y[known[c], c], p[known[c], c] > 0.5) for c in (0, 1, 3, 4, 5, 6)]
    assert found["auc"] == pytest.approx(np.mean(auc), abs=1e-4 if samples else 1e-12)
    assert found["f1"] == pytest.approx(np.mean(f1))
    everything = (y != UNLABELED).ravel()
    assert found["nll"] == pytest.approx(sk.log_loss(y.ravel()[everything], p.ravel()[everything]), rel=1e-6)
    assert found["ece"] == pytest.approx(numpy_ece(p.ravel()[everything], y.ravel()[everything]), rel=1e-5)
    curves = RocAndConfusionMetric("multilabel", 7, samples=samples)
    curves.update(logits, target)
    assert list(curves.compute().roc) == [0, 1, 3, 6]


def test_a_bin_of_the_calibration_error_has_its_upper_end():
    """(14/15, 1] is one bin: 0.9526, right, and 1, wrong."""
    logits = torch.tensor([[3.0], [500.0]])
    found = measure("binary", logits, torch.tensor([1, 0]))
    assert found["ece"] == pytest.approx((1 / (1 + math.exp(-3)) + 1) / 2 - 0.5)


def test_half_precision_logits_are_raised_before_the_softmax():
    logits, teacher, target = make_batch("multiclass")
    logits, teacher = logits.bfloat16(), teacher.bfloat16()
    assert measure("multiclass", logits, target, teacher) == measure("multiclass", logits.float(), target, teacher)


def test_dense_logits_count_every_position():
    logits, teacher, target = make_batch("multiclass", samples=240)
    target[::7] = UNLABELED

    def to_dense(rows):
        return rows.view(4, 6, 10, *rows.shape[1:]).movedim(3, 1) if rows.ndim == 2 else rows.view(4, 6, 10)

    dense = measure("multiclass", to_dense(logits), to_dense(target), to_dense(teacher))
    assert dense == pytest.approx(measure("multiclass", logits, target, teacher))


def test_a_mixed_target_counts_as_its_largest_label():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    mixed = torch.tensor([[0.7, 0.3], [0.6, 0.0], [0.0, 0.0]])  # the last has no label
    assert measure("multiclass", logits, mixed, accuracy_only=True) == {"acc": 0.5}


def test_accuracy_only_measures_nothing_else():
    logits, _, target = make_batch("multiclass")
    found, full = measure("multiclass", logits, target, accuracy_only=True), measure("multiclass", logits, target)
    assert found == {name: full[name] for name in ("acc", "acc_top5")}


@pytest.mark.parametrize("kind", TASKS)
def test_logits_that_are_nan_are_reported_not_hidden(kind):
    logits, teacher, target = make_batch(kind)
    found = measure(kind, torch.full_like(logits, torch.nan), target, teacher)
    assert math.isnan(found["nll"])
    assert math.isnan(found["kl_to_teacher"])
    assert math.isnan(found["auc"])
    assert math.isnan(found["ece"])


def test_reset_forgets_and_the_state_is_in_no_checkpoint():
    logits, _, target = make_batch("multiclass")
    metrics = Metrics("multiclass", 7)
    metrics.update(logits.flip(0), target)
    metrics.compute()
    metrics.reset()
    metrics.update(logits, target)
    assert metrics.compute() == measure("multiclass", logits, target)
    assert metrics.state_dict() == {}


def _on_one_of_two_ranks(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for kind in TASKS:
        logits, teacher, target = make_batch(kind, samples=31)
        target[:2] = UNLABELED
        mine = slice(0, 20) if rank == 0 else slice(20, None)
        for samples in (0, BINNED):
            metrics = Metrics(kind, logits.shape[1], fidelity=True, samples=samples)
            metrics.update(logits[mine], target[mine], torch.tensor(float(rank)), teacher[mine])
            found = metrics.compute()
            torch.save(found, f"{folder}/{kind}-{samples}-{rank}.pt")
    alone = Metrics("multiclass", 7, sync_on_compute=False)
    if rank == 0:  # would wait for rank 1 for ever
        alone.update(*(make_batch("multiclass")[i] for i in (0, 2)))
        torch.save(alone.compute(), f"{folder}/alone.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_ranks_give_the_values_of_one(tmp_path):
    multiprocessing.start_processes(_on_one_of_two_ranks, (str(tmp_path),), nprocs=2, start_method="forkserver")
    for kind in TASKS:
        logits, teacher, target = make_batch(kind, samples=31)
        target[:2] = UNLABELED
        for samples in (0, BINNED):
            expected = measure(kind, logits, target, teacher, samples=samples) | {"loss": 11 / 31}
            for rank in (0, 1):
                found = torch.load(tmp_path / f"{kind}-{samples}-{rank}.pt")
                assert found == pytest.approx(expected, rel=1e-5)
    logits, _, target = make_batch("multiclass")
    assert torch.load(tmp_path / "alone.pt") == measure("multiclass", logits, target)


@pytest.mark.parametrize("samples", [0, BINNED])
@pytest.mark.parametrize("kind", TASKS)
def test_curves_are_scikit_learns(kind, samples):
    logits, _, target = make_batch(kind, samples=300)
    curves = RocAndConfusionMetric(kind, logits.shape[1], samples=samples)
    for part in (slice(0, 100), slice(100, 300)):
        curves.update(logits[part], target[part])
    data = curves.compute()
    tolerance = 1e-6 if samples == 0 else 1e-4
    names = [1] if kind == "binary" else range(7)
    assert list(data.roc) == list(data.auc) == list(names)
    for name in names:
        y = target == name if kind == "multiclass" else target.view(300, -1)[:, 0 if kind == "binary" else name]
        score = logits.softmax(1)[:, name] if kind == "multiclass" else logits[:, 0 if kind == "binary" else name]
        x_points, y_points, _ = sk.roc_curve(y, score, drop_intermediate=False)
        fpr, tpr = data.roc[name]
        assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
        assert tpr == sorted(tpr)
        # Between the ends of a vertical piece any height is right.
        low = np.interp(np.array(fpr) - 1e-6, x_points, y_points) - tolerance
        high = np.interp(np.array(fpr) + 1e-6, x_points, y_points) + tolerance
        assert ((low <= tpr) & (tpr <= np.maximum(high, low))).mean() > (0.95 if samples else 0.999)
        assert data.auc[name] == pytest.approx(sk.roc_auc_score(y, score), abs=tolerance)
    assert data.macro_auc == pytest.approx(np.mean(list(data.auc.values())))
    assert data.macro[1] == pytest.approx(np.mean([tpr for _, tpr in data.roc.values()], axis=0))


@pytest.mark.parametrize(("kind", "labels"), [("multiclass", range(7)), ("binary", [0, 1])])
def test_confusion_matrix_is_scikit_learns_with_true_classes_in_rows(kind, labels):
    logits, _, target = make_batch(kind)
    target[:5] = UNLABELED
    curves = RocAndConfusionMetric(kind, logits.shape[1])
    curves.update(logits, target)
    predicted = logits.argmax(1) if kind == "multiclass" else logits[:, 0] > 0
    assert curves.compute().confusion == sk.confusion_matrix(target[5:], predicted[5:], labels=labels).tolist()


def test_curves_leave_out_classes_without_both_kinds_of_samples():
    logits, _, target = make_batch("multiclass")
    target[target == 3] = 2
    curves = RocAndConfusionMetric("multiclass", 7)
    curves.update(logits, target)
    assert list(curves.compute().roc) == [0, 1, 2, 4, 5, 6]
    curves.reset()
    curves.update(logits, torch.zeros(200, dtype=torch.int64))
    data = curves.compute()
    assert (data.roc, data.macro, data.macro_auc) == ({}, None, None)


def test_what_is_kept_of_curves_has_four_digits_and_no_more_classes_than_can_be_drawn():
    def kept(classes, samples=300):
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(samples, classes, generator=generator)
        target = torch.arange(samples) % classes
        curves = RocAndConfusionMetric("multiclass", classes)
        curves.update(logits, target)
        return curves.compute().compact(), logits, target

    few, logits, target = kept(20)
    assert list(few["roc"]) == list(few["auc"]) == ["macro", *map(str, range(20))]
    assert all(rate == round(rate, 4) for curve in (few["fpr"], *few["roc"].values()) for rate in curve)
    score = logits.softmax(1)[:, 7]
    assert few["auc"]["7"] == pytest.approx(sk.roc_auc_score(target == 7, score))
    assert np.trapezoid(few["roc"]["7"], few["fpr"]) == pytest.approx(few["auc"]["7"], abs=0.01)
    assert few["confusion"] == sk.confusion_matrix(target, logits.argmax(1)).tolist()
    assert list(kept(21)[0]["roc"]) == ["macro"]
    assert len(kept(100)[0]["confusion"]) == 100
    assert "confusion" not in kept(101)[0]
    assert kept(20, samples=1)[0].keys() == {"confusion"}


def test_evaluating_needs_no_gradient_and_leaves_the_modes_as_they_were():
    network = nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7), nn.Dropout(0.5))
    network[1].eval()
    statistics = network[1].running_mean.clone()
    generator = torch.Generator().manual_seed(0)
    inputs, target = torch.randn(64, 4, generator=generator), torch.randint(0, 7, (64,), generator=generator)
    batches = [Batch(inputs[i : i + 24], target[i : i + 24], torch.arange(64)[i : i + 24]) for i in (0, 24, 48)]
    curves = RocAndConfusionMetric("multiclass", 7)
    metrics = Metrics("multiclass", 7, fidelity=True)
    metrics.update(-torch.ones(3, 7), torch.zeros(3, dtype=torch.int64), teacher_logits=torch.ones(3, 7))
    found = evaluate(
        network,
        batches,
        metrics,
        teacher=lambda x: Outputs(network(x)),
        curves=curves,
        loss_fn=lambda logits, teacher_logits, target: F.cross_entropy(logits, target),
    )
    assert [module.training for module in network] == [True, False, True]
    assert torch.equal(network[1].running_mean, statistics)
    network.eval()
    with torch.no_grad():
        logits = network(inputs)
    assert found["acc"] == pytest.approx(sk.accuracy_score(target, logits.argmax(1)))
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, target).item(), rel=1e-5)
    assert (found["agreement"], found["kl_to_teacher"]) == (1, 0)
    assert np.sum(curves.compute().confusion) == 64
