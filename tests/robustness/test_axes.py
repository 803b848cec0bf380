"""Cells measured of networks whose outputs are known."""

import math
from types import SimpleNamespace

import pytest
import torch
from operators import corruptions, images
from torch import nn

from kdexp.contracts import Batch, Split
from kdexp.metrics.calibration import best_temperature
from kdexp.metrics.classification import Metrics
from kdexp.robustness.attacks import Attack
from kdexp.robustness.axes.attacks import attacked
from kdexp.robustness.axes.calibration import calibrated
from kdexp.robustness.axes.corruptions import corrupted
from kdexp.robustness.axes.dataset_shift import DatasetShift
from kdexp.robustness.axes.noise_levels import noisy
from kdexp.robustness.axes.ood import detected
from kdexp.robustness.corruption import LevelCurve
from kdexp.robustness.grid import Grid, Networks, Part
from kdexp.robustness.noise import impulse_noise
from kdexp.robustness.ood_scores import detection, scores
from kdexp.tasks.classification import Classification

N = 90
IMAGES = images(N, 1, 8, seed=1)
torch.manual_seed(0)
TEACHER, STUDENT = (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).requires_grad_(False) for _ in range(2))
TARGET = torch.where(torch.arange(N) % 3 == 0, torch.arange(N) % 2, TEACHER(IMAGES).argmax(1))


def batches(inputs=IMAGES, target=TARGET):
    index = torch.arange(len(inputs))
    return [Batch(inputs[i], target[i], index[i]) for i in index.split(40)]


def grid(**changed):
    settings = {"batches": batches(), "kind": "multiclass", "outputs": 3} | changed
    index, target = torch.arange(N), torch.cat([batch.target for batch in settings["batches"]])
    part = Part(settings["batches"], Split(IMAGES, target, index), index, is_whole=True)
    return Grid(part, Classification(settings["outputs"], settings["kind"]), [1, 8, 8], seed=3)


NETWORKS = Networks({"teacher": TEACHER, "student": STUDENT}, {"student": "teacher"})


def expected(inputs):
    metrics = Metrics("multiclass", 3, fidelity=True, in_full=True)
    metrics.update(STUDENT(inputs), TARGET, teacher_logits=TEACHER(inputs))
    return metrics.compute()


def test_the_clean_cell_has_the_metrics_of_the_test_set():
    found = grid().clean().measure(NETWORKS)
    assert found["student"].values == pytest.approx(expected(IMAGES))
    assert "agreement" not in found["teacher"].values
    torch.testing.assert_close(found["student"].samples["right"], (STUDENT(IMAGES).argmax(1) == TARGET).float())


def test_a_corruption_and_a_noise_are_what_the_operator_makes_of_each_batch():
    noise = corruptions()["gaussian_noise"]
    cell = corrupted(grid(), "gaussian_noise", noise, 5)
    assert (cell.axis, cell.name, cell.level, cell.family) == ("corruptions_lite", "gaussian_noise", 5, "noise")
    assert cell.settings == {"operator": "kdexp.robustness.noise.gaussian_noise", "sigma": 0.1}
    whole = noise(IMAGES, torch.arange(N), severity=5, seed=3)
    assert cell.measure(NETWORKS)["student"].values == pytest.approx(expected(whole), rel=1e-5)
    curve = LevelCurve(impulse_noise, "amount", [0.1, 0.4])
    found = noisy(grid(), "noise_levels", "impulse_noise", curve, 0.4).measure(NETWORKS)
    whole = impulse_noise(IMAGES, torch.arange(N), seed=3, amount=0.4)
    assert found["student"].values == pytest.approx(expected(whole), rel=1e-5)


def test_each_network_is_attacked_for_itself_and_its_teacher_sees_the_same():
    """Two classes of a linear network: what an attack leaves is known exactly."""
    wide = torch.full_like(IMAGES, 0.5) + 0.1 * (IMAGES - 0.5)  # far from the bounds
    torch.manual_seed(2)
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).requires_grad_(False)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).requires_grad_(False)
    target = own(wide).argmax(1)
    data = grid(batches=batches(wide, target), outputs=2)
    weights = own[1].weight[0] - own[1].weight[1]
    margin = (own(wide)[:, 0] - own(wide)[:, 1]) * (1 - 2 * target)
    eps = float(margin.quantile(0.5) / weights.abs().sum())  # between two samples of the 90: no tie to be rounded
    cell = attacked(data, "attacks", "pgd", Attack("linf", eps, 10, eps / 4))
    found = cell.measure(Networks({"teacher": other, "student": own}, {"student": "teacher"}))
    assert found["student"].values["acc"] == pytest.approx(float((margin > eps * weights.abs().sum()).float().mean()))
    moved = wide - (1 - 2 * target).view(-1, 1, 1, 1) * eps * weights.sign().view(1, 8, 8)
    agreement = (other(moved).argmax(1) == own(moved).argmax(1)).float().mean()
    assert found["student"].values["agreement"] == pytest.approx(float(agreement), abs=0.02)


def test_another_data_set_is_measured_and_told_from_the_own():
    other = images(60, 1, 8, seed=5)
    target = torch.arange(60) % 3
    found = grid().other("shift", "elsewhere", batches(other, target)).measure(NETWORKS)
    assert found["student"].values["acc"] == pytest.approx(float((STUDENT(other).argmax(1) == target).float().mean()))
    found = detected(grid(), "ood", "elsewhere", batches(other, target)).measure(NETWORKS)["student"]
    own, foreign = (scores(STUDENT(x), "multiclass")["energy"] for x in (IMAGES, other))
    assert found.values["energy_auroc"] == pytest.approx(detection(own, foreign)["auroc"])
    torch.testing.assert_close(found.samples["energy_own"], own)
    torch.testing.assert_close(found.samples["energy_other"], foreign)


def test_the_largest_probability_orders_samples_that_are_all_but_certain():
    margins = torch.tensor([1.0, 5.0, 20.0, 30.0, 60.0])
    logits = torch.stack((margins, torch.zeros(5), torch.zeros(5)), 1)
    assert (logits[2:].softmax(1).amax(1) == 1).all(), "in float32"
    found = scores(logits, "multiclass")["msp"]
    torch.testing.assert_close(found, margins.double() - math.log(2))  # log p / (1 - p), 1 - p of two classes
    assert detection(found[3:], found[:3])["auroc"] == 1


def test_calibration_is_of_test_with_the_temperature_of_val():
    val_images = images(80, 1, 8, seed=9)
    val_target = torch.distributions.Categorical(logits=STUDENT(val_images)).sample()
    found = calibrated(grid(), "calibration", batches(val_images, val_target), 15).measure(NETWORKS)["student"]
    temperature = best_temperature(STUDENT(val_images), val_target, "multiclass")
    assert found.values["temperature"] == pytest.approx(temperature)
    metrics = Metrics("multiclass", 3)
    metrics.update(STUDENT(IMAGES) / temperature, TARGET)
    scaled = metrics.compute()
    for name in ("ece", "nll"):
        assert found.values[f"{name}_scaled"] == pytest.approx(scaled[name], abs=1e-5)
    assert found.values["ece"] == pytest.approx(expected(IMAGES)["ece"], abs=1e-6)


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_labels_are_measured_too(kind):
    outputs = 1 if kind == "binary" else 4
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, outputs)).requires_grad_(False)
    target = TARGET % 2 if kind == "binary" else (network(IMAGES) + torch.randn(N, 4) > 0).float()
    data = grid(batches=batches(IMAGES, target), kind=kind, outputs=outputs)
    cells = [
        data.clean(),
        attacked(data, "attacks", "fgsm", Attack("linf", 0.1, 1, 0.1, random_start=False)),
        detected(data, "ood", "elsewhere", batches()),
        calibrated(data, "calibration", batches(IMAGES, target), 10),
    ]
    one, attack, foreign, calibration = (cell.measure(Networks({"student": network}))["student"] for cell in cells)
    assert float(one.samples["right"].mean()) == pytest.approx(one.values["acc"])
    assert attack.values["acc"] < one.values["acc"]
    assert foreign.values["msp_auroc"] == pytest.approx(0.5)
    assert calibration.values["ece"] == pytest.approx(one.values["ece"], abs=0.2)
    assert calibration.samples["confidence"].shape == (N, outputs)


@pytest.mark.parametrize(("other", "key"), [
    ({"kind": "binary"}, "kind"), ({"num_classes": 2}, "num_classes"), ({"classes": ["b", "a"]}, "classes"),
])  # fmt: skip
def test_another_data_set_must_have_the_same_classes(other, key):
    own = {"name": "own", "kind": "multiclass", "num_classes": 3, "classes": ["a", "b"]}
    bed = SimpleNamespace(own=SimpleNamespace(**own), other=lambda axis: SimpleNamespace(**own | other | {"name": "b"}))
    with pytest.raises(ValueError, match=f"^robustness.shift.dataset must have the {key} of own, got b$"):
        DatasetShift("shift", "b", {}).conditions(None, bed)
