"""Masks in a robustness report: their record, and how they are moved, attacked and calibrated."""

import math
import warnings

import numpy as np
import pytest
import torch
from operators import corruptions, images
from scipy.special import log_softmax, softmax
from sklearn import metrics as sk
from torch import nn
from torch.nn import functional as F

from kdexp.contracts import ABSENT, UNLABELED, VOID, Batch, Split
from kdexp.metrics.calibration import best_temperature
from kdexp.robustness import geometry
from kdexp.robustness.attacks import Attack, untargeted_loss
from kdexp.robustness.axes.attacks import Attacks, attacked
from kdexp.robustness.axes.calibration import Calibration, calibrated
from kdexp.robustness.axes.corruptions import corrupted
from kdexp.robustness.bootstrap import Bootstrap, draw_counts, resampled
from kdexp.robustness.grid import Grid, Measured, Networks, Part
from kdexp.tasks.segmentation import Segmentation

N, SIZE = 6, (9, 12)
INDEX = torch.arange(N)
IMAGES = images(N, 3, 16, seed=2)[:, :, : SIZE[0], : SIZE[1]]
KINDS = pytest.mark.parametrize("kind", ["multiclass", "binary"])


def task_of(kind):
    return Segmentation(4 if kind == "multiclass" else 1, kind)


def masks(kind, seed=0):
    """With pixels of each value that is no class, and an image without a class at all."""
    found = torch.randint(4 if kind == "multiclass" else 2, (N, *SIZE), generator=torch.Generator().manual_seed(seed))
    found[0, :2], found[1, 3], found[2, :, 6:], found[3] = VOID, UNLABELED, ABSENT, VOID
    return found


def network_of(kind, seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, task_of(kind).num_outputs, 1))
    network[2].weight.data *= 8
    return network


def grid_of(kind, target=None, seed=3):
    target = masks(kind) if target is None else target
    batches = [Batch(IMAGES[part], target[part], part) for part in INDEX.split(4)]
    return Grid(Part(batches, Split(IMAGES, target, INDEX), INDEX, is_whole=True), task_of(kind), [3, *SIZE], seed)


def decision_of(logits, kind):
    return (logits[:, 0] > 0).long() if kind == "binary" else logits.argmax(1)


def sk_measure(kind, target, decision):
    """Of the labelled pixels of all images; NaN where scikit-learn has nothing to divide by."""
    known = (target >= 0).numpy()
    y, own = target.numpy()[known], decision.numpy()[known]
    if not len(y):
        return np.nan
    return sk.f1_score(y, own, zero_division=np.nan) if kind == "binary" else sk.jaccard_score(y, own, average="macro")


LABELS = {
    "some": lambda target: target,
    "nothing labelled": lambda target: torch.full_like(target, VOID),
    "one class": lambda target: torch.where(target >= 0, 0, target),
    "one pixel": lambda target: torch.full_like(target, ABSENT).index_fill(0, INDEX[:1], 0),
}


@KINDS
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("predicted", ["anything", "background"])
def test_the_measure_of_records_is_scikit_learns(kind, labels, predicted):
    task, target = task_of(kind), LABELS[labels](masks(kind))
    logits = network_of(kind)(3 * IMAGES).detach()
    if predicted == "background":
        logits[:, 0] = -9.0 if kind == "binary" else 9.0
    records = task.records(logits, target)
    assert records.shape == (N, 2 if kind == "binary" else 4, 2)
    assert records.dtype == torch.int64
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = sk_measure(kind, target, decision_of(logits, kind))
    assert float(task.measure_of(records.double().mean(0))) == pytest.approx(wanted, abs=1e-12, nan_ok=True)


@KINDS
def test_the_bootstrap_over_images_is_a_plain_loop_over_their_pixels(kind):
    task, target = task_of(kind), masks(kind)
    found = {role: network_of(kind, seed)(4 * IMAGES).detach() for seed, role in enumerate(("control", "student"))}
    clean = {role: Measured({}, {task.record: task.records(own, target)}) for role, own in found.items()}
    bootstrap = Bootstrap(clean, task, seed=5, n_resamples=200, confidence_level=0.9)
    differences = []
    for counts in draw_counts(N, 200, 5):
        chosen = torch.from_numpy(np.repeat(np.arange(N), counts))
        own, alone = (
            sk_measure(kind, target[chosen], decision_of(found[role][chosen], kind)) for role in ("student", "control")
        )
        differences.append(own - alone)
    entry = bootstrap.entry(bootstrap.clean())
    for role, logits in found.items():
        assert entry[role] == pytest.approx(sk_measure(kind, target, decision_of(logits, kind)), abs=1e-12)
    low, high = np.quantile(differences, [0.05, 0.95])
    assert entry["difference"]["low"] == pytest.approx(low, abs=1e-12)
    assert entry["difference"]["high"] == pytest.approx(high, abs=1e-12)
    assert low < high


def test_counts_that_float32_cannot_hold_are_summed_exactly():
    values = np.array([[2**24 + 1], [2**24 + 3], [1]])
    assert resampled(values, 100, seed=0)[0, 0] * 3 == 2**25 + 5


def test_one_sample_has_no_interval():
    found = resampled(np.ones((1, 2)), 100, seed=0)
    assert found.shape == (101, 2)
    assert (found[0] == 1).all()
    assert np.isnan(found[1:]).all()


@KINDS
def test_a_condition_of_masks_has_the_metrics_of_the_task(kind):
    student, task = network_of(kind), task_of(kind)
    found = grid_of(kind).clean().measure(Networks({"student": student}))["student"]
    metrics = task.metrics()
    metrics.update(student(IMAGES), masks(kind))
    assert found.values == pytest.approx(metrics.compute())
    assert float(task.measure_of(found.samples["areas"].double().mean(0))) == pytest.approx(found.values[task.measure])


MOVED = {
    "rotate": {"angle": 0.4},
    "shear": {"angle": 0.3},
    "scale": {"factor": 0.7},
    "translate": {"share": 0.13},
    "elastic_transform": {"alpha": 0.08, "sigma": 0.06, "affine": 0.06},
}


@pytest.mark.parametrize("name", MOVED)
def test_a_mask_goes_where_its_image_goes(name):
    """An image of coordinates says, between pixels too, where each pixel is from; of the mask the nearest one is."""
    h, w, n = 40, 48, 8
    operator, settings = getattr(geometry, name), {"seed": 3, **MOVED[name]}
    index = torch.arange(n)
    y, x = torch.meshgrid(torch.arange(h) / h, torch.arange(w) / w, indexing="ij")
    places = torch.stack((y, x, torch.ones(h, w))).expand(n, 3, h, w).contiguous()
    row, column, inside = operator(places, index, **settings).unbind(1)
    target = torch.randint(-2, 5, (n, h, w), generator=torch.Generator().manual_seed(0))
    found = operator(target.unsqueeze(1), index, **settings).squeeze(1)
    row, column = row * h, column * w
    is_tie = ((row % 1 - 0.5).abs() < 1e-2) | ((column % 1 - 0.5).abs() < 1e-2)
    known = (inside > 0.999) & (found != ABSENT) & ~is_tie
    assert known.float().mean() > 0.3
    sample = index.view(-1, 1, 1).expand(n, h, w)[known]
    assert torch.equal(found[known], target[sample, row[known].round().long(), column[known].round().long()])
    assert (found[inside < 0.2] == ABSENT).all()
    assert (found == ABSENT).any(), "something came in from outside"
    if name != "elastic_transform":  # which mirrors the image: there it is not black outside
        assert (inside[found == ABSENT] < 0.999).all()


def test_a_quarter_of_a_turn_a_shift_and_a_half_by_hand():
    target = torch.randint(-2, 5, (6, 1, 9, 9), generator=torch.Generator().manual_seed(1))
    turned = geometry.rotate(target, INDEX, seed=0, angle=math.pi / 2)
    for one, own in zip(target, turned, strict=True):
        assert any(torch.equal(own, one.rot90(k, (1, 2))) for k in (1, 3))
    for one, own in zip(target, geometry.translate(target, INDEX, seed=0, share=1 / 3), strict=True):
        padded = F.pad(one, [3] * 4, value=ABSENT)
        assert any(torch.equal(own, padded[:, a : a + 9, b : b + 9]) for a in (0, 6) for b in (0, 6))
    half = torch.full_like(target, ABSENT)
    half[..., 2:7, 2:7] = target[..., ::2, ::2]
    assert torch.equal(geometry.scale(target, INDEX, seed=0, factor=0.5), half)


@pytest.mark.parametrize("name", ["rotate", "fog"])
def test_masks_are_moved_by_what_moves_alone(name):
    seen = []

    class Watched(Segmentation):
        def records(self, logits, target):
            seen.append(target)
            return super().records(logits, target)

    grid, target = grid_of("multiclass"), masks("multiclass")
    grid = Grid(grid.part, Watched(4), grid.shape, grid.seed)
    corruption = corruptions()[name]
    corrupted(grid, name, corruption, 2).measure(Networks({"student": network_of("multiclass")}))
    found = torch.cat(seen)
    if name == "fog":
        assert torch.equal(found, target)
    else:
        assert torch.equal(found, geometry.rotate(target.unsqueeze(1), INDEX, seed=3, angle=0.4).squeeze(1))
        assert not torch.equal(found, target)


def test_the_operators_that_move_are_those_of_geometry():
    for name, corruption in corruptions().items():
        assert corruption.moves == (corruption.operator.func.__module__ == geometry.__name__), name


@KINDS
def test_a_step_of_an_attack_is_along_the_mean_cross_entropy_of_labelled_pixels(kind):
    network, target = network_of(kind), masks(kind)
    x = IMAGES.clone().requires_grad_()
    total = 0.0
    for image, mask in zip(x, target, strict=True):
        known = mask >= 0
        if known.any():
            logits = network(image.unsqueeze(0))[0][:, known]
            if kind == "binary":
                total = total + F.binary_cross_entropy_with_logits(logits[0], mask[known].float())
            else:
                total = total + F.cross_entropy(logits.T, mask[known])
    total.backward()
    fgsm = Attack("linf", 0.02, 1, 0.02, random_start=False)
    found = fgsm(untargeted_loss(network, target, kind), IMAGES, INDEX, seed=0)
    torch.testing.assert_close(found, (IMAGES + 0.02 * x.grad.sign()).clamp(0, 1))
    assert torch.equal(found[3], IMAGES[3]), "nothing is labelled there"
    step = Attack("l2", 0.2, 1, 0.1, random_start=False, bounds=None)
    length = x.grad.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
    found = step(untargeted_loss(network, target, kind), IMAGES, INDEX, seed=0)
    torch.testing.assert_close(found, IMAGES + 0.1 * x.grad / length, atol=1e-6, rtol=1e-4)


@KINDS
def test_an_attack_on_masks_lowers_the_measure_and_its_check_is_of_that(kind):
    network = network_of(kind).requires_grad_(False)
    target = torch.where(masks(kind) >= 0, decision_of(network(IMAGES), kind), VOID)
    grid, name = grid_of(kind, target), task_of(kind).measure
    cells = [attacked(grid, "attacks", "fgsm", Attack("linf", eps, 1, eps, random_start=False)) for eps in (0.02, 0.1)]
    clean, *under = [cell.measure(Networks({"student": network}))["student"] for cell in (grid.clean(), *cells)]
    assert clean.values[name] == 1
    assert 1 > under[0].values[name] > under[1].values[name]
    assert under[0].samples["areas"].shape == clean.samples["areas"].shape
    bootstrap = Bootstrap({"student": clean}, grid.task, seed=0, n_resamples=100, confidence_level=0.9)
    found = [(cell, {"student": one}) for cell, one in zip(cells, under, strict=True)]
    axis = Attacks("attacks", None, 1.0, {}, checks=True, autoattack=None)
    (check,) = axis.extra(found, bootstrap)["attack_checks"]
    first, second = (100 * one.values[name] for one in under)
    assert check["detail"] == f"{name} {first:.1f} -> {second:.1f} %"
    said = axis.summarize(found, bootstrap)["attacks"]["fgsm"]
    assert said[f"mean_{name}"]["student"] == pytest.approx(
        np.trapezoid([1, first / 100, second / 100], [0, 0.02, 0.1]) / 0.1
    )


@KINDS
def test_calibration_is_of_the_pixels_that_have_a_class(kind):
    network, target = network_of(kind), masks(kind)
    val = [Batch(IMAGES.flip(3), masks(kind, 1), INDEX)]
    found = calibrated(grid_of(kind), "calibration", val, 10).measure(Networks({"student": network}))["student"]

    def two(logits):
        return torch.cat((torch.zeros_like(logits), logits), 1) if kind == "binary" else logits

    def flat(inputs, mask):
        known = (mask >= 0).flatten()
        return two(network(inputs).detach()).movedim(1, -1).reshape(len(known), -1)[known], mask.flatten()[known]

    temperature = best_temperature(*flat(IMAGES.flip(3), masks(kind, 1)), "multiclass")
    assert found.values["temperature"] == pytest.approx(temperature, rel=1e-4)
    logits, y = (each.numpy() for each in flat(IMAGES, target))
    for suffix, z in (("", logits), ("_scaled", logits / temperature)):
        p = softmax(z.astype(float), axis=1)
        confidence, right = p.max(1), p.argmax(1) == y
        place = np.ceil(confidence * 10) - 1
        gaps = [abs(right[place == b].mean() - confidence[place == b].mean()) for b in set(place)]
        weights = [(place == b).mean() for b in set(place)]
        wanted = {
            "ece": np.dot(weights, gaps),
            "max_calibration_error": max(gaps),
            "nll": -log_softmax(z.astype(float), axis=1)[np.arange(len(y)), y].mean(),
            "brier": ((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean(),
        }
        assert {name: found.values[name + suffix] for name in wanted} == pytest.approx(wanted, rel=1e-5)
    assert not [name for name in found.values if name.startswith("ece_adaptive")]
    said, diagram = summary(found)
    for name in ("ece", "nll", "brier", "ece_scaled"):
        assert said[name]["student"] == pytest.approx(found.values[name], rel=1e-5), name
    assert sum(diagram["plain"]["count"]) == len(y)


def summary(found):
    clean = {"student": Measured({}, {"areas": torch.ones(N, 2, 2, dtype=torch.int64)})}
    bootstrap = Bootstrap(clean, task_of("binary"), seed=5, n_resamples=100, confidence_level=0.9)
    axis = Calibration("calibration", 10)
    condition = calibrated(grid_of("binary"), "calibration", [], 10)
    said = axis.summarize([(condition, {"student": found})], bootstrap)["calibration"]
    return said, axis.extra([(condition, {"student": found})], bootstrap)["reliability"]["student"]


def test_calibration_is_resampled_by_images():
    """Of two networks, one of which is twice as sure: the interval of their difference is that of a plain loop."""
    kind, target = "multiclass", masks("multiclass")
    logits = {"control": network_of(kind)(IMAGES).detach(), "student": 2 * network_of(kind)(IMAGES).detach()}
    measured = {}
    for role, own in logits.items():
        lookup = {tuple(image.flatten()[:3].tolist()): each for image, each in zip(IMAGES, own, strict=True)}

        def network(x, lookup=lookup):
            return torch.stack([lookup[tuple(one.flatten()[:3].tolist())] for one in x])

        cell = calibrated(grid_of(kind), "calibration", [Batch(IMAGES, target, INDEX)], 10)
        measured[role] = cell.measure(Networks({role: network}))[role]
    clean = {role: Measured({}, {"areas": torch.ones(N, 4, 2, dtype=torch.int64)}) for role in logits}
    bootstrap = Bootstrap(clean, task_of(kind), seed=5, n_resamples=100, confidence_level=0.9)
    said = Calibration("calibration", 10).summarize([(cell, measured)], bootstrap)["calibration"]

    def pixels(own, chosen):
        known = target[chosen] >= 0
        return own[chosen].movedim(1, -1)[known].double().numpy(), target[chosen][known].numpy()

    def nll(own, chosen):
        z, y = pixels(own, chosen)
        return sk.log_loss(y, softmax(z, axis=1), labels=range(4))

    def ece(own, chosen):
        z, y = pixels(own, chosen)
        p = softmax(z, axis=1)
        place = np.ceil(p.max(1) * 10)
        return sum(abs(((p.argmax(1) == y) - p.max(1))[place == b].sum()) for b in set(place)) / len(y)

    for name, value in (("nll", nll), ("ece", ece)):
        differences = []
        for counts in draw_counts(N, 100, 5):
            chosen = torch.from_numpy(np.repeat(np.arange(N), counts))
            differences.append(value(logits["student"], chosen) - value(logits["control"], chosen))
        low, high = np.quantile(differences, [0.05, 0.95])
        assert said[name]["difference"]["low"] == pytest.approx(low, abs=1e-5)
        assert said[name]["difference"]["high"] == pytest.approx(high, abs=1e-5)
